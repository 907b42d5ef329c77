"""Templates widen every card that has nouns, and make persona cards of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from npc_runtime.training import threads
from npc_runtime.training.cards import Cards, PlayerCard, Template
from npc_runtime.training.templates import read_deck, widened
from npc_runtime.training.values import PRONOUN_SLOTS, slots

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = Template(
    "person",
    (
        ("tell", ("My {noun} is called {person}.", "{person} is my {noun}.")),
        ("ask", ("What is my {noun} called?", "{noun}, what name?")),
        ("answer", ("{person}.",)),
        ("unknown", ("You have a {noun}?",)),
    ),
    (
        ("fact", ("{their} {noun} is called {person}",)),
        ("ask", ("What is your {noun} called?",)),
        ("answer", ("My {noun} is {person}.",)),
    ),
)
SISTER = PlayerCard(
    "sister", ("family",), ("I've a sister, {person}.",), ("Ah.",), ("My sister?",), ("{person}.",),
    nouns=("sister", "sis"),
)  # fmt: skip
DEBT = PlayerCard("debt", ("money",), ("I owe {number}.",), ("Oh.",), ("How much?",), ("{number}.",))


def test_a_card_with_nouns_is_told_and_asked_in_the_templates_words_too() -> None:
    card = widened(Cards(player=(SISTER,), templates=(TEMPLATE,))).player[0]
    assert {"I've a sister, {person}.", "My sister is called {person}.", "{person} is my sis."} == set(card.tell)
    assert "Sis, what name?" in card.ask
    assert card.tell.count("I've a sister, {person}.") == 2  # own words weigh as much as the template's


def test_nouns_make_facts_about_the_character_and_other_cards_stay() -> None:
    cards = widened(Cards(player=(SISTER, DEBT), templates=(TEMPLATE,)))
    assert cards.player[1] == DEBT
    assert [card.fact for card in cards.persona] == [
        "{their} sister is called {person}",
        "{their} sis is called {person}",
    ]
    assert cards.persona[1].answer == ("My sis is {person}.",)


def test_cards_of_one_noun_are_kin() -> None:
    other = PlayerCard("letter_for", (), ("{person}",), ("a",), ("b",), ("{person}",), nouns=("little sister",))
    assert threads.near(SISTER) & threads.near(other)
    assert not threads.near(SISTER) & threads.near(DEBT)


def test_our_own_decks_hold_what_they_ask_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    deck = read_deck(tmp_path / "empty")
    rng = random.Random(1)
    for card in deck.player:
        fact = threads.Facts(card, rng)
        assert fact.fits or not slots(card.tell[0]), f"{card.kind}: no answer fits `{card.tell[0]}`"
        told = set.union(*(slots(text) for text in card.answer)) - PRONOUN_SLOTS
        given = [text for text in card.ask if told & slots(text) == told and told]
        assert not given, f"{card.kind}: {given} give the answer away"
