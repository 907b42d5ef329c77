"""Talks: short conversations that somebody wrote in many wordings, with the facts of the header they rest on.

A line of `talks-*.jsonl` is {"facts": [clauses], "roles": [words], "temper": word, "steps": [{"say": [texts], "reply":
[texts], "mood": [words], "action": word}]}. Facts, roles, temper and action may be missing. Whichever of its texts is
drawn for each step, the talk makes sense.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from npc_runtime.training.corpus import Line
from npc_runtime.training.header import has_role
from npc_runtime.training.restate import stated
from npc_runtime.training.threads import brief, heard, reworded, value_slots
from npc_runtime.training.values import PRONOUN_SLOTS, slots

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from npc_runtime.training.cards import TalkCard
    from npc_runtime.training.threads import Step
    from npc_runtime.training.values import Values

TALK = 0.75
"""Loss weight of what the character says in a talk."""
BROKEN_OFF = 0.2
"""Chance that a talk ends before its last step."""
RESTATED = 0.25
"""Share of replies to what asks for a fact that give the fact itself back."""

_NAMES_SELF = re.compile(r"\b(?:name'?s?(?: is)?|call me|i'?m|i am|this is) \{person", re.IGNORECASE)


class Talks:
    """A deck of talks, by whom they fit."""

    def __init__(self, cards: Sequence[TalkCard]) -> None:
        self._cards = cards
        self._words = {card: _said(card) for card in cards}
        self._telling = {card for card in cards if _brought(card)}
        self._naming = {card for card in self._telling if any(_NAMES_SELF.search(text) for text in _says(card))}
        self._fitting: dict[tuple[str, str], list[TalkCard]] = {}

    def fitting(self, role: str, temperament: str) -> list[TalkCard]:
        """What may be said by a character of this role and temperament."""
        if (role, temperament) not in self._fitting:
            self._fitting[role, temperament] = [
                card
                for card in self._cards
                if card.temper in ("", temperament) and (not card.roles or has_role(role, card.roles))
            ]
        return self._fitting[role, temperament]

    def clear(self, card: TalkCard, avoided: set[str], told: set[str], named: bool) -> bool:
        """Whether what the player says there is about nothing that is asked elsewhere.

        `avoided` are words of what is never told, `told` of what is, `named`: a name is asked for.
        """
        words = self._words[card]
        return not (avoided & words or (card in self._telling and told & words) or (named and card in self._naming))


def _says(card: TalkCard) -> list[str]:
    return [text for step in card.steps for text in step.say]


def _said(card: TalkCard) -> frozenset[str]:
    """Words the player may say in a talk."""
    return frozenset(re.findall("[a-z]{3,}", re.sub(r"\{\w+\}", "", " ".join(_says(card))).lower()))


def _brought(card: TalkCard) -> set[str]:
    """Slots that the player brings in."""
    return set().union(*map(slots, _says(card))) - set().union(*map(slots, card.facts), PRONOUN_SLOTS)


def talk(card: TalkCard, values: Values, rng: random.Random) -> tuple[list[str], list[Step]]:
    """(facts for the header, the talk's exchanges from its first on, perhaps not all)."""
    count = rng.randint(1, len(card.steps)) if rng.random() < BROKEN_OFF else len(card.steps)
    steps: list[Step] = []
    for index, step in enumerate(card.steps[:count]):
        line = heard(values.fill(reworded(rng.choice(step.say), rng)), rng)
        plain = _plain(card).get(index, "") if rng.random() < RESTATED else ""
        reply = values.fill(plain or brief(rng.choice(step.reply), rng))
        mood = rng.choice(step.mood)
        steps.append((line, Line("npc", reply, mood, step.action, head=0.5, speech=TALK, typed=True)))
    return [values.fill(fact) for fact in card.facts], steps


@cache
def _plain(card: TalkCard) -> dict[int, str]:
    """The facts themselves in the first person, where a step asks for one or two of them and nothing is done."""
    found: dict[int, str] = {}
    for index, wanted in asked(card):
        facts = holding(card, wanted)
        texts = [stated(fact) for fact in facts]
        covered = wanted <= set().union(*map(slots, facts))
        event = card.steps[index].say[0].startswith("E: ")
        if covered and all(texts) and len(texts) <= 2 and not card.steps[index].action and not event:
            found[index] = " ".join(texts)
    return found


def holding(card: TalkCard, wanted: set[str]) -> list[str]:
    """The facts of a card that hold what is asked for."""
    return [fact for fact in card.facts if value_slots(fact) & wanted]


@cache
def asked(card: TalkCard) -> list[tuple[int, set[str]]]:
    """Steps that ask for values of the facts: (index, slots that every reply holds and no line before says)."""
    own, spoken = set().union(*map(slots, card.facts)) - PRONOUN_SLOTS, set[str]()
    found: list[tuple[int, set[str]]] = []
    for index, step in enumerate(card.steps):
        spoken |= set().union(*map(slots, step.say))
        wanted = set.intersection(*map(slots, step.reply)) & own - spoken
        if wanted:
            found.append((index, wanted))
        spoken |= set().union(*map(slots, step.reply))
    return found


def question(card: TalkCard, index: int, values: Values, rng: random.Random) -> list[Line]:
    """The talk up to what the player says in a step, as it was written."""
    lines: list[Line] = []
    for step in card.steps[: index + 1]:
        lines += [heard(values.fill(rng.choice(step.say))), Line("npc", values.fill(rng.choice(step.reply)))]
    return lines[:-1]
