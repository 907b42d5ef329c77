"""Demo: a told name survives save, kill, restart and load; every claim it makes is checked while it runs."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from npc_runtime.client import Client

if TYPE_CHECKING:
    from npc_runtime.screen import Screen
    from npc_runtime.wire import Reply

SMITH, KEEPER = "marta", "bram"
NAME = "Corvin"
TOLD = f"Good evening. My name is {NAME}."
SMALL_TALK = "Does the miller still owe you money?"
SEEN = "A goat runs through the room with a curtain in its mouth."
ABOUT_IT = "What did you just see?"
ASKED = "Do you remember my name?"
NEXT = "Good. Keep the fire going, I will be back."
ASKED_AGAIN = "So, what is my name?"
_SEED = 12
_TEMPERATURE = 0.3
"""Cooler than talk is by default: a demonstration should not hang on one lucky draw."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One claim of the demo and whether it held."""

    claim: str
    held: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What the demo measured. ms_per_token: read or spoken, median over Replies."""

    ms_per_token: float
    first_text_ms: float
    save_bytes: int
    reread_tokens: int
    load_ms: float
    ready_ms: tuple[float, ...]
    seconds: float


class Demo:
    """Two characters, two daemons, one save. `run` shows it all on a Screen and returns True when every claim held."""

    def __init__(self, screen: Screen, bundle: str | None = None, backend: str = "auto") -> None:
        self.screen, self.bundle, self.backend = screen, bundle, backend
        self.proofs: list[Proof] = []
        self.replies: list[Reply] = []
        self.figures: Figures | None = None
        self._names: dict[str, str] = {}
        self._ready: list[float] = []

    def run(self) -> bool:
        """Plays the demo. Raises NpcError when a daemon cannot be started or refuses something."""
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "evening.npcsave"
            size, before, goodbye, after = self._evening(path)
            reread, load_ms = self._morning(path, before, goodbye, after)
        self.figures = Figures(
            ms_per_token=round(
                median(r.ms["total"] / max(1, r.tokens["read"] + r.tokens["spoken"]) for r in self.replies), 3
            ),
            first_text_ms=round(median(r.ms["first"] for r in self.replies), 2),
            save_bytes=size,
            reread_tokens=reread,
            load_ms=round(load_ms, 2),
            ready_ms=tuple(self._ready),
            seconds=round(time.perf_counter() - begun, 2),
        )
        self._conclude(self.figures)
        return self.passed

    @property
    def passed(self) -> bool:
        """True when there are proofs and every claim held."""
        return bool(self.proofs) and all(proof.held for proof in self.proofs)

    def to_mapping(self) -> dict[str, Any]:
        """What was proved and measured, for programs."""
        figures = asdict(self.figures) if self.figures else {}
        return {"passed": self.passed, "proofs": [asdict(proof) for proof in self.proofs], "figures": figures}

    # ---- the first daemon

    def _evening(self, path: Path) -> tuple[int, str, Reply, str]:
        """Talks and saves, speaks once more, and kills the daemon: save bytes, digest, the last Reply, digest."""
        with self._start("A daemon") as game:
            self._meet(game, SMITH)
            self._say(game, SMITH, TOLD)
            self._say(game, SMITH, SMALL_TALK)
            self._meet(game, KEEPER)
            self.screen.event(SEEN)
            game.observe(KEEPER, SEEN)
            self._say(game, KEEPER, ABOUT_IT)
            self._recall(self._say(game, SMITH, ASKED), "when asked")
            saved = game.save(path)
            before = _digest(game, SMITH)
            self.screen.note(f"\n  saved both: {saved.bytes:,} bytes; memory {before[:16]}\n")
            goodbye = self._say(game, SMITH, NEXT)
            after = _digest(game, SMITH)
            os.kill(game.ready["pid"], getattr(signal, "SIGKILL", signal.SIGTERM))
            self.screen.note("\n  the daemon was killed; what was said after the save is gone\n")
        return saved.bytes, before, goodbye, after

    # ---- the second

    def _morning(self, path: Path, before: str, goodbye: Reply, after: str) -> tuple[int, float]:
        """Loads and goes on: tokens re-read, load time in ms."""
        with self._start("Another daemon") as game:
            begun = time.perf_counter()
            game.load(path)
            load_ms = 1e3 * (time.perf_counter() - begun)
            reread = game.stats()["tokens"]["read"]
            loaded = _digest(game, SMITH)
            self.screen.note(f"  loaded in {load_ms:.1f} ms, {reread} tokens re-read; memory {loaded[:16]}\n")
            self._prove("the loaded memory is the saved one, bit for bit", loaded == before)
            self._prove("no token was read again", reread == 0)
            again = self._say(game, SMITH, NEXT)
            same = (again.mood, again.action, again.text) == (goodbye.mood, goodbye.action, goodbye.text)
            self._prove("the same line gets the same Reply", same)
            self._prove("and leads to the same memory, bit for bit", _digest(game, SMITH) == after)
            self._recall(self._say(game, SMITH, ASKED_AGAIN), "after save, kill, restart and load")
        return reread, load_ms

    # ---- both

    def _start(self, what: str) -> Client:
        game = Client.start(self.bundle, backend=self.backend, options=["--pace-tokens-per-s", "0"])
        ready = game.ready
        self._ready.append(float(ready["ready_ms"]))
        self.screen.note(f"  {what}: pid {ready['pid']}, {ready['endpoint']}, ready after {ready['ready_ms']:.0f} ms")
        bundle = ready["bundle"]
        name = bundle["name"] if isinstance(bundle, dict) else bundle
        self.screen.note(f"  Bundle {name}, backend {ready['backend']}: {ready['reason']}\n")
        return game

    def _meet(self, game: Client, persona: str) -> None:
        spawned = game.spawn(persona, persona, seed=_SEED)
        self._names[persona] = spawned.name
        if spawned.opening:
            self.screen.said(spawned.name, spawned.opening.mood, spawned.opening.text)

    def _say(self, game: Client, npc: str, text: str) -> Reply:
        self.screen.player(text)
        reply = game.stream(npc, text, temperature=_TEMPERATURE).result()
        self.screen.said(self._names[npc], reply.mood, reply.text, reply.action)
        self.replies.append(reply)
        return reply

    def _recall(self, reply: Reply, when: str) -> None:
        self._prove(f"{self._names[SMITH]} says the told name {when}", names(reply.text, NAME))

    def _prove(self, claim: str, held: bool) -> None:
        self.proofs.append(Proof(claim, held))

    def _conclude(self, figures: Figures) -> None:
        self.screen.note("")
        for proof in self.proofs:
            self.screen.verdict(proof.held, proof.claim)
        self.screen.note("")
        self.screen.table(
            [
                (
                    "per token",
                    f"{figures.ms_per_token:.2f} ms, read or spoken (median over {len(self.replies)} Replies)",
                ),
                ("first words", f"after {figures.first_text_ms:.1f} ms"),
                ("save", f"{figures.save_bytes:,} bytes for two characters; loaded in {figures.load_ms:.1f} ms"),
                ("re-read", f"{figures.reread_tokens} tokens"),
                ("took", f"{figures.seconds:.1f} s, two daemons started"),
            ]
        )


def names(text: str, name: str) -> bool:
    """True when `text` holds `name` as a word of its own."""
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def _ms_per_token(reply: Reply) -> float:
    return reply.ms["total"] / max(1, reply.tokens["read"] + reply.tokens["spoken"])


def _digest(game: Client, npc: str) -> str:
    """SHA-256 of the Npc's snapshot: memory, counters and log."""
    return hashlib.sha256(game.snapshot(npc)).hexdigest()
