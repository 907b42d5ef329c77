"""Attacks on a listening daemon: each a function of its ready line and the time it may take; how much it sent."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hostile import zmtp
from hostile.zmtp import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CROWD = 1000
_BROKEN = (
    b"", b"\xff", bytes(64), b"\xff" * 64, zmtp.greeting()[:63], zmtp.greeting(b"NULL"), zmtp.greeting(b"CURVE"),
    zmtp.greeting(b"\xff" * 20), zmtp.greeting(version=(0, 0)), zmtp.greeting(version=(255, 255)),
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
    b"\x01\x00", b"\xff" + b"\x00" * 7 + b"\x01\x7f\x01\x05" + bytes(60),
)  # fmt: skip
_AFTER_GREETING = (
    zmtp.command(b"READY"), zmtp.command(b"INITIATE"), zmtp.command(b"HELLO"), zmtp.command(b"HELLO", b"\xff\xff"),
    zmtp.command(b"HELLO", b"\x03npc\xffshort"), zmtp.command(b"ERROR", b"\x05nope!"), zmtp.command(b"\xff" * 200),
    zmtp.command(b"PING", b"\xff\xff" + b"x" * 200), zmtp.frame(b"no command"), b"\x06" + b"\xff" * 8,
    b"\x02" + (2**40).to_bytes(8, "big"), b"\xff\xff" + bytes(100), zmtp.hello("not the key at all")
)  # fmt: skip
_DEEP = b"\x91" * 100_000
_BOMBS = (
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", _DEEP,
    b"\x81\xa2id" + _DEEP, b"\x81" * 1000, b"\xdd\x00\x0f\xff\xff" + b"\x90" * 0xFFFFF, b"\xc9\xff\xff\xff\xff\x01",
    b"\xdf\x00\x05\x00\x00" + b"\xa1a\xc0" * 0x50000, b"\x81\xa2op\xdb\x00\x0f\x00\x00" + b"x" * 0xF0000, b"\xc1" * 64,
    b"\x82\xa2id\x01\xa2op\xa4list" + b"\xa1" * 9, b"\x83\xa2id\x05\xa2op\xa4drop\xa3npc" + b"\x91" * 1020 + b"\x90",
)  # fmt: skip


def _until(seconds: float) -> Iterator[int]:
    """Counts until the time is over."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield count
        count += 1


def greetings(ready: Mapping[str, Any], seconds: float) -> int:
    """Broken greetings and handshakes, one connection each."""
    rng, sent = random.Random(1), 0
    for sent in _until(seconds):
        with suppress(OSError), Wire(ready) as wire:
            wire.socket.settimeout(0.2)
            if sent % 3 == 0:
                wire.send(rng.choice(_BROKEN), rng.randbytes(rng.choice((0, 1, 64, 1000))))
            else:
                wire.send(zmtp.greeting(), rng.choice(_AFTER_GREETING), rng.randbytes(rng.choice((0, 1, 30))))
            if sent % 5 == 0:
                wire.socket.recv(64)
    return sent


def wrong_keys(ready: Mapping[str, Any], seconds: float) -> int:
    """Strangers who try keys."""
    sent = 0
    for sent in _until(seconds):
        with suppress(OSError), Wire(ready) as wire:
            wire.send(zmtp.greeting())
            wire.read(64)
            wire.send(zmtp.hello(f"{sent:032d}"))
            wire.read_frame()
    return sent


def slow_loris(ready: Mapping[str, Any], seconds: float) -> int:
    """A crowd that says the greeting and the handshake a byte now and then."""
    said = zmtp.greeting() + zmtp.hello(str(ready["key"])) + zmtp.initiate()
    crowd = []
    for _ in range(CROWD):
        with suppress(OSError):
            crowd.append(Wire(ready))
    sent = 0
    for count in _until(seconds):
        for wire in crowd:
            with suppress(OSError):
                wire.send(said[count : count + 1])
                sent += 1
        time.sleep(0.5)
    for wire in crowd:
        wire.abort()
    return sent


def flood(ready: Mapping[str, Any], seconds: float) -> int:
    """Clients with the key who send what every limit refuses, or what costs nothing, as fast as they can."""
    asks = b"".join((
        *(zmtp.request(1000 + n, op) for n in range(100) for op in ("list", "stats", "ping", "dance")),
        *(zmtp.request(2000 + n, "say", npc="nobody", text="hello") for n in range(100)),
        zmtp.request(9000, "say", npc="a", text="x" * 100_000),
        zmtp.request(9001, "choose", npc="a", lines=["x"] * 1000),
        zmtp.request(9002, "observe", npcs=[f"n{n}" for n in range(5000)], text="rain"),
        zmtp.request(9003, "spawn", npc="x" * 5000, persona={"name": "x" * 5000, "role": "y"}),
        zmtp.request(9004, "spawn", npc="y", persona="z" * 50_000),
    ))  # fmt: skip
    return _repeated(ready, seconds, b"", asks) * 505


