"""Client: the verbs over ZeroMQ, for Python games and tools; the model for clients in other languages.

A thread of its own owns the socket, so every method may be called from any thread, and the daemon's
heartbeats are answered while the game is busy. A connection that is lost stays lost: everything under way
and every later verb raises ConnectionLost, and `reconnect` opens a new one. A Session that was given a
name finds its Npcs again.
"""

from __future__ import annotations

import atexit
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from npc_runtime import errors, wire
from npc_runtime.checks import shown
from npc_runtime.sockets import close_all
from npc_runtime.verbs import Blocking, Verbs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from npc_runtime.launch import Daemon
    from npc_runtime.pending import Pending

CONNECT_TIMEOUT_S = 10.0
MAX_EVENT_BYTES = 256 * 2**20
"""Most bytes of one answer that a client reads."""
LINGER_MS = 200
USER = "npc"
_ADDRESS = "An address looks like tcp://127.0.0.1:5555; `npc-runtime serve` prints its own and its key when it is ready"
_ENDS = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


class Connection(Verbs):
    """The verbs over one connection. `hello` is the daemon's answer to ours."""

    def __init__(
        self,
        endpoint: str,
        key: str = "",
        session: str = "",
        *,
        curve: tuple[str, str, str] | None = None,
        timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """curve: the daemon's public key, our public key and our secret key (z85), instead of `key`.

        Raises ConnectionLost when nobody answers, WrongKey, VersionMismatch or Overloaded.
        """
        super().__init__()
        for name, value in {"endpoint": endpoint, "key": key, "session": session}.items():
            if not isinstance(value, str):
                raise errors.ConfigError(f"`{name}` must be text, got {shown(value)}")
        self.hello: Mapping[str, Any] = {}
        self.lost: errors.NpcError | None = None
        self._max_frame = 2**20
        self._heartbeat_s = 0.0
        self._outgoing: deque[bytes] = deque()
        self._open: dict[int, Pending[Any]] = {}
        self._guard = threading.Lock()
        self._closing = False
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket(_ENDS | _FAILURES)
        try:
            self._dial(self._socket, endpoint, key, curve)
        except BaseException:
            self._socket.disable_monitor()
            close_all(self._context, [self._socket, self._monitor], 0)
            self._close_wakers()
            raise
        self._thread = threading.Thread(target=self._run, name="npc-runtime-client", daemon=True)
        self._thread.start()
        self._greet(session, timeout_s)

    def _dial(self, dealer: zmq.Socket[bytes], endpoint: str, key: str, curve: tuple[str, str, str] | None) -> None:
        dealer.reconnect_ivl = -1  # a new connection needs a new hello: see `Client.reconnect`
        dealer.immediate = 1
        dealer.sndhwm = dealer.rcvhwm = 0
        dealer.maxmsgsize = MAX_EVENT_BYTES
        if curve is not None:
            dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = (part.encode() for part in curve)
        elif not key:
            raise errors.WrongKey("a key is needed: the ready line of the daemon tells it")
        else:
            try:
                dealer.plain_username, dealer.plain_password = USER.encode(), key.encode()
            except (zmq.ZMQError, ValueError) as error:
                raise errors.WrongKey(f"text of {len(key)} characters is no daemon's key: {error}") from error
        try:
            dealer.connect(endpoint)
        except (zmq.ZMQError, ValueError) as error:
            raise errors.ConfigError(f"`{endpoint:.120}` is no ZeroMQ endpoint: {error}", _ADDRESS) from error

    def _greet(self, session: str, timeout_s: float) -> None:
        hello = wire.Hello(id=next(self._ids), protocol=[wire.PROTOCOL], client="python", session=session)
        try:
            self.hello = self._ask(hello, dict).result(timeout_s)
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise errors.ConnectionLost(f"the daemon did not answer `hello` within {timeout_s} s") from error
            raise
        self._max_frame = self.hello["limits"]["max_frame_bytes"]
        self._heartbeat_s = self.hello["heartbeat_s"]
        self.relative_paths = bool(self.hello.get("relative_paths"))

    @property
    def session(self) -> str:
        """Name of the Session; under a name of our own choosing it can be returned to."""
        return str(self.hello.get("session", ""))

    def close(self) -> None:
        """Leaves the daemon and ends the thread; what is under way fails with ConnectionLost."""
        with self._guard:
            self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def ping(self) -> Pending[None]:
        """Asks whether the daemon lives."""
        return self._ask(wire.Ping(id=next(self._ids)), lambda body: None)

    def bye(self, keep: bool | None = None) -> Pending[None]:
        """Leaves the Session. keep: whether its Npcs stay for the return of its name; None: as the daemon does."""
        return self._ask(wire.Bye(id=next(self._ids), keep=keep), lambda body: None)

    def shutdown(self) -> Pending[None]:
        """Ends the daemon; running Turns get their grace."""
        return self._ask(wire.Shutdown(id=next(self._ids)), lambda body: None)

    # ---- any thread

    def _send(self, request: wire.Request, pending: Pending[Any]) -> None:
        error: errors.NpcError | None = None
        frame = b""
        try:
            frame = wire.encode(request)
        except Exception as failure:  # msgpack's own classes, for what it cannot hold
            error = errors.BadInput(f"the fields of `{request.op}` cannot be sent: {failure}")
        if len(frame) > self._max_frame:
            error = errors.TooLarge(f"a message may hold {self._max_frame} bytes, this `{request.op}` has {len(frame)}")
        with self._guard:
            error = error or self.lost
            if error is None:
                self._open[request.id] = pending
                self._outgoing.append(frame)
        if error is not None:
            pending.fail(error)
        self._wake()

    def _wake(self) -> None:
        with self._guard:  # else the descriptor might be closed, and given to another, while we send
            try:
                self._waker.send(b"!")
            except OSError:  # full or closed: the thread is awake or over
                return

    # ---- the connection's thread

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._socket, self._monitor, self._woken):
            poller.register(source, zmq.POLLIN)
        self._heard_at = self._asked_at = time.monotonic()
        try:
            while self.lost is None and not self._closing:
                poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if self._outgoing else 0))
                self._round(dict(poller.poll(self._wait_ms())))
            self._flush()
        except Exception as error:  # a defect here must not leave anyone waiting
            self._lose(errors.NpcError(f"the client's thread failed: {error!r}"))
        finally:
            self._lose(errors.ConnectionLost("the connection was closed"))
            self._socket.disable_monitor()
            close_all(self._context, [self._socket, self._monitor], LINGER_MS)
            self._close_wakers()

    def _round(self, ready: Mapping[Any, int]) -> None:
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        if ready.get(self._socket, 0) & zmq.POLLIN:
            self._receive()
        self._flush()
        if self._monitor in ready:
            self._receive()  # what came before the end counts
            self._ended(parse_monitor_message(self._monitor.recv_multipart()))
        self._beat()

    def _close_wakers(self) -> None:
        with self._guard:
            self._waker.close()
            self._woken.close()

    def _wait_ms(self) -> int:
        return int(250 * self._heartbeat_s) + 1 if self._heartbeat_s else 1000

    def _flush(self) -> None:
        while self._outgoing:
            try:
                self._socket.send(self._outgoing[0], zmq.NOBLOCK)
            except zmq.Again:
                return
            self._outgoing.popleft()

    def _receive(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard_at = time.monotonic()
            try:
                self._event(wire.decode_event(frames[0], MAX_EVENT_BYTES))
            except errors.NpcError as error:
                self._lose(error)

    def _event(self, event: wire.Event) -> None:
        with self._guard:
            pending = self._open.get(event.id)
            if pending is not None and event.last:
                del self._open[event.id]
        if pending is not None:
            pending.feed(event)
        elif event.ev == "ping":
            self.ping()
        elif event.ev == "bye" and event.fields.get("reason") == "taken_over":
            text = f"another client took over the Session `{self.session}`"
            self._lose(errors.ConnectionLost(text, "Name a Session of its own for each client"))

    def _ended(self, event: Mapping[str, Any]) -> None:
        if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._lose(errors.WrongKey("the daemon refused the key"))
        elif event["event"] & _FAILURES:
            self._lose(errors.ConnectionLost("the ZMTP handshake failed: is this address an npc-runtime daemon's?"))
        else:
            self._lose(errors.ConnectionLost("the daemon closed the connection, or does not listen there"))

    def _beat(self) -> None:
        """Asks a silent daemon whether it lives; three times as silent and it is gone."""
        now, silence = time.monotonic(), self._heartbeat_s
        if not silence:
            return
        asked = self._asked_at > self._heard_at
        if asked and now - self._asked_at > 2 * silence:
            self._lose(errors.ConnectionLost(f"the daemon was silent for {now - self._heard_at:.1f} s"))
        elif not asked and now - self._heard_at > silence:
            self._asked_at = now
            self.ping()

    def _lose(self, error: errors.NpcError) -> None:
        with self._guard:
            self.lost = self.lost or error
            left = list(self._open.values())
            self._open.clear()
        for pending in left:
            pending.fail(self.lost)


class Client(Blocking):
    """A game's end of a daemon: the verbs, blocking here and to await under `aio`. Close it, or use `with`."""

    def __init__(self, connection: Connection, reopen: Mapping[str, Any], daemon: Daemon | None = None) -> None:
        self.aio: Connection = connection
        self._reopen = reopen
        self._daemon = daemon
        atexit.register(self.close)

    @classmethod
    def connect(
        cls,
        endpoint: str,
        key: str = "",
        session: str = "",
        *,
        curve: tuple[str, str, str] | None = None,
        timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> Client:
        """Connects to a running daemon by the endpoint and key of its ready line.

        session: a name under which the Npcs can be returned to; without one they end with the connection, and
        a daemon's journal, which keeps only named Sessions, has nothing of them.
        curve: the daemon's public key, our public and our secret key (z85), for a daemon on another machine.
        """
        options = {"endpoint": endpoint, "key": key, "curve": curve, "timeout_s": timeout_s}
        connection = Connection(**options, session=session)  # type: ignore[arg-type]  # as named above
        return cls(connection, {**options, "session": session})

    @classmethod
    def start(
        cls,
        bundle: str | Path | None = None,
        *,
        session: str = "game",
        personas: Sequence[str | Path] = (),
        backend: str = "auto",
        options: Sequence[str] = (),
        command: Sequence[str] = (),
        timeout_s: float = 60.0,
    ) -> Client:
        """Starts a daemon of our own, which ends with `close` or with this process, and connects to it.

        options: further options of `npc-runtime serve`. command: how to call npc-runtime, for games that ship
        it frozen. Raises ConnectionLost with what the daemon said when it does not get ready in `timeout_s`.
        """
        from npc_runtime.launch import Daemon, serve_options

        daemon = Daemon.start([*command], [*serve_options(bundle, backend, personas), *options], timeout_s)
        try:
            client = cls.connect(daemon.ready["endpoint"], daemon.ready["key"], session)
        except BaseException:
            daemon.stop()
            raise
        client._daemon = daemon
        return client

    @property
    def hello(self) -> Mapping[str, Any]:
        """What the daemon told of itself: version, bundle, backend and why, limits, whether the Session was resumed."""
        return self.aio.hello

    @property
    def ready(self) -> Mapping[str, Any]:
        """The ready line of a daemon that we started; empty for one that ran already."""
        return self._daemon.ready if self._daemon is not None else {}

    def reconnect(self) -> None:
        """Opens a new connection to the same daemon and Session after ConnectionLost."""
        self.aio.close()
        self.aio = Connection(**self._reopen)

    def close(self) -> None:
        """Leaves the daemon; ends it too if we started it. More than once is harmless."""
        atexit.unregister(self.close)
        if self.aio.lost is None:
            self._part()
        self.aio.close()
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def _part(self) -> None:
        """Says goodbye, waiting a moment for the answer; a daemon that cannot hear it will notice anyway."""
        leave = self.aio.shutdown() if self._daemon is not None else self.aio.bye()
        try:
            leave.result(2.0)
        except (errors.NpcError, TimeoutError):
            return

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
