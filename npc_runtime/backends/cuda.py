"""The GPU Backend: States resident on an NVIDIA GPU, computed by npc_kernels, a step from token to token in one graph.

Slots are advanced in place: a row's State is in its Slot at every moment. Nothing here needs a GPU but the graphs and
the kernels' own code; on CPU tensors the same backend runs on the kernels' definitions, which is how CI tests it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from npc_kernels import IDLE, StepWeights, row_linear

from npc_runtime.backends.cuda_bucket import STEPS, WINDOW, Bucket
from npc_runtime.backends.cuda_reader import Reader, ReadingGraph
from npc_runtime.backends.cuda_step import choose_step, fused_step, probe_store
from npc_runtime.backends.cuda_store import SlotStore
from npc_runtime.backends.cuda_tables import DrawTables, Full
from npc_runtime.errors import BackendError
from npc_runtime.sampling import FAILED, Course, Draw, pick_from_logits
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from npc_runtime.bundle import Bundle
    from npc_runtime.state import State

PIECE = 65536
"""Most tokens of one row read in one pass."""
TOKENS_PER_PASS = 65536
"""Most tokens of all rows read in one pass, padding counted: what bounds the memory in between."""
GRAPHED_ROWS, GRAPHED_LENGTH = 64, 128
"""Readings up to this size are captured as graphs: their launches took 15 ms on an H200, whatever they read."""
_SIGNED = 1 << 63


class CudaBackend:
    """A Backend on a GPU. `dtype` is that of the matrices, `state_dtype` that of the resident SSM States.

    Up to `slots` States are held, allocated as they come into use. Raises BackendError when memory runs out.
    """

    name = "cuda"

    def __init__(
        self,
        bundle: Bundle,
        slots: int,
        max_batch: int = 8192,
        dtype: torch.dtype = torch.bfloat16,
        state_dtype: torch.dtype = torch.float32,
        device: str = "cuda",
    ) -> None:
        self.spec, self.vocab_size = bundle.spec, bundle.config.vocab_size
        self.slots, self.max_batch = slots, max_batch
        self._device = torch.device(device)
        self.weights = self._load(bundle, dtype)
        self.store = SlotStore(self.spec, slots, self._device, state_dtype)
        self.reader = Reader(self.weights, self.store)
        self.tables = DrawTables(self.vocab_size, self._device)
        self.step, self._steps_exactly = choose_step(self.store, self.weights, max_batch)
        self._buckets: dict[int, Bucket] = {}
        self._readings: dict[tuple[int, int], ReadingGraph] = {}

    def _load(self, bundle: Bundle, dtype: torch.dtype) -> StepWeights:
        names = dense_shapes(bundle.config, bundle.tied and bundle.bits > 8)
        tensors = {name: torch.tensor(bundle.dense(name), device=self._device) for name in names}
        bundle.let_go()
        return StepWeights.of(tensors, bundle.config.n_layer, bundle.config.norm_eps, dtype)

    @property
    def fused(self) -> bool:
        """False where the kernels' own step was found to mix rows, so that a slower one is taken."""
        return self.step is fused_step

    def free_memory_mb(self) -> int | None:
        """Memory of the device that Slots may still take, those taken already counted; None where it has none."""
        if self._device.type != "cuda":
            return None
        held = self.store.conv.nbytes + self.store.ssm.nbytes
        return int(torch.cuda.mem_get_info(self._device)[0] + held) >> 20

    @property
    def waited_s(self) -> float:
        """Time spent waiting for the device to draw."""
        return sum(bucket.waited_s for bucket in self._buckets.values())

    def bucket(self, rows: int) -> Bucket:
        """The smallest power of two that holds so many rows."""
        size = _power(rows)
        if size not in self._buckets:
            graphs = self._device.type == "cuda"
            self._buckets[size] = Bucket(size, self.step, self.weights, self.store, self.tables.device, graphs)
        return self._buckets[size]

    # ---- Slots

    def clear(self, slot: int) -> None:
        """Sets a Slot to the State of someone who has perceived nothing."""
        self.store.clear(slot)

    def copy(self, source: int, target: int) -> None:
        """Copies one Slot onto another, bit for bit."""
        self.store.copy([source], [target])

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies Slots onto others; no target may be a source too."""
        self.store.copy(sources, targets)

    def read(self, slot: int) -> State:
        """The State of a Slot, copied to host memory."""
        return self.store.read(slot)

    def finite(self, slot: int) -> bool:
        """False when a Slot holds NaN or infinity."""
        return self.store.finite([slot])[0]

    def finite_rows(self, slots: Sequence[int]) -> list[bool]:
        """As `finite`, of each of `slots`."""
        return self.store.finite(slots)

    def write(self, slot: int, state: State) -> None:
        """Puts a State into a Slot; ValueError when it is of another shape."""
        self.store.write(slot, state)

    # ---- reading

    def prefill(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """Advances every one of `slots` by the same tokens."""
        self.prefill_rows(slots, [tokens] * len(slots))

    def prefill_rows(self, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
        """Advances each of `slots` by tokens of its own; a single token by the same form as a step does."""
        for tokens in rows:
            self._check(tokens)
        self.store.reserve(slots)
        single = [(slot, tokens[0]) for slot, tokens in zip(slots, rows, strict=True) if len(tokens) == 1]
        for first in range(0, len(single), self.max_batch):
            self._feed(single[first : first + self.max_batch])
        longer = [(slot, tokens) for slot, tokens in zip(slots, rows, strict=True) if len(tokens) > 1]
        longest = max((len(tokens) for _, tokens in longer), default=0)
        for first in range(0, longest, PIECE):
            pieces = [(slot, tokens[first : first + PIECE]) for slot, tokens in longer if len(tokens) > first]
            self._read(pieces)

    def _feed(self, fed: Sequence[tuple[int, int]]) -> None:
        bucket = self.bucket(len(fed))
        bucket.fill([_whole(slot, token) for slot, token in fed], [(0.0, 0.0, 0.0)] * len(fed))
        bucket.run(1)

    @torch.no_grad()
    def _read(self, pieces: list[tuple[int, Sequence[int]]]) -> None:
        """Reads rows in passes of similar length."""
        pieces.sort(key=lambda piece: -len(piece[1]))
        while pieces:
            length = len(pieces[0][1])
            count = max(1, TOKENS_PER_PASS // length)
            part, pieces = pieces[:count], pieces[count:]
            if self._device.type == "cuda" and len(part) <= GRAPHED_ROWS and length <= GRAPHED_LENGTH:
                rows, length = _power(len(part)), _power(max(length, 16))
                self._reading(rows, length).read(_padded(part, rows, length))
            else:
                given = _padded(part, len(part), length).to(self._device)
                self.reader.read(given[:, :-2], given[:, -2], given[:, -1])

    def _reading(self, rows: int, length: int) -> ReadingGraph:
        found = self._readings.get((rows, length))
        if found is None or found.generation != self.store.generation:
            found = self._readings[rows, length] = ReadingGraph(self.reader, self.store, rows, length)
        return found

    @torch.no_grad()
    def score(self, slot: int, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Log-probabilities (len(tokens) - 1,) of tokens[1:]; the Slot stays as it was."""
        self._check(tokens)
        if len(tokens) < 2:
            return np.zeros(0)
        self.store.reserve([slot])
        heard = self.store.index(tokens[:-1])
        hidden = self.reader.read(heard[None], self.store.index([len(heard)]), self.store.index([slot]), keep=False)
        said, scores = self.store.index(tokens[1:]), []
        for first in range(0, len(heard), PIECE):
            part = slice(first, first + PIECE)
            logits = row_linear(hidden[0, part], self.weights.head, torch.float32).double()
            scores.append(torch.log_softmax(logits, 1).gather(1, said[part, None])[:, 0])
        return np.asarray(torch.cat(scores).cpu().numpy(), np.float64)

    def _check(self, tokens: Sequence[int]) -> None:
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
            raise BackendError(f"tokens are from 0 to {self.vocab_size - 1}, got {min(tokens)} to {max(tokens)}")

    # ---- speaking

    def open(self, slots: Sequence[int]) -> CudaBatch:
        """Opens a Batch over distinct Slots."""
        if not 0 < len(slots) <= self.max_batch:
            raise ValueError(f"a Batch has 1 to {self.max_batch} rows, got {len(slots)}")
        self.store.reserve(slots)
        return CudaBatch(self, slots)

    @cached_property
    def exact_batches(self) -> bool:
        """True when a row's bits do not depend on its batch mates, tried here at every size of batch."""
        with torch.no_grad():
            return self._steps_exactly and self._reads_exactly()

    def _reads_exactly(self) -> bool:
        tokens = (torch.arange(3 * 70, device=self._device) % self.vocab_size).view(3, 70)
        lengths, slots = torch.tensor([70, 33, 5], device=self._device), torch.arange(3, device=self._device)
        together = probe_store(self.store)
        Reader(self.weights, together).read(tokens, lengths, slots)
        for row in range(3):
            one, length = probe_store(self.store), int(lengths[row])
            mine = slice(row, row + 1)
            Reader(self.weights, one).read(tokens[mine, :length], lengths[mine], slots[mine])
            if not (
                torch.equal(one.conv[:, row], together.conv[:, row])
                and torch.equal(one.ssm[:, row], together.ssm[:, row])
            ):
                return False
        return True

    def close(self) -> None:
        """Frees the device."""
        self._buckets.clear()
        self._readings.clear()
        self.store.release()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class CudaBatch:
    """Rows under way in their Slots; a released row is only left alone."""

    def __init__(self, backend: CudaBackend, slots: Sequence[int]) -> None:
        self._backend = backend
        self._slots: list[int] = list(slots)
        self._live = [True] * len(slots)

    def step(self, draws: Sequence[Draw | None]) -> list[int]:
        """Feeds each row's token and returns each row's next; None releases a row."""
        for row, draw in enumerate(draws):
            self._live[row] &= draw is not None
        courses = [None if draw is None else _single(draw) for draw in draws]
        return [row[0] if row else FAILED for row in self._run(courses, 1)]

    def run(self, courses: Sequence[Course | None], steps: int) -> list[list[int]]:
        """Feeds and draws up to `steps` times without asking; the tokens that each row drew, the last one not fed.

        A row stops early when its Course ends, when it fails (`sampling.FAILED` is its last then), or where its owner
        has to look. None leaves a row as it is.
        """
        return self._run(courses, min(steps, STEPS))

    @torch.no_grad()
    def _run(self, courses: Sequence[Course | None], steps: int) -> list[list[int]]:
        backend = self._backend
        rows = [(i, c) for i, c in enumerate(courses) if c is not None and self._live[i]]
        made: list[list[int]] = [[] for _ in courses]
        if not rows:
            return made
        backend._check([course.draw.token for _, course in rows])
        whole, by_host = self._whole([(self._slots[i], course) for i, course in rows])
        bucket = backend.bucket(len(rows))
        samplings = [course.draw.sampling for _, course in rows]
        rules = [(s.temperature, s.top_p, s.repetition) for s in samplings]
        bucket.fill(whole, rules, [course.recent[-WINDOW:] for _, course in rows])
        steps = 1 if by_host else steps
        bucket.run(steps)
        drawn = bucket.drawn(steps)
        for place, (i, _) in enumerate(rows):
            column = [row[place] for row in drawn]
            made[i] = column[: column.index(IDLE)] if IDLE in column else column
        for place in by_host:
            i, course = rows[place]
            made[i] = [pick_from_logits(course.draw, bucket.logits[place].cpu().numpy())]
        return made

    def _whole(self, rows: list[tuple[int, Course]]) -> tuple[list[tuple[int, ...]], list[int]]:
        """The whole-numbered fields of every row, and the places of those that the device cannot draw for."""
        for attempt in range(2):
            try:
                fields = [_fields(slot, course, self._backend.tables) for slot, course in rows]
                break
            except Full:
                if attempt:
                    raise BackendError("one batch has more sets of allowed or banned ids than a GPU's tables") from None
                self._backend.tables.start_over()
        return [row for row, _ in fields], [place for place, (_, device) in enumerate(fields) if not device]

    def close(self) -> None:
        """Ends the Batch; every State is in its Slot already."""
        self._live = [False] * len(self._live)