def greedy(ready: Mapping[str, Any], seconds: float) -> int:
    """Not beyond the limits but up to them: a client with the key who has 256 long Turns waiting all the time."""
    spawn = zmtp.request(2, "spawn", npc="a", persona={"name": "Ann", "role": "guard"}, seed=1)
    says = (zmtp.request(100 + n, "say", npc="a", text="hello " * 300, lane="background") for n in range(256))
    return _repeated(ready, seconds, spawn, b"".join(says)) * 256


def _repeated(ready: Mapping[str, Any], seconds: float, first: bytes, then: bytes) -> int:
    """Sends `then` over and over, reading what comes; a new connection when one is cut off."""
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), Wire(ready) as wire:
            wire.join()
            wire.send(first)
            while time.monotonic() < end:
                wire.socket.settimeout(1.0)
                wire.send(then)
                sent += 1
                wire.socket.settimeout(0.02)
                with suppress(TimeoutError):
                    while wire.socket.recv(1 << 20):
                        pass
    return sent


def never_read(ready: Mapping[str, Any], seconds: float) -> int:
    """Clients who ask and ask and never read an answer."""
    asks = b"".join(zmtp.request(10 + n, "stats") for n in range(200))
    crowd, sent = [], 0
    for _ in range(16):
        with suppress(OSError):
            wire = Wire(ready, window=4096)
            wire.join()
            wire.socket.settimeout(0.05)
            crowd.append(wire)
    for _ in _until(seconds):
        for wire in crowd:
            with suppress(OSError):
                wire.send(asks)
                sent += 200
    for wire in crowd:
        wire.abort()
    return sent


def hoard(ready: Mapping[str, Any], seconds: float) -> int:
    """Clients who ask for the largest answers there are, hundreds of snapshots, and never read one."""
    spawn = zmtp.request(2, "spawn", npc="a", persona={"name": "Ann", "role": "guard"}, seed=1)
    asks = b"".join(zmtp.request(10 + n, "snapshot", npc="a") for n in range(400))
    crowd, sent = [], 0
    for _ in range(8):
        with suppress(OSError):
            wire = Wire(ready, window=4096)
            wire.join()
            wire.send(spawn)
            wire.answer()
            wire.socket.settimeout(0.05)
            crowd.append(wire)
    for _ in _until(seconds):
        for wire in crowd:
            with suppress(OSError):
                wire.send(asks)
                sent += 400
        time.sleep(0.2)
    for wire in crowd:
        wire.abort()
    return sent


def vanish(ready: Mapping[str, Any], seconds: float) -> int:
    """Clients who send more than the daemon can have read, and are gone: libzmq's heartbeats aborted over it."""
    return _vanish(ready, seconds, b"".join(zmtp.request(10 + n, "ping") for n in range(20_000)))


def vanish_pinging(ready: Mapping[str, Any], seconds: float) -> int:
    """The same with ZMTP's own PING among what is never read: libzmq 4.3.5 aborts the process (its issue 4841)."""
    return _vanish(ready, seconds, (zmtp.request(5, "ping") * 2 + zmtp.command(b"PING", b"\0\1abcd")) * 6000)


def _vanish(ready: Mapping[str, Any], seconds: float, said: bytes) -> int:
    sent = 0
    for sent in _until(seconds):  # noqa: B007  # it counts
        with suppress(OSError):
            wire = Wire(ready)
            wire.join()
            wire.socket.settimeout(0.5)
            wire.send(said)
            wire.abort()
    return sent * 20_000


def come_and_go(ready: Mapping[str, Any], seconds: float) -> int:
    """A thousand connections and more: some only touch, some enter, some say hello, all leave without a word."""
    sent = 0
    while sent < CROWD or seconds > 0:
        begun = time.monotonic()
        with suppress(OSError):
            wire = Wire(ready)
            if sent % 4 >= 2:
                wire.enter()
            if sent % 4 == 3:
                wire.send(zmtp.request(1, "hello", protocol=[1], session=f"s{sent % 7}"))
            wire.abort() if sent % 2 else wire.close()
        sent += 1
        seconds -= time.monotonic() - begun
    return sent


