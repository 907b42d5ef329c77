"""Mamba-1 by definition, in NumPy: the truth that every other form is tested against.

arXiv 2312.00752, section 3: the block is figure 3, the selective scan Algorithm 2 ("S6") with
equations 1a-1b, discretised by zero-order hold for A (equation 4) and by Euler for B, as the
official code does. Two equal forms, both from an initial memory to a final one: `parallel`
(a whole sequence, section 3.3.2) and `recurrent` (one token, equation 2a-2b).

Letters: L tokens, D d_model, E d_inner, N d_state, K d_conv, R dt_rank, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npc_runtime.sampling import FAILED, pick_from_logits
from npc_runtime.state import State, StateSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from npc_runtime.model.config import ModelConfig
    from npc_runtime.sampling import Draw

Array = NDArray[Any]


class Memory(NamedTuple):
    """What a State holds, in the model's own dtype."""

    conv: Array
    """(layers, K-1, E): the newest inputs of each causal convolution."""
    ssm: Array
    """(layers, N, E): h of each selective scan."""


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Root-mean-square normalisation over the last axis (section 3.4)."""
    scale: Array = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * scale * weight


def silu(x: Array) -> Array:
    """x · sigmoid(x), the sigmoid as (1 + tanh(x/2)) / 2, which cannot overflow."""
    return np.asarray(x * (1 + np.tanh(x / 2)) / 2)


def softplus(x: Array) -> Array:
    """log(1 + e^x) without overflow."""
    return np.asarray(np.logaddexp(np.zeros((), x.dtype), x))


class ReferenceModel:
    """The model over dense weights, computing in `dtype` (float32 or float64)."""

    def __init__(self, weights: Mapping[str, Array], config: ModelConfig, dtype: type = np.float32) -> None:
        self.config = config
        self.dtype = dtype
        self.spec = StateSpec(config.n_layer, config.d_inner, config.d_state, config.d_conv)
        self._weights: dict[str, Array] = {name: np.asarray(value, dtype) for name, value in weights.items()}
        self._head = self._weights.get("head", self._weights["embedding"])  # (V, D)
        self._layers = [self._layer(i) for i in range(config.n_layer)]

    def _layer(self, index: int) -> dict[str, Array]:
        prefix = f"layers.{index}."
        layer = {name[len(prefix) :]: value for name, value in self._weights.items() if name.startswith(prefix)}
        layer["A"] = -np.exp(layer["A_log"]).T  # (N, E)
        return layer

    def empty(self) -> Memory:
        """The memory of someone who has perceived nothing."""
        return Memory(np.zeros(self.spec.conv_shape, self.dtype), np.zeros(self.spec.ssm_shape, self.dtype))

    def parallel(self, tokens: Sequence[int], memory: Memory) -> tuple[Array, Memory]:
        """Logits (L, V) after each of L tokens read at once, and the final memory."""
        u = self._weights["embedding"][np.asarray(tokens, np.int64)]  # (L, D)
        after = Memory(memory.conv.copy(), memory.ssm.copy())
        for i, layer in enumerate(self._layers):
            normed = rms_norm(u, layer["norm"], self.config.norm_eps)  # (L, D)
            y, after.conv[i], after.ssm[i] = self._mix_parallel(layer, normed, memory.conv[i], memory.ssm[i])
            u = u + y  # (L, D)
        return rms_norm(u, self._weights["norm_f"], self.config.norm_eps) @ self._head.T, after  # (L, V)

    def _mix_parallel(self, w: dict[str, Array], u: Array, conv: Array, h: Array) -> tuple[Array, Array, Array]:
        L, K = u.shape[0], self.config.d_conv
        x, z = np.split(u @ w["in_proj"].T, 2, axis=1)  # (L, E), (L, E)
        line = np.concatenate([conv, x])  # (K-1+L, E)
        taps = [line[k : k + L] * w["conv_weight"][:, k] for k in range(K)]  # K times (L, E)
        x = silu(sum(taps) + w["conv_bias"])  # (L, E)
        delta, B, C = self._select(w, x)  # (L, E), (L, N), (L, N)
        decay = np.exp(delta[:, None, :] * w["A"])  # (L, N, E): zero-order hold
        drive = B[:, :, None] * (delta * x)[:, None, :]  # (L, N, E): Euler
        states = _scan(decay, drive, h)  # (L, N, E)
        y = np.einsum("ln,lne->le", C, states) + w["D"] * x  # (L, E)
        return (y * silu(z)) @ w["out_proj"].T, line[L:], states[-1] if L else h  # (L, D), (K-1, E), (N, E)

    def recurrent(self, token: int, memory: Memory) -> tuple[Array, Memory]:
        """Logits (V,) after one token, and the memory that contains it."""
        u = self._weights["embedding"][token]  # (D,)
        after = Memory(memory.conv.copy(), memory.ssm.copy())
        for i, layer in enumerate(self._layers):
            normed = rms_norm(u, layer["norm"], self.config.norm_eps)  # (D,)
            y, after.conv[i], after.ssm[i] = self._mix_recurrent(layer, normed, memory.conv[i], memory.ssm[i])
            u = u + y  # (D,)
        return self._head @ rms_norm(u, self._weights["norm_f"], self.config.norm_eps), after  # (V,)

    def _mix_recurrent(self, w: dict[str, Array], u: Array, conv: Array, h: Array) -> tuple[Array, Array, Array]:
        x, z = np.split(w["in_proj"] @ u, 2)  # (E,), (E,)
        window = np.concatenate([conv, x[None]])  # (K, E)
        x = silu((window * w["conv_weight"].T).sum(0) + w["conv_bias"])  # (E,)
        delta, B, C = self._select(w, x)  # (E,), (N,), (N,)
        h = np.exp(delta * w["A"]) * h + np.outer(B, delta * x)  # (N, E)
        y = C @ h + w["D"] * x  # (E,)
        return w["out_proj"] @ (y * silu(z)), window[1:], h  # (D,), (K-1, E), (N, E)

    def _select(self, w: dict[str, Array], x: Array) -> tuple[Array, Array, Array]:
        """Delta (..., E), B (..., N) and C (..., N) as functions of the input (section 3.2)."""
        R, N = self.config.dt_rank, self.config.d_state
        low, B, C = np.split(x @ w["x_proj"].T, [R, R + N], axis=-1)  # (..., R), (..., N), (..., N)
        return softplus(low @ w["dt_proj"].T + w["dt_bias"]), B, C


def _scan(decay: Array, drive: Array, h: Array) -> Array:
    """h_t = decay_t · h_(t-1) + drive_t for every t, all (L, N, E), from h (N, E)."""
    states = np.empty_like(drive)
    for t in range(len(drive)):
        h = decay[t] * h + drive[t]
        states[t] = h
    return states


class ReferenceBackend:
    """A Backend over ReferenceModel: one row at a time, slow and plain.

    The store keeps the model's dtype; `read` rounds a float64 State to the float32 of State.
    """

    name = "reference"
    exact_batches = True

    def __init__(self, model: ReferenceModel, slots: int, max_batch: int = 8) -> None:
        self.model = model
        self.spec = model.spec
        self.vocab_size = model.config.vocab_size
        self.slots = slots
        self.max_batch = max_batch
        self.store: Array = np.zeros((slots, self.spec.size), model.dtype)

    def clear(self, slot: int) -> None:
        """Sets a Slot to the State of someone who has perceived nothing."""
        self.store[slot] = 0

    def copy(self, source: int, target: int) -> None:
        """Copies one Slot onto another."""
        self.store[target] = self.store[source]

    def read(self, slot: int) -> State:
        """The State of a Slot, copied."""
        return State(self.spec, self.store[slot].astype(np.float32))

    def finite(self, slot: int) -> bool:
        """False when a Slot holds NaN or infinity."""
        return bool(np.isfinite(self.store[slot]).all())

    def write(self, slot: int, state: State) -> None:
        """Puts a State into a Slot; ValueError when it is of another shape."""
        if state.spec != self.spec:
            raise ValueError(f"a State of this model has {self.spec}, got {state.spec}")
        self.store[slot] = state.vector

    def prefill(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """Advances every one of `slots` by the same tokens; a single one by the same form as a step does."""
        for slot in slots:
            memory = self.memory(self.store[slot])
            form = self.model.recurrent(tokens[0], memory) if len(tokens) == 1 else self.model.parallel(tokens, memory)
            self.store[slot] = self._flat(form[1])

    def score(self, slot: int, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Log-probabilities (len(tokens) - 1,) of tokens[1:]; the Slot stays as it was."""
        logits = self.model.parallel(tokens[:-1], self.memory(self.store[slot]))[0].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return logits[np.arange(len(logits)), np.asarray(tokens[1:], np.int64)]

    def open(self, slots: Sequence[int]) -> ReferenceBatch:
        """Opens a Batch over distinct Slots."""
        return ReferenceBatch(self, slots)

    def close(self) -> None:
        """Drops the store."""
        self.store = self.store[:0]

    def memory(self, row: Array) -> Memory:
        """Views of a row of the store (spec.size,)."""
        conv, ssm = np.split(row, [self.spec.conv_size])
        return Memory(conv.reshape(self.spec.conv_shape), ssm.reshape(self.spec.ssm_shape))

    def _flat(self, memory: Memory) -> Array:
        return np.concatenate([memory.conv.reshape(-1), memory.ssm.reshape(-1)])

    def keep(self, slot: int, memory: Memory) -> None:
        """Writes a memory into a Slot."""
        self.store[slot] = self._flat(memory)


