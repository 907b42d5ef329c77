"""The Backend protocol: where States live as Slots and tokens are computed.

A Slot is a row of the backend's store, named by an integer; the scheduler decides who holds
which. At rest a Slot's State contains every token the Npc has perceived or said. A step feeds
one token per row and draws the next, so that prefill never needs logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from npc_runtime.sampling import Course, Draw
    from npc_runtime.state import State, StateSpec


class Batch(Protocol):
    """Rows opened for a burst of steps; their Slots are written back when released or closed."""

    def step(self, draws: Sequence[Draw | None]) -> list[int]:
        """Feeds each row's token and returns each row's next token.

        None releases a row: its Slot receives its State as of the step before, and the row is
        idle from then on (its result is `sampling.FAILED`). A row whose logits are not finite
        yields `sampling.FAILED`; the other rows are unharmed.
        """
        ...

    def close(self) -> None:
        """Writes the State of every row not yet released back to its Slot."""
        ...


class Backend(Protocol):
    """One model on one device with a store of Slots. Not thread-safe: one thread drives it."""

    name: str
    """`onnx`, `cuda` or `reference`."""
    spec: StateSpec
    vocab_size: int
    slots: int
    """Rows of the store."""
    max_batch: int
    """Most rows of one Batch or one prefill."""

    @property
    def exact_batches(self) -> bool:
        """True when a row's bits do not depend on its batch mates (measured when first asked, not assumed)."""
        ...

    def clear(self, slot: int) -> None:
        """Sets a Slot to the State of someone who has perceived nothing."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Copies one Slot onto another, bit for bit."""
        ...

    def read(self, slot: int) -> State:
        """The State of a Slot, copied to host memory."""
        ...

    def finite(self, slot: int) -> bool:
        """False when a Slot holds NaN or infinity, which must not become anybody's memory."""
        ...

    def write(self, slot: int, state: State) -> None:
        """Puts a State into a Slot; refuses one of another shape (ValueError)."""
        ...

    def prefill(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """Advances every one of `slots` (distinct) by the same `tokens`, without logits."""
        ...

    def score(self, slot: int, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Log-probabilities (len(tokens) - 1,) of tokens[1:], each given all before it.

        Starts from the Slot's State and leaves it as it was.
        """
        ...

    def open(self, slots: Sequence[int]) -> Batch:
        """Opens a Batch over distinct `slots`, at most `max_batch`."""
        ...

    def close(self) -> None:
        """Frees the device; the backend is of no use afterwards."""
        ...


class RowsBackend(Backend, Protocol):
    """A Backend whose device does many rows for little more than one; whoever has many asks for them together."""

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies Slots onto others, bit for bit; no target may be a source too."""
        ...

    def prefill_rows(self, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
        """As `prefill`, each of the distinct `slots` with tokens of its own; any number of them."""
        ...

    def finite_rows(self, slots: Sequence[int]) -> list[bool]:
        """As `finite`, of each of `slots`."""
        ...


class SparingBackend(Backend, Protocol):
    """A Backend that can hand memory back to the system."""

    def release(self, slots: Sequence[int]) -> None:
        """Hands back the memory of free Slots; what they held is lost."""
        ...


class RunningBatch(Batch, Protocol):
    """A Batch that draws on its device, and so need not ask after every token."""

    def run(self, courses: Sequence[Course | None], steps: int) -> list[list[int]]:
        """Feeds and draws up to `steps` times; the tokens that each row drew, the last of which is not fed yet.

        A row stops early when its Course ends, when it fails (`sampling.FAILED` is its last then), or where its owner
        has to look. None leaves a row as it is.
        """
        ...


def takes_rows(backend: Backend) -> TypeGuard[RowsBackend]:
    """True for a Backend to be asked for many rows together."""
    return hasattr(backend, "prefill_rows")


def spares(backend: Backend) -> TypeGuard[SparingBackend]:
    """True for a Backend that can hand memory back."""
    return hasattr(backend, "release")


def runs(batch: Batch) -> TypeGuard[RunningBatch]:
    """True for a Batch that need not be asked for every token."""
    return hasattr(batch, "run")


def feed_rows(backend: Backend, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
    """Advances each of `slots` by its own tokens one by one: the same arithmetic as the steps they may stand for."""
    if takes_rows(backend):
        for at in range(max(map(len, rows), default=0)):
            fed = [(slot, tokens[at : at + 1]) for slot, tokens in zip(slots, rows, strict=True) if len(tokens) > at]
            backend.prefill_rows([slot for slot, _ in fed], [token for _, token in fed])
        return
    for slot, tokens in zip(slots, rows, strict=True):
        for token in tokens:
            backend.prefill([slot], [token])
