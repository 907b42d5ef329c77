"""Scribe: keeps the journal current while the game goes on, and holds back answers until it is.

What changed is written behind the game on a side thread, as many Npcs at once as have changed since the last
batch (group commit). The last event of a request waits for the batch that holds what it tells of; moods and
pieces of speech do not wait. So whatever was answered is on the disk.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from npc_runtime import wire
from npc_runtime.errors import JournalFailed, NpcError
from npc_runtime.journal import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from npc_runtime.journal import Journal, Key
    from npc_runtime.save import NpcRecord
    from npc_runtime.session import Session

POLL_S = 0.001
"""How often to look whether a batch has reached the disk."""
RETRY_S = 1.0
"""How long after a failure the disk is tried again; meanwhile no new Turn is taken."""
_CHANGES = (wire.Spawn, wire.Say, wire.Observe, wire.Choose, wire.Restore, wire.Load, wire.Fork, wire.Rewind)
"""What is refused while the disk cannot be written. Answers to these, and to `drop`, wait for the disk."""


class _Held(NamedTuple):
    """An answer that waits until every change up to `ticket` is on the disk."""

    ticket: int
    key: Key
    emit: Callable[[wire.Event], None]
    event: wire.Event


class Scribe:
    """Writes a Stage's Npcs into a Journal. One thread calls it; its own writes to the disk."""

    def __init__(
        self, journal: Journal, record: Callable[[Key], NpcRecord | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """record: the Npc of a key as it is now, None when there is none."""
        self.journal, self._record, self._clock = journal, record, clock
        self.failure: NpcError | None = None
        self.batches = 0
        self._disk = ThreadPoolExecutor(1, "npc-runtime-journal")
        self._writing: Future[None] | None = None
        self._ticket = 0
        self._changed: dict[Key, int] = {}
        """Npcs to be written and the ticket of their first change since the last time, oldest first."""
        self._batch: dict[Key, int] = {}
        """The same, of those being written."""
        self._held: deque[_Held] = deque()
        self._waiting: Counter[Key] = Counter()
        self._retry_at = 0.0

    def watch(self, session: Session) -> None:
        """Keeps a Session's Npcs from now on."""
        session.changed = lambda name: self._change((session.name, name))
        session.gate = lambda request, emit: self._gate(session, request, emit)

    def _change(self, key: Key) -> None:
        self._ticket += 1
        self._changed.setdefault(key, self._ticket)

    def _gate(
        self, session: Session, request: wire.Request, emit: Callable[[wire.Event], None]
    ) -> Callable[[wire.Event], None]:
        """Where the events of a request are to go. Raises JournalFailed for a change that could not be kept."""
        if self.failure is not None and isinstance(request, _CHANGES):
            raise JournalFailed(f"nothing new is taken while the journal cannot be written: {self.failure}")
        if not isinstance(request, (*_CHANGES, wire.Drop)):
            return emit
        key = (session.name, getattr(request, "npc", ""))

        def send(event: wire.Event) -> None:
            unkept = event.last and event.ev != "error" and (self._changed or self._batch)
            if unkept or self._waiting[key]:  # behind a held one, so that an Npc's events keep their order
                self._waiting[key] += 1
                self._held.append(_Held(self._ticket, key, emit, event))
            else:
                emit(event)

        return send

    def settle(self) -> float | None:
        """Begins and ends batches; seconds until the next call is wanted, None when all is on the disk."""
        if self._writing is not None and self._writing.done():
            self._end(self._writing)
        now = self._clock()
        if self._writing is None and self._changed and now >= self._retry_at:
            self._begin()
        if self._writing is not None:
            return POLL_S
        return max(0.0, self._retry_at - now) if self._changed else None

    def stats(self) -> dict[str, int]:
        """Counters: Npcs kept, segments that count, batches and bytes written, answers that wait, whether it fails."""
        journal = self.journal
        return {
            "npcs": len(journal),
            "segments": journal.segments,
            "batches": self.batches,
            "bytes": journal.bytes_written,
            "waiting": len(self._held),
            "failing": int(self.failure is not None),
        }

    def flush(self) -> None:
        """Waits until all is on the disk, or cannot be; answers for it."""
        self._retry_at = 0.0
        while self.settle() is not None and (self.failure is None or self._writing is not None):
            if self._writing is not None:
                self._writing.exception()

    def close(self) -> None:
        """Writes what is left and closes the journal."""
        self.flush()
        self._disk.shutdown(wait=True)
        self.journal.close()

    def _begin(self) -> None:
        keys = list(self._changed)[:BATCH]
        self._batch = {key: self._changed.pop(key) for key in keys}
        try:
            records = {key: self._record(key) for key in keys}
        except Exception as error:  # a device that cannot be read
            self._fail(_typed(error))
            return
        self._writing = self._disk.submit(self.journal.write, records)

    def _end(self, writing: Future[None]) -> None:
        self._writing = None
        try:
            writing.result()
        except Exception as error:  # a full disk, or a defect: the game goes on and the disk is tried again
            self._fail(_typed(error))
            return
        self.failure = None
        self.batches += 1
        self._batch = {}
        for key in self.journal.sparse():
            self._change(key)
        unwritten = next(iter(self._changed.values()), self._ticket + 1)
        while self._held and self._held[0].ticket < unwritten:
            self._release(self._held.popleft(), None)

    def _fail(self, error: NpcError) -> None:
        """The batch is to be written again; whoever waits is told that it is not on the disk."""
        self.failure = error
        self._changed = {
            **self._batch,
            **{key: ticket for key, ticket in self._changed.items() if key not in self._batch},
        }
        self._batch = {}
        self._retry_at = self._clock() + RETRY_S
        while self._held:
            self._release(self._held.popleft(), error)

    def _release(self, held: _Held, error: NpcError | None) -> None:
        self._waiting[held.key] -= 1
        if not self._waiting[held.key]:
            del self._waiting[held.key]
        event = held.event
        if error is not None and event.last and event.ev != "error":
            event = wire.error_event(event.id, JournalFailed(f"done and in memory, but not on the disk: {error}"))
        held.emit(event)


def _typed(error: Exception) -> NpcError:
    return error if isinstance(error, NpcError) else JournalFailed(f"the journal could not be written: {error!r:.300}")
