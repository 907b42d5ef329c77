"""Whole characters: every question is answered from the header, or honestly where its fact was left out."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING

import pytest

from npc_runtime.persona import Persona, bundled_folder, load_persona
from npc_runtime.training.cards import DECKS, Cards, PlayerCard, TalkCard, TalkStep, cards_in
from npc_runtime.training.characters import borrowed, character
from npc_runtime.training.corpus import CorpusError, Line, Scene
from npc_runtime.training.drills import Drills, Shape
from npc_runtime.training.header import alike
from npc_runtime.training.values import UNWRITTEN, Values, slots

if TYPE_CHECKING:
    from pathlib import Path

SHOES = TalkStep(("Shoes?",), ("{number} crowns the set.",), ("neutral",))
KNIFE = TalkStep(("Knife?",), ("{number2} crowns.",), ("neutral",))
BOY = TalkStep(("Who helps?",), ("{person} does. {number} crowns a week.",), ("fond",))
FORD = TalkStep(("The ford?",), ("Too deep, since the flood.",), ("sad",))
PRICES, NAME, FLOOD = "shoes are {number} crowns and a knife {number2}", "the boy is {person}", "the ford flooded"
SMITH = TalkCard((PRICES, NAME, FLOOD), (SHOES, KNIFE, BOY, FORD), ("smith",))
HOME = PlayerCard("home_town", ("t",), ("I'm from {place}.",), ("Hm.",), ("Where am I from?",), ("{place}.",))
SCENES = [Scene(Persona("Ann", "old miller", ("merry",)), (Line("player", "Well"), Line("npc", "Good", "wary")), "s")]


def test_answers_come_from_the_header_or_are_honest() -> None:
    missing, asked = 0, set()
    for seed in range(300):
        rng = random.Random(seed)
        values = Values(rng)
        facts, threads = character(SMITH, values, rng)
        assert set(facts) <= {values.fill(fact) for fact in SMITH.facts}
        assert values.fill(PRICES) in facts  # the boy's reply holds one of the prices too: they can't be missed
        for question, answer in (step for thread in threads for step in thread):
            asked.add(re.sub("[^a-z]", "", question.text.lower())[-5:])
            if answer.text in UNWRITTEN:
                missing += 1
                assert values.fill(NAME) not in facts
            else:
                replies = [values.fill(reply) for step in SMITH.steps for reply in step.reply]
                assert answer.text in (
                    *replies,
                    f"The boy is {values['person']}.",
                    f"{values.fill(PRICES).capitalize()}.",
                )
                assert values["person"] not in answer.text or values.fill(NAME) in facts
    assert 15 < missing < 60
    assert asked == {"shoes", "knife", "helps", "eford"}


def test_another_character_has_the_facts_that_are_asked_and_no_more() -> None:
    seen = set()
    for seed in range(100):
        rng = random.Random(seed)
        values = Values(rng)
        facts, threads = borrowed(SMITH, values, rng)
        told = " ".join(facts)
        for _, answer in (step for thread in threads for step in thread):
            seen.add(len(facts))
            assert values["person"] not in answer.text or values["person"] in told
            assert "crowns" not in answer.text or "crowns" in told
    assert seen == {1, 2}


def test_a_character_takes_the_place_of_another() -> None:
    drills = Drills(Cards(player=(HOME,), characters=(SMITH,)), SCENES)
    found = [drills.conversation(random.Random(seed), Shape()) for seed in range(60)]
    smiths = [(persona, lines) for persona, lines in found if persona.role == "smith"]
    assert 12 < len(smiths) < 36
    assert all(persona.knows for persona, _ in smiths)
    priced = [any("crowns" in line.text for line in lines if line.who == "npc") for _, lines in smiths]
    assert sum(priced) > len(smiths) / 2
    plain = [drills.conversation(random.Random(seed), Shape(plain=True)) for seed in range(20)]
    assert all(persona.role != "smith" for persona, _ in plain)


def test_the_shipped_deck_answers_with_what_its_headers_tell() -> None:
    cards = cards_in(DECKS).characters
    assert len(cards) >= 140
    for card in cards:
        told = set().union(*map(slots, card.facts))
        for step in card.steps:
            assert all(slots(text) <= told | slots(step.say[0]) for text in step.reply), step.reply


def test_a_character_without_facts_or_roles_is_refused(tmp_path: Path) -> None:
    step = {"say": ["a"], "reply": ["b"], "mood": ["neutral"]}
    for lacking in ({"facts": ["f"], "steps": [step]}, {"roles": ["r"], "steps": [step]}):
        (tmp_path / "characters-x.jsonl").write_text(json.dumps(lacking), "utf-8")
        with pytest.raises(CorpusError, match=r"`characters-x.jsonl` line 1: .*`facts` and `roles`"):
            cards_in(tmp_path)


def test_the_deck_tells_nothing_of_the_shipped_cast_with_which_models_are_examined() -> None:
    known = [fact for path in bundled_folder().glob("*.toml") for fact in load_persona(path).knows]
    assert known
    for card in cards_in(DECKS).characters:
        assert not alike(card.facts, known, words=3), card.facts
