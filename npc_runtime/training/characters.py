"""Whole characters: all that a header tells of one, as a studio writes it, and what players ask it of that.

A line of `characters-*.jsonl` is a talk's (see talks), but its steps stand in any order, each asks of another fact, and
`roles` are what the character may be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from npc_runtime.training.restate import stated
from npc_runtime.training.talks import asked, holding
from npc_runtime.training.threads import (
    ANSWER,
    HONEST,
    RESTATED,
    aside,
    brief,
    heard,
    reworded,
    said,
    usable,
    value_slots,
)
from npc_runtime.training.values import UNWRITTEN

if TYPE_CHECKING:
    import random

    from npc_runtime.training.cards import TalkCard, TalkStep
    from npc_runtime.training.threads import Step
    from npc_runtime.training.values import Values

MISSING = 0.15
"""Chance that a fact is left out of the header: who asks for it then hears that the character does not know."""
AGAIN = 0.35
"""Chance that something is asked twice, in other words."""
SPARED = 0.3
"""Chance that a question is not asked: of so many facts a player asks for a few."""
BORROWED = 3
"""Most facts that one character takes over from another."""


def character(card: TalkCard, values: Values, rng: random.Random) -> tuple[list[str], list[list[Step]]]:
    """(facts for the header, threads that ask for them): what is left out there is not known."""
    wanted = dict(asked(card))
    gone = {fact for fact in card.facts if rng.random() < MISSING and _alone(card, fact, wanted)}
    threads: list[list[Step]] = []
    for index, step in enumerate(card.steps):
        facts = holding(card, wanted.get(index, set()))
        if rng.random() >= SPARED:
            count = 1 + (rng.random() < AGAIN)
            threads.append([_exchange(step, facts, bool(gone.intersection(facts)), values, rng) for _ in range(count)])
    return [values.fill(fact) for fact in card.facts if fact not in gone], threads


def borrowed(card: TalkCard, values: Values, rng: random.Random) -> tuple[list[str], list[list[Step]]]:
    """As `character`, of a few of its facts alone, for a header of another: so no two headers are alike."""
    wanted = dict(asked(card))
    chosen = rng.sample(sorted(wanted), min(len(wanted), rng.randint(1, BORROWED)))
    kept = set().union(*(holding(card, wanted[index]) for index in chosen))
    told = set().union(*map(value_slots, kept))
    threads: list[list[Step]] = []
    for index in chosen:
        step = card.steps[index]
        says, replies = tuple(usable(step.say, told)), tuple(usable(step.reply, told))
        if says and replies:
            alone = replace(step, say=says, reply=replies)
            threads.append([_exchange(alone, holding(card, wanted[index]), False, values, rng)])
    return [values.fill(fact) for fact in card.facts if fact in kept], threads


def _alone(card: TalkCard, fact: str, wanted: dict[int, set[str]]) -> bool:
    """Whether a fact can be missed: every reply that holds a value of it is to a question that asks for that value."""
    own = value_slots(fact) - set().union(*(value_slots(other) for other in card.facts if other != fact))
    uses = [index for index, step in enumerate(card.steps) if any(value_slots(text) & own for text in step.reply)]
    return bool(uses) and all(wanted.get(index, set()) & own for index in uses)


def _exchange(step: TalkStep, facts: list[str], gone: bool, values: Values, rng: random.Random) -> Step:
    """One question about facts, and its answer."""
    question = heard(aside(values.fill(reworded(rng.choice(step.say), rng)), rng), rng)
    if gone:
        return (question, said(rng.choice(UNWRITTEN), rng, HONEST))
    plain = stated(facts[0]) if len(facts) == 1 and rng.random() < RESTATED / 2 else ""
    return (question, said(values.fill(plain or brief(rng.choice(step.reply), rng)), rng, ANSWER, step.mood))
