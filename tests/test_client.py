from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from fakes import FakeBackend
from served import MARTA, Daemon, Raw, served

from npc_runtime import Client, errors
from npc_runtime.auth import CurveAuth
from npc_runtime.config import Config
from npc_runtime.parent import Parent

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_daemon.py")))
QUICK = Config(heartbeat_s=0.2, pace_tokens_per_s=0)


def connect(daemon: Daemon, session: str = "castle", **options: Any) -> Client:
    return Client.connect(daemon.endpoint, daemon.key, session, **options)


@pytest.fixture(autouse=True)
def tests_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """fake_daemon.py imports the fakes and, where it is not installed, the package."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)]))


# ---- a daemon of our own


def test_start_talk_and_close_end_to_end() -> None:
    with Client.start("fake", command=COMMAND) as client:
        process = client._daemon.process if client._daemon else None
        assert client.ready["bundle"]["name"] == "fake"
        assert client.ready["pid"] == (process.pid if process else 0)
        assert client.hello["session"] == "game"
        client.spawn("marta", MARTA, seed=7)
        assert client.say("marta", "hello").text
    assert process is not None
    assert process.returncode == 0, "the daemon ended in order"
    assert client.ready == {}
    client.close()


@pytest.mark.parametrize(
    ("bundle", "word"),
    [
        ("broken", "status 1:\nthe bundle is broken, says the daemon"),
        ("garbage", "something else than a ready line"),
        ("deep", "something else than a ready line"),
    ],
)
def test_a_daemon_that_does_not_get_ready_explains_itself(bundle: str, word: str) -> None:
    with pytest.raises(errors.ConnectionLost, match=word):
        Client.start(bundle, command=COMMAND)


def test_a_daemon_that_says_nothing_is_given_up() -> None:
    with pytest.raises(errors.ConnectionLost, match=r"not ready within 0\.1 s"):
        Client.start("mute", command=COMMAND, timeout_s=0.1)


def test_a_command_that_is_no_program_is_told() -> None:
    with pytest.raises(errors.ConnectionLost, match="could not be started as `no-such-program`"):
        Client.start(command=["no-such-program"])


def test_a_killed_daemon_ends_everything_under_way() -> None:
    with Client.start("chatter", command=COMMAND) as client:
        client.spawn("marta", MARTA, seed=7)
        stream = client.stream("marta", "Tell me all.", pace=20)
        pieces = iter(stream)
        next(pieces)
        os.kill(client.ready["pid"], signal.SIGKILL)
        with pytest.raises(errors.ConnectionLost):
            list(pieces)
        with pytest.raises(errors.ConnectionLost):
            client.list()
        with pytest.raises(errors.ConnectionLost):
            client.reconnect()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signalled_daemon_ends_in_order(number: signal.Signals) -> None:
    with Client.start("fake", command=COMMAND) as client:
        assert client._daemon is not None
        process = client._daemon.process
        client.spawn("marta", MARTA, seed=7)
        process.send_signal(number)
        assert process.wait(30) == 0
        with pytest.raises(errors.ConnectionLost):
            client.list()


def test_the_daemon_ends_when_its_parent_is_killed() -> None:
    code = (
        "from npc_runtime import Client; import sys\n"
        f"client = Client.start('fake', command={COMMAND!r})\n"
        "print(client.ready['pid'], flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as game:
        assert game.stdout is not None
        daemon = Parent(int(game.stdout.readline()))
        assert not daemon.gone()
        game.kill()
        while not daemon.gone():
            pass


# ---- connecting


def test_a_wrong_key_is_told_as_such() -> None:
    with served() as daemon:
        for key in ("x" * 32, ""):
            with pytest.raises(errors.WrongKey, match="key"):
                Client.connect(daemon.endpoint, key)


def test_where_nobody_listens_that_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as vacant:
        port = vacant.getsockname()[1]
    with pytest.raises(errors.ConnectionLost, match="does not listen"):
        Client.connect(f"tcp://127.0.0.1:{port}", "x" * 32)
    with pytest.raises(errors.ConfigError, match="no ZeroMQ endpoint") as caught:
        Client.connect("not an endpoint", "x" * 32)
    assert "tcp://127.0.0.1:" in caught.value.hint
    assert "only named Sessions" in errors.ConnectionLost.hint


def test_what_is_no_endpoint_key_or_session_is_told_as_such() -> None:
    wrong: list[tuple[Any, ...]] = [(None, "k"), (5, "k"), ("tcp://127.0.0.1:1", b"x"), ("tcp://127.0.0.1:1", "k", 5)]
    for given in wrong:
        with pytest.raises(errors.ConfigError, match="must be text"):
            Client.connect(*given)
    for key in ("A" * 1000, "\ud800"):
        with pytest.raises(errors.WrongKey, match="no daemon's key"):
            Client.connect("tcp://127.0.0.1:1", key)


def test_another_kind_of_server_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            connection, _ = web.accept()
            with connection, suppress(ConnectionError):
                connection.recv(64)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 64)
                connection.recv(64)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(errors.ConnectionLost):
            Client.connect(f"tcp://127.0.0.1:{web.getsockname()[1]}", "x" * 32)
        thread.join()


def test_a_daemon_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(errors.ConnectionLost, match=r"within 0\.1 s"):
            Client.connect(endpoint, "x" * 32, timeout_s=0.1)


def test_too_many_clients_are_refused_with_the_typed_error() -> None:
    with served(Config(max_sessions=1)) as daemon, connect(daemon), pytest.raises(errors.Overloaded):
        connect(daemon, "other")


def test_no_thread_or_socket_is_left_behind() -> None:
    with served() as daemon:
        before = threading.active_count()
        for _ in range(3):
            connect(daemon).close()
        with pytest.raises(errors.WrongKey):
            Client.connect(daemon.endpoint, "x" * 32)
        assert threading.active_count() == before


# ---- staying and coming back


def test_a_session_is_found_again_under_its_name() -> None:
    with served() as daemon:
        with connect(daemon) as client:
            client.spawn("marta", MARTA, seed=7)
            client.say("marta", "I am Tolliver.")
        with connect(daemon) as client:
            assert client.hello["resumed"]
            assert [(npc.npc, npc.turns) for npc in client.list()] == [("marta", 1)]


def test_after_a_lost_connection_reconnect_goes_on() -> None:
    with served() as daemon, connect(daemon) as first:
        first.spawn("marta", MARTA, seed=7)
        waiting = first.stream("marta", "hello", pace=1)
        with connect(daemon) as second:
            assert second.list()[0].npc == "marta"
            with pytest.raises(errors.ConnectionLost, match="took over"):
                waiting.result(20)
            with pytest.raises(errors.ConnectionLost):
                first.list()
        first.reconnect()
        assert first.hello["resumed"]
        assert first.say("marta", "hello again").finish == "end"


def test_an_idle_client_answers_heartbeats_by_itself() -> None:
    with served(QUICK) as daemon, connect(daemon) as client, Raw(daemon) as watcher, Raw(daemon):
        while watcher.ask("stats")["clients"] == 3:  # until the silent one is gone, three heartbeats later
            pass
        assert watcher.ask("stats")["clients"] == 2
        assert client.aio.lost is None


def test_a_daemon_that_falls_silent_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    with served(QUICK) as daemon:
        monkeypatch.setattr(daemon.stage, "stats", lambda: {"waited": stuck.wait(60)})
        client = connect(daemon)
        try:
            with pytest.raises(errors.ConnectionLost, match="silent for"):
                client.stats()
        finally:
            stuck.set()
            client.close()


def test_a_message_over_the_limit_is_refused_before_it_is_sent() -> None:
    with served(Config(max_frame_bytes=2**20)) as daemon, connect(daemon) as client:
        with pytest.raises(errors.TooLarge, match="1048576 bytes"):
            client.restore("a", bytes(2**20))
        assert client.list() == ()


def test_a_long_reply_can_be_cut_where_the_player_stopped_reading() -> None:
    with served(Config(), FakeBackend(slots=256, end_bias=-60)) as daemon, connect(daemon) as client:
        client.spawn("marta", MARTA, seed=7)
        stream = client.stream("marta", "Tell me all.", pace=200)
        shown = ""
        for piece in stream:
            shown += piece.text
            if len(shown) >= 5:
                break
        assert client.cancel("marta", heard=3) == 1
        assert stream.reply.finish == "cancelled"
        assert stream.reply.text == shown[:3]
        assert not client.list()[0].busy


# ---- CURVE


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Daemon, list[tuple[str, str, str]]]]:
    """A daemon under CURVE, and the keys of two clients that it knows and one that it does not."""
    server_public, server_secret = zmq.curve_keypair()
    (tmp_path / "daemon.secret").write_bytes(server_secret)
    (tmp_path / "clients").mkdir()
    pairs = [zmq.curve_keypair() for _ in range(3)]
    for index, (public, _) in enumerate(pairs[:2]):
        (tmp_path / "clients" / f"{index}.key").write_bytes(public)
    auth = CurveAuth(tmp_path / "daemon.secret", tmp_path / "clients")
    with served(auth=auth) as daemon:
        yield daemon, [(server_public.decode(), public.decode(), secret.decode()) for public, secret in pairs]


def test_curve_lets_known_clients_in_each_to_its_own_sessions(
    guarded: tuple[Daemon, list[tuple[str, str, str]]],
) -> None:
    daemon, (one, two, stranger) = guarded
    with connect(daemon, curve=one) as first, connect(daemon, curve=two) as second:
        first.spawn("marta", MARTA, seed=7)
        assert first.say("marta", "hello").finish == "end"
        assert second.hello["session"] == first.hello["session"] == "castle"
        assert second.list() == (), "the name of a Session belongs to the key"
        assert first.list()[0].npc == "marta"
    with pytest.raises(errors.WrongKey):
        connect(daemon, curve=stranger)
