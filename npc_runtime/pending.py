"""Pending: an answer under way, to be waited for, awaited or, for speech, iterated; from any thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from npc_runtime import errors, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a Reply as it becomes known: its mood first, its action if there is one, then text bit by bit."""

    mood: str | None = None
    action: str | None = None
    text: str = ""


class Pending(Generic[T]):
    """The answer to one request. `feed` and `fail` belong to the transport, everything else to the caller."""

    def __init__(self, op: str, read: Callable[[Mapping[str, Any]], T]) -> None:
        self.op = op
        self._read = read
        self._changed = threading.Condition()
        self._pieces: list[Piece] = []
        self._answer: wire.Event | None = None
        self._error: errors.NpcError | None = None
        self._watchers: list[Callable[[], None]] = []

    @property
    def done(self) -> bool:
        """True once the answer, or an error, is there."""
        return self._answer is not None or self._error is not None

    def result(self, timeout: float | None = None) -> T:
        """The answer. Raises its error, or TimeoutError after `timeout` seconds (the request stays open)."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.done, timeout):
                raise TimeoutError(f"no answer to `{self.op}` within {timeout} s; the request is still open")
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        yield from self._until(lambda: self.done).__await__()
        return self._outcome()

    def feed(self, event: wire.Event) -> None:
        """Takes the next event of the request."""
        with self._changed:
            if event.ev == "error":
                self._error = self._error or _typed(event)
            elif event.last:
                self._answer = event
            else:
                self._pieces.append(_piece(event))
        self._notify()

    def fail(self, error: errors.NpcError) -> None:
        """Ends the request with an error, unless it has ended."""
        with self._changed:
            if not self.done:
                self._error = error
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise errors.NpcError(f"`{self.op}` was read before it was answered")
        return self._read(self._answer.fields)

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Waits on the running asyncio loop; events come from another thread."""
        import asyncio

        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # the loop has closed: nobody waits any more
                return

        with self._changed:
            self._watchers.append(notify)
        try:
            while not ready():
                await changed.wait()
                changed.clear()
        finally:
            with self._changed:
                self._watchers.remove(notify)


class Stream(Pending[wire.Reply]):
    """A Reply in Pieces. Iterating waits for each (any number of times over); `reply` is the whole."""

    timeout_s: float | None = None
    """Most seconds to wait for one Piece when iterated; TimeoutError after that."""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What is known by now, without waiting: for games that look once a frame (and at `done`)."""
        with self._changed:
            return tuple(self._pieces)

    @property
    def reply(self) -> wire.Reply:
        """The whole Reply, once it has ended."""
        return self.result()

    def __iter__(self) -> Iterator[Piece]:
        position = 0
        while self._wait_for(position):
            yield self._pieces[position]
            position += 1
        self._outcome()

    def _wait_for(self, position: int) -> bool:
        """True when there is a Piece at `position`, False when there will be none."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.done or position < len(self._pieces), self.timeout_s):
                raise TimeoutError(f"nothing came of `{self.op}` for {self.timeout_s} s; the request is still open")
        return position < len(self._pieces)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        position = 0
        while True:
            await self._until(lambda at=position: self.done or at < len(self._pieces))  # type: ignore[misc]
            if position >= len(self._pieces):
                break
            yield self._pieces[position]
            position += 1
        self._outcome()


def _piece(event: wire.Event) -> Piece:
    if event.ev == "mood":
        return Piece(mood=str(event.fields.get("mood")))
    if event.ev == "act":
        return Piece(action=str(event.fields.get("action")))
    return Piece(text=str(event.fields.get("text", "")))


def _typed(event: wire.Event) -> errors.NpcError:
    told = event.fields
    return errors.from_wire(str(told.get("code")), str(told.get("text")), told.get("hint"))
