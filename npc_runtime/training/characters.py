"""Whole headers: all that one tells of its character, as a studio writes it, and what players ask it of that.

A line of `characters-*.jsonl` is a talk's (see talks), but its steps stand in any order, each asks of another fact, and
`roles` are what the character may be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from npc_runtime.training.kindred import single
from npc_runtime.training.known import Telling, apart
from npc_runtime.training.restate import stated
from npc_runtime.training.retold import Retold
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
from npc_runtime.training.values import UNWRITTEN, Values

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from npc_runtime.training.cards import Cards, TalkCard, TalkStep
    from npc_runtime.training.threads import Step

MISSING = 0.15
"""Chance that a fact is left out of the header: who asks for it then hears that the character does not know."""
AGAIN = 0.35
"""Chance that something is asked twice, in other words."""
SPARED = 0.3
"""Chance that a question is not asked: of so many facts a player asks for a few."""
LENDERS, BORROWED = 2, 3
"""Most other characters of which one has facts as well, and most facts of each."""
MEDLEY = 0.75
"""Share of such headers that are single facts alone, which are far more than the characters."""
SINGLES, MORE = (4, 10), (0, 2)
"""Fewest and most single facts of such a header, and of one that is a character's."""
TOLD = 0.25
"""Share of single facts that the player tells, of himself or others, or an event shows, in the talk."""

Part = tuple[list[str], list[list["Step"]]]
"""Facts for a header, and threads that ask for them."""


def whole(cards: Cards, rng: random.Random, pronoun: dict[str, str], unseen: bool) -> tuple[str, Iterator[Part]]:
    """(a role, "" where any will do; what the header is made of): a character with facts of others, or a medley."""
    if not cards.characters or (cards.known and rng.random() < MEDLEY):
        return "", _singles(cards, rng.randint(*SINGLES), rng, pronoun, unseen)
    card = rng.choice(cards.characters)
    return rng.choice(card.roles), _character_and_others(card, cards, rng, pronoun, unseen)


def _character_and_others(
    card: TalkCard, cards: Cards, rng: random.Random, pronoun: dict[str, str], unseen: bool
) -> Iterator[Part]:
    yield character(card, Values(rng, unseen, pronoun), rng)
    for other in rng.sample(cards.characters, min(len(cards.characters), rng.randint(0, LENDERS))):
        if other is not card:
            yield borrowed(other, Values(rng, unseen, pronoun), rng)
    if cards.known:
        yield from _singles(cards, rng.randint(*MORE), rng, pronoun, unseen)


def _singles(cards: Cards, count: int, rng: random.Random, pronoun: dict[str, str], unseen: bool) -> Iterator[Part]:
    for card in apart((single(cards, rng, unseen) for _ in range(2 * count)), count):
        asked = 0 if rng.random() < SPARED else 1 + (rng.random() < AGAIN)
        fact = Retold(card, rng, unseen)
        if fact.fits and rng.random() < TOLD:
            yield [], [[fact.tell(), *(fact.ask() for _ in range(asked))]]
            continue
        telling, gone = Telling(card, Values(rng, unseen, pronoun), rng), rng.random() < MISSING
        able = [spot for spot in card.spots if spot.ask]
        spots = rng.sample(able, min(asked, len(able)))
        steps = [
            _question(spot.ask, spot.answer, card.fact, (telling.asked, telling.spoken), gone, rng) for spot in spots
        ]
        yield ([] if gone else [telling.fact]), [[step] for step in steps]


def character(card: TalkCard, values: Values, rng: random.Random) -> Part:
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


def borrowed(card: TalkCard, values: Values, rng: random.Random) -> Part:
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
    fact = facts[0] if len(facts) == 1 else ""
    return _question(step.say, step.reply, fact, (values.fill, values.fill), gone, rng, step.mood)


def _question(
    says: Sequence[str],
    replies: Sequence[str],
    fact: str,
    fill: tuple[Callable[[str], str], Callable[[str], str]],
    gone: bool,
    rng: random.Random,
    moods: Sequence[str] = (),
) -> Step:
    """A question, and its answer: a reply, now and then the `fact` itself where there is one, or honest ignorance.

    `fill` fills the slots of a question and those of an answer.
    """
    question = heard(aside(fill[0](reworded(rng.choice(says), rng)), rng), rng)
    if gone:
        return (question, said(rng.choice(UNWRITTEN), rng, HONEST))
    plain = stated(fact) if fact and rng.random() < RESTATED / 2 else ""
    return (question, said(fill[1](plain or brief(rng.choice(replies), rng)), rng, ANSWER, moods))
