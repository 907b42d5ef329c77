"""Whole characters: all that a header tells of one, as a studio writes it, and what players ask it of that.

A line of `characters-*.jsonl` is a talk's (see talks), but its steps stand in any order, each asks of another fact, and
`roles` are what the character may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.training.restate import stated
from npc_runtime.training.talks import asked
from npc_runtime.training.threads import ANSWER, HONEST, RESTATED, aside, brief, heard, reworded, said
from npc_runtime.training.values import UNWRITTEN, slots

if TYPE_CHECKING:
    import random

    from npc_runtime.training.cards import TalkCard
    from npc_runtime.training.threads import Step
    from npc_runtime.training.values import Values

MISSING = 0.15
"""Chance that a fact is left out of the header: who asks for it then hears that the character does not know."""
AGAIN = 0.35
"""Chance that something is asked twice, in other words."""
SPARED = 0.3
"""Chance that a question is not asked: of so many facts a player asks for a few."""


def character(card: TalkCard, values: Values, rng: random.Random) -> tuple[list[str], list[list[Step]]]:
    """(facts for the header, threads that ask for them): what is left out there is not known."""
    wanted = dict(asked(card))
    gone = {fact for fact in card.facts if rng.random() < MISSING and _alone(card, fact, wanted)}
    threads: list[list[Step]] = []
    for index in range(len(card.steps)):
        facts = [fact for fact in card.facts if slots(fact) & wanted.get(index, set())]
        if rng.random() >= SPARED:
            count = 1 + (rng.random() < AGAIN)
            threads.append([_exchange(card, index, facts, gone, values, rng) for _ in range(count)])
    return [values.fill(fact) for fact in card.facts if fact not in gone], threads


def _alone(card: TalkCard, fact: str, wanted: dict[int, set[str]]) -> bool:
    """Whether a fact can be missed: every reply that holds a value of it is to a question that asks for that value."""
    own = slots(fact) - set().union(*(slots(other) for other in card.facts if other != fact))
    uses = [index for index, step in enumerate(card.steps) if any(slots(text) & own for text in step.reply)]
    return bool(uses) and all(wanted.get(index, set()) & own for index in uses)


def _exchange(card: TalkCard, index: int, facts: list[str], gone: set[str], values: Values, rng: random.Random) -> Step:
    """One question about a fact, and its answer."""
    step = card.steps[index]
    text = values.fill(reworded(rng.choice(step.say), rng))
    question = heard(text if text.startswith("E: ") else aside(text, rng), rng)
    if gone.intersection(facts):
        return (question, said(rng.choice(UNWRITTEN), rng, HONEST))
    plain = stated(facts[0]) if len(facts) == 1 and rng.random() < RESTATED / 2 else ""
    return (question, said(values.fill(plain or brief(rng.choice(step.reply), rng)), rng, ANSWER, step.mood))
