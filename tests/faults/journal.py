"""A daemon with a journal is killed at random moments: every Turn that it acknowledged is there when it starts again.

The same requests go to a mirror, a Stage in this process that is never killed, as soon as they are acknowledged.
After every restart each Npc's snapshot must be, byte for byte, the mirror's, or the mirror's after the one request
that was under way. So nothing acknowledged is lost, nothing is heard twice, and nothing is half there.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgpack
import zmq
from fakes import fake_stage
from served import Raw

from npc_runtime import wire
from npc_runtime.config import Config
from npc_runtime.doctor.patient import Game
from npc_runtime.errors import NpcError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from npc_runtime.stage import Stage

SESSIONS = {"one": ("marta", "tom", "guard"), "two": ("smith", "cook")}
PERSONA = {"name": "Marta", "role": "innkeeper", "opening": "Come in!"}
LINES = ("Hello.", "My name is Corvin.", "What is the news?", "And the price?", "Who was here before me?")
ROOT = Path(__file__).parents[2]
KEY = "the key of a daemon to be killed"
TOKENS = 8


def run(folder: Path, rounds: int, seed: int, bundle: str = "") -> dict[str, int]:
    """Counts rounds, Turns acknowledged, those of the last moment that were heard, and those lost or torn."""
    return Play(folder / "journal", random.Random(seed), bundle).rounds(rounds)


@dataclass
class Tale:
    """One Npc: the request under way, if any."""

    session: str
    npc: str
    under_way: dict[str, Any] | None = None
    id: int = 0


@dataclass
class Play:
    """The killed daemons and the mirror."""

    journal: Path
    rng: random.Random
    bundle: str
    found: dict[str, int] = field(
        default_factory=lambda: {"acknowledged": 0, "heard_at_the_end": 0, "not_heard": 0, "lost": 0}
    )

    def __post_init__(self) -> None:
        self.span = (0.05, 1.2) if self.bundle else (0.0, 0.5)
        self.mirrors = {name: Game(self._stage()) for name in SESSIONS}
        self.tales = [Tale(session, npc) for session, npcs in SESSIONS.items() for npc in npcs]

    def _stage(self) -> Stage:
        config = Config(pace_tokens_per_s=0, state_budget_mb=128)
        if not self.bundle:
            return fake_stage(config)
        from npc_runtime.stage import open_stage

        return open_stage(self.bundle, config, "onnx")

    def rounds(self, count: int) -> dict[str, int]:
        """Starts, checks, plays and kills so often."""
        for _ in range(count):
            with self._daemon() as clients:
                self._check(clients)
                self._play(clients, time.monotonic() + self.rng.uniform(*self.span))
        with self._daemon() as clients:
            self._check(clients)
        return self.found

    @contextlib.contextmanager
    def _daemon(self) -> Iterator[dict[str, Raw]]:
        """A daemon and a client per Session; killed at the end, without warning."""
        command = [sys.executable, "-m", "faults.daemon", str(self.journal), KEY]
        if self.bundle:
            serve = [
                "serve",
                "--bundle",
                self.bundle,
                "--backend",
                "onnx",
                "--key",
                KEY,
                "--journal",
                str(self.journal),
            ]
            command = [sys.executable, "-m", "npc_runtime", *serve, "--state-budget-mb", "128"]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        environ = {**os.environ, "PYTHONPATH": paths}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ)
        assert process.stdout is not None
        ready = SimpleNamespace(endpoint=json.loads(process.stdout.readline())["endpoint"], key=KEY)
        clients = {name: Raw(ready, session=name) for name in SESSIONS}
        try:
            yield clients
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            for client in clients.values():
                client.vanish()

    # ---- after a start

    def _check(self, clients: dict[str, Raw]) -> None:
        """Compares every Npc with the mirror; the request under way may have been heard or not."""
        for tale in self.tales:
            client, mirror = clients[tale.session], self.mirrors[tale.session]
            known = tale.npc in mirror.session.npcs
            again = self._snapshot(client, tale.npc)
            if again != (self._mirrored(mirror, tale.npc) if known else None):
                asked, tale.under_way = tale.under_way, None
                if asked is not None:
                    _ask(mirror, asked)
                    self.found["heard_at_the_end"] += 1
                if again != self._mirrored(mirror, tale.npc):
                    self.found["lost"] += 1
            elif tale.under_way is not None:
                self.found["not_heard"] += 1
            tale.under_way = None
        for mirror in self.mirrors.values():
            _forget_ways_back(mirror)

    def _snapshot(self, client: Raw, npc: str) -> bytes | None:
        event = client.ask("snapshot", npc=npc)
        return event["data"] if event["ev"] == "ok" else None

    def _mirrored(self, mirror: Game, npc: str) -> bytes | None:
        with contextlib.suppress(NpcError):
            data: bytes = mirror.ask(wire.Snapshot(npc=npc))["data"]
            return data
        return None

    # ---- until the kill

    def _play(self, clients: dict[str, Raw], end: float) -> None:
        """Keeps every Npc busy with one request after another."""
        for tale in self.tales:
            self._send(clients, tale)
        poller = zmq.Poller()
        for client in clients.values():
            poller.register(client.socket, zmq.POLLIN)
        while (left := end - time.monotonic()) > 0:
            for socket, _ in poller.poll(max(1, round(1000 * left))):
                session = next(name for name, client in clients.items() if client.socket is socket)
                self._hear(clients, session, msgpack.unpackb(socket.recv()))

    def _send(self, clients: dict[str, Raw], tale: Tale) -> None:
        spawned = tale.npc in self.mirrors[tale.session].session.npcs
        tale.under_way = self._wish(tale.npc) if spawned else _spawn(tale.npc)
        tale.id = clients[tale.session].send(**tale.under_way)

    def _wish(self, npc: str) -> dict[str, Any]:
        text, kind = self.rng.choice(LINES), self.rng.random()
        if kind < 0.7:
            stream = self.rng.random() < 0.5
            return {"op": "say", "npc": npc, "text": text, "max_tokens": TOKENS, "stream": stream, "pace": 0}
        if kind < 0.85:
            return {"op": "observe", "npcs": [npc], "text": text}
        if kind < 0.9:
            return {"op": "rewind", "npc": npc}
        if kind < 0.93:
            return {"op": "drop", "npc": npc}
        return {"op": "choose", "npc": npc, "lines": ["Yes.", "No, never."], "text": text}

    def _hear(self, clients: dict[str, Raw], session: str, event: dict[str, Any]) -> None:
        tale = next((t for t in self.tales if t.session == session and t.id == event["id"]), None)
        if tale is None or tale.under_way is None or event["ev"] not in ("ok", "done", "error"):
            return
        failed = _ask(self.mirrors[session], tale.under_way)
        if event.get("code") != failed:
            raise AssertionError(f"{event} for {tale.under_way}, the mirror {failed}")
        self.found["acknowledged"] += 1
        self._send(clients, tale)


def _spawn(npc: str) -> dict[str, Any]:
    return {"op": "spawn", "npc": npc, "persona": PERSONA, "seed": 7}


def _ask(mirror: Game, asked: dict[str, Any]) -> str | None:
    """Carries out a request on the mirror; the code of its error, if any."""
    try:
        mirror.ask(_request(asked))
    except NpcError as error:
        return error.code
    return None


def _forget_ways_back(mirror: Game) -> None:
    """A daemon that was killed comes back without rewind points."""
    for npc in mirror.session.npcs.values():
        while npc.timeline.past:
            npc.timeline.forget_oldest(mirror.stage.scheduler.pool)


def _request(asked: dict[str, Any]) -> wire.Request:
    return wire.REQUESTS[asked["op"]](**{name: value for name, value in asked.items() if name != "op"})
