"""Peer: one connected client of the daemon, and what waits to be sent to it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import zmq

from npc_runtime import errors, wire

if TYPE_CHECKING:
    from npc_runtime.session import Session

SEND_HWM = 32
"""Messages that libzmq holds for one Peer, each perhaps a snapshot; a ROUTER drops what comes above, unless told to
refuse it."""
MAX_BACKLOG = 4096
"""Messages held back for a Peer that reads slowly; with one more it is cut off."""

MAX_ASKS, ASKS_S = 256, 0.25
"""Messages in a row from a Peer who takes no answer, and their least time: then it is gone, though TCP told nobody."""


class Peer:
    """Sends never wait and never raise: they may happen deep inside a Tick. `lost` says why a Peer must go."""

    def __init__(self, router: zmq.Socket[bytes], address: bytes, session: Session, key: str, now: float) -> None:
        self._router, self.address, self.session, self.key = router, address, session, key
        self.named = self.kept = False
        """Whether the client named its Session, and whether that waits for its return."""
        self.heard_at = now
        self.pinged_at = now
        self.open: set[int] = set()
        """Ids of requests not answered yet."""
        self.lost = ""
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._asks, self._asks_at = 0, now
        self.max_backlog_bytes = 64 * 2**20

    @property
    def behind(self) -> bool:
        """True while messages are held back."""
        return bool(self._backlog)

    def hear(self, now: float) -> None:
        """Notes that a message came; one who asks on and on and takes nothing is cut off."""
        self.heard_at = now
        if not self._backlog:
            return
        self._asks += 1
        if self._asks == 1:
            self._asks_at = now
        elif self._asks > MAX_ASKS and now - self._asks_at > ASKS_S:
            self._cut(f"it asked {self._asks} times and took no answer")

    def answer(self, event: wire.Event) -> None:
        """Sends an event of an open request, which is over with its last one; a request that is over gets no more."""
        if event.id in self.open:
            if event.last:
                self.open.discard(event.id)
            self.emit(event)

    def emit(self, event: wire.Event) -> None:
        """Sends an event."""
        try:
            frame = wire.encode(event)
        except Exception as error:  # a field that msgpack cannot hold is a defect of ours, not of the Peer
            defect = errors.NpcError(f"the answer `{event.ev}` could not be encoded: {error}")
            frame = wire.encode(wire.error_event(event.id, defect))
        self._send(frame)

    def fail_open(self, error: errors.NpcError) -> None:
        """Answers every open request with an error."""
        for id in sorted(self.open):
            self.answer(wire.error_event(id, error))

    def _send(self, frame: bytes) -> None:
        if self.lost:
            return
        if not self._backlog and self._try(frame):
            return
        self._backlog.append(frame)
        self._backlog_bytes += len(frame)
        if len(self._backlog) > MAX_BACKLOG or self._backlog_bytes > self.max_backlog_bytes:
            self._cut(f"it did not read {len(self._backlog)} messages of {self._backlog_bytes} bytes")
        elif self.lost:
            self._backlog.clear()

    def _cut(self, why: str) -> None:
        self.lost = self.lost or why
        self._backlog.clear()

    def flush(self) -> None:
        """Sends what was held back, as far as the Peer takes it."""
        while self._backlog and self._try(self._backlog[0]):
            self._backlog_bytes -= len(self._backlog.popleft())

    def _try(self, frame: bytes) -> bool:
        try:
            self._router.send_multipart([self.address, frame], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:  # EHOSTUNREACH: the connection is closed
            self.lost = f"its connection is closed ({error})"
            return False
        self._asks = 0
        return True
