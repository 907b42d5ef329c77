"""Single facts of headers: how they are written, what a character says of them, and headers made of them alone."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from npc_runtime.persona import Persona, bundled_folder, load_persona
from npc_runtime.training.cards import DECKS, Cards, PlayerCard, cards_in
from npc_runtime.training.characters import MISSING, TOLD, whole
from npc_runtime.training.corpus import CorpusError, Line, Scene
from npc_runtime.training.drills import Drills, Shape
from npc_runtime.training.header import alike
from npc_runtime.training.kindred import EACH, READ, SWAPPED, swapped
from npc_runtime.training.known import SECOND, Known, Spot, Telling, apart, read_known
from npc_runtime.training.values import UNWRITTEN, Values

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """
{their} oven is called [Hilda|{person}] and has burned for [nine years|{number} winters]
1 What's your oven called? | oven. name?
= {1}. | The oven? {1}. | My {1}.
2 How long has {1} burned?
= For {2}.


the ladder stays home because [{their} father made it|half the rungs are gone]
1 Why don't you lend the ladder?
= Because {1}. | {1}.
"""
OVEN, LADDER = read_known(TEXT, "known-x.txt")
SHE = {"they": "she", "them": "her", "their": "her"}
HOME = PlayerCard("home_town", ("t",), ("I'm from {place}.",), ("Hm.",), ("Where am I from?",), ("{place}.",))
SCENES = [Scene(Persona("Ann", "miller", ("merry",)), (Line("player", "Well"), Line("npc", "Good", "wary")), "s")]


def many(count: int) -> tuple[Known, ...]:
    """Facts about different things, each asked for by its noun."""
    nouns = ["".join(chr(97 + (index // 26**place) % 26) for place in range(3)) * 2 for index in range(1, count + 1)]
    spots = [(Spot(("oak", "ash", "pine"), (f"What is the {noun} of?",), ("{1}.",)),) for noun in nouns]
    return tuple(Known(f"the {noun} is of {{1}}", spot) for noun, spot in zip(nouns, spots, strict=True))


def test_a_block_is_a_fact_with_spots_and_what_is_asked_of_them() -> None:
    assert OVEN.fact == "{their} oven is called {1} and has burned for {2}"
    assert OVEN.spots[1] == Spot(("nine years", "{number} winters"), ("How long has {1} burned?",), ("For {2}.",))
    assert OVEN.topic == {"oven", "burned"}
    assert LADDER.fact == "the ladder stays home because {1}"


def test_the_header_says_she_and_the_character_i() -> None:
    oven = Telling(
        replace(OVEN, spots=(Spot(("Hilda",)), Spot(("{number} winters",)))), Values(random.Random(1)), rng()
    )
    years = oven.value(oven.card.spots[1])
    assert years.endswith(" winters")
    assert oven.spoken("The oven? {1}, for {2}.") == f"The oven? Hilda, for {years}."
    ladder = Telling(replace(LADDER, spots=LADDER.spots[:1]), Values(rng(), fixed=SHE), random.Random(1))
    assert ladder.fact == "the ladder stays home because her father made it"
    assert ladder.spoken("{1}. Because {1}.") == "My father made it. Because my father made it."
    assert ladder.value(ladder.card.spots[0]) == "my father made it"


def test_what_a_spot_holds_is_said_in_the_person_who_speaks() -> None:
    card = Known(
        "the tap ran when {1}", (Spot(("{they} were at {their} aunt's",), ("When did it run?",), ("When {1}.",)),)
    )
    telling = Telling(card, Values(rng(), fixed=SHE), rng())
    assert telling.fact == "the tap ran when she was at her aunt's"
    assert telling.spoken("When {1}.") == "When I was at my aunt's."
    assert telling.spoken("When {1}.", SECOND) == "When you were at your aunt's."
    assert telling.asked("Who came when {1}?") == "Who came when you were at your aunt's?"


def rng() -> random.Random:
    return random.Random(0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a fact\n1 Who?\n= {1}.", "line 1: expected `NUMBER question"),
        ("\n\na [b|c] fact\n2 Who?\n= {1}.", "line 3: expected `NUMBER question"),
        ("a [b|c] fact\n\na [b|c] fact\n1 Who?", "line 1: expected a fact with"),
        ("a [b|c] fact\n1 Who?", "line 1: expected a fact with"),
        ("a [b|] fact\n1 Who?\n= {1}.", "expected texts parted by `|`"),
        ("a [b|c] fact\n1 Who?\n{1}.", "expected `NUMBER question"),
        ("a [b|c] fact\n1 Who?\n= Nobody.", r"expected \{1\} in each of its answers"),
        ("a [b|c] fact\n1 Is it {1}?\n= {1}.", r"expected \{1\} in each of its answers and in none of its questions"),
        ("a [b|c] fact\n1 Is {person} in?\n= {1}.", "holds a slot that the fact does not"),
        ("a [b|c] fact\n1 Is it {2}?\n= {1}.", "holds a slot that the fact does not"),
    ],
)
def test_a_malformed_block_is_named(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "known-x.txt").write_text(text, "utf-8")
    with pytest.raises(CorpusError, match=f"`known-x.txt` .*{wanted}"):
        cards_in(tmp_path)


def test_facts_about_one_thing_do_not_meet_in_a_header() -> None:
    deck = (OVEN, replace(OVEN, fact="the oven is old and {1}"), LADDER)
    for seed in range(20):
        found = list(apart(random.Random(seed).sample(deck, 3), 3))
        assert len(found) == 2
        assert LADDER in found
    assert len(list(apart(many(30), 4))) == 4


def test_a_medley_is_answered_from_its_header_from_the_talk_or_honestly() -> None:
    told, heard, unknown, asked = 0, 0, 0, 0
    for seed in range(200):
        role, parts = whole(Cards(known=many(60)), random.Random(seed), SHE, False)
        assert role == ""
        for facts, threads in parts:
            steps = [step for thread in threads for step in thread]
            news = [step for step in steps if " is of " in step[0].text]
            told, heard, unknown = told + len(facts), heard + len(news), unknown + (not facts and not news)
            assert len(facts) + len(news) <= 1
            assert steps[: len(news)] == news
            for question, answer in steps[len(news) :]:
                asked += 1
                assert question.who == "player"
                if facts or news:
                    material = re.findall("oak|ash|pine", (facts or [news[0][0].text])[0])[-1]
                    assert answer.text == f"{material.capitalize()}." or re.fullmatch(
                        rf"The \w+ is of {material}.", answer.text
                    )
                else:
                    assert answer.text in UNWRITTEN
    assert 0.7 * TOLD < heard / (told + heard + unknown) < 1.3 * TOLD
    assert 0.5 * MISSING < unknown / (told + unknown) < 1.5 * MISSING
    assert 0.5 < asked / (told + heard + unknown) < 0.9


def test_a_fact_that_speaks_of_somebody_is_the_players_own_where_he_tells_it() -> None:
    assert OVEN.own
    assert LADDER.own  # as one of its values is
    assert not many(1)[0].own
    found = [part for seed in range(60) for part in whole(Cards(known=(OVEN,)), random.Random(seed), SHE, False)[1]]
    told = [
        thread[0][0].text.lower() for facts, threads in found for thread in threads if not facts and len(thread) > 1
    ]
    assert told
    assert all("my oven is called" in text for text in told)
    assert all("her oven is called" in facts[0] for facts, _ in found if facts)


def test_facts_read_out_of_prose_are_told_with_those_by_hand() -> None:
    by_hand, read = many(60), tuple(replace(card, fact=f"so {card.fact}") for card in many(120)[60:])
    facts = [
        fact
        for seed in range(100)
        for part in whole(Cards(known=by_hand, read=read), random.Random(seed), SHE, False)[1]
        for fact in part[0]
    ]
    assert 0.8 * READ < sum(fact.startswith("so ") for fact in facts) / len(facts) < 1.2 * READ


def test_a_conversation_may_be_about_such_a_header() -> None:
    drills = Drills(Cards(player=(HOME,), known=many(60)), SCENES)
    found = [drills.conversation(random.Random(seed), Shape()) for seed in range(60)]
    medleys = [persona for persona, _ in found if any(" is of " in fact for fact in persona.knows)]
    assert 12 < len(medleys) < 36
    assert all(persona.role == "miller" for persona in medleys)


def test_words_change_for_others_of_their_kind_throughout() -> None:
    text = """
