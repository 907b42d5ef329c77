"""Templates: ways of telling and asking that fit every card of a kind of value ("My {noun} is called {person}.").

A dozen phrasings a card are soon known by heart; dozens that all cards share are learned for what they mean.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npc_runtime.training.cards import DECKS, Cards, PersonaCard, PlayerCard, cards_in, read_cards
from npc_runtime.training.values import PRONOUN_SLOTS, slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from npc_runtime.training.cards import Template, Texts

OWN_FACTS = 4
"""Facts about the character that one noun is put into."""


def read_deck(folder: Path) -> Cards:
    """Every card of a folder and of our own, widened by the templates."""
    return widened(read_cards(folder))


def own_deck() -> Cards:
    """Every card of our own, widened."""
    return widened(cards_in(DECKS))


def widened(cards: Cards) -> Cards:
    """The cards with the texts of their template added, and persona cards made of the nouns of player cards."""
    known = {template.slot: template for template in cards.templates}
    player, persona = [], list(cards.persona)
    for card in cards.player:
        template = known.get(_slot(card)) if card.nouns else None
        player.append(card if template is None else _widened(card, template))
        if template is not None:
            persona += _owned(card, template)
    return replace(cards, player=tuple(player), persona=tuple(persona))


def _slot(card: PlayerCard) -> str:
    """The one slot of every answer, "" when there are more or none."""
    wanted = {frozenset(slots(text) - PRONOUN_SLOTS) for text in card.answer}
    return next(iter(wanted.pop())) if len(wanted) == 1 and all(len(names) == 1 for names in wanted) else ""


def _widened(card: PlayerCard, template: Template) -> PlayerCard:
    """Own texts count for as much as the template's, however many those are."""
    changed: dict[str, Any] = {}
    for part, texts in template.texts:
        own: Texts = getattr(card, part)
        shared = tuple(_with_nouns(texts, card.nouns))
        changed[part] = own * max(1, round(len(shared) / len(own))) + shared if own else shared
    return replace(card, **changed)


def _owned(card: PlayerCard, template: Template) -> Iterable[PersonaCard]:
    own = dict(template.own)
    facts = own["fact"]
    for number, noun in enumerate(card.nouns):
        texts = {part: tuple(_with_nouns(own[part], (noun,))) for part in ("ask", "answer")}
        start = len(card.kind) + number  # so that cards take different ones
        for at in range(min(OWN_FACTS, len(facts))):
            fact = facts[(start + at * 5) % len(facts)].replace("{noun}", noun)
            yield PersonaCard(fact, card.tags, texts["ask"], texts["answer"])


def _with_nouns(texts: Sequence[str], nouns: Sequence[str]) -> Iterable[str]:
    """Each text with one of the nouns, in turn."""
    for number, text in enumerate(texts):
        noun = nouns[number % len(nouns)]
        filled = text.replace("{noun}", noun)
        yield noun[:1].upper() + filled[1:] if text.startswith("{noun}") and text[-1:] in ".!?" else filled