def bombs(ready: Mapping[str, Any], seconds: float) -> int:
    """Frames of a few bytes that say they are much, deep, or both; as a stranger to the Session and as a client."""
    sent = 0
    for sent in _until(seconds):
        with suppress(OSError), Wire(ready) as wire:
            wire.join() if sent % 2 else wire.enter()
            wire.send(zmtp.frame(_BOMBS[sent // 2 % len(_BOMBS)]))
            wire.answer()
    return sent


def huge_frames(ready: Mapping[str, Any], seconds: float) -> int:
    """Frames of as many bytes as are allowed, one too many, and claims of a terabyte."""
    body = b"\x84\xa2id\x05\xa2op\xa7restore\xa3npc\xa1a\xa4data\xc6" + (60 * 2**20).to_bytes(4, "big")
    claims = (2**40, 2**63, 2**64 - 1, 66 * 2**20, 64 * 2**20)
    block = bytes(2**20)
    sent = 0
    for sent in _until(seconds):
        with suppress(OSError), Wire(ready) as wire:
            wire.join()
            if sent % 2:
                wire.send(b"\x02" + claims[sent // 2 % len(claims)].to_bytes(8, "big"), block)
                wire.socket.recv(1)
                continue
            wire.send(b"\x02" + (len(body) + 60 * 2**20).to_bytes(8, "big"), body)
            for _ in range(60):
                wire.send(block)
            wire.answer()
    return sent


def garbled(ready: Mapping[str, Any], seconds: float) -> int:
    """Clients with the key whose frames and commands are noise: any flags, any names, any lengths."""
    names = (*b"READY ERROR PONG SUBSCRIBE CANCEL JOIN LEAVE HELLO INITIATE MESSAGE".split(), b"")
    rng, sent = random.Random(3), 0
    for sent in _until(seconds):
        with suppress(OSError), Wire(ready) as wire:
            wire.enter() if sent % 2 else wire.join()
            noise = rng.randbytes(rng.choice((0, 1, 2, 17, 255, 300, 9000)))
            kinds = (
                zmtp.command(rng.choice(names), noise), zmtp.frame(noise, rng.randrange(8)), noise,
                bytes([rng.randrange(256)]) + noise, zmtp.frame(b"", zmtp.MORE),
                zmtp.frame(b"", zmtp.COMMAND | zmtp.MORE),
            )  # fmt: skip
            wire.send(*rng.choices(kinds, k=rng.choice((1, 3, 30))))
            wire.abort() if rng.random() < 0.5 else wire.close()
    return sent


def endless_parts(ready: Mapping[str, Any], seconds: float) -> int:
    """A message whose last part never comes: libzmq keeps the others until it does, or the connection ends."""
    parts = zmtp.frame(b"x" * 200, zmtp.MORE) * 64
    sent = 0
    with suppress(OSError), Wire(ready) as wire:
        wire.join()
        for sent in _until(min(seconds, 1.0)):  # noqa: B007  # it counts
            wire.send(parts)
    return sent * 64


def replays(ready: Mapping[str, Any], seconds: float) -> int:
    """What another client said, said again: its handshake, its ids, its Npcs, its answers to pings."""
    script = [
        zmtp.request(1, "hello", protocol=[1], session="game"),
        zmtp.request(1, "hello", protocol=[1]),
        *(zmtp.request(id, "say", npc="marta", text="hello") for id in (0, 2, 2, 2**53 - 1, 2**53, -1)),
        *(zmtp.request(7, op, npc="marta") for op in ("cancel", "drop", "rewind", "snapshot")),
        zmtp.request(8, "fork", npc="marta", to="../marta"),
        zmtp.request(9, "save", path="/nowhere/at/all/x.npcsave"),
        zmtp.request(9, "load", path="../../x.npcsave"),
        zmtp.frame(b"\x82\xa2id\x00\xa2ev\xa4done"),
        zmtp.command(b"PONG", os.urandom(16)),
        zmtp.command(b"READY"),
        zmtp.frame(b"a", zmtp.MORE) + zmtp.frame(b"b"),
    ]
    rng, sent = random.Random(2), 0
    for sent in _until(seconds):
        with suppress(OSError), Wire(ready) as wire:
            wire.enter()
            wire.send(*script[: 1 + sent % 2], *rng.sample(script, 12))
            wire.socket.settimeout(0.05)
            while wire.socket.recv(1 << 16):
                pass
    return sent * 13


ATTACKS: dict[str, Callable[[Mapping[str, Any], float], int]] = {
    "broken greetings": greetings,
    "wrong keys": wrong_keys,
    "slow loris": slow_loris,
    "flood": flood,
    "greedy": greedy,
    "never read": never_read,
    "hoard": hoard,
    "vanish": vanish,
    "come and go": come_and_go,
    "msgpack bombs": bombs,
    "huge frames": huge_frames,
    "garbled frames": garbled,
    "endless parts": endless_parts,
    "replays": replays,
}

KNOWN: dict[str, Callable[[Mapping[str, Any], float], int]] = {"vanish, pinging": vanish_pinging}
"""What a client with the key, speaking ZMTP by hand, can still do to libzmq; SECURITY.md tells."""
