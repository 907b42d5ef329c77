"""A daemon on a thread, and raw clients that may misbehave; every socket is closed by the test that opened it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import zmq
from fakes import fake_stage

from npc_runtime.auth import PlainAuth
from npc_runtime.server import Server
from npc_runtime.sockets import close_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes import FakeBackend

    from npc_runtime.auth import Auth
    from npc_runtime.config import Config

MARTA = {"name": "Marta", "role": "innkeeper", "opening": "Come in!"}
WAIT_MS = 20_000


class Daemon:
    """A Server on a thread of its own."""

    def __init__(self, config: Config | None, backend: FakeBackend | None, auth: Auth | None) -> None:
        self.stage = fake_stage(config, backend)
        self.auth = auth or PlainAuth()
        self.server = Server(self.stage, self.auth)
        self.endpoint, self.key = self.server.endpoint, self.auth.key
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def end(self) -> None:
        while self.thread.is_alive():
            self.server.stop()
            self.thread.join(0.05)
        self.server.close()
        self.stage.close()


@contextmanager
def served(
    config: Config | None = None, backend: FakeBackend | None = None, auth: Auth | None = None
) -> Iterator[Daemon]:
    daemon = Daemon(config, backend, auth)
    try:
        yield daemon
    finally:
        daemon.end()


class Raw:
    """A DEALER that sends what it is told and nothing of its own accord."""

    def __init__(
        self,
        daemon: Daemon,
        hello: bool = True,
        session: str = "",
        key: str | None = None,
        watch: int = zmq.EVENT_DISCONNECTED,
        **options: Any,
    ) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.reconnect_ivl = -1
        self.socket.sndtimeo = WAIT_MS
        self.monitor = self.socket.get_monitor_socket(watch)
        self.socket.plain_username = b"npc"
        self.socket.plain_password = (daemon.key if key is None else key).encode()
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(daemon.endpoint)
        self.last = 0
        self.card: dict[str, Any] = {}
        if hello:
            self.card = self.ask("hello", protocol=[1], session=session)

    def send(self, op: str, **fields: Any) -> int:
        self.last += 1
        self.frames(msgpack.packb({"id": self.last, "op": op, **fields}))
        return self.last

    def frames(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def event(self) -> dict[str, Any]:
        assert self.socket.poll(WAIT_MS), "the daemon did not answer"
        event: dict[str, Any] = msgpack.unpackb(self.socket.recv())
        return event

    def until(self, id: int, *evs: str) -> dict[str, Any]:
        """The event of this id that ends it, or is one of `evs`; others are passed over."""
        while True:
            event = self.event()
            if event["id"] == id and event["ev"] in (evs or ("ok", "done", "error")):
                return event

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return self.until(self.send(op, **fields))

    def spawn(self, npc: str = "marta", **fields: Any) -> dict[str, Any]:
        return self.ask("spawn", npc=npc, persona=MARTA, **{"seed": 7, **fields})

    def cut_off(self) -> bool:
        """Waits for what the socket's monitor watches for."""
        return bool(self.monitor.poll(WAIT_MS))

    def vanish(self) -> None:
        if not self.socket.closed:
            self.socket.disable_monitor()
        close_all(self.context, [self.socket, self.monitor], 0)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        self.vanish()
