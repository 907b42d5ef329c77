"""Facts read out of prose: sentences taken apart, and what is asked of them."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest

from npc_runtime.training.cards import cards_in
from npc_runtime.training.known import read_known
from npc_runtime.training.reading.clauses import Clauses, plain_sentences
from npc_runtime.training.reading.deck import NAME, OF_A_VERB, prose_facts, write_prose_facts
from npc_runtime.training.reading.questions import Questions
from npc_runtime.training.reading.words import Lexicon

if TYPE_CHECKING:
    from pathlib import Path

NOUNS = "miller mill sack sacks door bridge hat knife river morning sister bread king town letter stable years"
VERBS = "carry hide live give walk open build keep hurry sell buy want close"
PASTS = "carried walked opened closed wanted lived hurried"
TEXT = " ".join(
    [*(f"He saw the {noun} in it." for noun in NOUNS.split()), *(f"He had to {verb} it." for verb in VERBS.split())]
    + [f"He {past} on and on." for past in PASTS.split()]
    + ["Then said the miller in Harwick to Anna. So said the king to Anna, and then he went on. Anna keeps on."]
)
WORDS = Lexicon.of([TEXT] * 60)


def block(sentence: str, seed: int = 0) -> str:
    """The deck's block of one sentence; "" where it is not taken."""
    clause = Clauses(WORDS).clause(sentence)
    return (clause and Questions([clause], WORDS, random.Random(seed)).block(clause)) or ""


def blocks(sentence: str) -> str:
    """Those of many draws, one under another."""
    return "\n".join(block(sentence, seed) for seed in range(60))


def test_a_corpus_shows_what_its_words_are() -> None:
    assert WORDS.past["carried"] == "carry"
    assert WORDS.past["hid"] == "hide"
    assert WORDS.past_of["live"] == "lived"
    assert WORDS.is_noun("sack")
    assert not WORDS.is_noun("carried")
    assert WORDS.is_name("Anna")
    assert not WORDS.is_name("Then")
    assert {"miller", "king"} <= WORDS.speakers
    assert [word for word in ("walking", "hiding", "king", "morning") if WORDS.is_progressive(word)] == [
        "walking",
        "hiding",
    ]


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("The miller carried a sack to the mill", "What did {1} carry", "{2}."),
        ("The miller carried a sack to the mill", "Where did {1} carry", "{3}."),
        ("The miller carried a sack to the mill", "Who carried {2} {3}?", "{1} did."),
        ("The miller carried a sack to the mill", "where {1} carried {2}", "{1} carried {2} {3}."),
        ("The miller carried a sack to the mill", "Where does {1} carry", "{1} carries {2} {3}."),
        ("Anna walked to the river in the morning", "When did {1} walk", "{1} did."),
        ("The bridge was built by the king", "Who was {1} built by?", "By {2}."),
        ("He lived in the mill for nine years", "How long did you live", "I lived {2} {1}."),
        ("She hid her knife under the bridge", "Where did you hide", "I hid {1} {2}."),
        ("He wanted to buy the stable", "What did you want to do?", "{1}."),
        ("He hurried to the stable", "Where did you go?", "I hurried {1}."),
        ("The miller closed the door because the king walked to the town", "Why did {1} close", "{3}."),
        ("I keep the letter in my hat", "Where do you keep", "I keep {1} {2}."),
        ("His sister opened the door", "Who opened {2}?", "{1} opened {2}."),
        ("My sister keeps a sack in my hat", "What does {1} keep {2}?", "{1} keeps {3} {2}."),
        ("I will buy the stable from the king", "Who will you buy {1} from?", "I will buy {2} from {1}."),
    ],
)
def test_what_is_asked_of_a_sentence(sentence: str, question: str, answer: str) -> None:
    found = re.sub(r"\{\d\}", "{#}", blocks(sentence))  # spots are numbered as they are drawn
    for text in (question, answer):
        assert re.sub(r"\{\d\}", "{#}", text) in found


def test_a_fact_of_the_characters_own_is_told_as_the_headers_tell_it() -> None:
    facts = {block("She hid her knife under the bridge", seed).split("\n")[0] for seed in range(40)}
    assert facts == {
        "{they} hid [{their} knife] [under the bridge]",
        "{they} hide [{their} knife] [under the bridge]",
    }
    assert "your knife" not in blocks("He walked to the mill")
    own = block("His sister opened the door").split("\n")
    assert own[0].startswith("[{their} sister] open")


@pytest.mark.parametrize(
    "sentence",
    [
        "The miller slept",  # nothing is told beside
        "The miller, who was old, walked to the mill",
        "He gave her the letter in the town",  # whom it speaks of is told elsewhere
        "It walked to the river in it",
        "The miller carried nothing to the mill",
        "Grumbling zorbly the miller walked on",
        "The naked miller walked to the river",
        "The miller carried no bread to the mill",
        "Where the river walked to the mill",
    ],
)
def test_what_is_not_wholly_understood_is_left(sentence: str) -> None:
    assert block(sentence) == ""


def test_plain_sentences_are_those_without_speech_and_side_remarks() -> None:
    text = (
        'Mr. Harwick opened the door. "I keep a shop in Dover. Who are you?" he asked. The king, an old man, sat. '
        "Anna walked to the mill, and nobody saw her. He paid 9 pence. She left; the door closed. "
        '"We\'ve a mill by the river, and it pays," she said. "Our king will buy it. We shall see."'
    )
    assert list(plain_sentences(text)) == [
        "I keep a shop in Dover",
        "I have a mill by the river",
        "My king will buy it",
        "I will see",
        "Mr Harwick opened the door",
        "Anna walked to the mill",
        "She left",
        "the door closed",
    ]


def test_a_deck_of_prose_is_written_beside_the_cards(tmp_path: Path) -> None:
    lines = ["The miller carried a sack to the mill.", "Anna walked to the river in the morning."]
    lines += [f"The king opened the door in Town{chr(97 + n % 26)}{chr(97 + n // 26)}." for n in range(OF_A_VERB + 20)]
    file = tmp_path / "prose-x.txt"
    file.write_text("\n\n".join([TEXT] * 60 + lines), "utf-8")
    assert list(prose_facts([file])) == list(prose_facts([file]))
    count = write_prose_facts([file], tmp_path)
    cards = cards_in(tmp_path)
    assert len(cards.read) == count == len(read_known((tmp_path / NAME).read_text("utf-8"), NAME))
    assert sum(" open" in card.fact and not card.own for card in cards.read) == OF_A_VERB
    assert sum(card.fact.startswith("{they} open") for card in cards.read) == OF_A_VERB  # the king's deeds, of oneself
    assert not cards.known
    kept, held_out = cards.split()
    assert kept.read == cards.read
    assert not held_out.read
