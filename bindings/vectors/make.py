"""Writes frames.json and the tables of PROTOCOL.md from the code: python bindings/vectors/make.py.

Neither can drift: tests/test_vectors.py fails when a file differs from what this script makes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import msgpack

from npc_runtime import errors, wire

HERE = Path(__file__).parent
FRAMES = HERE / "frames.json"
PROTOCOL = HERE.parent / "PROTOCOL.md"
KEY = "0123456789abcdefghijklmnopqrstuv"


# ---- ZMTP


def greeting(minor: int, padding: bytes = bytes(8)) -> bytes:
    """64 bytes: signature around 8 bytes that mean nothing, version, mechanism, filler."""
    return b"\xff" + padding + b"\x7f" + bytes([3, minor]) + b"PLAIN".ljust(20, b"\0") + bytes(32)


def frame(body: bytes, command: bool = False) -> bytes:
    """A last frame, short or long as its size demands."""
    flags = 4 if command else 0
    if len(body) > 255:
        return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body
    return bytes([flags, len(body)]) + body


def command(name: bytes, data: bytes = b"") -> bytes:
    """A command frame: the name behind its length, then data."""
    return frame(bytes([len(name)]) + name + data, command=True)


def metadata(**properties: bytes) -> bytes:
    """Properties: name behind one length byte, value behind four."""
    parts = ((name.replace("_", "-").encode(), value) for name, value in properties.items())
    return b"".join(bytes([len(n)]) + n + struct.pack(">I", len(v)) + v for n, v in parts)


def zmtp() -> list[dict[str, str]]:
    """The bytes of a PLAIN handshake and of everything that may follow, in order."""
    user, key = b"npc", KEY.encode()
    credentials = bytes([len(user)]) + user + bytes([len(key)]) + key
    hello = wire.encode(wire.Hello(id=1, protocol=[wire.PROTOCOL], client="example"))
    long_line = wire.encode(wire.Say(id=2, npc="marta", text="x" * 300))
    return [
        {"name": "greeting, client", "from": "client", "hex": greeting(0).hex()},
        {"name": "greeting, client that knows PING", "from": "client", "hex": greeting(1).hex()},
        {"name": "greeting, daemon", "from": "daemon", "hex": greeting(1, bytes(7) + b"\1").hex()},
        {"name": "HELLO", "from": "client", "hex": command(b"HELLO", credentials).hex()},
        {"name": "WELCOME", "from": "daemon", "hex": command(b"WELCOME").hex()},
        {"name": "INITIATE", "from": "client", "hex": command(b"INITIATE", metadata(Socket_Type=b"DEALER")).hex()},
        {
            "name": "READY",
            "from": "daemon",
            "hex": command(b"READY", metadata(Socket_Type=b"ROUTER", Identity=b"")).hex(),
        },
        {"name": "ERROR, wrong key", "from": "daemon", "hex": command(b"ERROR", b"\x03400").hex()},
        {"name": "ERROR as libzmq 4.3 misspells it", "from": "daemon", "hex": frame(b"^RROR\x03400", True).hex()},
        {"name": "message, short frame", "from": "client", "hex": frame(hello).hex()},
        {"name": "message, long frame", "from": "client", "hex": frame(long_line).hex()},
        {"name": "PING", "from": "daemon", "hex": command(b"PING", b"\0\0").hex()},
        {"name": "PONG", "from": "client", "hex": command(b"PONG").hex()},
        {"name": "PING with a context", "from": "daemon", "hex": command(b"PING", b"\x01\xc2abcd").hex()},
        {"name": "PONG with that context", "from": "client", "hex": command(b"PONG", b"abcd").hex()},
    ]


# ---- msgpack


def values() -> list[dict[str, Any]]:
    """Every msgpack form that a client must read. The form is the shortest, except where the name says otherwise."""
    texts = {
        "fixstr": "marta",
        "empty": "",
        "two, three and four bytes": "é € 𝄞",
        "str 8": "x" * 32,
        "str 16": "y" * 256,
    }
    integers = (
        0,
        127,
        128,
        255,
        256,
        65535,
        65536,
        2**32 - 1,
        2**32,
        wire.MAX_ID,
        -1,
        -32,
        -33,
        -128,
        -129,
        -32769,
        -(2**31) - 1,
    )
    plain = [("nil", None), ("false", False), ("true", True), *((f"integer {n}", n) for n in integers)]
    plain += [(f"float 64 {n}", n) for n in (0.0, 0.5, -1.25, 1e300)] + [(f"text, {k}", v) for k, v in texts.items()]
    plain += [("array, empty", []), ("array", [1, "a", None, [True]]), ("array 16", list(range(16)))]
    plain += [("map, empty", {}), ("map", {"a": {"b": [1]}}), ("map 16", {f"key {n:02}": n for n in range(16)})]
    packed = [{"name": name, "hex": msgpack.packb(value).hex(), "value": value} for name, value in plain]
    packed += [
        {"name": f"bin, {n} bytes", "hex": msgpack.packb(bytes(range(n % 251)) + bytes(n - n % 251)).hex(),
         "value": {"$bin": (bytes(range(n % 251)) + bytes(n - n % 251)).hex()}}
        for n in (0, 3, 256)
    ]  # fmt: skip
    odd = [
        ("float 32", "ca3fa00000", 1.25),
        ("integer in a wider form", "cd0005", 5),
        ("integer as int 64", "d30000000000000005", 5),
        ("text in a wider form", "d90161", "a"),
        ("text as str 32", "db0000000161", "a"),
        ("array 32", "dd0000000101", [1]),
        ("map 32", "df00000001a16101", {"a": 1}),
        ("bin 32", "c60000000107", {"$bin": "07"}),
    ]
    return packed + [{"name": name, "hex": code, "value": value} for name, code, value in odd]


# ---- messages


def requests() -> list[wire.Request]:
    """Every operation, with and without its optional fields."""
    table = {"name": "Marta", "role": "innkeeper", "moods": ["neutral", "happy"], "knows": ["the road north is shut"]}
    return [
        wire.Hello(id=1, protocol=[1], client="example 0.1", session="castle"),
        wire.Hello(id=1, protocol=[1]),
        wire.Ping(id=2),
        wire.Spawn(id=3, npc="marta", persona="innkeeper"),
        wire.Spawn(id=4, npc="marta", persona=table, seed=wire.MAX_ID, replace=True),
        wire.Say(id=5, npc="marta", text="Good evening! Ein Bier, bitte: é € 𝄞"),
        wire.Say(
            id=6, npc="marta", text="A dragon lands on the roof.", kind="event", moods=["afraid"], actions=[],
            lane="background", deadline_ms=1500, pace=0.0, stream=False, seed=7, temperature=0.0, top_p=0.5,
            repetition=0.25, max_tokens=32,
        ),
        wire.Observe(id=7, npcs=["marta", "tom"], text="The bells ring."),
        wire.Choose(id=8, npc="marta", lines=["Yes.", "No."], text="Is there a room?", moods=["happy", "sad"]),
        wire.Cancel(id=9, npc="marta"),
        wire.Cancel(id=10, npc="marta", heard=12),
        wire.Snapshot(id=11, npc="marta"),
        wire.Restore(id=12, npc="marta", data=bytes(range(8)), replace=True, rebuild=True),
        wire.Fork(id=13, npc="marta", to="marta's dream"),
        wire.Rewind(id=14, npc="marta", turns=2),
        wire.Save(id=15, path="/saves/one.npcsave"),
        wire.Load(id=16, path="/saves/one.npcsave", npcs=["marta"], replace=True),
        wire.Drop(id=17, npc="marta"),
        wire.List(id=18),
        wire.Stats(id=19),
        wire.Bye(id=20, keep=False),
        wire.Shutdown(id=wire.MAX_ID),
    ]  # fmt: skip


def events() -> list[wire.Event]:
    """Answers of every kind."""
    info = {"npc": "marta", "name": "Marta", "turns": 3, "tokens": 240, "rewind": 3, "seed": 7, "busy": False}
    reply = wire.Reply(
        npc="marta", mood="happy", action="give", text="Here you are.", finish="end", turn=3, seed=7,
        tokens={"read": 9, "spoken": 8, "reread": 0}, ms={"queued": 0.25, "first": 12.5, "total": 80.0},
    )  # fmt: skip
    spawned = {
        "npc": "marta", "name": "Marta", "role": "innkeeper", "seed": 7, "cached": True,
        "opening": {"text": "Come in!", "mood": "happy"}, "tokens": {"read": 0},
    }  # fmt: skip
    chosen = {"npc": "marta", "index": 1, "text": "No.", "mood": "sad", "scores": [-2.5, -1.25]}
    return [
        wire.Event(2, "ok"),
        wire.Event(3, "ok", spawned),
        wire.Event(5, "mood", {"mood": "happy"}),
        wire.Event(5, "act", {"action": "give"}),
        wire.Event(5, "delta", {"text": "Here you "}),
        wire.Event(5, "delta", {"text": "are. é € 𝄞"}),
        wire.Event(5, "done", wire.reply_fields(reply)),
        wire.Event(6, "done", {**wire.reply_fields(reply), "action": None, "finish": "cancelled", "text": ""}),
        wire.Event(7, "ok", {"npcs": ["marta"], "failed": {"tom": "budget_exceeded"}, "tokens": {"read": 6}}),
        wire.Event(8, "ok", chosen),
        wire.Event(9, "ok", {"npc": "marta", "cancelled": 2}),
        wire.Event(11, "ok", {**info, "data": bytes(range(8))}),
        wire.Event(18, "ok", {"npcs": [info]}),
        wire.error_event(21, errors.UnknownNpc("no Npc lives under `nobody`")),
        wire.error_event(22, errors.QueueFull("256 Turns wait already")),
        wire.Event(0, "ping"),
        wire.Event(0, "bye", {"reason": "shutting_down", "grace_ms": 5000}),
        wire.Event(0, "bye", {"reason": "taken_over"}),
        wire.Event(23, "ok", {"a field of a later version": 1}),
    ]


def invalid() -> list[dict[str, Any]]:
    """Frames that a daemon refuses, as first message after `hello`: the answer's code and id."""
    say = {"id": 9, "op": "say", "npc": "marta"}
    cases: list[tuple[str, bytes, str, int]] = [
        ("no bytes", b"", "bad_frame", 0),
        ("not msgpack", b"\xc1", "bad_frame", 0),
        ("truncated", msgpack.packb({"id": 9, "op": "list"})[:-1], "bad_frame", 0),
        ("bytes after the map", msgpack.packb({"id": 9, "op": "list"}) + b"\0", "bad_frame", 0),
        ("not a map", msgpack.packb([9, "list"]), "bad_frame", 0),
        ("a key that is not text", msgpack.packb({"id": 9, 5: 1}), "bad_frame", 9),
        ("text that is not UTF-8", b"\x84" + msgpack.packb(say)[1:] + b"\xa4text\xa2\xff\xfe", "bad_frame", 9),
        ("no id", msgpack.packb({"op": "list"}), "bad_input", 0),
        ("negative id", msgpack.packb({"id": -1, "op": "list"}), "bad_input", 0),
        ("id over 2^53 - 1", msgpack.packb({"id": 2**53, "op": "list"}), "bad_input", 0),
        ("id that is not an integer", msgpack.packb({"id": 9.0, "op": "list"}), "bad_input", 0),
        ("no op", msgpack.packb({"id": 9}), "unknown_op", 9),
        ("unknown op", msgpack.packb({"id": 9, "op": "dance"}), "unknown_op", 9),
        ("missing field", msgpack.packb(say), "bad_input", 9),
        ("wrong type", msgpack.packb({**say, "text": 5}), "bad_input", 9),
        ("binary where text is asked", msgpack.packb({**say, "text": b"hello"}), "bad_input", 9),
        ("not a number", msgpack.packb({**say, "text": "hello", "temperature": float("nan")}), "bad_input", 9),
        ("mixed list", msgpack.packb({**say, "text": "hello", "moods": ["happy", 1]}), "bad_input", 9),
        ("empty line", msgpack.packb({**say, "text": " "}), "bad_input", 9),
        ("line too long", msgpack.packb({**say, "text": "x" * 4097}), "too_large", 9),
        ("unknown lane", msgpack.packb({**say, "text": "hello", "lane": "fast"}), "bad_input", 9),
        ("unknown Npc", msgpack.packb({**say, "npc": "nobody", "text": "hello"}), "unknown_npc", 9),
    ]
    return [{"name": name, "hex": code.hex(), "code": error, "id": id} for name, code, error, id in cases]


