"""Npc: a Persona alive under an id, and the Mark that is noted beside each of its States."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from npc_runtime.pool import Timeline
from npc_runtime.wire import MAX_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.persona import Persona
    from npc_runtime.turn import Outcome

LOG_ENTRIES = 32
"""Turns kept as text beside a State: for people, and for rebuilding after the Bundle has changed."""
RECENT_TOKENS = 64
"""Spoken tokens remembered for repetition control."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is noted beside a State: counters, the repetition window, the last turns as text.

    `log` holds (kind, text): `player`, `event`, or `npc MOOD` / `npc MOOD ACTION`.
    """

    turns: int = 0
    tokens: int = 0
    recent: tuple[int, ...] = ()
    log: tuple[tuple[str, str], ...] = ()

    def after(self, heard: Sequence[tuple[str, str]], read: int, outcome: Outcome) -> Mark:
        """The mark after a Turn that perceived `heard` and came out as told."""
        said: list[tuple[str, str]] = []
        if outcome.head is not None and outcome.text:
            said.append((" ".join(filter(None, ("npc", outcome.head.mood, outcome.head.action))), outcome.text))
        return Mark(
            # A save may claim any count that can be saved; one more could not be, and would spoil every later save.
            min(self.turns + 1, MAX_ID),
            min(self.tokens + read + len(outcome.spoken), MAX_ID),
            (*self.recent, *outcome.spoken)[-RECENT_TOKENS:],
            (*self.log, *heard, *said)[-LOG_ENTRIES:],
        )


@dataclass(slots=True, eq=False)
class Npc:
    """A Persona alive under an id."""

    id: str
    persona: Persona
    seed: int
    timeline: Timeline[Mark] = field(default_factory=Timeline)

    @property
    def mark(self) -> Mark:
        """The mark of the State at rest."""
        return self.timeline.current.mark if self.timeline.current else Mark()
