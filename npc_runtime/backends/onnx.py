"""The CPU Backend: States in rows of one array, computed by onnxruntime over the graph of onnx_graph.py.

onnxruntime is driven through bindings to fixed memory: no array is made per token. A State is
advanced in place in a working set, and its Slot is written only when that succeeded.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime.backends.huge_pages import collapse_heap, heap_end
from npc_runtime.backends.onnx_graph import FORMS, TOP, build
from npc_runtime.backends.spare import release_rows
from npc_runtime.errors import BackendError, BackendUnavailable, BundleError
from npc_runtime.sampling import FAILED, TOP_K, pick, pick_from_logits, pick_from_top
from npc_runtime.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from npc_runtime.bundle import Bundle
    from npc_runtime.sampling import Draw
    from npc_runtime.state import Float32, StateSpec


CHUNK = 128
"""Tokens of one prefill call: more gain nothing and need more memory."""


def load_library() -> Any:
    """The package onnxruntime, with its telemetry off. Raises BackendUnavailable.

    From 1.29 on, its official builds write an identifier to the player's disk and report to their maker unless
    this variable is set before the first import; on Windows the call that follows is what counts.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailable(f"onnxruntime cannot be loaded: {error}", "pip install onnxruntime") from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def open_session(bundle: Bundle, bits: int, threads: int) -> Any:
    """An onnxruntime session; the matrices stay in the Bundle's own file. Raises BackendError."""
    onnxruntime = load_library()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions; a copy of them on stderr helps nobody
    # Nothing is left to fuse in this graph, and looking for it would double the time to load.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given: dict[str, NDArray[Any]] = {}
    try:
        model = build(bundle, bits, given)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in given.values()]
        options.add_external_initializers(list(given), values)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise BackendError(f"onnxruntime {onnxruntime.__version__} cannot load `{bundle.name}`: {error}") from error


class WorkingSet:
    """Memory for up to `capacity` rows under way, bound to a session; States are advanced in place.

    Layers come first, so that the first B rows of a layer are one block for any B.
    """

    def __init__(self, session: Any, spec: StateSpec, vocab_size: int, capacity: int) -> None:
        self._session = session
        self._spec = spec
        layers, *conv = spec.conv_shape
        _, *ssm = spec.ssm_shape
        self.conv: Float32 = np.zeros((layers, capacity, *conv), np.float32)
        self.ssm: Float32 = np.zeros((layers, capacity, *ssm), np.float32)
        top = min(TOP, vocab_size)
        self.tokens = np.zeros(capacity, np.int64)
        self._wanted = np.arange(max(capacity, CHUNK), dtype=np.int64)
        self.logits: Float32 = np.zeros((capacity, vocab_size), np.float32)
        self.top_logits: Float32 = np.zeros((capacity, top), np.float32)
        self.top_ids = np.zeros((capacity, top), np.int64)
        self._true, self._false = np.array(True), np.array(False)
        self._steps = [self._bind_step(rows) for rows in range(1, capacity + 1)]

    def load(self, row: int, vector: Float32) -> None:
        """Copies a State in."""
        split = self._spec.conv_size
        self.conv[:, row] = vector[:split].reshape(self._spec.conv_shape)
        self.ssm[:, row] = vector[split:].reshape(self._spec.ssm_shape)

    def save(self, row: int, vector: Float32) -> None:
        """Copies a State out."""
        split = self._spec.conv_size
        vector[:split].reshape(self._spec.conv_shape)[...] = self.conv[:, row]
        vector[split:].reshape(self._spec.ssm_shape)[...] = self.ssm[:, row]

    def move(self, source: int, target: int) -> None:
        """Copies one row onto another."""
        self.conv[:, target] = self.conv[:, source]
        self.ssm[:, target] = self.ssm[:, source]

    def step(self, rows: int) -> None:
        """Feeds tokens[:rows] to the first rows; logits and the best of them lie ready then."""
        self._run(self._steps[rows - 1])

    def read(self, row: int, tokens: NDArray[np.int64], logits: Float32 | None = None) -> None:
        """Feeds a row up to `CHUNK` tokens; fills `logits` (len(tokens), V) where given."""
        binding = self._bind("prefill", row, tokens)
        if logits is None:  # one row all the same: onnxruntime 1.23 divides by the number of rows
            logits = self.logits[:1]
        self._input(binding, "wanted", self._wanted[: len(logits)])
        self._output(binding, "logits", logits)
        for name in ("top_logits", "top_ids"):
            binding.bind_output(name)
        self._run(binding)

    def _bind_step(self, rows: int) -> Any:
        binding = self._bind("step" if rows == 1 else "batch", slice(0, rows) if rows > 1 else 0, self.tokens[:rows])
        self._input(binding, "wanted", self._wanted[:rows])
        for name in ("logits", "top_logits", "top_ids"):
            self._output(binding, name, getattr(self, name)[:rows])
        return binding

    def _bind(self, form: str, rows: int | slice, tokens: NDArray[np.int64]) -> Any:
        binding = self._session.io_binding()
        for name in FORMS[:-1]:
            self._input(binding, f"is_{name}", self._true if name == form else self._false)
        self._input(binding, "tokens", tokens)
        for i in range(self._spec.n_layer):
            for name, part in (("conv", self.conv[i, rows]), ("ssm", self.ssm[i, rows])):
                self._input(binding, f"{name}.{i}", part)
                self._output(binding, f"{name}.{i}.next", part)
        return binding

    @staticmethod
    def _input(binding: Any, name: str, array: NDArray[Any]) -> None:
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    @staticmethod
    def _output(binding: Any, name: str, array: NDArray[Any]) -> None:
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _run(self, binding: Any) -> None:
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise BackendError(f"onnxruntime failed: {error}") from error