def shown(value: Any) -> Any:
    """A value as JSON: binary data becomes {"$bin": hex}."""
    if isinstance(value, bytes):
        return {"$bin": value.hex()}
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list | tuple) else value


def message(item: wire.Request | wire.Event) -> dict[str, Any]:
    """A message as frames.json holds it."""
    code = wire.encode(item)
    return {"hex": code.hex(), "body": shown(msgpack.unpackb(code))}


def frames() -> str:
    """The text of frames.json."""
    groups = {
        "zmtp": zmtp(),
        "msgpack": values(),
        "requests": [message(item) for item in requests()],
        "events": [message(item) for item in events()],
        "invalid": invalid(),
    }
    lines = [f'"protocol": {wire.PROTOCOL}', f'"key": "{KEY}"']
    for name, group in groups.items():
        entries = ",\n    ".join(json.dumps(entry, ensure_ascii=False) for entry in group)
        lines.append(f'"{name}": [\n    {entries}\n  ]')
    return "{\n  " + ",\n  ".join(lines) + "\n}\n"


# ---- tables of PROTOCOL.md

_TYPES = {
    "int": "integer", "float": "number", "str": "text", "bool": "boolean", "bytes": "binary",
    "list[str]": "texts", "list[int]": "integers", "str | dict[str, Any]": "text or map",
}  # fmt: skip


