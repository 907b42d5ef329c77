"""ZMTP by hand: a TCP connection that speaks as much of the protocol as an attacker wants, and no more."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgpack

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND, LONG, MORE = 4, 2, 1
"""Flags of a frame (rfc.zeromq.org/spec/23)."""
TIMEOUT_S = 5.0


def greeting(mechanism: bytes = b"PLAIN", version: tuple[int, int] = (3, 1)) -> bytes:
    """The 64 bytes that open a connection."""
    return b"\xff" + bytes(8) + b"\x7f" + bytes(version) + mechanism.ljust(20, b"\0") + bytes(32)


def frame(body: bytes, flags: int = 0) -> bytes:
    if len(body) > 255:
        return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body
    return bytes([flags, len(body)]) + body


def command(name: bytes, body: bytes = b"") -> bytes:
    return frame(bytes([len(name)]) + name + body, COMMAND)


def hello(key: str, user: bytes = b"npc") -> bytes:
    password = key.encode()
    return command(b"HELLO", bytes([len(user)]) + user + bytes([len(password)]) + password)


def initiate(kind: bytes = b"DEALER") -> bytes:
    return command(b"INITIATE", b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind)


def request(id: int, op: str, **fields: Any) -> bytes:
    packed: bytes = msgpack.packb({"id": id, "op": op, **fields})
    return frame(packed)


class Wire:
    """One TCP connection to a daemon. `join` makes it a client in good standing; what comes then is its own affair."""

    def __init__(self, ready: Mapping[str, Any], window: int = 0) -> None:
        place = urlsplit(ready["endpoint"])
        self.key = str(ready["key"])
        self.socket = socket.socket()
        if window:  # before connecting: it bounds what the daemon's side may send unread
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect((place.hostname, place.port))

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = self.socket.recv(count - len(found))
            if not piece:
                raise ConnectionError("closed")
            found += piece
        return found

    def read_frame(self) -> tuple[int, bytes]:
        flags = self.read(1)[0]
        size = struct.unpack(">Q", self.read(8))[0] if flags & LONG else self.read(1)[0]
        return flags, self.read(size)

    def enter(self) -> None:
        """The handshake, with the right key."""
        self.send(greeting())
        self.read(64)
        self.send(hello(self.key))
        self.read_frame()
        self.send(initiate())
        self.read_frame()

    def join(self, session: str = "") -> dict[str, Any]:
        """The handshake and `hello`; the daemon's answer."""
        self.enter()
        self.send(request(1, "hello", protocol=[1], session=session))
        answer: dict[str, Any] = self.answer()
        return answer

    def answer(self) -> dict[str, Any]:
        while True:
            flags, body = self.read_frame()
            if not flags & COMMAND:
                event: dict[str, Any] = msgpack.unpackb(body)
                return event

    def abort(self) -> None:
        """Ends the connection with a reset, as a crash does."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
