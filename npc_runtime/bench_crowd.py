"""Many Npcs that talk at once, through the same Session, scheduler and backend as the daemon's."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime import wire
from npc_runtime.doctor.patient import LINES, PERSONA
from npc_runtime.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from npc_runtime.stage import Stage

MAX_TOKENS = 32


@dataclass
class Talk:
    """One Npc's conversation: when its line was sent, and when the pieces of the Reply came."""

    name: str
    sent: float = 0.0
    pieces: list[float] = field(default_factory=list)
    over: bool = True
    replies: int = 0


class Audience:
    """Says the next line to every Npc as soon as its Reply has ended, and keeps the times in ms."""

    def __init__(self, stage: Stage, npcs: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.stage, self.clock = stage, clock
        self.session = stage.session("crowd")
        self.talks = [Talk(f"npc-{i}") for i in range(npcs)]
        self.first: list[float] = []
        self.mean: list[float] = []
        self.longest: list[float] = []
        self.counting = False
        self._ids = 0

    def spawn(self) -> None:
        """Brings everybody alive, each with a seed of its own."""
        left = [len(self.talks)]
        for i, talk in enumerate(self.talks):
            self._ids += 1
            request = wire.Spawn(id=self._ids, npc=talk.name, persona=PERSONA, seed=i)
            self.session.handle(request, partial(_count_down, left))
        while left[0]:
            self.stage.tick()

    def run(self, seconds: float) -> int:
        """Lets everybody talk for so long; tokens spoken."""
        spoken, end = self.stage.scheduler.tokens_spoken, self.clock() + seconds
        while self.clock() < end:
            for i, talk in enumerate(self.talks):
                if talk.over:
                    self._say(i, talk)
            self.stage.tick()
        return self.stage.scheduler.tokens_spoken - spoken

    def _say(self, i: int, talk: Talk) -> None:
        self._ids += 1
        talk.over, talk.sent, talk.pieces = False, self.clock(), []
        text = LINES[(i + self._ids) % len(LINES)]
        request = wire.Say(id=self._ids, npc=talk.name, text=text, max_tokens=MAX_TOKENS, pace=0.0)
        self.session.handle(request, partial(self._hear, talk))

    def _hear(self, talk: Talk, event: wire.Event) -> None:
        if event.ev == "delta":
            talk.pieces.append(self.clock())
        elif event.ev == "error" and event.fields["code"] != "cancelled":  # the end of the measurement cuts Replies
            raise BackendError(f"a Npc of the crowd failed: {event.fields}")
        elif event.last:
            talk.over = True
            talk.replies += 1
            if self.counting and talk.pieces:
                times = 1e3 * (np.array(talk.pieces) - talk.sent)
                self.first.append(float(times[0]))
                self.mean.append(float(times[-1]) / event.fields["tokens"]["spoken"])
                self.longest.append(float(np.diff(times, prepend=0.0).max()))


def _count_down(left: list[int], event: wire.Event) -> None:
    if event.ev == "error":
        raise BackendError(f"a Npc of the crowd did not come alive: {event.fields}")
    left[0] -= event.last


def crowd(stage: Stage, npcs: int, seconds: float, warm_up: float = 2.0) -> dict[str, Any]:
    """Tokens per second and latencies in ms (p50, p95, p99) of `npcs` that talk without a pause.

    first: from the player's line to the first text. token: from the line to the last text, by token. wait: the
    longest silence of a Reply. host_us: Python's share of a token, the waits for the device taken off. Counting
    begins when everybody has been answered (or after 30 times the warm-up) and every size of batch has been seen.
    """
    audience = Audience(stage, npcs)
    audience.spawn()
    end = time.perf_counter() + 30 * warm_up
    audience.run(warm_up)
    while min(talk.replies for talk in audience.talks) < 2 and time.perf_counter() < end:
        audience.run(warm_up / 4)
    audience.counting = True
    waited, begun = getattr(stage.backend, "waited_s", 0.0), time.perf_counter()
    tokens = audience.run(seconds)
    spent = time.perf_counter() - begun
    waited = getattr(stage.backend, "waited_s", 0.0) - waited
    found: dict[str, Any] = {"npcs": npcs, "tokens_per_s": round(tokens / spent), "replies": len(audience.first)}
    for name, times in (("first", audience.first), ("token", audience.mean), ("wait", audience.longest)):
        found[f"{name}_ms"] = [round(float(np.percentile(times, p)), 2) for p in (50, 95, 99)] if times else []
    found["host_us"] = round(1e6 * (spent - waited) / max(tokens, 1), 2)
    found["device_share"] = round(waited / spent, 3)
    return found
