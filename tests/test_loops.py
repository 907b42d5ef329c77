"""Loops: what counts as saying the same over and over, and what people say so."""

from __future__ import annotations

import pytest

from npc_runtime.evaluation.loops import looping


@pytest.mark.parametrize(
    "text",
    [
        "the old man the old man the old man",
        "Bo, Bo, Bo, welcome, Bo",
        "Welcome, Bo! Bo... Bo?",
        "Bo. Bo. Bo.",
        "You are Tolliver, Tolliver, Tolliver.",
        "tolliver tolliver; tolliver",
        "The ale, ale - ale is good.",
        "I am very very very tired of it all.",
        "The the the door is shut.",
        "Corvin. Then Corvin, and Corvin, Corvin.",
        "Stew is stew, and the stew is stew.",
        "Ask Bo, for Bo is Bo, or so says Bo.",
    ],
)
def test_what_is_said_over_and_over_is_a_loop(text: str) -> None:
    """A name repeated with commas was missed: only three words in the same order were looked for."""
    assert looping(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "the old man and the sea",
        "No, no, no! Not the blue one.",
        "No. No. No.",
        "Ha ha ha, that is a good one.",
        "Ha, Ha, Ha!",
        "Yes, yes, yes, I heard you the first time.",
        "Go! Go! Go!",
        "It was, it was, I swear.",
        "Bo, Bo, come here.",
        "Bo! Welcome, Bo, sit down by the fire.",
        "You know what you do when you are who you are.",
        "I, I, I don't know what to say.",
        "Corvin. I won't forget it, Corvin.",
        "The bread is bread and the stew is mutton today.",
        "Beer, beer, and bread.",
        "It costs 3, 3, 3 and 3.",
    ],
)
def test_what_people_say_is_none(text: str) -> None:
    assert not looping(text)


def test_a_reply_of_few_words_may_be_mostly_one() -> None:
    assert not looping("Nails and more nails, nails.")
    assert looping("Nails and more nails, only nails.")
    assert not looping("Nails and more nails, only nails and hinges.")
