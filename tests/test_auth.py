from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import zmq
from zmq.utils import z85

from npc_runtime.auth import CurveAuth, PlainAuth, choose_auth, is_loopback
from npc_runtime.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def question(mechanism: bytes, *credentials: bytes, domain: bytes = b"npc", version: bytes = b"1.0") -> list[bytes]:
    return [version, b"7", domain, b"127.0.0.1", b"", mechanism, *credentials]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with a daemon's secret key and a folder of one client's public key."""
    _, secret = zmq.curve_keypair()
    (tmp_path / "daemon.secret").write_bytes(secret)
    (tmp_path / "clients").mkdir()
    public, _ = zmq.curve_keypair()
    (tmp_path / "clients" / "game.key").write_bytes(public + b"\n")
    return tmp_path


def test_each_launch_has_a_fresh_key() -> None:
    assert PlainAuth().key != PlainAuth().key
    assert len(PlainAuth().key) >= 32


def test_the_key_opens_and_nothing_else_does() -> None:
    auth = PlainAuth("k" * 32)
    assert auth.answer(question(b"PLAIN", b"npc", b"k" * 32)) == [b"1.0", b"7", b"200", b"OK", b"npc", b""]
    for wrong in (
        question(b"PLAIN", b"npc", b"k" * 31),
        question(b"PLAIN", b"npc", b""),
        question(b"PLAIN", b"npc", "ü".encode() * 16),
        question(b"PLAIN", b"root", b"k" * 32),
        question(b"PLAIN", b"npc"),
        question(b"PLAIN"),
        question(b"NULL"),
        question(b"CURVE", b"k" * 32),
        question(b"PLAIN", b"npc", b"k" * 32, domain=b"other"),
    ):
        assert auth.answer(wrong)[2] == b"400"
    for nonsense in ([], [b"1.0"], question(b"PLAIN", b"npc", b"k" * 32, version=b"2.0")):
        assert auth.answer(nonsense)[2] == b"500"


@pytest.mark.parametrize("key", ["short", "x" * 256, "ü" * 20, "tab\t" * 8])
def test_a_poor_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="16 to 255 printable ASCII"):
        PlainAuth(key)


def test_curve_knows_its_clients(keys: Path) -> None:
    auth = CurveAuth(keys / "daemon.secret", keys / "clients")
    known = (keys / "clients" / "game.key").read_bytes().strip()
    stranger, _ = zmq.curve_keypair()
    assert auth.answer(question(b"CURVE", z85.decode(known)))[2:5] == [b"200", b"OK", known]
    assert auth.answer(question(b"CURVE", z85.decode(stranger)))[2] == b"400"
    assert auth.answer(question(b"CURVE", b"short"))[2] == b"400"
    assert auth.answer(question(b"PLAIN", b"npc", b"x" * 32))[2] == b"400"
    assert auth.server_key == zmq.curve_public((keys / "daemon.secret").read_bytes()).decode()


def test_certificates_of_pyzmq_are_read(keys: Path) -> None:
    from zmq.auth import create_certificates

    create_certificates(keys, "daemon")
    create_certificates(keys / "clients", "other")
    auth = CurveAuth(keys / "daemon.key_secret", keys / "clients")
    text = (keys / "clients" / "other.key").read_text()
    assert auth.user([z85.decode(text.split('"')[1].encode())])


@pytest.mark.parametrize(
    ("secret", "clients", "word"),
    [
        ("nowhere", "clients", "cannot be read"),
        ("daemon.secret", "nowhere", "folder"),
        ("daemon.secret", "empty", "nobody could connect"),
        ("text", "clients", "40 z85 characters"),
        ("daemon.secret", "spoilt", "40 z85 characters"),
    ],
)
def test_bad_key_files_stop_the_start(keys: Path, secret: str, clients: str, word: str) -> None:
    (keys / "empty").mkdir()
    (keys / "spoilt").mkdir()
    (keys / "spoilt" / "a.key").write_text("no key at all")
    (keys / "text").write_bytes(b"\xff" * 40)
    with pytest.raises(ConfigError, match=word if secret != "text" else "cannot be read"):
        CurveAuth(keys / secret, keys / clients)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False)],
)
def test_only_loopback_needs_no_curve(host: str, local: bool, keys: Path) -> None:
    assert is_loopback(host) is local
    assert isinstance(choose_auth(host, None, keys / "daemon.secret", keys / "clients"), CurveAuth)
    if local:
        assert isinstance(choose_auth(host, None, None, None), PlainAuth)
        return
    with pytest.raises(ConfigError, match="demands CURVE") as caught:
        choose_auth(host, "k" * 32, None, None)
    assert "client keys" in caught.value.hint


def test_half_of_curve_is_an_error(keys: Path) -> None:
    with pytest.raises(ConfigError, match="both"):
        choose_auth("127.0.0.1", None, keys / "daemon.secret", None)
