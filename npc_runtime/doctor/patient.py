"""Patient: the Bundle, backend and limits under examination, and Game, a Session on them driven by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from npc_runtime import wire
from npc_runtime.errors import BudgetExceeded, NpcError, from_wire
from npc_runtime.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from npc_runtime.backends.base import Backend
    from npc_runtime.bundle import Bundle
    from npc_runtime.config import Config
    from npc_runtime.state import State

PERSONA = {
    "name": "Odalys",
    "role": "ferry keeper",
    "traits": ["patient", "blunt"],
    "voice": "short sentences, river talk",
    "knows": ["the river is high this week", "the far bank is closed after dark"],
    "wants": "to sell the ferry and sleep",
    "opening": "Mind the rope.",
}
"""Somebody to talk to who is shipped with the doctor, not with the personas."""
LINES = (
    "Good evening. Is the ferry still running?",
    "My name is Corvane. I carry letters for the mill.",
    "What does the crossing cost?",
    "Who was the last to cross?",
    "Then I will wait here until morning.",
)
EVENT = "A bell rings on the far bank."


@dataclass
class Patient:
    """What is examined. `open_backend` loads the Bundle anew for every Game, as a fresh daemon would."""

    bundle: Bundle
    config: Config
    backend: str
    open_backend: Callable[[Bundle, Config], tuple[Backend, str]]
    stock: bool = True
    """False when `open_backend` is a test's own, which no daemon could be told to use."""

    @cached_property
    def reason(self) -> str:
        """Which backend computes, and why; or that this machine lacks the memory."""
        try:
            with self.game() as game:
                return f"{game.backend.name}: {game.stage.reason}"
        except BudgetExceeded as error:
            return f"{self.backend}: {error}"

    def game(self, **changes: Any) -> Game:
        """A new Session on a newly loaded backend, unpaced unless `changes` to the Config say otherwise."""
        config = replace(self.config, **{"pace_tokens_per_s": 0.0, "journal": "", **changes})
        backend, reason = self.open_backend(self.bundle, config)
        return Game(Stage(self.bundle, backend, reason, config))


def open_patient(bundle: Bundle, config: Config, backend: str) -> Patient:
    """A Patient whose backend is chosen as the daemon's is."""
    from npc_runtime.backends import choose

    return Patient(bundle, config, backend, lambda model, limits: choose(backend, model, limits))


class Game:
    """A Session whose Ticks are made by hand on this thread. A context manager: leaving frees the backend."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.backend = stage, stage.backend
        self.session = stage.session("doctor")
        self._ids = 0

    def __enter__(self) -> Game:
        return self

    def __exit__(self, *_: object) -> None:
        self.stage.close()

    # ---- requests

    def begin(self, request: wire.Request) -> list[wire.Event]:
        """Hands over a request; its events arrive in the list while Ticks are made."""
        self._ids += 1
        events: list[wire.Event] = []
        self.session.handle(replace(request, id=self._ids), events.append)
        return events

    def finish(self, *asked: list[wire.Event]) -> list[dict[str, Any]]:
        """Makes Ticks until every request has ended; the fields of their last events. Raises the first error."""
        rested = False
        while not all(events and events[-1].last for events in asked):
            if rested:
                raise NpcError("the scheduler came to rest before the request was answered")
            rested = not self.tick()
        return [_fields(events[-1]) for events in asked]

    def tick(self) -> bool:
        """One Tick, and the wait it asks for; False when nothing is left to do."""
        wait = self.stage.tick()
        if wait:
            time.sleep(min(wait, 0.005))
        return wait is not None

    def ask(self, request: wire.Request) -> dict[str, Any]:
        """The fields of the request's last event; raises its error."""
        return self.finish(self.begin(request))[0]

    # ---- verbs

    def spawn(self, *names: str, seed: int = 7) -> None:
        """Brings the doctor's persona alive under each name, all with the same seed."""
        for name in names:
            self.ask(wire.Spawn(npc=name, persona=PERSONA, seed=seed))

    def say(self, npc: str, text: str, **more: Any) -> wire.Reply:
        """A player's line and the Reply to it."""
        return wire.decode_reply(self.ask(line(npc, text, **more)))

    def state(self, npc: str) -> State:
        """A copy of the Npc's State at rest."""
        current = self.session.npcs[npc].timeline.current
        if current is None:
            raise NpcError(f"`{npc}` has no State")
        return self.backend.read(current.slot)

    def slots(self, count: int) -> list[int]:
        """Cleared Slots that no Npc uses."""
        slots = [self.stage.scheduler.take_slot() for _ in range(count)]
        for slot in slots:
            self.backend.clear(slot)
        return slots

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return self.stage.bundle.tokenizer.encode(text)


def line(npc: str, text: str, **more: Any) -> wire.Say:
    """A `say` of a few tokens, not streamed unless `more` says so."""
    return wire.Say(npc=npc, text=text, **{"stream": False, "max_tokens": 24, **more})


def _fields(event: wire.Event) -> dict[str, Any]:
    if event.ev == "error":
        raise from_wire(event.fields["code"], event.fields["text"], event.fields.get("hint"))
    return dict(event.fields)
