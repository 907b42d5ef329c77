"""Hours of play in minutes: a daemon, several games, every verb, and an exact account of all that was asked.

PYTHONPATH=tests python -m soak --turns 200000              a fake backend
PYTHONPATH=tests python -m soak --turns 2000 --bundle default   the real one
Prints a line of JSON; status 0 only when nothing grew, nothing slowed down and every count is exact.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgpack
import zmq
from served import Raw

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).parent.parent
KEY = "the key of a daemon to be soaked"
NPCS = ("marta", "tom", "smith", "cook")
LINES = ("Hello.", "My name is Corvin.", "What is the news?", "And the price?", "Who was here before me?")
WINDOWS = 20
LEAST = 500
"""Turns that a run must have, so that each window has some."""
WARM = 0.25
"""Share of the run after which nothing may grow any more: caches, rewind points and buffers are full by then."""
GROWTH_KB = 2048
"""What the allocator may still gain after that."""
DRIFT = 1.25
"""Times the processor time of a Turn in the last quarter of the first quarter's after warming up."""

BUDGET_MB = 160
"""Small, so that every Slot has been used before the run is warm, and what grows then is none used the first time."""

Events = list[dict[str, Any]]


def persona(number: int) -> dict[str, Any]:
    """A few dozen different ones, so that some are cached and some are read anew."""
    return {"name": f"Marta {number}", "role": "innkeeper", "opening": "Come in!"}


class Game:
    """One Session: scenes of requests, each awaited, and what the daemon must have counted by then."""

    def __init__(self, soak: Soak, number: int) -> None:
        self.soak, self.number, self.rng = soak, number, random.Random(soak.seed * 1000 + number)
        self.turns: dict[str, int] = {}
        self.script = self._play()
        self.raw = Raw(soak.daemon, session=f"game-{number}")
        self.open: dict[int, int] = {}
        self.answers: Events = []
        self.begun: dict[int, float] = {}

    def start(self, answers: Events | None = None) -> None:
        """Sends the next scene."""
        scene = self.script.send(answers) if answers is not None else next(self.script)
        self.answers = [{} for _ in scene]
        for place, fields in enumerate(scene):
            id = self.raw.send(**fields)
            self.open[id], self.begun[id] = place, time.perf_counter()

    def hear(self, event: dict[str, Any]) -> None:
        """Takes an event; the last one of a scene brings on the next."""
        if event["ev"] not in ("ok", "done", "error"):
            return
        place = self.open.pop(event["id"])
        took = 1e3 * (time.perf_counter() - self.begun.pop(event["id"]))
        if event["ev"] == "done":
            self.soak.ms.append(took)
        self.answers[place] = event
        if not self.open:
            self.start(self.answers)

    def _play(self) -> Generator[list[dict[str, Any]], Events, None]:
        for npc in NPCS:
            yield from self._spawn(npc)
        scenes = (self._talk, self._observe, self._choose, self._cut, self._twin, self._rewind, self._save, self._guest)
        while True:
            scene = self.rng.choices(scenes, (70, 10, 5, 5, 3, 3, 2, 2))[0]
            yield from scene()
            if self.rng.random() < 0.02:
                yield from self._check()
            if self.rng.random() < 0.01:
                yield from self._leave()

    def _spawn(self, npc: str) -> Generator[list[dict[str, Any]], Events, None]:
        number = self.rng.randrange(40)
        [told] = yield [{"op": "spawn", "npc": npc, "persona": persona(number), "seed": 7, "replace": True}]
        self.soak.wants(told, "ok")
        self.soak.count(number not in self.soak.personas)  # reading one is a Turn; two games may wait for the same
        self.soak.personas.add(number)
        self.turns[npc] = 0

    def _say(self, npc: str, **more: Any) -> dict[str, Any]:
        stream = self.rng.random() < 0.5
        asked = {"op": "say", "npc": npc, "text": self.rng.choice(LINES), "max_tokens": 6, "stream": stream, "pace": 0}
        return {**asked, **more}

    def _said(self, told: dict[str, Any], npc: str) -> None:
        self.soak.wants(told, "done")
        self.soak.count(1)
        self.turns[npc] += 1

    def _talk(self) -> Generator[list[dict[str, Any]], Events, None]:
        answers = yield [self._say(npc) for npc in NPCS]
        for npc, told in zip(NPCS, answers, strict=True):
            self._said(told, npc)

    def _observe(self) -> Generator[list[dict[str, Any]], Events, None]:
        [told] = yield [{"op": "observe", "npcs": list(NPCS), "text": "A bell rings."}]
        self.soak.wants(told, "ok")
        self.soak.count(len(NPCS))
        for npc in NPCS:
            self.turns[npc] += 1

    def _choose(self) -> Generator[list[dict[str, Any]], Events, None]:
        [told] = yield [{"op": "choose", "npc": "tom", "lines": ["Yes.", "No.", "Perhaps."], "text": "Well?"}]
        self.soak.wants(told, "ok")
        self.soak.count(1)
        self.turns["tom"] += 1

    def _cut(self) -> Generator[list[dict[str, Any]], Events, None]:
        said, cancelled = yield [self._say("smith", stream=True, pace=20), {"op": "cancel", "npc": "smith"}]
        self.soak.wants(cancelled, "ok")
        if said["ev"] == "done":
            self._said(said, "smith")
        else:
            self.soak.wants(said, "error", "cancelled")
            self.soak.failed += 1

    def _twin(self) -> Generator[list[dict[str, Any]], Events, None]:
        [told] = yield [{"op": "fork", "npc": "marta", "to": "twin"}]
        self.soak.wants(told, "ok")
        self.turns["twin"] = self.turns["marta"]
        [told] = yield [self._say("twin")]
        self._said(told, "twin")
        [told] = yield [{"op": "drop", "npc": "twin"}]
        self.soak.wants(told, "ok")
        del self.turns["twin"]

    def _rewind(self) -> Generator[list[dict[str, Any]], Events, None]:
        [told] = yield [{"op": "rewind", "npc": "cook"}]
        if told["ev"] == "ok":
            self.turns["cook"] -= 1
        else:
            self.soak.wants(told, "error", "nothing_to_rewind")

    def _save(self) -> Generator[list[dict[str, Any]], Events, None]:
        path = str(self.soak.folder / f"game-{self.number}.npcsave")
        [told] = yield [{"op": "save", "path": path}]
        self.soak.wants(told, "ok")
        saved = dict(self.turns)
        yield from self._talk()
        [told] = yield [{"op": "load", "path": path, "replace": True}]
        self.soak.wants(told, "ok")
        self.turns = saved

    def _guest(self) -> Generator[list[dict[str, Any]], Events, None]:
        [told] = yield [{"op": "snapshot", "npc": "tom"}]
        [told] = yield [{"op": "restore", "npc": "guest", "data": told["data"]}]
        self.soak.wants(told, "ok")
        [told] = yield [{"op": "drop", "npc": "guest"}]
        self.soak.wants(told, "ok")
        if self.rng.random() < 0.2:
            yield from self._spawn("cook")

    def _check(self) -> Generator[list[dict[str, Any]], Events, None]:
        [told] = yield [{"op": "list"}]
        if {npc["npc"]: npc["turns"] for npc in told["npcs"]} != self.turns:
            self.soak.faults["an Npc's turns"] += 1

    def _leave(self) -> Generator[list[dict[str, Any]], Events, None]:
        [told] = yield [{"op": "bye"}]
        self.soak.wants(told, "ok")
        self.soak.back(self)
        yield from self._check()


