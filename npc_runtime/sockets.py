"""Sockets: closing ZeroMQ's without ever hanging."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import zmq

TERM_S = 1.0
"""How long, beyond the linger, libzmq gets to end its threads."""


def close_all(context: zmq.Context[zmq.Socket[bytes]], sockets: Iterable[zmq.Socket[bytes]], linger_ms: int) -> None:
    """Closes a context and all its sockets; what was sent lingers `linger_ms`. For the thread that used the sockets.

    libzmq 4.3.5 can lose the last step of an ending when a peer disconnects just as we close with a message to
    it under way (seen once in some thousand closings of a ROUTER, under load once in 300), and `zmq_ctx_term`
    then waits for ever. So it waits on a thread of its own, for which we wait only so long.
    """
    for socket in sockets:
        socket.close(linger_ms)
    ending = threading.Thread(target=context.term, name="npc-runtime-term", daemon=True)
    ending.start()
    ending.join(linger_ms / 1000 + TERM_S)