def _power(count: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << (count - 1).bit_length()


def _padded(part: list[tuple[int, Sequence[int]]], rows: int, length: int) -> torch.Tensor:
    """Rows of Slot and tokens as (rows, length + 2): tokens, how many, Slot; rows beyond are nobody's."""
    given: NDArray[np.int64] = np.zeros((rows, length + 2), np.int64)
    given[:, length:] = (1, -1)
    for row, (slot, tokens) in enumerate(part):
        given[row, : len(tokens)] = tokens
        given[row, length:] = (len(tokens), slot)
    return torch.from_numpy(given)


def _single(draw: Draw) -> Course:
    """The Course of a row that draws once."""
    return Course(draw, None, None, draw.banned, frozenset(), -1, 1, draw.recent)


def _whole(slot: int, token: int) -> tuple[int, ...]:
    """A row that is fed a token, whatever it draws."""
    return (slot, token, -1, 0, -1, -1, 1, 0, 0, 0, 0)


def _signed(value: int) -> int:
    """The same 64 bits as a signed number."""
    return (value + _SIGNED) % (2 * _SIGNED) - _SIGNED


def _fields(slot: int, course: Course, tables: DrawTables) -> tuple[tuple[int, ...], bool]:
    """A row's whole-numbered FIELDS, and False when the device cannot draw for it. Raises Full."""
    draw = course.draw
    if course.trie is not None:
        node = tables.trie(course.trie)
    else:
        node = -1 if draw.allowed is None else tables.allowed(draw.allowed)
    main, early = tables.banned(course.banned), course.early
    ban, following = (main, -1) if early is None else (tables.banned(early), main)
    if early is not None:
        tables.blank(course.blank)
    counter = (_signed(draw.seed), _signed(draw.turn), draw.position & 0xFFFFFFFF)
    cursor = len(course.recent) % WINDOW
    fields = (slot, draw.token, -1 if node is None else node, ban, following, course.end, course.left, *counter, cursor)
    return fields, node is not None and len(course.recent) <= WINDOW
