"""Attributes of owners: every one is told and asked, and what stands beside was never told."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest

from npc_runtime.evaluation.recall import holds, ignorant
from npc_runtime.training.corpus import held_out
from npc_runtime.training.grammar import attributes
from npc_runtime.training.grammar.attribute_deck import ATTRIBUTES, WORDING, Attribute
from npc_runtime.training.grammar.attributes import AttributeFact, Circle
from npc_runtime.training.grammar.breath import Breath
from npc_runtime.training.grammar.owners import OWNERS, SELF, draw_owner, forms
from npc_runtime.training.grammar.supply import Supply, numeral
from npc_runtime.training.threads import HONEST
from npc_runtime.training.values import PRONOUNS

if TYPE_CHECKING:
    from npc_runtime.training.corpus import Line

BRACED = re.compile(r"[{}\[\]|]")


def circle(seed: object) -> Circle:
    rng = random.Random(f"attributes/{seed}")
    return Circle(rng, Supply(rng))


def fact_of(attribute: Attribute, seed: int = 0) -> AttributeFact:
    around = circle(f"{attribute.key}/{seed}")
    return around.add(around.owner(attribute), attribute)


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.key)
def test_an_attribute_is_told_and_asked_in_whole_words(attribute: Attribute) -> None:
    for seed in range(25):
        fact = fact_of(attribute, seed)
        steps = [fact.tell(), fact.ask(), fact.volunteer(), fact.correct(), fact.ask(), fact.beside()]
        for line in (line for step in steps if step for line in step):
            assert not BRACED.search(line.text)
            assert "  " not in line.text


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.key)
def test_the_answer_holds_the_value_as_told_or_corrected(attribute: Attribute) -> None:
    for seed in range(10):
        fact = fact_of(attribute, seed)
        first = fact.told().facts
        assert holds(fact.tell()[0].text, first)
        assert holds(fact.ask()[-1].text, first)
        fact.correct()
        assert fact.told().facts != first
        assert holds(fact.ask()[-1].text, fact.told().facts)


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.key)
def test_every_attribute_has_words_enough(attribute: Attribute) -> None:
    assert len(attribute.tell) >= 4
    assert len(attribute.ask) >= 4
    assert attribute.embedded
    assert len(attribute.answer) >= 2
    assert all("{v}" in one for one, _ in (*attribute.tell, *attribute.answer, *attribute.gap))
    assert not any("{v}" in one for one, _ in (*attribute.ask, *attribute.embedded))


def texts(lines: list[tuple[Line, ...] | None]) -> list[str]:
    return [line.text for step in lines if step for line in step]


def whole(seed: int, unseen: bool = False) -> list[str]:
    rng = random.Random(seed)
    facts = attributes.draw(rng, unseen)
    steps = [fact.tell() for fact in facts]
    steps += [step for fact in facts for step in (fact.correct(), fact.volunteer(), fact.ask(), fact.beside()) if step]
    return texts([*steps, *attributes.owned(rng, PRONOUNS[seed % 2], unseen)[1]])


def test_a_draw_is_a_function_of_its_random_numbers() -> None:
    assert [whole(seed) for seed in range(40)] == [whole(seed) for seed in range(40)]
    assert whole(1) != whole(2)


def test_names_of_training_and_of_tests_are_kept_apart() -> None:
    for unseen in (False, True):
        supply = Supply(random.Random(f"names/{unseen}"), unseen)
        names = {supply.name(kind) for _ in range(50) for kind in ("person", "place")}
        assert {held_out(name) for name in names} == {unseen}
        owners = [draw_owner("person", supply) for _ in range(200)]
        called = {owner.text.split()[-1] for owner in owners if owner.named}
        assert called
        assert any(held_out(name) for name in called) == unseen


def test_a_supply_gives_no_value_twice_nor_part_of_another() -> None:
    supply = Supply(random.Random(3))
    values = [supply.draw(kind).lower() for kind in ("foods", "foods", "coins", "coins", "ages", "person", "item") * 2]
    assert not any(one in other for at, one in enumerate(values) for other in values[:at] + values[at + 1 :])


def test_related_facts_have_answers_of_their_own() -> None:
    for seed in range(300):
        facts = attributes.draw(random.Random(seed))
        assert 1 <= len(facts) <= 3
        values = [fact.told().facts[0].lower() for fact in facts]
        assert len(set(values)) == len(values)
        for fact in facts:
            assert fact.fits
            assert any(word.startswith(("about ", "my ")) for word in fact.kin)


def test_several_told_in_one_breath_are_asked_in_turn() -> None:
    breaths = [fact for seed in range(200) for fact in attributes.draw(random.Random(seed)) if isinstance(fact, Breath)]
    assert len(breaths) > 20
    for fact in breaths:
        told = fact.tell()[0].text
        seen = set()
        for _ in range(3):
            answer = fact.ask()[-1].text
            assert holds(answer, fact.told().facts)
            assert holds(told, fact.told().facts)
            seen.add(fact.told().facts)
        assert len(seen) > 1


def test_what_stands_beside_was_never_told_and_is_owned_up_to() -> None:
    denied = honest = 0
    for seed in range(600):
        fact = attributes.draw(random.Random(seed))[0]
        lines = [*fact.tell(), *(fact.beside() or ())]
        denied += len(lines) > 2
        honest += len(lines) > 2 and ignorant(lines[-1].text, " ".join(line.text for line in lines[:-1]))
        if len(lines) > 2:
            assert not holds(lines[-2].text, fact.told().facts)
    assert denied > 580
    assert honest / denied > 0.92


def test_neighbours_are_other_owners_or_other_attributes() -> None:
    for seed in range(300):
        around = circle(seed)
        attribute = around.rng.choice(ATTRIBUTES)
        fact = around.add(around.owner(attribute), attribute)
        other = around.other_owner(attribute, fact.owner)
        assert other is None or (other.text, other.kind) != (fact.owner.text, fact.owner.kind)
        another = around.other_attribute(fact.owner)
        assert another is None or another.group != attribute.group
        assert another is None or fact.owner.kind in another.on


def test_a_question_gives_its_answer_away_only_among_others() -> None:
    for seed in range(400):
        fact = fact_of(random.Random(seed).choice(ATTRIBUTES), seed)
        fact.tell()
        question, answer = fact.ask()
        if holds(question.text, fact.told().facts):
            assert " or " in question.text.lower() or fact.attribute.who
        assert holds(answer.text, fact.told().facts)


def test_a_characters_own_attributes_are_asked_with_you_and_answered_with_i() -> None:
    for seed in range(300):
        header, steps = attributes.owned(random.Random(seed), PRONOUNS[seed % 2])
        assert not BRACED.search(header)
        assert not re.search(r"\b(I|my|your?)\b", header)
        assert 1 <= len(steps) <= 4
        for question, answer in steps:
            assert not re.search(r"\b(your|you told|you said)\b", answer.text, re.IGNORECASE)
            assert not re.search(r"\bmy\b", question.text)


def test_what_the_character_does_not_know_of_its_own_people_it_says() -> None:
    drawn = [attributes.owned(random.Random(seed), PRONOUNS[0]) for seed in range(400)]
    denied = [(header, *step) for header, steps in drawn for step in steps if step[-1].speech == HONEST]
    assert 30 < len(denied) < 100
    assert all(ignorant(answer.text, f"{header} {question.text}") for header, question, answer in denied)


def test_verbs_and_pronouns_agree_with_the_owner() -> None:
    he, they = OWNERS["person"][0], OWNERS["folk"][0]
    assert forms(he, "I")["os"] == "my father's"
    assert forms(he, "she")["oo"] == "her father"
    assert forms(they, "you")["os"] == "your parents'"
    assert (forms(they, "I")["is"], forms(he, "I")["is"], forms(SELF, "I")["is"]) == ("are", "is", "am")
    assert (forms(SELF, "you")["o"], forms(SELF, "he")["oo"]) == ("you", "him")
    assert forms(he, "I", by_pronoun=True)["o"] == "he"


def test_there_are_words_enough() -> None:
    assert sum(map(len, OWNERS.values())) >= 120
    assert len(ATTRIBUTES) >= 90
    asked = [key for key in WORDING if key.startswith("ask_")]
    assert sum(len(WORDING[key]) for key in asked) >= 30
    assert len(WORDING["other_owner"]) + len(WORDING["other_attribute"]) >= 40


def test_numerals_are_digits_or_words() -> None:
    rng = random.Random(1)
    drawn = {number: {numeral(number, rng) for _ in range(40)} for number in (7, 20, 96, 140)}
    assert drawn == {7: {"7", "seven"}, 20: {"20", "twenty"}, 96: {"96", "ninety-six"}, 140: {"140"}}


def test_a_supply_never_waits_for_a_value_that_cannot_come() -> None:
    """Training once hung for good: somebody was called The, and every inn is "the ..."."""
    supply = Supply(random.Random(1))
    supply.avoid(["the"])
    assert supply.draw("inns", ["The"])