an owl and two ships lie by the mill since [the war|the king died]
1 Whose mill is by the owl? | Owl? | any ships here
= The mill? {1}. | Ships. {1}.
"""
    [card] = read_known(text, "known-x.txt")
    changed = [new for new in (swapped(card, random.Random(seed)) for seed in range(400)) if new is not card]
    assert 0.8 * SWAPPED < len(changed) / 400 < 1.2 * SWAPPED
    kept = 0
    for new in changed:
        found = re.fullmatch(r"an? ([a-z]+) and two ([a-z ]+)s lie by the ([a-z ]+) since \{1\}", new.fact)
        assert found
        owl, ship, mill = found.groups()
        kept += owl == "owl"
        [spot] = new.spots
        assert spot.values == card.spots[0].values  # "king" is one of the values, not of the fact
        assert spot.ask == (f"Whose {mill} is by the {owl}?", f"{owl.capitalize()}?", f"any {ship}s here")
        assert spot.answer == (f"The {mill}? {{1}}.", f"{ship.capitalize()}s. {{1}}.")
        assert {owl, ship, mill} != {"owl", "ship", "mill"}
    assert 0.6 * (1 - EACH) < kept / len(changed) < 1.4 * (1 - EACH)


def test_single_facts_are_held_out_as_cards_are() -> None:
    seen, unseen = Cards(known=many(200)).split()
    assert 5 < len(unseen.known) < 40
    assert {*seen.known, *unseen.known} == {*many(200)}


def test_the_deck_tells_nothing_of_the_shipped_cast_with_which_models_are_examined() -> None:
    cast = [fact for path in bundled_folder().glob("*.toml") for fact in load_persona(path).knows]
    deck = cards_in(DECKS).known
    assert len(deck) >= 1000
    for card in deck:
        fact = Telling(card, Values(rng()), rng()).fact
        assert not alike([fact], cast, words=3), fact
