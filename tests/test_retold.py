"""Single facts as players tell them of themselves and of others, and ask for them again."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from npc_runtime.evaluation.recall import holds
from npc_runtime.persona import Persona
from npc_runtime.training.cards import DECKS, Cards, PlayerCard
from npc_runtime.training.corpus import Line, Scene
from npc_runtime.training.drills import Drills, Shape
from npc_runtime.training.known import read_known
from npc_runtime.training.retold import Retold, answered_to, asked_of_oneself
from npc_runtime.training.values import UNTOLD, UNWRITTEN

GIZMO, LADDER, OATH = read_known(
    """
{they} always kept {their} gizmo [in the yard|behind {their} mill]
1 Where did you keep your gizmo? | do you remember where you kept it
= {1}. | I kept it {1}. | My gizmo? {1}.

the ladder leans on [the oak|the wall]
1 Where does the ladder lean? | What do you lean it on?
= On {1}.

{they} swore {themselves} to [the king]
1 Who made you swear? | Who sold me the gizmo?
= {1}.
""".replace("{themselves}", "themselves"),
    "known-x.txt",
)
SCENES = [Scene(Persona("Ann", "miller"), (Line("player", "Well"), Line("npc", "Good", "wary")), "s")]
HOME = PlayerCard("home_town", ("t",), ("I'm from {place}.",), ("Hm.",), ("Where am I from?",), ("{place}.",))


@pytest.mark.parametrize(
    ("asked", "of_oneself"),
    [
        ("Where did you keep your gizmo?", "Where did I keep my gizmo?"),
        ("do you remember where you kept it", "do you remember where I kept it"),
        ("And what were you afraid of?", "And what was I afraid of?"),
        ("Can you tell me what you're called?", "Can you tell me what I'm called?"),
        ("Are you yourself here, or is it yours?", "Am I myself here, or is it mine?"),
        ("What's your oven called?", "What's my oven called?"),
        ("Who sold you the gizmo?", ""),
        ("What can you sell me?", ""),
        ("Why aren't you asleep?", ""),
    ],
)
def test_what_is_asked_of_a_character_is_asked_of_oneself(asked: str, of_oneself: str) -> None:
    assert asked_of_oneself(asked) == of_oneself


@pytest.mark.parametrize(
    ("answer", "to_the_player"),
    [
        ("I kept it {1}. My gizmo? {1}.", "You kept it {1}. Your gizmo? {1}."),
        ("I'm afraid of {1}, and I was then.", "You're afraid of {1}, and you were then."),
        ("{1}. It is mine.", "{1}. It is yours."),
        ("Ask me for {1}.", "Ask you for {1}."),
        ("You know {1}.", ""),
    ],
)
def test_what_a_character_says_of_itself_is_said_to_the_player(answer: str, to_the_player: str) -> None:
    assert answered_to(answer) == to_the_player


def test_a_fact_is_told_corrected_and_asked_as_the_players_own() -> None:
    texts = set()
    for seed in range(200):
        fact = Retold(GIZMO, random.Random(seed))
        assert fact.fits
        told, noted = fact.tell("Well", "And so on.")
        assert re.search(r"\bi always kept my gizmo (in the yard|behind my mill)", told.text.lower())
        assert told.text.lower().startswith("well. ")
        assert noted.who == "npc"
        [old] = fact.told().facts
        assert old in ("in the yard", "behind your mill")
        fact.correct()
        [new] = fact.told().facts
        assert {old, new} == {"in the yard", "behind your mill"}
        question, answer = fact.ask()
        texts.add(answer.text)
        assert re.search(r"\bi\b", question.text.lower()), question.text
        assert holds(answer.text, [new])
    assert {"In the yard.", "You kept it in the yard.", "Your gizmo? Behind your mill."} <= texts


def test_what_the_player_told_of_himself_is_not_the_characters() -> None:
    fact = Retold(GIZMO, random.Random(1))
    question, answer = fact.beside() or ()
    assert re.search("you (keep|kept)", question.text.lower())
    assert answer.text in UNWRITTEN
    question, answer = fact.untold()
    assert re.search("i (keep|kept)", question.text.lower().replace("where i", "i"))
    assert answer.text in UNTOLD


def test_what_is_nobodys_own_is_told_or_seen_and_never_asked_of_the_character() -> None:
    tellings = [Retold(LADDER, random.Random(seed)).tell() for seed in range(50)]
    assert {step[0].who for step in tellings} == {"player", "event"}
    assert all("he ladder leans on the" in step[0].text for step in tellings if step[0].text[:1].isupper())
    assert Retold(LADDER, random.Random(1)).beside() is None
    asked = {Retold(LADDER, random.Random(seed)).ask()[0].text.lower() for seed in range(50)}
    assert not any(re.search(r"\byou\b(?! remember)", text) for text in asked)
    assert Retold(LADDER, random.Random(1)).untold()[1].text in UNWRITTEN


def test_a_fact_that_cannot_be_turned_is_left_out() -> None:
    assert not Retold(OATH, random.Random(1)).fits


def test_every_fact_of_the_shipped_decks_is_told_in_whole_words_and_answered_by_its_value() -> None:
    cards = [
        card
        for path in sorted(DECKS.iterdir(), key=lambda path: path.name)
        if path.name.startswith("known-")
        for card in read_known(path.read_text("utf-8"), path.name)
    ]
    facts = [Retold(card, random.Random(number)) for number, card in enumerate(cards)]
    fit = [fact for fact in facts if fact.fits]
    assert len(fit) > 0.95 * len(cards)
    for fact in fit:
        for line in (*fact.tell(), *fact.ask(), *fact.untold()):
            assert not re.search(r"[{}\[\]|]|\bI (is|are|has|were)\b|\byou (am|is|was|has)\b", line.text), line.text


def test_conversations_hold_such_facts_and_answer_them_as_told() -> None:
    drills = Drills(Cards(player=(HOME,), known=(GIZMO,)), SCENES)
    right, unknown = 0, 0
    for seed in range(300):
        _, lines = drills.conversation(random.Random(seed), Shape())
        for line, after in pairwise(lines):
            if re.search(r"where (did i keep my gizmo|i kept it)", line.text.lower()):
                earlier = " ".join(x.text.lower() for x in lines[: lines.index(line)] if x.who == "player")
                places = re.findall("i always kept my gizmo (in the yard|behind my mill)", earlier)
                right += bool(places) and holds(after.text, [places[-1].replace("my", "your")])
                unknown += not places and after.text in UNTOLD
                assert bool(places) == (after.text not in UNTOLD)
    assert right > 20
    assert unknown > 5