class Soak:
    """The daemon under test, its games, and the account."""

    def __init__(self, process: subprocess.Popen[bytes], endpoint: str, folder: Path, games: int, seed: int) -> None:
        self.process, self.folder, self.seed = process, folder, seed
        self.daemon: Any = SimpleNamespace(endpoint=endpoint, key=KEY)
        self.done = self.failed = 0
        self.ms: list[float] = []
        self.faults: Counter[str] = Counter()
        self.personas: set[int] = set()
        self.poller = zmq.Poller()
        self.games = [Game(self, number) for number in range(games)]
        self.by_socket = {}
        for game in self.games:
            self._listen(game)

    def _listen(self, game: Game) -> None:
        self.by_socket[game.raw.socket] = game
        self.poller.register(game.raw.socket, zmq.POLLIN)

    def back(self, game: Game) -> None:
        """The game left and returns to its Session."""
        self.poller.unregister(game.raw.socket)
        del self.by_socket[game.raw.socket]
        game.raw.vanish()
        game.raw = Raw(self.daemon, session=f"game-{game.number}")
        if not game.raw.card["resumed"]:
            self.faults["a Session that was not resumed"] += 1
        self._listen(game)

    def count(self, turns: int) -> None:
        self.done += turns

    def wants(self, event: dict[str, Any], ev: str, code: str | None = None) -> None:
        if event["ev"] != ev or event.get("code") != code:
            self.faults[f"{event['ev']} {event.get('code')} for {ev} {code}"] += 1

    def run(self, turns: int) -> dict[str, Any]:
        """Plays so many Turns; what was measured on the way, and what is wrong."""
        windows = [self._figures()]
        for game in self.games:
            game.start()
        for number in range(1, WINDOWS + 1):
            while self.done < turns * number // WINDOWS:
                for socket, _ in self.poller.poll():
                    self.by_socket[socket].hear(msgpack.unpackb(socket.recv()))
            windows.append(self._figures())
        self._finish()
        return self._judge(windows)

    def _figures(self) -> dict[str, float]:
        """Memory, handles and processor time of the daemon, and the latency since the last time."""
        place = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines() if ":\t" in line)
        ticks = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
        ms, self.ms = sorted(self.ms), []
        return {
            "turns": self.done,
            "kb": int(status["VmRSS"].split()[0]),
            "threads": int(status["Threads"]),
            "handles": len(list((place / "fd").iterdir())),
            "cpu_s": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
            "p50_ms": round(statistics.median(ms), 2) if ms else 0.0,
            "p95_ms": round(ms[int(0.95 * len(ms))], 2) if ms else 0.0,
        }

    def _finish(self) -> None:
        """Lets every open scene end and compares the daemon's counters with the account."""
        for game in self.games:
            while game.open:
                event = msgpack.unpackb(game.raw.socket.recv())
                if event["ev"] in ("ok", "done", "error"):
                    self._last(game, event)
        with Raw(self.daemon) as watch:  # one that kept silent all the while would be gone by now
            stats = watch.ask("stats")
        exact = {
            "turns done": (stats["turns"]["done"], self.done),
            "turns failed": (stats["turns"]["failed"], self.failed),
            "npcs": (stats["npcs"], sum(len(game.turns) for game in self.games)),
            "queued": (stats["queued"], 0),
            "active": (stats["active"], 0),
            "clients": (stats["clients"], len(self.games) + 1),
        }
        self.faults.update(f"{name}: {told}, not {own}" for name, (told, own) in exact.items() if told != own)

    def _last(self, game: Game, event: dict[str, Any]) -> None:
        """An answer after the end: its scene ends, and the next one is not sent."""
        game.start = lambda answers=None: self._close(game, answers)  # type: ignore[method-assign]
        game.hear(event)

    def _close(self, game: Game, answers: Events) -> None:
        game.script.send(answers)  # accounts for the scene; what it asks for next is left

    def _judge(self, windows: list[dict[str, float]]) -> dict[str, Any]:
        warm = windows[round(WARM * WINDOWS) :]
        cost = [1e3 * (b["cpu_s"] - a["cpu_s"]) / (b["turns"] - a["turns"]) for a, b in pairwise(warm)]
        quarter = max(1, len(cost) // 4)
        early, late = statistics.median(cost[:quarter]), statistics.median(cost[-quarter:])
        grown = warm[-1]["kb"] - warm[0]["kb"]
        handles = max(window["handles"] for window in warm[1:]) - warm[0]["handles"]
        found = {
            "turns": self.done,
            "cancelled": self.failed,
            "kb": [windows[0]["kb"], warm[0]["kb"], warm[-1]["kb"]],
            "handles": [warm[0]["handles"], warm[-1]["handles"]],
            "threads": [warm[0]["threads"], warm[-1]["threads"]],
            "cpu_ms_per_turn": [round(early, 3), round(late, 3)],
            "p50_ms": [warm[1]["p50_ms"], warm[-1]["p50_ms"]],
            "p95_ms": [warm[1]["p95_ms"], warm[-1]["p95_ms"]],
        }
        wrong = dict(self.faults)
        wrong |= {"memory grew": grown} if grown > GROWTH_KB else {}
        wrong |= {"handles grew": handles} if handles > len(self.games) else {}  # some are between two connections
        wrong |= {"slower": round(late / early, 2)} if late > DRIFT * early else {}
        return {**found, "wrong": wrong}

    def close(self) -> None:
        for game in self.games:
            game.raw.vanish()


def soak(turns: int, bundle: str = "", journal: bool = False, games: int = 6, seed: int = 1) -> dict[str, Any]:
    """Starts a daemon, plays, and ends it; what was found."""
    with tempfile.TemporaryDirectory() as folder:
        kept = str(Path(folder) / "journal") if journal else ""
        command = [sys.executable, "-m", "faults.daemon", kept, KEY]
        if bundle:
            serve = ["serve", "--bundle", bundle, "--backend", "onnx", "--key", KEY, "--journal", kept]
            command = [sys.executable, "-m", "npc_runtime", *serve, "--state-budget-mb", str(BUDGET_MB)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ)
        try:
            return _soaked(process, Path(folder), turns, games, seed)
        finally:
            process.kill()
            process.wait()


def _soaked(process: subprocess.Popen[bytes], folder: Path, turns: int, games: int, seed: int) -> dict[str, Any]:
    assert process.stdout is not None
    with process.stdout as out:
        played = Soak(process, json.loads(out.readline())["endpoint"], folder, games, seed)
        begun = time.perf_counter()
        found = played.run(turns)
        played.close()
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    found["wrong"] |= {"exit status": status} if status else {}
    return {**found, "seconds": round(time.perf_counter() - begun, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=200_000, help=f"at least {LEAST}")
    parser.add_argument("--bundle", default="")
    parser.add_argument("--journal", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.turns < LEAST:
        parser.error(f"--turns must be at least {LEAST}, for figures of {WINDOWS} windows, got {asked.turns}")
    outcome = soak(asked.turns, asked.bundle, asked.journal, seed=asked.seed)
    print(json.dumps(outcome))
    sys.exit(1 if outcome["wrong"] else 0)
