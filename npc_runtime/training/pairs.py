"""Pairs: two facts of cards told in one breath ("I'm Corvane, from Maresk"), and one fact told in two lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.training.threads import ACK, Facts, ended, heard, reworded, said, usable
from npc_runtime.training.values import LEAD_ACKS, LEADS, LED, LED_NAMES, Values

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from npc_runtime.training.cards import PairCard, PlayerCard
    from npc_runtime.training.threads import Step


@dataclass(frozen=True, slots=True)
class Pair:
    """One or two facts and the step that tells them."""

    facts: tuple[Facts, ...]
    told: Step

    @property
    def fits(self) -> bool:
        """Whether each is answered by what is told."""
        return all(fact.fits for fact in self.facts)


def written(rng: random.Random, card: PairCard, deck: Mapping[str, PlayerCard]) -> Pair | None:
    """A sentence that somebody wrote for two kinds; None where the deck lacks one of them."""
    kinds = [kind for kind, _ in card.kinds]
    if not all(kind in deck for kind in kinds):
        return None
    values = Values(rng)
    told = heard(values.fill(reworded(rng.choice(card.tell), rng)), rng)
    facts = tuple(Facts(deck[kind], rng, told={slot.rstrip("2"): values[slot]}) for kind, slot in card.kinds)
    return Pair(facts, _acknowledged((told,), facts, rng))


def joined(rng: random.Random, one: PlayerCard, other: PlayerCard) -> Pair | None:
    """What two cards tell, one sentence after the other; None where either is an event."""
    facts = (Facts(one, rng), Facts(other, rng))
    texts = [fact.wording for fact in facts]
    if any(text.startswith("E: ") for text in texts) or not all(fact.fits for fact in facts):
        return None
    said_by = [fact.values.fill(reworded(text, rng)) for fact, text in zip(facts, texts, strict=True)]
    return Pair(facts, _acknowledged((heard(f"{ended(said_by[0])} {said_by[1]}", rng),), facts, rng))


def _acknowledged(told: Step, facts: Sequence[Facts], rng: random.Random) -> Step:
    """Followed by what the character says to one of them, or to none."""
    fact = rng.choice(facts)
    acks = usable(fact.card.ack, fact.known)
    if not acks or rng.random() < 0.3:
        return told
    return (*told, said(fact.values.fill(rng.choice(acks)), rng, ACK))


def pronoun(noun: str) -> str:
    """What stands for a noun of those whose names are told in a line of their own; "" for others."""
    kind = noun.rpartition(" ")[2]
    return next((pronoun for pronoun, nouns in LED.items() if kind in nouns), "")


def led(rng: random.Random, card: PlayerCard) -> Pair | None:
    """One fact in two lines: "My sister went down there." "Her name is Ilse." None where such a noun has no name."""
    noun = rng.choice(card.nouns)
    their, fact = pronoun(noun), Facts(card, rng)
    if not their or fact.known != {"person"}:
        return None
    lead, reply, name = (rng.choice(texts) for texts in (LEADS, LEAD_ACKS, LED_NAMES))
    first = heard(fact.values.fill(lead.replace("{noun}", noun)), rng)
    second = heard(fact.values.fill(name.replace("{their}", their).replace("{Their}", their.capitalize())), rng)
    answered = (said(reply.replace("{noun}", noun), rng, ACK),) if rng.random() < 0.7 else ()
    return Pair((fact,), _acknowledged((first, *answered, second), (fact,), rng))
