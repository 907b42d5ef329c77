"""A device that raises or yields NaN at any moment, beside one that never does and hears only what succeeded.

Whatever fails, fails by a typed error and leaves the State as before; everybody else goes on, bit for bit.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
from fakes import FakeBackend, fake_stage

from npc_runtime import wire
from npc_runtime.config import Config
from npc_runtime.doctor.patient import Game
from npc_runtime.errors import BackendError, from_wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


NPCS = 8
FAULTS = ("prefill", "step", "open", "score", "copy", "memory", "defect", "nan-step", "nan-read")


class Moody(FakeBackend):
    """Fails by a plan: `fault` strikes when `countdown` more operations have been done."""

    def __init__(self) -> None:
        super().__init__(slots=256)
        self.fault, self.countdown = "", 0

    def plan(self, fault: str, countdown: int) -> None:
        self.fault, self.countdown = fault, countdown

    def _note(self, name: str, size: int) -> None:
        self.calls.clear()
        super()._note(name, size)
        if not self.fault or name in ("read", "write"):
            return
        self.countdown -= 1
        if self.countdown > 0:
            return
        if self.fault == name:
            self.fault = ""
            raise BackendError(f"injected failure of `{name}`")
        if self.fault in ("memory", "defect"):
            kind, self.fault = (MemoryError if self.fault == "memory" else ZeroDivisionError), ""
            raise kind("injected")

    def prefill(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        if self.fault == "nan-read" and self.countdown <= 1:
            self.fault = ""
            self.spoil |= set(slots[:1])
        super().prefill(slots, tokens)

    def open(self, slots: Sequence[int]) -> Any:
        batch = super().open(slots)
        if self.fault == "nan-step" and self.countdown <= 1:
            self.fault = ""
            self.poison |= {slots[len(slots) // 2]}
        return batch


def run(folder: Path, rounds: int, seed: int, bundle: str = "") -> dict[str, int]:
    """One Turn of every Npc at once per round, with one fault planned; the mirror hears what succeeded."""
    rng, device = random.Random(seed), Moody()
    game = Game(fake_stage(Config(pace_tokens_per_s=0), device))
    mirror = Game(fake_stage(Config(pace_tokens_per_s=0)))
    names = [f"npc-{i}" for i in range(NPCS)]
    for each in (game, mirror):
        each.spawn(*names)
    found = {"turns": 0, "failed": 0, "untyped": 0, "lost": 0}
    for _ in range(rounds):
        device.plan(rng.choice(FAULTS), rng.randrange(1, 40))
        wishes = {name: _wish(rng, name) for name in names}
        asked = {name: game.begin(wish) for name, wish in wishes.items()}
        with np.errstate(invalid="ignore"):  # the fake goes on to hash a State of NaN
            _finish(game, list(asked.values()))
        device.plan("", 0)
        for name, events in asked.items():
            _compare(name, wishes[name], events[-1], mirror, found)
        found["lost"] += sum(not game.state(name).equals(mirror.state(name)) for name in names)
    found["slots_leaked"] = mirror.stage.scheduler.pool.free - game.stage.scheduler.pool.free
    found["lost"] += found["untyped"] + abs(found["slots_leaked"]) + game.session.queued
    return found


def _finish(game: Game, asked: list[list[wire.Event]]) -> None:
    while not all(events and events[-1].last for events in asked):
        game.tick()


def _wish(rng: random.Random, name: str) -> wire.Request:
    kind = rng.random()
    if kind < 0.6:
        return wire.Say(npc=name, text=f"Line {rng.random():.3f}", stream=rng.random() < 0.5, max_tokens=20)
    if kind < 0.8:
        return wire.Observe(npcs=[name], text=f"Event {rng.random():.3f}")
    return wire.Choose(npc=name, lines=["Yes.", "No.", "Never in my life."], text="Well?")


def _compare(name: str, wish: wire.Request, last: wire.Event, mirror: Game, found: dict[str, int]) -> None:
    found["turns"] += 1
    if last.ev == "error":
        found["failed"] += 1
        error = from_wire(last.fields["code"], last.fields["text"])
        found["untyped"] += not isinstance(error, BackendError)
        return
    told = mirror.ask(wish)
    same = ("mood", "action", "text", "index", "npcs")
    found["lost"] += {key: told.get(key) for key in same} != {key: last.fields.get(key) for key in same}
