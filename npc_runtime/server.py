"""Server: the daemon's one loop. Sockets and Ticks take turns on one thread; nothing here waits on a client."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, TextIO

import zmq

from npc_runtime import errors, wire
from npc_runtime.auth import ZAP_ENDPOINT, CurveAuth, choose_auth, is_loopback
from npc_runtime.checks import shown
from npc_runtime.lobby import Lobby
from npc_runtime.parent import Parent
from npc_runtime.peer import SEND_HWM
from npc_runtime.share import Share
from npc_runtime.sockets import close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from npc_runtime.auth import Auth
    from npc_runtime.config import Config
    from npc_runtime.peer import Peer
    from npc_runtime.stage import Stage

MESSAGES_PER_ROUND, RECEIVE_S = 64, 0.004
"""Messages, and seconds with them, at most before the next Tick, so that a flood does not stop the talk."""
CHORES_S = 1.0
"""How often, at least, heartbeats and the parent are looked at."""
QUIET_S = 2.0
"""After so long with no message, and no Turn to do, spare memory is handed back."""
BACKLOG_POLL_S = 0.005
LINGER_MS = 500
HANDSHAKE_MS = 10_000
KEEPALIVE_S, KEEPALIVE_PROBES = 15, 3
"""Seconds of silence, and between probes, after which TCP looks whether the other side lives, and how often."""
_MORE_OPEN = 64
"""Requests a client may have open beside its queued Turns."""
_TURNS = (wire.Spawn, wire.Say, wire.Observe, wire.Choose, wire.Restore, wire.Load, wire.Fork, wire.Rewind)
"""What a daemon that is ending refuses."""


class Server:
    """Binds on construction; `run` serves until `stop`, which alone may be called from another thread."""

    def __init__(
        self, stage: Stage, auth: Auth, host: str = "127.0.0.1", port: int = 0, parent: Parent | None = None
    ) -> None:
        self.stage, self.config, self.auth = stage, stage.config, auth
        self._local, self._parent = is_loopback(host), parent
        self._stops = 0
        self._deadline: float | None = None
        self._chores_at = 0.0
        self._journal_fault: errors.NpcError | None = None
        self._stirred_at, self._rested = 0.0, True
        self._share = Share(RECEIVE_S)
        self._deaf: set[bytes] = set()  # strangers who took no answer: until the next chores only their `hello` counts
        self._chores_every = min(CHORES_S, self.config.heartbeat_s / 4 or CHORES_S)
        self._verbs: dict[type[wire.Request], Callable[[Peer, Any], None]] = {
            wire.Hello: self._hello_again,
            wire.Ping: lambda peer, request: peer.emit(wire.Event(request.id, "ok")),
            wire.Bye: self._bye,
            wire.Shutdown: self._shutdown,
            wire.Stats: self._stats,
        }
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._context = zmq.Context()
        self._gate, self._router = self._context.socket(zmq.REP), self._context.socket(zmq.ROUTER)
        self._sockets = (self._router, self._gate)
        try:
            self._gate.bind(ZAP_ENDPOINT)
            self._listen(self._router, host, port)
        except BaseException:
            self.close()
            raise
        self.endpoint = bytes(self._router.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        self.lobby = Lobby(stage, self._router)
        self._poller = zmq.Poller()
        for source in (self._router, self._gate, self._woken):
            self._poller.register(source, zmq.POLLIN)

    def _listen(self, router: zmq.Socket[bytes], host: str, port: int) -> None:
        router.router_mandatory = 1
        router.sndhwm, router.rcvhwm = SEND_HWM, MESSAGES_PER_ROUND  # a frame may be long: bound what waits to be read
        router.handshake_ivl = HANDSHAKE_MS
        router.maxmsgsize = self.config.max_frame_bytes + 2**20  # a little too long gets an answer, much the door
        # The lobby asks silent clients itself, and TCP finds dead connections. ZMTP's own heartbeats stay off: libzmq
        # 4.3.5 aborts the process when one is due after a client that was faster than us is gone (its issue 4841).
        router.tcp_keepalive, router.tcp_keepalive_cnt = 1, KEEPALIVE_PROBES
        router.tcp_keepalive_idle = router.tcp_keepalive_intvl = math.ceil(self.config.heartbeat_s) or KEEPALIVE_S
        self.auth.apply(router)
        if ":" in host:
            router.ipv6 = True
            host = f"[{host}]"
        try:
            router.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            raise errors.ConfigError(f"cannot listen on {host}, port {port or 'any'}: {error}") from error

    # ---- the loop

    def run(self) -> None:
        """Serves until stopped, then ends in order. A defect in one request does not end the loop."""
        wait: float | None = 0.0
        while not self._over():
            self._poll(wait)
            begun = time.monotonic()
            wait = self._tick()
            self._share.earn(time.monotonic() - begun, hurry=wait == 0)
            self._chores(wait is None)
            if self.lobby.sweep():
                self._stir()

    def stop(self) -> None:
        """Asks the loop to end: running Turns get their grace; asked twice, none."""
        self._stops += 1
        try:
            self._waker.send(b"!")
        except OSError:  # full or closed: the loop is awake or over
            return

    def close(self) -> None:
        """Closes the sockets; what was sent lingers for half a second."""
        close_all(self._context, self._sockets, LINGER_MS)
        self._waker.close()
        self._woken.close()

    def _poll(self, wait: float | None) -> None:
        seconds = self._chores_every if wait is None else min(wait, self._chores_every)
        if self.lobby.behind:
            seconds = min(seconds, BACKLOG_POLL_S)
        ready = dict(self._poller.poll(math.ceil(seconds * 1000)))
        if self._gate in ready:
            self._gate.send_multipart(self.auth.answer(self._gate.recv_multipart()))
        if self._woken.fileno() in ready:
            self._woken.recv(64)
        if self._router in ready or self._gate in ready:
            self._stir()
        if self._router in ready:
            self._receive()

    def _stir(self) -> None:
        """Notes that something happened, after which there may be memory to hand back."""
        self._stirred_at, self._rested = time.monotonic(), False

    def _receive(self) -> None:
        begun = now = time.monotonic()
        idle = 0.0
        for _ in range(MESSAGES_PER_ROUND):
            if now - begun > RECEIVE_S or idle >= self._share.left:
                break
            try:
                (address, *frames), user = self._next()
            except zmq.Again:
                break
            then, working, now = now, self._hear(address, frames, user), time.monotonic()
            idle += 0.0 if working else now - then
        self._share.spend(idle)

    def _hear(self, address: bytes, frames: list[bytes], user: str) -> bool:
        """Takes a message; True when it began a work that goes on, which queues bound, and no share of time."""
        if address in self._deaf and not any(b"hello" in frame for frame in frames):
            return False
        peer = self.lobby.peers.get(address)
        before = len(peer.open) if peer is not None else 0
        self._message(address, frames, user)
        return peer is not None and len(peer.open) > before

    def _next(self) -> tuple[list[bytes], str]:
        """The parts of the next message, and under CURVE who sent it. Raises zmq.Again when there is none."""
        if not isinstance(self.auth, CurveAuth):
            return self._router.recv_multipart(zmq.NOBLOCK), ""
        parts = self._router.recv_multipart(zmq.NOBLOCK, copy=False)  # only uncopied frames know their user
        return [part.bytes for part in parts], str(parts[-1].get("User-Id"))

    def _tick(self) -> float | None:
        try:
            return self.stage.tick()
        except Exception as error:  # a defect of ours: whoever waits is told, and the daemon lives on
            _report(error)
            self.lobby.fail_all(errors.NpcError(f"the daemon's Tick failed: {error!r:.200}"))
            self._cut_all()
            return BACKLOG_POLL_S

    def _cut_all(self) -> None:
        try:
            self.lobby.cut_all()
        except Exception as error:
            _report(error)

    def _chores(self, idle: bool) -> None:
        now = time.monotonic()
        if now - self._chores_at < self._chores_every:
            return
        self._chores_at = now
        self._deaf.clear()
        self.lobby.beat(now)
        self._look_at_journal()
        if idle and not self._rested and now - self._stirred_at > QUIET_S:
            self._rested = True
            self.stage.rest()
        if self._parent is not None and self._parent.gone():
            self._parent = None
            self.stop()

    def _look_at_journal(self) -> None:
        """Tells the operator when the journal begins to fail, and when it is whole again."""
        failure = self.stage.scribe.failure if self.stage.scribe is not None else None
        if (failure is None) != (self._journal_fault is None):
            text = "the journal is written again" if failure is None else f"{failure}; it is tried again every second"
            print(f"npc-runtime: {text}", file=sys.stderr, flush=True)
        self._journal_fault = failure

    # ---- ending

    def _over(self) -> bool:
        """True when the loop is to end; begins the end when it was asked for."""
        if not self._stops:
            return False
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self.config.shutdown_grace_s
            grace = round(1000 * self.config.shutdown_grace_s)
            self.lobby.tell(wire.Event(0, "bye", {"reason": "shutting_down", "grace_ms": grace}))
        if self.lobby.waiting and now < self._deadline and self._stops == 1:
            return False
        self._cut_all()
        self.stage.flush()
        self.lobby.fail_all(errors.ShuttingDown("the daemon ended before the request was answered"))
        self.lobby.sweep()
        return True

    # ---- messages

    def _message(self, address: bytes, frames: list[bytes], user: str) -> None:
        try:
            if len(frames) != 1:
                raise errors.WireError(f"a message must be one frame, got {len(frames)}; use a DEALER socket")
            body = wire.decode_map(frames[0], self.config.max_frame_bytes)
        except errors.NpcError as error:
            id = wire.salvage_id(frames[0]) if len(frames) == 1 else 0
            self._answer(address, wire.error_event(id, error))
            return
        try:
            self._body(address, body, user)
        except errors.NpcError as error:
            self._answer(address, wire.error_event(wire.request_id(body), error))
        except Exception as error:  # a defect in one request ends that request, not the daemon
            _report(error)
            defect = errors.NpcError(f"the request failed: {error!r:.200}")
            self._answer(address, wire.error_event(wire.request_id(body), defect))

    def _answer(self, address: bytes, event: wire.Event) -> None:
        peer = self.lobby.peers.get(address)
        if peer is not None:
            peer.open.discard(event.id)
            peer.emit(event)
            return
        try:
            self._router.send_multipart([address, wire.encode(event)], zmq.NOBLOCK)
        except zmq.ZMQError:  # a stranger who does not read, or has gone: nothing is owed to it
            self._deaf.add(address)

    def _body(self, address: bytes, body: dict[str, Any], user: str) -> None:
        peer = self.lobby.peers.get(address)
        if peer is not None:
            peer.hear(time.monotonic())
            self._request(peer, wire.decode_request(body))
            return
        if body.get("op") != wire.Hello.op:
            raise errors.HelloFirst(f"the first message must be `hello`, got op {shown(body.get('op'))}")
        hello = wire.decode_request(body)
        if self._stops:
            raise errors.ShuttingDown("the daemon is ending")
        if isinstance(hello, wire.Hello):
            self.lobby.greet(address, hello, user, time.monotonic())

    def _request(self, peer: Peer, request: wire.Request) -> None:
        if request.id in peer.open:
            text = f"`id` {request.id} belongs to a request that is still open"
            peer.emit(wire.error_event(0, errors.BadInput(text)))  # under its own id it would end that other request
            return
        verb = self._verbs.get(type(request))
        if verb is not None:
            verb(peer, request)
            return
        if self._stops and isinstance(request, _TURNS):
            raise errors.ShuttingDown("the daemon is ending and takes no new Turns")
        if len(peer.open) >= self.config.max_queued + _MORE_OPEN:
            raise errors.QueueFull(f"{len(peer.open)} requests are open already")
        if peer.behind and isinstance(request, wire.Snapshot):
            raise errors.QueueFull("answers wait to be read", "Read the answers that wait before asking for snapshots")
        peer.open.add(request.id)
        peer.session.handle(request, peer.answer)

    def _hello_again(self, peer: Peer, request: wire.Hello) -> None:
        raise errors.BadInput("`hello` was said already; open another connection for another Session")

    def _bye(self, peer: Peer, request: wire.Bye) -> None:
        peer.emit(wire.Event(request.id, "ok"))
        self.lobby.leave(peer, keep=peer.kept if request.keep is None else request.keep and peer.named)

    def _shutdown(self, peer: Peer, request: wire.Shutdown) -> None:
        if not self._local:
            raise errors.BadInput("`shutdown` is refused by a daemon that other machines can reach")
        peer.emit(wire.Event(request.id, "ok"))
        self.stop()

    def _stats(self, peer: Peer, request: wire.Stats) -> None:
        peer.emit(wire.Event(request.id, "ok", {**self.stage.stats(), "clients": len(self.lobby.peers)}))


def _report(error: BaseException) -> None:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    print(f"npc-runtime: a defect, please report it:\n{text}", file=sys.stderr, flush=True)


def serve(
    bundle: Path | str | None = None,
    config: Config | None = None,
    *,
    backend: str = "auto",
    personas: Sequence[Path] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    key: str | None = None,
    parent: int | None = None,
    curve_secret: Path | None = None,
    curve_clients: Path | None = None,
    out: TextIO | None = None,
) -> int:
    """Runs a daemon until it is stopped; returns the exit status. Prints one JSON line on `out` when ready.

    key: None makes a fresh one, which the ready line tells. parent: the daemon ends with that process.
    Raises ConfigError, BundleError or BackendError when it cannot start.
    """
    from npc_runtime.config import Config
    from npc_runtime.stage import open_stage

    config = config or Config()
    if not 0 <= port <= 65535:  # ZeroMQ would take it modulo 65536 and listen where nobody looks
        raise errors.ConfigError(f"`port` must be from 0 to 65535, got {port}")
    auth = choose_auth(host, key, curve_secret, curve_clients)
    if not is_loopback(host) and not config.save_dir:
        raise errors.ConfigError(f"`save_dir` must be set when {host} lets other machines name the files of saves")
    watched = None if parent is None else Parent(parent)
    stage = open_stage(bundle, config, backend, personas)
    if stage.backend.name == "cuda":  # with thousands of Npcs looking for cycles took half of Python's time
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
    try:
        serve_stage(stage, auth, host, port, watched, out)
    finally:
        stage.close()
    return 0


def serve_stage(
    stage: Stage, auth: Auth, host: str, port: int, parent: Parent | None = None, out: TextIO | None = None
) -> None:
    """Serves an open Stage on this thread until SIGINT, SIGTERM, `shutdown` or the parent's end."""
    server = Server(stage, auth, host, port, parent)
    try:
        for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda number, frame: server.stop())
        print(json.dumps(ready_line(server)), file=out or sys.stdout, flush=True)
        server.run()
    finally:
        server.close()


def ready_line(server: Server) -> dict[str, Any]:
    """What a client must know to connect, and what people want to know of a daemon."""
    card = server.lobby.card()
    told = {name: card[name] for name in ("bundle", "backend", "reason", "protocol", "version")}
    secret = {"key": server.auth.key} if server.auth.key else {"server_key": server.auth.server_key}
    return {"endpoint": server.endpoint, **secret, "pid": os.getpid(), **told, "ready_ms": _age_ms()}


def _age_ms() -> float:
    """Milliseconds since this process was started, as far as the system tells; else of processor time."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as stat, open("/proc/uptime", encoding="utf-8") as uptime:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            return round(1e3 * (float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")), 1)
    except (OSError, ValueError, IndexError, AttributeError):
        return round(1e3 * time.process_time(), 1)
