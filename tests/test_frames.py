"""Frames: every verb and shape once through; answers hold what was told, and nothing near is called told."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from dataclasses import replace

import pytest

from npc_runtime.evaluation.recall import holds, ignorant
from npc_runtime.training.corpus import held_out
from npc_runtime.training.grammar import frames, phrases, wording
from npc_runtime.training.grammar.events import Event, I, Words, drawn_subject, kin_subject
from npc_runtime.training.grammar.frames import Frame
from npc_runtime.training.grammar.lexicon import ALSO, NOUNS, PERSONS, SHAPES, VERBS, Filler, Verb, plural
from npc_runtime.training.values import PRONOUNS

SEEDS = range(400)
BROTHER = kin_subject("brother", "he", "my", "my", "your")


def events(verb: Verb, seed: int) -> list[Event]:
    """One event of the verb for each class of thing it takes."""
    filler = Filler(random.Random(seed), unseen=False)
    roles = {code: filler.role(code) for code in verb.roles}
    return [Event(drawn_subject(filler), verb, filler.thing(verb, kind), roles) for kind in verb.classes]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.forms[0].base + verb.forms[0].after)
def test_every_verb_is_told_asked_and_answered_in_whole_sentences(verb: Verb) -> None:
    for event in events(verb, 1):
        rng = random.Random(2)
        for code in event.parts():
            told = phrases.telling(event, I.told, rng)
            question, answer = phrases.exchange(event, code, rng)
            assert not re.search(r"[{}~_]|  | [.,?]|\ba [aeiou](?!ne|ni)", told + question + answer), (told, question)
            assert holds(answer, [event.fact(code)]), (question, answer, event.fact(code))
            assert not holds(question, [event.fact(code)]) or code not in PERSONS, question


def test_every_shape_can_be_filled() -> None:
    rng = random.Random(1)
    verb = next(verb for verb in VERBS if verb.forms[0].base == "buy")
    event = replace(events(verb, 3)[0], subject=BROTHER)
    for texts in SHAPES.values():
        for text in texts:
            words = Words(event, BROTHER.told, rng)
            words.roles("from")
            words.question("from")
            words.answer("from")
            words.update(
                dict.fromkeys(("y", "py", "pold", "kd", "kvd", "ks", "kme", "kself", "kw", "kp", "p2", "short2"), "so")
            )
            assert "{" not in text.format_map(words)


@pytest.mark.parametrize("key", sorted(ALSO), ids=" ".join)
def test_other_questions_for_a_role_can_be_filled_and_give_nothing_away(key: tuple[str, str]) -> None:
    group, code = key
    verb = next(verb for verb in VERBS if verb.group == group and code in verb.roles)
    event = replace(events(verb, 3)[0], subject=BROTHER)
    words = Words(event, BROTHER.asked, random.Random(1))
    for text in (text for pair in ALSO[key] for text in pair):
        assert not re.search(r"[{}?]|  ", text.format_map(words)), text
        assert not holds(text.format_map(words), [event.fact(code)])


def test_things_that_only_an_adjective_tells_apart_are_asked_for_by_it() -> None:
    seen = 0
    for seed in range(3000):
        facts = [fact for fact in frames.draw(random.Random(seed)) if isinstance(fact, Frame) and fact.event.full]
        things = [fact.event.thing for fact in facts if fact.event.thing]
        assert len({thing.words for thing in things}) == len(things)
        for fact, thing in zip(facts, things, strict=True):
            assert len({other.noun for other in things}) == 1
            question, answer = (line.text.lower() for line in fact.ask())
            seen += 1
            assert thing.adjective in question or thing.adjective in answer, (question, answer)
    assert seen > 50


def test_a_telling_holds_every_value_of_the_event() -> None:
    for seed in SEEDS:
        rng = random.Random(seed)
        event = frames.drawn(Filler(rng, unseen=False))
        told = phrases.telling(event, event.subject.told, rng)
        assert holds(told, [role.fact for role in event.roles.values()]), told
        assert event.thing is None or holds(told, [event.thing.words]), told


def test_answers_hold_what_is_told_also_after_a_correction() -> None:
    for seed in SEEDS:
        for fact in frames.draw(random.Random(seed)):
            assert fact.fits
            for _ in range(2):
                answer = fact.ask()[-1].text
                assert holds(answer, fact.told().facts), (answer, fact.told())
            step = fact.correct()
            answer = fact.ask()[-1].text
            assert step
            assert holds(answer, fact.told().facts), (step[0].text, answer, fact.told())
            assert holds(step[0].text, fact.told().facts), step[0].text


def test_questions_beside_were_never_told_and_are_answered_honestly() -> None:
    honest = asked = 0
    for seed in SEEDS:
        facts = frames.draw(random.Random(seed))
        told = " ".join(fact.tell()[0].text for fact in facts)
        for fact in facts:
            step = fact.beside()
            if step is None:
                continue
            asked += 1
            honest += ignorant(step[-1].text, f"{told} {step[0].text}")
    assert asked > len(SEEDS)
    assert honest > 0.8 * asked


def test_two_roles_asked_at_once_are_both_answered_or_the_one_owned_up_to() -> None:
    both = half = 0
    for seed in SEEDS:
        rng = random.Random(seed)
        event = frames.drawn(Filler(rng, unseen=False))
        code, *others = [*event.roles, *event.missing()]
        for second in others:
            question, answer = phrases.pair(event, code, second, rng)
            told = second in event.roles
            assert not told or not holds(question, [event.fact(second)])
            assert holds(answer, [event.fact(code), *([event.fact(second)] if told else [])]), answer
            both, half = both + told, half + (not told)
            assert told or ignorant(answer, answer)
    assert both
    assert half


def test_facts_of_one_draw_differ_in_every_value() -> None:
    related = 0
    for seed in SEEDS:
        facts = [fact for fact in frames.draw(random.Random(seed)) if isinstance(fact, Frame)]
        values = [role.fact for fact in facts for role in fact.event.roles.values()]
        assert len(set(values)) == len(values)
        keys = [(fact.event.verb, fact.event.thing, fact.event.subject) for fact in facts]
        assert len(set(keys)) == len(keys)
        related += len(facts) > 1
    assert related > 100


def test_facts_name_what_they_are_about() -> None:
    facts = [fact for seed in SEEDS for fact in frames.draw(random.Random(seed))]
    fact = next(
        fact for fact in facts if isinstance(fact, Frame) and fact.event.thing and fact.event.thing.kind == "beast"
    )
    assert fact.event.thing
    assert f"about {fact.event.thing.noun}" in fact.kin


def test_a_conversation_is_a_pure_function_of_its_generator() -> None:
    def lines(seed: int) -> list[str]:
        facts = frames.draw(random.Random(seed))
        steps = [step for fact in facts for step in (fact.tell(), fact.beside(), fact.correct(), fact.ask()) if step]
        return [line.text for step in steps for line in step]

    assert all(lines(seed) == lines(seed) for seed in range(30))
    assert lines(1) != lines(2)


def test_held_out_names_keep_apart() -> None:
    for unseen in (False, True):
        for seed in range(30):
            for fact in frames.draw(random.Random(seed), unseen):
                assert isinstance(fact, Frame)
                names = [role.value for role in fact.event.roles.values() if role.code in PERSONS]
                assert all(held_out(name) == unseen for name in names)


def test_a_character_is_asked_about_its_own_life() -> None:
    for seed in SEEDS:
        rng = random.Random(seed)
        header, steps = frames.owned(rng, PRONOUNS[seed % 3])
        assert 1 <= len(steps) <= 3
        assert not re.search(r"[{}~_]|  |\.$|\b(I|my|your|you)\b", header), header
        for player, npc in steps:
            assert not re.search(r"\byou (told|said)\b", npc.text, re.IGNORECASE), (player.text, npc.text)
            assert set(re.findall(r"\w+", npc.text.lower())) & set(re.findall(r"\w+", header.lower()))


def test_the_data_is_as_large_as_it_should_be() -> None:
    assert len(VERBS) >= 220
    assert len({noun for nouns in NOUNS.values() for noun in nouns}) >= 500
    assert all(len(nouns) >= 8 for nouns in NOUNS.values())  # a draw takes up to six
    kinds: dict[str, int] = defaultdict(int)
    for key, texts in SHAPES.items():
        kinds[key.partition("_")[0]] += len(set(texts))
    assert kinds["tell"] >= 25
    assert kinds["ask"] >= 30
    assert kinds["other"] + kinds["missing"] + kinds["known"] >= 55


@pytest.mark.parametrize(
    ("one", "many"),
    [("loaf of bread", "loaves of bread"), ("gold tooth", "gold teeth"), ("midwife", "midwives"), ("box", "boxes"),
     ("night watchman", "night watchmen"), ("ferry", "ferries"), ("donkey", "donkeys"), ("sheep", "sheep")],
)  # fmt: skip
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many


def test_particles_move_around_a_pronoun_where_they_may() -> None:
    forms = {form.base + form.after: form for verb in VERBS for form in verb.forms}
    assert forms["pick out"].with_object("picked", "it", pronoun=True) == "picked it out"
    assert forms["look for"].with_object("looked", "it", pronoun=True) == "looked for it"
    assert forms["look for"].with_object("looked", "") == "looked for"


def test_wordings_wrap_any_clause() -> None:
    rng = random.Random(1)
    for _ in range(300):
        assert "bought it from aldo" in wording.told("I bought it from Aldo", rng).lower()
        asked = wording.asked("who did I buy it from", "who I bought it from", rng)
        assert "it from" in asked
        assert "{" not in asked
        assert "Bess" in wording.corrected("Bess", "Aldo", "who I bought it from", rng)
    unknown = [wording.unknown("who you bought it from", "a lamp", rng) for _ in range(300)]
    assert sum(ignorant(text, "") for text in unknown) > 270


def test_typing_noise_leaves_values_whole() -> None:
    rng = random.Random(1)
    text = "I bought a copper kettle from Aldo under the floorboards"
    typed = {wording.typed(text, ("copper kettle", "under the floorboards"), rng) for _ in range(500)}
    assert len(typed) > 5
    assert all(holds(one, ["copper kettle", "under the floorboards", "Aldo"]) for one in typed)
