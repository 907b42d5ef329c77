"""Drills: what is asked was told, the latest holds, slots agree, and held-out cards stay out."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from npc_runtime.persona import Persona
from npc_runtime.training import threads
from npc_runtime.training.cards import (
    CORE,
    Cards,
    PairCard,
    PersonaCard,
    PlayerCard,
    SmalltalkCard,
    cards_in,
    read_cards,
)
from npc_runtime.training.corpus import CorpusError, Line, Scene, held_out
from npc_runtime.training.drills import Drills, Shape
from npc_runtime.training.header import temperament
from npc_runtime.training.pairs import joined
from npc_runtime.training.pairs import written as written_pair
from npc_runtime.training.values import GUARDED, Values, number, person, place
from npc_runtime.training.weave import exchanges

if TYPE_CHECKING:
    from pathlib import Path

NAME = PlayerCard(
    "name", ("identity",), ("I'm {person}.",), ("Hello, {person}.",), ("Who am I?",), ("You're {person}.",),
    ("You never said.",), ("No, {person2}.",), ("{person2}, then.",), ("Mind the step, {person}.",),
)  # fmt: skip
DEBT = PlayerCard("debt", ("money",), ("I owe {person} {number} coins.", "I owe {person}."), ("Oh.",),
                  ("What do I owe?",), ("{number}, to {person}.", "You owe {person}."), ("I don't know.",))  # fmt: skip
CAT = PersonaCard("{their} cat is called {person}", ("family",), ("Your cat?",), ("{person}.",))
SECRET = PersonaCard("killed {person}", ("secret",), ("Who was it?",), ("Me.",), ("Not a word from me.",))
TALK = SmalltalkCard(("hello",), ("happy",), (("gruff", ("Hm.",)), ("kind", ("Welcome.",))))
CARDS = Cards((CAT, SECRET), (PersonaCard("name: {name}", (), ("Your name?",), ("{name}.",)),), (NAME, DEBT), (TALK,))
SCENES = [
    Scene(
        Persona(f"Ann {i}", "cook", ("gruff",)),
        (Line("player", "A question"), Line("npc", f"An answer {i}", "wary")),
        "s",
        typed=True,
    )
    for i in range(3)
]


def rng(seed: int = 1) -> random.Random:
    return random.Random(seed)


def test_slots_are_filled_the_same_with_articles_and_capitals() -> None:
    values = Values(rng(), fixed={"item": "old axe", "food": "figs"})
    assert values.fill("A {item} and a {item}.") == "An old axe and an old axe."
    assert values.fill("{food}. I like {food}.") == "Figs. I like figs."
    assert values["person"] == values["person"] != values["person2"]
    with pytest.raises(KeyError, match="slot `colour` is none of"):
        values.fill("{colour}")


def test_a_time_gets_its_preposition_where_none_stands() -> None:
    values = Values(rng(), fixed={"time": "dawn"})
    assert values.fill("I leave {time}, or before {time}.") == "I leave at dawn, or before dawn."
    assert values.fill("{time}. You said so.") == "At dawn. You said so."


def test_tests_are_worded_as_their_cards_are() -> None:
    drills = Drills(CARDS, SCENES)
    for seed in range(40):
        assert re.fullmatch(r"I'm .+\.", drills.recall(rng(seed), NAME, 1).lines[0].text)
        assert drills.recall(rng(seed), NAME, 1).lines[-1].text == "Who am I?"


def test_invented_names_are_many_and_parted_from_those_of_tests() -> None:
    drawn = rng()
    names = {person(drawn) for _ in range(2000)}
    assert len(names) > 1200
    assert all(name[0].isupper() for name in names)
    assert len({place(drawn) for _ in range(500)}) > 250
    assert all(number(drawn) not in ("0", "1", "one") for _ in range(300))
    assert not any(held_out(Values(rng(i))["person"]) for i in range(100))
    assert all(held_out(Values(rng(i), unseen=True)["person"]) for i in range(30))


def test_an_answer_never_holds_what_was_not_told() -> None:
    for seed in range(60):
        fact = threads.Facts(DEBT, rng(seed))
        told = fact.tell()[0].text
        question, answer = fact.ask()
        assert question.who == "player"
        for value in re.findall(r"\d+|[A-Z]\w+", answer.text.removeprefix("You ")):
            assert value.lower() in told.lower()
        assert fact.told().facts


def test_the_latest_correction_holds() -> None:
    fact = threads.Facts(NAME, rng())
    first = fact.told().facts[0]
    step = fact.correct()
    assert step is not None
    second = fact.told().facts[0]
    assert second != first
    assert second.lower() in step[0].text.lower()
    assert second in fact.ask()[1].text


def test_never_told_is_answered_by_ignorance_and_secrets_by_guards() -> None:
    step = threads.never_told(NAME, rng())
    assert step is not None
    assert step[1].text == "You never said."
    fact, steps = threads.persona_fact(SECRET, rng(), {"they": "she", "them": "her", "their": "her"})
    assert fact.startswith("killed ")
    assert {line.text for s in steps for line in s if line.who == "npc"} == {"Not a word from me."}


def test_of_the_setting_a_character_names_the_place() -> None:
    card = PersonaCard("setting: {setting}", (), ("Where am I?",), ("You've come to {setting}.",))
    persona = Persona("Ann", "cook", setting="the mill at Oss, late autumn, a big fire")
    assert (threads.identity(card, persona, rng()) or ())[-1].text == "You've come to the mill at Oss."


@pytest.mark.parametrize(
    "text", ["For you? {number} coppers.", "No spell. Grace.", "The left is {color}. The other {color2}.", "{person}."]
)
def test_an_answer_is_not_cut_where_its_first_sentence_does_not_answer(text: str) -> None:
    assert {threads.brief(text, rng(seed)) for seed in range(20)} == {text}


def test_an_answer_often_ends_with_the_sentence_that_answers() -> None:
    text = "It's {number} coppers a head! You'll stay dry."
    said = [threads.brief(text, rng(seed)) for seed in range(200)]
    assert set(said) == {text, "It's {number} coppers a head!"}
    assert 40 < said.count(text) < 120


def test_conversations_are_a_function_of_the_seed_and_tell_before_they_ask() -> None:
    drills = Drills(CARDS, SCENES)
    for seed in range(300):
        persona, lines = drills.conversation(rng(seed), Shape(facts=2, filler=6))
        assert drills.conversation(rng(seed), Shape(facts=2, filler=6)) == (persona, lines)
        texts = [line.text for line in lines]
        for at, text in enumerate(texts):
            if text.startswith(("You're ", "Mind the step, ")):
                name = text.removeprefix("You're ").removeprefix("Mind the step, ").removesuffix(".")
                heard = " ".join(texts[:at]).lower()
                assert f"i'm {name.lower()}" in heard or f"no, {name.lower()}" in heard


def test_the_filler_between_telling_and_asking_is_as_long_as_asked() -> None:
    drills = Drills(CARDS, SCENES)
    for gap in (0, 5, 40):
        probe = drills.recall(rng(gap), NAME, gap)
        assert sum(line.who == "npc" for line in probe.lines) == gap + 1
        assert probe.lines[-1].text.rstrip("?").lower().endswith("who am i")
        assert probe.facts[0].lower() in probe.lines[0].text.lower()


def test_exchanges_end_with_an_answer_and_temperament_follows_traits() -> None:
    lines = [Line("event", "e"), Line("player", "p"), Line("npc", "a"), Line("npc", "b"), Line("player", "c")]
    assert [len(step) for step in exchanges(lines)] == [3, 1]
    assert temperament(Persona("X", "y", ("shrewd", "cunning"))) == "sly"
    assert temperament(Persona("X", "y")) == temperament(Persona("X", "z"))


def test_cards_are_read_split_and_refused(tmp_path: Path) -> None:
    card = {"kind": "x", "tags": [], "tell": ["t"], "ack": ["a"], "ask": ["q"], "answer": ["b"]}
    lines = [json.dumps({**card, "tags": ["t"], "kind": f"kind {i}"}) for i in range(60)]
    (tmp_path / "player-a.jsonl").write_text("\n".join(lines), "utf-8")
    cards = read_cards(tmp_path)
    assert {"name", "event_gift"} <= {card.kind for card in cards.player}
    seen, unseen = cards.split(6)
    assert unseen.player
    assert {c.kind for c in seen.player}.isdisjoint({c.kind for c in unseen.player})
    assert {c.kind for c in cards.player} & CORE <= {c.kind for c in seen.player}
    for bad in ('{"kind": "y"}', "[" * 20_000):  # the latter deeper than Python's stack
        (tmp_path / "player-b.jsonl").write_text(bad, "utf-8")
        with pytest.raises(CorpusError, match=r"`player-b.jsonl` line 1: expected a card"):
            read_cards(tmp_path)


def test_rewording_keeps_slots_and_changes_words() -> None:
    told = "My sister is called {person}, you know"
    made = {threads.reworded(told, rng(seed)) for seed in range(200)}
    assert len(made) > 20
    assert all(text.count("{person}") == 1 for text in made)
    assert threads.reworded("E: The player puts a {item} down.", rng(3)) == "E: The player puts a {item} down."


def test_people_of_a_trade_hear_talk_of_their_trade() -> None:
    swords = SmalltalkCard(
        ("Got swords?",), ("wary",), (("plain", ("Two.",)), ("gruff", ("Pay first.",))), ("cook", "old man")
    )
    drills = Drills(replace(CARDS, trades=(swords,)), SCENES)
    lines = [drills.conversation(rng(seed), Shape(filler=8))[1] for seed in range(20)]
    assert any(line.text in ("Two.", "Pay first.") for turns in lines for line in turns)
    baker = [Scene(Persona("Bo", "baker"), SCENES[0].lines, "s", typed=True)]
    other = Drills(replace(CARDS, trades=(swords,)), baker)
    assert not any(line.text == "Two." for seed in range(20) for line in other.conversation(rng(seed), Shape())[1])


def test_a_scene_of_the_characters_own_is_heard_from_its_beginning_and_not_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("npc_runtime.training.drills.WHOLE", 1.0)
    lines = tuple(line for i in range(9) for line in (Line("player", f"said {i}"), Line("npc", f"told {i}", "wary")))
    ann = replace(SCENES[0], persona=Persona("Ann Berk", "cook", ("gruff",)), lines=lines)
    drills, own = Drills(replace(CARDS, smalltalk=()), [ann]), 0
    for seed in range(60):
        _, turns = drills.conversation(rng(seed), Shape(1, 6))
        heard = [line for line in turns if line.text.startswith(("said", "told"))]
        own += len(heard) > 5 and [line.text for line in heard] == [line.text for line in lines[: len(heard)]]
        assert not any(line.speech for line in heard)
    assert own > 10


def test_what_was_never_told_is_not_told_in_filler_either() -> None:
    told = (Line("player", "i owe the baker eight coins"), Line("npc", "You do.", "wary"))
    scenes = [SCENES[0], *(replace(SCENES[1], lines=told * 3) for _ in range(3))]
    drills = Drills(CARDS, scenes)
    probes = [drills.never(rng(seed), DEBT, 4) for seed in range(30)]
    assert all(probe and probe.lines[-1].text == "What do I owe?" for probe in probes)
    assert not any(line.text == told[0].text for probe in probes if probe for line in probe.lines)
    assert any(line.text == "A question" for probe in probes if probe for line in probe.lines)


HOME = PlayerCard("home", ("place",), ("I live in {place}.",), ("{place}?",), ("Where do I live?",), ("In {place}.",))
BOTH = PairCard((("name", "person"), ("home", "place")), ("{person} of {place}, that's me.",))


def test_two_facts_told_in_one_breath_are_asked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npc_runtime.training.drills.PAIRED", 1.0)
    monkeypatch.setattr("npc_runtime.training.threads.REWORDED", 0.0)
    drills, written = Drills(Cards(player=(NAME, HOME, DEBT), smalltalk=(TALK,), pairs=(BOTH,)), SCENES), 0
    for seed in range(60):
        texts = [line.text for line in drills.conversation(rng(seed), Shape(facts=1, filler=2))[1]]
        told = [re.fullmatch(r"(.+) of (.+), that's me\.?", text, re.IGNORECASE) for text in texts]
        if any(told):
            written += 1
            at = next(at for at, found in enumerate(told) if found)
            _, home = told[at].groups()  # type: ignore[union-attr]
            later = [text.lower() for text in texts[at + 1 :]]
            assert f"in {home.lower()}." in later
            assert any(text.startswith("you're ") for text in later)
    assert written > 10
    pair = joined(rng(), NAME, HOME)
    assert pair is not None
    assert [fact.told().facts[0].lower() in pair.told[0].text.lower() for fact in pair.facts] == [True, True]
    assert joined(rng(), NAME, replace(HOME, tell=("E: A letter from {place}.",))) is None
    assert written_pair(rng(), BOTH, {"name": NAME}) is None


def test_what_the_header_marks_as_secret_is_kept() -> None:
    pronoun = {"they": "she", "them": "her", "their": "her"}
    fact, steps = threads.persona_fact(CAT, rng(), pronoun, marked=True)
    assert fact.startswith("secret: her cat is called ")
    assert all(step[-1].text in GUARDED for step in steps)
    fact, steps = threads.persona_fact(SECRET, rng(), pronoun, marked=True)
    assert fact.startswith("secret: killed ")
    assert {step[-1].text for step in steps} == {"Not a word from me."}
    drills = Drills(CARDS, SCENES)
    knows = [fact for seed in range(80) for fact in drills.conversation(rng(seed), Shape())[0].knows]
    assert any(fact.startswith("secret: killed") for fact in knows)
    assert any(fact.startswith("killed") for fact in knows)


def test_headers_hold_facts_that_nobody_asks_for_and_some_characters_speak_first() -> None:
    bridge = PersonaCard("the bridge at {place} is shut", ("town",), ("Is the bridge open?",), ("Shut, in {place}.",))
    drills = Drills(replace(CARDS, persona=(CAT, bridge)), SCENES)
    made = [drills.conversation(rng(seed), Shape()) for seed in range(200)]
    asked = [any("ridge open" in line.text for line in lines) for _, lines in made]
    known = [any("bridge" in fact for fact in persona.knows) for persona, _ in made]
    assert sum(known) > sum(asked)
    assert all(sum("bridge" in fact for fact in persona.knows) <= 3 for persona, _ in made)
    firsts = [lines[0] for _, lines in made if lines]
    assert 20 < sum(line.who == "npc" for line in firsts) < 120
    assert not any(line.speech for line in firsts if line.who == "npc")


def test_the_header_is_asked_about_throughout_a_long_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npc_runtime.training.drills.SHORTER", 0.0)
    drills = Drills(replace(CARDS, persona=(CAT,)), SCENES)

    def asked(filler: int) -> float:
        talks = [drills.conversation(rng(seed), Shape(1, filler))[1] for seed in range(100)]
        return sum(line.text.startswith("Your cat") for lines in talks for line in lines) / 100

    assert asked(200) > 4 * asked(20) > 0


def test_cards_of_one_kind_are_one_card(tmp_path: Path) -> None:
    card = {"kind": "bell", "tags": ["t"], "tell": ["My bell is {color}."], "ask": ["My bell?"], "answer": ["{color}."]}
    more = {"kind": "bell", "tell": ["{color}, my bell."], "ask": ["Its colour?"], "answer": ["It's {color}."]}
    (tmp_path / "player-a.jsonl").write_text("\n".join(map(json.dumps, (card, more))), "utf-8")
    other = {**more, "answer": ["Rung in {place}."], "tell": ["Rung in {place}, it is {color}."]}
    (tmp_path / "player-b.jsonl").write_text(json.dumps(other), "utf-8")
    bells = [card for card in cards_in(tmp_path).player if card.kind == "bell"]
    assert [card.ask for card in bells] == [("My bell?", "Its colour?"), ("Its colour?",)]
    assert bells[0].tags == ("t",)
    (tmp_path / "pairs.jsonl").write_text('{"kinds": {"bell": "color"}, "tell": ["{color}"]}', "utf-8")
    with pytest.raises(CorpusError, match=r"`pairs.jsonl` line 1: expected a card"):
        cards_in(tmp_path)
