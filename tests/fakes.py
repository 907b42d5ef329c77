"""FakeBackend and FakeTokenizer: the Backend protocol without weights, in microseconds.

A fake State is a rolling 64-bit hash of every token ever fed, kept as small whole floats. Logits are a
pure function of that hash, so whatever an Npc heard changes what it says next, equal histories give
bit-equal States, and a State that was lost, mixed up or replayed wrongly shows at once.

The fake also polices the contract: a Slot that lies in an open Batch may not be touched, Slots must
be distinct and exist, batches must fit, tokens must be of the vocabulary. A breach is an AssertionError.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime.config import Config
from npc_runtime.errors import BackendError
from npc_runtime.persona import Persona
from npc_runtime.sampling import FAILED, Sampling, pick_from_logits
from npc_runtime.state import State, StateSpec
from npc_runtime.tokenizer import CONTROL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from npc_runtime.sampling import Draw
    from npc_runtime.stage import Stage

SPEC = StateSpec(n_layer=1, d_inner=2, d_state=2, d_conv=2)
"""Six floats: four 16-bit words of the hash, the token count, and a spare."""
FIRST_BYTE = len(CONTROL) + 1
VOCAB = FIRST_BYTE + 256
MARTA = Persona(name="Marta", role="innkeeper", opening="Come in!", opening_mood="happy")
_MASK = 0xFFFFFFFFFFFFFFFF


class FakeTokenizer:
    """One token per UTF-8 byte; ids 1 to 7 are the control symbols, 0 is padding."""

    vocab_size = VOCAB
    special = frozenset(range(FIRST_BYTE))
    unspeakable = frozenset(FIRST_BYTE + byte for byte in (*range(32), 127))

    def encode(self, text: str) -> list[int]:
        return [FIRST_BYTE + byte for byte in text.encode("utf-8", "replace")]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i - FIRST_BYTE for i in ids if i >= FIRST_BYTE).decode("utf-8", "replace")

    def control(self, symbol: str) -> int | None:
        return CONTROL.index(symbol) + 1 if symbol in CONTROL else None


def advance(state: State, tokens: Sequence[int]) -> None:
    """Feeds tokens to a fake State, in place."""
    digest, count = _digest(state), int(state.vector[4])
    for token in tokens:
        digest = ((digest ^ (int(token) + 1)) * 0x100000001B3 + 0x9E3779B97F4A7C15) & _MASK
    state.vector[:4] = [(digest >> shift) & 0xFFFF for shift in (0, 16, 32, 48)]
    state.vector[4] = count + len(tokens)


def perceived(tokens: Sequence[int], start: State | None = None) -> State:
    """The State of someone who perceived exactly these tokens (after `start`): what tests compare with."""
    state = State.zeros(SPEC) if start is None else start.copy()
    advance(state, tokens)
    return state


def tokens_in(state: State) -> int:
    """How many tokens a fake State has been fed."""
    return int(state.vector[4])


def _digest(state: State) -> int:
    words = state.vector[:4].astype(np.uint64)
    return int(sum(int(word) << shift for word, shift in zip(words, (0, 16, 32, 48), strict=True)))


def _bias(end_bias: float) -> NDArray[np.float32]:
    """Speech is lower-case letters and spaces; `<end>` comes after some 20 tokens at bias 0."""
    bias = np.full(VOCAB, -60.0, np.float32)
    bias[[FIRST_BYTE + byte for byte in b"abcdefghijklmnopqrstuvwxyz"]] = 0.0
    bias[FIRST_BYTE + ord(" ")] = 1.0
    bias[CONTROL.index("<end>") + 1] = end_bias
    return bias


class FakeBackend:
    """Deterministic tokens from hashed history. Knobs are plain attributes:

    fail: operation name (`prefill`, `step`, `open`, `score`, `copy`, `read`, `write`) to the number of
    coming calls that raise BackendError; prefill and step fail *after* they have damaged the State, as a
    device may. poison: Slots whose next step yields NaN (the row is FAILED and its State is not finite).
    spoil: Slots whose next prefill leaves NaN in the State and says nothing.
    calls: every operation done, as (name, size). end_bias: higher ends speech sooner, -60 never.
    """

    name = "fake"
    spec = SPEC
    vocab_size = VOCAB
    exact_batches = True

    def __init__(self, slots: int = 64, max_batch: int = 8, end_bias: float = 0.0) -> None:
        self.slots = slots
        self.max_batch = max_batch
        self.fail: dict[str, int] = {}
        self.poison: set[int] = set()
        self.spoil: set[int] = set()
        self.calls: list[tuple[str, int]] = []
        self.closed = False
        self._store = [State.zeros(SPEC) for _ in range(slots)]
        self._open: set[int] = set()
        self._bias = _bias(end_bias)
        self._ids = np.arange(VOCAB, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)

    def clear(self, slot: int) -> None:
        self._touch(slot)
        self._store[slot] = State.zeros(SPEC)

    def copy(self, source: int, target: int) -> None:
        self._touch(source, target, distinct=False)
        self._note("copy", 1)
        self._store[target] = self._store[source].copy()

    def read(self, slot: int) -> State:
        self._touch(slot)
        self._note("read", 1)
        return self._store[slot].copy()

    def finite(self, slot: int) -> bool:
        self._touch(slot)
        return self._store[slot].finite()

    def write(self, slot: int, state: State) -> None:
        self._touch(slot)
        self._note("write", 1)
        if state.spec != SPEC:
            raise ValueError(f"a State of this model is {SPEC}, got {state.spec}")
        self._store[slot] = state.copy()

    def prefill(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        self._touch(*slots)
        assert 1 <= len(slots) <= self.max_batch, f"prefill of {len(slots)} rows, at most {self.max_batch}"
        assert tokens, "prefill of no tokens"
        assert all(0 <= token < VOCAB for token in tokens), tokens
        for slot in slots:
            advance(self._store[slot], tokens)
            if slot in self.spoil:
                self.spoil.discard(slot)
                self._store[slot].vector[:] = np.nan
        self._note("prefill", len(slots) * len(tokens))

    def score(self, slot: int, tokens: Sequence[int]) -> NDArray[np.float64]:
        self._touch(slot)
        self._note("score", len(tokens))
        state, scores = self._store[slot].copy(), []
        for token, following in pairwise(tokens):
            advance(state, [token])
            logits = self.logits(state).astype(np.float64)
            top = logits.max()
            scores.append(logits[following] - top - np.log(np.exp(logits - top).sum()))
        return np.array(scores, np.float64)

    def open(self, slots: Sequence[int]) -> FakeBatch:
        self._touch(*slots)
        self._note("open", len(slots))
        assert 1 <= len(slots) <= self.max_batch, f"a batch of {len(slots)} rows, at most {self.max_batch}"
        self._open |= set(slots)
        return FakeBatch(self, list(slots))

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True

    def logits(self, state: State) -> NDArray[np.float32]:
        """(V,) logits after a State: its hash, mixed with each id, spread over [0, 6), plus the bias."""
        with np.errstate(over="ignore"):
            mixed = self._ids ^ np.uint64(_digest(state))
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(32)
        logits: NDArray[np.float32] = (mixed >> np.uint64(40)).astype(np.float32) * np.float32(6.0 / 2**24) + self._bias
        return logits

    def _touch(self, *slots: int, distinct: bool = True) -> None:
        assert not self.closed, "used after close"
        assert all(0 <= slot < self.slots for slot in slots), f"slots {slots} of {self.slots}"
        assert not distinct or len(set(slots)) == len(slots), f"slots {slots} repeat"
        assert not self._open & set(slots), f"slots {sorted(self._open & set(slots))} lie in an open batch"

    def _note(self, name: str, size: int) -> None:
        self.calls.append((name, size))
        if self.fail.get(name, 0) > 0:
            self.fail[name] -= 1
            raise BackendError(f"injected failure of `{name}`")


class FakeBatch:
    """Rows of a FakeBackend, held apart from their Slots until released or closed."""

    def __init__(self, backend: FakeBackend, slots: list[int]) -> None:
        self._backend = backend
        self._slots: list[int | None] = list(slots)
        self._states = [backend._store[slot].copy() for slot in slots]

    def step(self, draws: Sequence[Draw | None]) -> list[int]:
        assert len(draws) == len(self._slots), f"{len(draws)} draws for {len(self._slots)} rows"
        tokens = [self._row(row, draw) for row, draw in enumerate(draws)]
        self._backend._note("step", sum(draw is not None for draw in draws))
        return tokens

    def _row(self, row: int, draw: Draw | None) -> int:
        slot = self._slots[row]
        if draw is None or slot is None:
            assert draw is None, f"row {row} was released"
            self._release(row)
            return FAILED
        assert 0 <= draw.token < VOCAB, draw.token
        advance(self._states[row], [draw.token])
        if slot in self._backend.poison:
            self._backend.poison.discard(slot)
            self._states[row].vector[:] = np.nan
            return FAILED
        return pick_from_logits(draw, self._backend.logits(self._states[row]))

    def _release(self, row: int) -> None:
        slot = self._slots[row]
        if slot is not None:
            self._backend._store[slot] = self._states[row]
            self._backend._open.discard(slot)
            self._slots[row] = None

    def close(self) -> None:
        for row in range(len(self._slots)):
            self._release(row)


@dataclass
class FakeBundle:
    """What the runtime asks of a Bundle beside its weights."""

    name: str = "fake"
    hash: str = "00" * 32
    layout: str = "control-1"
    spec: StateSpec = SPEC
    sampling: Sampling = field(default_factory=Sampling)
    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)


def fake_stage(config: Config | None = None, backend: FakeBackend | None = None, **bundle: Any) -> Stage:
    """The real Stage, scheduler and Sessions on a FakeBackend."""
    from npc_runtime.stage import Stage

    fake: Any = FakeBundle(**bundle)
    return Stage(fake, backend or FakeBackend(slots=256), "a fake, for tests", config or Config())
