"""The golden frames and PROTOCOL.md: made from the code, and true of a running daemon, byte for byte."""

from __future__ import annotations

import json
import re
import runpy
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from served import MARTA, Raw, served

from npc_runtime import wire
from npc_runtime.auth import PlainAuth

if TYPE_CHECKING:
    from collections.abc import Iterator

BINDINGS = Path(__file__).parent.parent / "bindings"
MAKE = runpy.run_path(str(BINDINGS / "vectors" / "make.py"))
VECTORS = json.loads((BINDINGS / "vectors" / "frames.json").read_text("utf-8"))
PAGE = (BINDINGS / "PROTOCOL.md").read_text("utf-8")
ZMTP = {entry["name"]: bytes.fromhex(entry["hex"]) for entry in VECTORS["zmtp"]}


def by_name(entry: dict[str, Any]) -> str:
    return str(entry.get("name") or entry["body"].get("op") or entry["body"]["ev"])


def test_frames_are_those_that_the_script_makes() -> None:
    assert (BINDINGS / "vectors" / "frames.json").read_text("utf-8") == MAKE["frames"]()


def test_the_tables_of_the_page_are_those_that_the_script_makes() -> None:
    assert MAKE["filled"](PAGE) == PAGE
    assert all(f"| `{op}` |" in PAGE for op in wire.REQUESTS)


def test_bindings_are_no_package() -> None:
    assert not list(BINDINGS.rglob("__init__.py"))


def test_every_operation_has_a_vector() -> None:
    assert {entry["body"]["op"] for entry in VECTORS["requests"]} == set(wire.REQUESTS)


@pytest.mark.parametrize("entry", VECTORS["msgpack"], ids=by_name)
def test_msgpack_forms_mean_their_values(entry: dict[str, Any]) -> None:
    assert MAKE["shown"](msgpack.unpackb(bytes.fromhex(entry["hex"]))) == entry["value"]


@pytest.mark.parametrize("entry", VECTORS["requests"], ids=by_name)
def test_requests_read_and_write_to_the_same_bytes(entry: dict[str, Any]) -> None:
    frame = bytes.fromhex(entry["hex"])
    request = wire.decode_request(wire.decode_map(frame, len(frame)))
    assert request.op == entry["body"]["op"]
    assert wire.encode(request) == frame


@pytest.mark.parametrize("entry", VECTORS["events"], ids=by_name)
def test_events_read_and_write_to_the_same_bytes(entry: dict[str, Any]) -> None:
    frame = bytes.fromhex(entry["hex"])
    event = wire.decode_event(frame, len(frame))
    assert wire.encode(event) == frame
    if event.ev == "done":
        assert wire.reply_fields(wire.decode_reply(event.fields)) == event.fields


@pytest.mark.parametrize("entry", VECTORS["invalid"], ids=by_name)
def test_a_daemon_answers_invalid_frames_as_told(entry: dict[str, Any]) -> None:
    with served() as daemon, Raw(daemon) as raw:
        raw.spawn()
        raw.frames(bytes.fromhex(entry["hex"]))
        event = raw.event()
        assert (event["ev"], event["code"], event["id"]) == ("error", entry["code"], entry["id"])


def test_the_examples_hex_is_what_their_json_says() -> None:
    examples = re.findall(r"[<>] (\{.*\})\n      ((?:[0-9a-f]{2} ?)+)\n", PAGE)
    assert len(examples) >= 3
    for text, code in examples:
        assert msgpack.unpackb(bytes.fromhex(code)) == json.loads(text)


class Bare:
    """A client of nothing but a TCP socket."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("tcp://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)

    def exactly(self, expected: bytes) -> None:
        assert self.read(len(expected)) == expected

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part, f"the daemon closed the connection after {data!r}"
            data += part
        return data

    def frame(self) -> tuple[int, bytes]:
        flags = self.read(1)[0]
        size = int.from_bytes(self.read(8 if flags & 2 else 1), "big")
        return flags, self.read(size)

    def shake(self) -> None:
        for name in ("greeting, client", "greeting, daemon", "HELLO", "WELCOME", "INITIATE", "READY"):
            if name.endswith("daemon") or name in ("WELCOME", "READY"):
                self.exactly(ZMTP[name])
            else:
                self.socket.sendall(ZMTP[name])


@pytest.fixture
def bare() -> Iterator[Bare]:
    with served(auth=PlainAuth(VECTORS["key"])) as daemon:
        client = Bare(daemon.endpoint)
        yield client
        client.socket.close()


def test_the_handshake_and_a_talk_by_the_vectors_bytes(bare: Bare) -> None:
    bare.shake()
    bare.socket.sendall(ZMTP["message, short frame"])
    flags, body = bare.frame()
    assert flags == 2, "the answer to hello is longer than 255 bytes"
    assert msgpack.unpackb(body)["ev"] == "ok"
    bare.socket.sendall(MAKE["frame"](msgpack.packb({"id": 2, "op": "spawn", "npc": "marta", "persona": MARTA})))
    assert msgpack.unpackb(bare.frame()[1])["opening"] == {"text": "Come in!", "mood": "neutral"}
    bare.socket.sendall(ZMTP["PING"])
    assert bare.frame() == (4, ZMTP["PONG"][2:])
    bare.socket.sendall(ZMTP["PING with a context"])
    assert bare.frame() == (4, ZMTP["PONG with that context"][2:])


def test_a_wrong_key_is_refused_by_the_vectors_bytes(bare: Bare) -> None:
    bare.socket.sendall(ZMTP["greeting, client"])
    bare.exactly(ZMTP["greeting, daemon"])
    bare.socket.sendall(ZMTP["HELLO"].replace(b"0123", b"3210"))
    flags, body = bare.frame()
    assert flags == 4
    refusals = (ZMTP["ERROR, wrong key"][2:], ZMTP["ERROR as libzmq 4.3 misspells it"][2:])
    assert body in refusals
