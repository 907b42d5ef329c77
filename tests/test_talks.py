"""Talks: drawn in one piece with the facts they rest on, kept from what is asked elsewhere, and asked in the exam."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from npc_runtime.evaluation import persona as persona_exam
from npc_runtime.persona import Persona
from npc_runtime.training.cards import DECKS, Cards, PlayerCard, TalkCard, TalkStep, cards_in
from npc_runtime.training.corpus import CorpusError, Line, Scene
from npc_runtime.training.drills import Drills, Shape
from npc_runtime.training.talks import Talks, asked, question, talk
from npc_runtime.training.values import Values

if TYPE_CHECKING:
    from pathlib import Path

SHOW = TalkStep(("no bread today?",), ("The wheel broke {time}.",), ("sad",))
WHO = TalkStep(("who mends it?",), ("{person}, for {number} coins.",), ("neutral",))
THANKS = TalkStep(("I'll pay {number2}.",), ("{number2}! Sit down.",), ("happy",), "take")
MILL = TalkCard(("the mill broke {time}", "{person} the wright wants {number} coins"), (SHOW, WHO, THANKS), ("miller",))
JOKE = TalkCard((), (TalkStep(("a joke",), ("Two mice met a cat. One left.",), ("amused",)),), temper="cheerful")
MINE = TalkCard((), (TalkStep(("I'm {person}.",), ("Well met, {person}.",), ("happy",)),))
NAME = PlayerCard("name", ("t",), ("I'm {person}.",), ("Hm.",), ("Who am I?",), ("{person}.",))
SCENES = [Scene(Persona("Ann", "old miller", ("merry",)), (Line("player", "Well"), Line("npc", "Good", "wary")), "s")]


def test_a_talk_answers_from_its_facts() -> None:
    for seed in range(50):
        values = Values(random.Random(seed))
        facts, steps = talk(MILL, values, random.Random(seed))
        assert facts == [values.fill(fact) for fact in MILL.facts]
        assert [step[1].action for step in steps] == [None, None, "take"][: len(steps)]
        assert not re.search(r"[{}]", " ".join((*facts, *(line.text for step in steps for line in step))))
        if len(steps) > 1:
            for value in (values["person"], values["number"]):
                assert value in steps[1][1].text
                assert value in facts[1]


def test_a_talk_fits_its_roles_and_temperament() -> None:
    talks = Talks((MILL, JOKE, MINE))
    assert talks.fitting("old miller", "gruff") == [MILL, MINE]
    assert talks.fitting("Millerite priest", "cheerful") == [JOKE, MINE]


def test_a_talk_stays_away_from_what_is_asked_elsewhere() -> None:
    talks = Talks((MILL, JOKE, MINE))
    quiet = replace(MILL, steps=(SHOW, WHO))
    assert Talks((quiet,)).clear(quiet, set(), {"bread"}, named=True)  # the player tells nothing there
    assert not talks.clear(MILL, set(), {"bread"}, named=True)
    assert not talks.clear(MILL, {"bread"}, set(), named=False)
    assert not talks.clear(MINE, set(), set(), named=True)
    assert talks.clear(MINE, set(), set(), named=False)


def test_drills_hold_talks_in_one_piece_and_their_facts() -> None:
    drills, found = Drills(Cards(player=(NAME,), talks=(MILL, JOKE)), SCENES), 0
    for seed in range(200):
        persona, lines = drills.conversation(random.Random(seed), Shape(2, 12))
        for at, line in enumerate(lines):
            if line.typed and line.text.startswith("The wheel"):
                found += 1
                [fact] = [fact for fact in persona.knows if fact.startswith("the mill broke")]
                assert line.text[4:] == fact[4:].replace("mill", "wheel") + "."
                if at + 2 < len(lines) and lines[at + 2].typed and "coins" in lines[at + 2].text:
                    assert lines[at + 1].who == "player"
    assert found > 30


def test_scenes_get_more_facts_than_they_talk_about() -> None:
    scene = replace(SCENES[0], persona=replace(SCENES[0].persona, knows=("the mill stands",)))
    facts = cards_in(DECKS).persona
    drills = Drills(Cards(persona=facts), [scene])
    known = [drills.vary(scene, random.Random(seed)).persona.knows for seed in range(30)]
    assert all("the mill stands" in facts for facts in known)
    assert {len(facts) for facts in known} > {1, 2}
    assert drills.vary(SCENES[0], random.Random(1)).persona.knows == ()  # a header without facts stays without


def test_the_exam_asks_only_what_the_header_tells() -> None:
    assert asked(MILL) == [(0, {"time"}), (1, {"person", "number"})]
    assert asked(MINE) == []
    lines = question(MILL, 1, Values(random.Random(1)), random.Random(1))
    assert [line.who for line in lines] == ["player", "npc", "player"]
    probe = persona_exam._in_talk(random.Random(1), Persona("Ann", "cook"), MILL, asked(MILL)[:1])
    assert probe.persona.role == "miller"
    assert len(probe.facts) == 1
    assert any(probe.facts[0] in fact for fact in probe.persona.knows)


def test_our_talks_can_be_read_and_filled() -> None:
    deck = cards_in(DECKS).talks
    assert len({card.key for card in deck}) > 0.9 * len(deck) > 0
    for card in deck:
        values = Values(random.Random(1))
        for text in (*card.facts, *(text for step in card.steps for text in (*step.say, *step.reply))):
            assert not re.search(r"[{}]", values.fill(text)), text


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"temper": "odd"}, "temper"),
        ({"steps": []}, "steps"),
        ({"steps": [{"say": ["a"], "reply": ["b"], "mood": ["glum"]}]}, "mood"),
        ({"steps": [{"say": ["a"], "reply": ["b"], "mood": ["sad"], "action": "sing"}]}, "action"),
        ({"steps": [{"say": ["a"], "mood": ["sad"]}]}, "reply"),
    ],
)
def test_a_malformed_talk_is_named(tmp_path: Path, change: dict, wanted: str) -> None:
    good = {"facts": [], "steps": [{"say": ["a"], "reply": ["b"], "mood": ["sad"]}]}
    (tmp_path / "talks-x.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(good | change))
    with pytest.raises(CorpusError, match=f"line 2: .*{wanted}"):
        cards_in(tmp_path)


def test_facts_speak_of_one_in_the_third_person() -> None:
    one, many = ({"they": they, "them": "them", "their": "their"} for they in ("she", "they"))
    texts = (
        "{they_are} old",
        "{they} never carry a {item}",
        "{they} lost it",
        "{they} need it",
        "{they} have {number}",
        "{they} were born here and quit",
    )
    fixed = {"item": "box", "number": "9"}
    found = [[Values(random.Random(1), fixed=who | fixed).fill(text) for text in texts] for who in (one, many)]
    assert found[0] == [
        "she is old",
        "she never carries a box",
        "she lost it",
        "she needs it",
        "she has 9",
        "she was born here and quit",
    ]
    assert found[1] == [
        "they are old",
        "they never carry a box",
        "they lost it",
        "they need it",
        "they have 9",
        "they were born here and quit",
    ]