class ReferenceBatch:
    """Rows under way, each with its own memory until it is released."""

    def __init__(self, backend: ReferenceBackend, slots: Sequence[int]) -> None:
        self._backend = backend
        self._slots: list[int | None] = list(slots)
        self._memories = [backend.memory(backend.store[slot].copy()) for slot in slots]

    def step(self, draws: Sequence[Draw | None]) -> list[int]:
        """Feeds each row's token and returns each row's next; None releases a row."""
        return [self._step_row(row, draw) for row, draw in enumerate(draws)]

    def _step_row(self, row: int, draw: Draw | None) -> int:
        if draw is None:
            self._release(row)
        if draw is None or self._slots[row] is None:
            return FAILED
        with np.errstate(all="ignore"):  # a row that overflows is answered with FAILED, not with a warning
            logits, self._memories[row] = self._backend.model.recurrent(draw.token, self._memories[row])
        return pick_from_logits(draw, logits.astype(np.float32)) if np.isfinite(logits).all() else FAILED

    def _release(self, row: int) -> None:
        slot, self._slots[row] = self._slots[row], None
        if slot is not None:
            self._backend.keep(slot, self._memories[row])

    def close(self) -> None:
        """Writes the State of every row not yet released back to its Slot."""
        for row in range(len(self._slots)):
            self._release(row)