class OnnxBackend:
    """A Backend on the CPU. `bits` 0 takes what the Bundle stores, 4 or 8 requantises where that differs.

    Raises BackendUnavailable without onnxruntime, BackendError when it cannot load the model.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, slots: int, bits: int = 0, threads: int = 1, max_batch: int = 8) -> None:
        self.bits = bits or (bundle.bits if bundle.bits < 16 else 32)
        self.spec = bundle.spec
        self.vocab_size = bundle.config.vocab_size
        self.slots = slots
        self.max_batch = max_batch
        begin = heap_end()
        self._session = open_session(bundle, self.bits, threads)
        collapse_heap(begin)
        bundle.let_go()  # onnxruntime holds its own mapping of the matrices and copies of the rest
        # Zeroed pages come from the system when first touched, so that unused Slots cost nothing.
        self.store: Float32 = np.zeros((slots, self.spec.size), np.float32)
        self._idle = [self._working_set()]

    def _working_set(self) -> WorkingSet:
        return WorkingSet(self._session, self.spec, self.vocab_size, self.max_batch)

    def borrow(self) -> WorkingSet:
        """A working set nobody uses."""
        return self._idle.pop() if self._idle else self._working_set()

    def give_back(self, work: WorkingSet) -> None:
        """Takes a working set back for the next."""
        self._idle.append(work)

    @cached_property
    def exact_batches(self) -> bool:
        """True when a row's bits do not depend on its batch mates, tried here with 2 and 3 random rows."""
        rows = min(3, self.max_batch)
        rng = np.random.default_rng(0)
        tokens = rng.integers(0, self.vocab_size, rows)
        states = rng.standard_normal((rows, self.spec.size), dtype=np.float32)
        work = self.borrow()
        alone = [_results(work, tokens[row : row + 1], states[row : row + 1]) for row in range(rows)]
        equal = all(
            _results(work, tokens[:count], states[:count]) == b"".join(alone[:count]) for count in range(2, rows + 1)
        )
        self.give_back(work)
        return equal

    def clear(self, slot: int) -> None:
        """Sets a Slot to the State of someone who has perceived nothing."""
        self.store[slot] = 0

    def copy(self, source: int, target: int) -> None:
        """Copies one Slot onto another, bit for bit."""
        self.store[target] = self.store[source]

    def read(self, slot: int) -> State:
        """The State of a Slot, copied."""
        return State(self.spec, self.store[slot].copy())

    def finite(self, slot: int) -> bool:
        """False when a Slot holds NaN or infinity."""
        return _finite(self.store[slot])

    def write(self, slot: int, state: State) -> None:
        """Puts a State into a Slot; ValueError when it is of another shape."""
        if state.spec != self.spec:
            raise ValueError(f"a State of this model has {self.spec}, got {state.spec}")
        self.store[slot] = state.vector

    def release(self, slots: Sequence[int]) -> None:
        """Hands back the pages of free Slots."""
        release_rows(self.store, slots)

    def prefill(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """Advances every one of `slots` by the same tokens; on an error all are as before.

        One Slot after the other: from four tokens on, a matrix product costs the same per row
        however many rows there are.
        """
        fed = self._checked(tokens)
        work = self.borrow()
        for row, slot in enumerate(slots):
            work.load(row, self.store[slot])
            for first in range(0, len(fed), CHUNK):
                work.read(row, fed[first : first + CHUNK])
        for row, slot in enumerate(slots):
            work.save(row, self.store[slot])
        self.give_back(work)

    def score(self, slot: int, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Log-probabilities (len(tokens) - 1,) of tokens[1:]; the Slot stays as it was."""
        fed = self._checked(tokens)
        scores = np.zeros(max(len(fed) - 1, 0))
        logits = np.zeros((min(CHUNK, len(scores)), self.vocab_size), np.float32)
        work = self.borrow()
        work.load(0, self.store[slot])
        for first in range(0, len(scores), CHUNK):
            heard, said = fed[:-1][first : first + CHUNK], fed[1:][first : first + CHUNK]
            rows = logits[: len(heard)]
            work.read(0, heard, rows)
            scores[first : first + len(heard)] = _log_probabilities(rows, said)
        self.give_back(work)
        return scores

    def open(self, slots: Sequence[int]) -> OnnxBatch:
        """Opens a Batch over distinct Slots."""
        if not 0 < len(slots) <= self.max_batch:
            raise ValueError(f"a Batch has 1 to {self.max_batch} rows, got {len(slots)}")
        return OnnxBatch(self, slots)

    def close(self) -> None:
        """Drops the session and the store."""
        self._idle.clear()
        self._session = None
        self.store = self.store[:0]

    def _checked(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        fed = np.asarray(tokens, np.int64)
        if fed.size and not 0 <= fed.min() <= fed.max() < self.vocab_size:
            raise BackendError(f"tokens are from 0 to {self.vocab_size - 1}, got {fed.min()} to {fed.max()}")
        return fed


class OnnxBatch:
    """Rows under way in a working set; those still live lie first in it, without gaps."""

    def __init__(self, backend: OnnxBackend, slots: Sequence[int]) -> None:
        self._backend = backend
        self._slots = list(slots)
        self._work = backend.borrow()
        self._live = list(range(len(slots)))
        self._open = True
        self._broken = {row for row, slot in enumerate(slots) if not _finite(backend.store[slot])}
        for row, slot in enumerate(slots):
            self._work.load(row, backend.store[slot])

    def step(self, draws: Sequence[Draw | None]) -> list[int]:
        """Feeds each row's token and returns each row's next; None releases a row.

        After a BackendError the Batch is over and every Slot not yet released is as when it was opened.
        """
        for row in [row for row in self._live if draws[row] is None]:
            self._release(row)
        live, work = self._live, self._work
        fed = [draw for draw in map(draws.__getitem__, live) if draw is not None]
        picked = [FAILED] * len(draws)
        if fed:
            self._feed([draw.token for draw in fed])
            tops = zip(work.top_ids[: len(live)].tolist(), work.top_logits[: len(live)].tolist(), strict=True)
            for place, (row, draw, (ids, logits)) in enumerate(zip(live, fed, tops, strict=True)):
                if row not in self._broken:
                    picked[row] = _pick(draw, ids, logits, work.logits[place])
        return picked

    def _feed(self, tokens: list[int]) -> None:
        live = len(tokens)
        try:
            if min(tokens) < 0 or max(tokens) >= self._backend.vocab_size:
                raise BackendError(f"tokens are from 0 to {self._backend.vocab_size - 1}, got {tokens}")
            self._work.tokens[:live] = tokens
            self._work.step(live)
        except BackendError:
            self._live = []  # advanced in place and perhaps by half: not to be written back
            raise

    def _release(self, row: int) -> None:
        place, last = self._live.index(row), len(self._live) - 1
        self._work.save(place, self._backend.store[self._slots[row]])
        if place != last:
            self._work.move(last, place)
            self._live[place] = self._live[last]
        self._live.pop()

    def close(self) -> None:
        """Writes the State of every row not yet released back to its Slot."""
        if self._open:
            for row in self._live[::-1]:
                self._release(row)
            self._backend.give_back(self._work)
            self._open = False


def _finite(vector: Float32) -> bool:
    """False for a State with NaN, which rounding activations to int8 would hide from the logits."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(vector.sum()))


def _pick(draw: Draw, ids: list[int], logits: list[float], row: Float32) -> int:
    if draw.allowed is not None:
        return pick_from_logits(draw, row)
    if draw.banned.isdisjoint(ids[:TOP_K]):
        return pick(draw, ids[:TOP_K], logits[:TOP_K])
    if len(ids) - len(draw.banned.intersection(ids)) < TOP_K and len(ids) < len(row):
        return pick_from_logits(draw, row)
    return pick_from_top(draw, ids, logits)


def _results(work: WorkingSet, tokens: NDArray[np.int64], states: Float32) -> bytes:
    """Bits of the States and logits that a step gives."""
    count = len(tokens)
    for row in range(count):
        work.load(row, states[row])
    work.tokens[:count] = tokens
    work.step(count)
    after = np.empty_like(states[:count])
    for row in range(count):
        work.save(row, after[row])
    return b"".join(after[row].tobytes() + work.logits[row].tobytes() for row in range(count))


def _log_probabilities(logits: Float32, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    top = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - top).sum(axis=1, dtype=np.float64)
    chosen = logits[np.arange(len(tokens)), tokens].astype(np.float64)
    return np.asarray(chosen - top[:, 0] - np.log(total))
