"""Facts of the header in the character's own mouth."""

import random

import pytest

from npc_runtime.training import threads
from npc_runtime.training.cards import PersonaCard
from npc_runtime.training.restate import openings, restated, stated
from npc_runtime.training.values import UNWRITTEN

CASES = {
    "{they} sell {food}": "I sell {food}.",
    "sells {food} by the gate": "I sell {food} by the gate.",
    "never carries coins": "I never carry coins.",
    "is afraid of the {animal}": "I am afraid of the {animal}.",
    "{they_are} {their} brother's heir": "I am my brother's heir.",
    "{their} mother taught {them} to save": "My mother taught me to save.",
    "{person} wants {number} coins": "{person} wants {number} coins.",
    "the mill broke": "The mill broke.",
    "lost a thumb to the saw": "I lost a thumb to the saw.",
    "{they} asked the player for a {item}": "I asked you for a {item}.",
}


@pytest.mark.parametrize("fact", CASES)
def test_a_fact_is_said_in_the_first_person(fact: str) -> None:
    assert restated(fact) == CASES[fact]


@pytest.mark.parametrize("fact", ["salty soup is served", "dyes wool and charges extra", "{they} talk to themselves"])
def test_what_cannot_be_turned_surely_is_left(fact: str) -> None:
    assert restated(fact) == ""


def test_a_clause_with_a_subject_is_not_given_another() -> None:
    assert stated("boats leave at {time}") == "Boats leave at {time}."
    assert stated("{their} apple is worth {number} coins") == "My apple is worth {number} coins."
    assert stated("sharks came back to {place}") == "Sharks came back to {place}."
    assert stated("{they} talk to themselves") == ""


def test_a_want_is_wanted() -> None:
    assert restated("to see {place}", want=True) == "I want to see {place}."
    assert restated("{they} wanted to be a {job}", want=True) == "I wanted to be a {job}."


def test_a_thing_is_brought_up_by_its_noun_alone() -> None:
    assert "Tell me about your horse." in openings("{their} horse is called {person}")
    assert "And the mill?" in openings("the mill of {place} burned down")
    assert openings("{they} sell {food}") == ()


def test_drills_answer_with_the_fact_itself_but_for_secrets() -> None:
    pronoun = {"they": "she", "them": "her", "their": "her"}
    card = PersonaCard("{their} mill is in {place}", (), ("Where do you grind?",), ("In {place}, downhill.",))
    said = set()
    for seed in range(40):
        fact, steps = threads.persona_fact(card, random.Random(seed), pronoun)
        place = fact.rpartition(" in ")[2]
        said |= {step[-1].text.replace(place, "X") for step in steps}
        _, kept = threads.persona_fact(card, random.Random(seed), pronoun, marked=True)
        assert not any(place in step[-1].text for step in kept)
    assert said == {"My mill is in X.", "In X, downhill."}


def test_what_the_header_lacks_is_not_made_up() -> None:
    card = PersonaCard("{their} mill is in {place}", (), ("Where do you grind?", "Is {place} far?"), ("In {place}.",))
    for seed in range(20):
        question, answer = threads.unwritten(card, random.Random(seed))
        assert "grind" in question.text
        assert answer.text in UNWRITTEN
    assert threads.unwritten(PersonaCard("x", (), ("Is {place} far?",), ("Yes.",)), random.Random(1)) is None


def test_a_fact_is_put_in_all_its_ways() -> None:
    card = PersonaCard("sells {food}", (), ("What do you sell?",), ("{food}.",), ways=("{food} is what {they} sell",))
    pronoun = {"they": "he", "them": "him", "their": "his"}
    facts = [threads.persona_fact(card, random.Random(seed), pronoun)[0] for seed in range(20)]
    assert {fact.startswith("sells ") for fact in facts} == {True, False}
