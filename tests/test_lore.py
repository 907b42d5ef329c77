"""Lore: shops add up, people and places are answered for as the header has them, and both stay out of what is known."""

from __future__ import annotations

import random
import re

from npc_runtime.persona import Persona
from npc_runtime.training.cards import Cards, PersonaCard, PlayerCard
from npc_runtime.training.corpus import Line, Scene
from npc_runtime.training.drills import Drills, Shape
from npc_runtime.training.grammar import folk, shop
from npc_runtime.training.grammar.supply import in_words

PRONOUN = {"they": "she", "them": "her", "their": "her"}
WORDS = {in_words(number): number for number in range(1, 100)}


def numbers(text: str) -> list[int]:
    """Every number of a text, in digits or words."""
    found = re.findall(r"\d+|[a-z]+(?:-[a-z]+)?", text.lower())
    return [int(word) if word.isdigit() else WORDS[word] for word in found if word.isdigit() or word in WORDS]


def test_prices_are_those_of_the_header() -> None:
    for seed in range(200):
        made = shop.Shop(random.Random(seed), "baker")
        header = " ".join(made.facts(PRONOUN))
        assert sorted(numbers(header)) == sorted(made.prices)
        for step in made.talk():
            assert not re.search(r"[{}]", " ".join(line.text for line in step))
            if step[-1].action == "trade":
                assert not numbers(step[-1].text)


def test_sums_and_change_are_right() -> None:
    made = shop.Shop(random.Random(5), "baker")
    counts = 0
    for seed in range(400):
        made = shop.Shop(random.Random(seed))
        for question, answer in (step for step in made.talk() if len(step) == 2):
            asked, said = numbers(question.text), numbers(answer.text)
            if re.search(r"\b(together|in all|altogether|give me both)\b", question.text.lower()) and not asked:
                counts += 1
                assert any(a + b in said for a in made.prices for b in made.prices if a != b)
            elif " short" in answer.text or "missing" in answer.text:
                counts += 1
                assert any(asked[0] + said[0] == price for price in made.prices)
    assert counts > 20


def test_goods_have_articles_and_plurals() -> None:
    forms = {text: shop._good(text) for text in ("c axe", "c knife/knives", "m rope", "p nails", "c sack of flour")}
    assert [good.a for good in forms.values()] == ["an axe", "a knife", "rope", "nails", "a sack of flour"]
    assert [good.some for good in forms.values()] == ["axes", "knives", "rope", "nails", "sacks of flour"]
    assert shop._good("c place by the fire").some == "places by the fire"


def test_folk_are_answered_for_as_the_header_has_them() -> None:
    for seed in range(300):
        facts, threads = folk.lore(random.Random(seed), PRONOUN)
        header = " ".join(facts)
        assert facts
        assert not re.search(r"[{}|]", header)
        for line in (line for steps in threads for step in steps for line in step):
            assert not re.search(r"[{}|;]", line.text)
        rels = re.findall(r"her ((?:[a-z]+[- ])*[a-z]+) (?:is called )?[A-Z]|, her ((?:[a-z]+[- ])*[a-z]+),", header)
        named = [one or other for one, other in rels]
        assert len(named) == len(set(named))


def test_names_of_folk_are_told_in_the_header() -> None:
    known = folk.Known(random.Random(3), PRONOUN, "Tamsin")
    assert "Tamsin" in known.fact
    assert {"Tamsin" in known.asked("name")[-1].text for _ in range(20)} == {True}
    assert all(known.rel in known.asked("by_name")[-1].text for _ in range(20))


def test_lore_joins_a_header_unless_it_speaks_of_the_same() -> None:
    scene = Scene(Persona("Ann", "cook"), (Line("player", "Hm"), Line("npc", "Yes.", "wary")), "s", typed=True)
    fact = PersonaCard("the mill burned", ("town",), ("Where's the mill?",), ("It burned.",))

    name = PlayerCard("name", (), ("I'm {person}.",), ("Hello.",), ("Who am I?",), ("{person}.",))
    bare = Cards(player=(name,))

    def made(rng: random.Random, pronoun: dict[str, str], role: str, unseen: bool) -> folk.Lore:
        return [f"the mill of {role} is up the hill"], [[(Line("player", "Mill?"), Line("npc", "Uphill.", "wary"))]]

    def share(cards: Cards) -> float:
        drills = Drills(cards, [scene], lore=(made,))
        return sum("Uphill." in str(drills.conversation(random.Random(seed), Shape())) for seed in range(200)) / 200

    assert 0.2 < share(bare) < 0.6
    assert share(Cards(player=(name,), persona=(fact,))) < share(bare)
    drills = Drills(bare, [scene], lore=(made,))
    assert "Uphill." not in str([drills.conversation(random.Random(seed), Shape(plain=True)) for seed in range(50)])
