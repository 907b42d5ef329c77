"""Single facts told of other things: what a header says is then found by what it says, and not by heart.

A lighthouse becomes an observatory throughout a fact and all that is asked of it; what the spots hold stays.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from npc_runtime.training.known import Known, Spot
from npc_runtime.training.values import read_deck_table

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from npc_runtime.training.cards import Cards

SWAPPED, EACH = 0.7, 0.7
"""Share of facts of which words are changed, and of those words."""

READ = 0.6
"""Share of single facts that are read out of prose, where there are any: they are many, and in words of all kinds."""

_KIN = {
    word.replace("_", " "): tuple(other.replace("_", " ") for other in words.split())
    for words in read_deck_table("kindred.toml").values()
    for word in words.split()
}
_WORD = re.compile(rf"\b(an? )?({'|'.join(sorted(map(re.escape, _KIN), key=len, reverse=True))})(s?)\b", re.IGNORECASE)


def single(cards: Cards, rng: random.Random, unseen: bool) -> Known:
    """A single fact, by hand or read; in other words where it is for training."""
    card = rng.choice(cards.read if cards.read and rng.random() < READ else cards.known)
    return card if unseen else swapped(card, rng)


def swapped(card: Known, rng: random.Random) -> Known:
    """The fact with some of its words changed for others of their kind, the same everywhere."""
    if rng.random() >= SWAPPED:
        return card
    texts = " ".join((card.fact, *(text for spot in card.spots for text in (*spot.ask, *spot.answer)))).lower()
    changes: dict[str, str] = {}
    for found in _WORD.finditer(card.fact):
        word = _entry(found[2])
        new = rng.choice(_KIN[word])
        if word not in changes and rng.random() < EACH and new.lower() not in texts and new not in changes.values():
            changes[word] = new
    if not changes:
        return card
    [fact] = _changed((card.fact,), changes)
    return Known(fact, tuple(Spot(s.values, _changed(s.ask, changes), _changed(s.answer, changes)) for s in card.spots))


def _entry(word: str) -> str:
    return word if word in _KIN else word.lower() if word.lower() in _KIN else word.capitalize()


def _changed(texts: tuple[str, ...], changes: Mapping[str, str]) -> tuple[str, ...]:
    def new(found: re.Match[str]) -> str:
        word = changes.get(_entry(found[2]))
        if word is None:
            return found[0]
        word = word[:1].upper() + word[1:] if found[2][:1].isupper() else word
        article = found[1][:1] + " " if found[1] else ""  # "an" comes back where the slots are filled
        return f"{article}{word}{found[3]}"

    return tuple(_WORD.sub(new, text) for text in texts)