def operations() -> str:
    """A table of requests: fields with types; what may be left out stands with its default."""
    rows = ["| op | fields | what it asks |", "| --- | --- | --- |"]
    for op, cls in wire.REQUESTS.items():
        told = ", ".join(_field(cls, item.name, item.default) for item in fields(cls) if item.name != "id")
        doc = " ".join((cls.__doc__ or "").split()).replace("None", "null")
        rows.append(f"| `{op}` | {told or 'none'} | {doc} |")
    return "\n".join(rows)


def _field(cls: type[wire.Request], name: str, default: Any) -> str:
    hint = get_type_hints(cls)[name]
    written = str(hint) if not isinstance(hint, type) or "[" in str(hint) else hint.__name__
    written = written.replace("typing.", "").replace(" | None", "")
    kind = f"`{name}` {_TYPES[written]}"
    return kind if default is MISSING else f"{kind} = {json.dumps(default)}"


def codes() -> str:
    """A table of error codes."""
    rows = ["| code | retry | when | what to do |", "| --- | --- | --- | --- |"]
    for code, cls in sorted(errors.BY_CODE.items()):
        when = " ".join((cls.__doc__ or "").split())
        rows.append(f"| `{code}` | {'yes' if cls.retry else 'no'} | {when} | {cls.hint} |")
    return "\n".join(rows)


def filled(page: str) -> str:
    """PROTOCOL.md with its generated tables renewed."""
    for name, table in (("operations", operations()), ("errors", codes())):
        start, end = f"<!-- {name}: made by vectors/make.py -->\n", f"\n<!-- end of {name} -->"
        before, rest = page.split(start)
        _, after = rest.split(end)
        page = before + start + table + end + after
    return page


if __name__ == "__main__":
    FRAMES.write_text(frames(), "utf-8")
    PROTOCOL.write_text(filled(PROTOCOL.read_text("utf-8")), "utf-8")
