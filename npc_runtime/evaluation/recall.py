"""Recall: facts told are asked for again; facts never told must be answered with honest ignorance.

Scored by exact match: a right answer holds every value that was told, letter for letter but for case.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.prompt import persona_lines
from npc_runtime.training.cards import PlayerCard
from npc_runtime.training.values import slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.evaluation.talk import Talker
    from npc_runtime.training.drills import Drills, Probe

GAPS = (1, 5, 20, 50, 100)
"""Exchanges between telling and asking."""

_DENIES = re.compile(
    r"n't\b|\?|\b(no|not|never|nothing|nobody|none|unless|only|neither|must have|should have|yet|so far|"
    r"guess|wonder\w*|if (i|you|any)|far as|ask away|tell (it|me)|kept|first i)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+|\d+")

PHRASINGS = (
    PlayerCard(
        "name",
        (),
        (
            "Well, I suppose I should introduce myself. I am known as {person}.",
            "{person} is what my mother named me.",
            "You may address me as {person}, good sir.",
            "Oh, how rude of me! {person}.",
        ),
        (),
        (
            "Could you remind me what name I gave?",
            "I wonder, does my name still come to mind?",
            "Be so good as to say my name.",
            "What do people call me, do you recall?",
        ),
        ("{person}",),
    ),
    PlayerCard(
        "home_town",
        (),
        (
            "My people all live in {place}.",
            "It's been years since I left {place}, where I grew up.",
            "Have you ever been to {place}? That's home for me.",
        ),
        (),
        ("Which place do I call home?", "Remind me where I grew up.", "Do you recall the town I come from?"),
        ("{place}",),
    ),
    PlayerCard(
        "told_item",
        (),
        ("There is a {item} hidden under my coat.", "The only thing I brought along is a {item}."),
        (),
        ("What did I bring with me?", "Can you recall which object I've got?"),
        ("{item}",),
    ),
    PlayerCard(
        "profession",
        (),
        ("For ten years now I've been a {job}.", "I make my money as a {job}."),
        (),
        ("How do I make my money?", "Do you recall my profession?"),
        ("{job}",),
    ),
    PlayerCard(
        "sister_name",
        (),
        ("I've got one sister, she is named {person}.", "My little sister {person} is waiting for me."),
        (),
        ("How is my sister called?", "Which name does my sister have?"),
        ("{person}",),
    ),
    PlayerCard(
        "likes_food",
        (),
        ("The best thing in the world is {food}, if you ask me.", "Food? I prefer {food} over all else."),
        (),
        ("Which dish do I prefer?", "Name the food I like most."),
        ("{food}",),
    ),
)
"""Ways of telling and asking that no card uses, for kinds that the training cards know."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    right: int
    of: int

    @property
    def percent(self) -> float:
        """100 * right / of; 0 of 0 is 0."""
        return 100.0 * self.right / self.of if self.of else 0.0


def holds(answer: str, facts: Sequence[str]) -> bool:
    """Whether the answer holds every value, whole words, without regard to case."""
    return all(re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", answer, re.IGNORECASE) for fact in facts)


def ignorant(answer: str, heard: str) -> bool:
    """Whether the answer admits not knowing: it denies or asks back, and names nobody and no number not heard before.

    A lenient test by words alone; read the answers kept beside the figure.
    """
    return _DENIES.search(answer) is not None and all(name in heard for name in _NAMED.findall(answer))


def _heard(probe: Probe) -> str:
    return " ".join((*persona_lines(probe.persona), *(line.text for line in probe.lines)))


def recall(
    talker: Talker,
    drills: Drills,
    deck: Sequence[PlayerCard],
    gap: int,
    count: int,
    seed: int = 1,
    correct: bool = False,
) -> tuple[Share, list[tuple[Probe, str]]]:
    """(told facts given back after `gap` exchanges, probes with their answers)."""
    rng = random.Random(f"recall/{seed}/{gap}/{correct}/{len(deck)}")
    able = [card for card in deck if _asks(card) and (card.correct or not correct)]
    probes = [drills.recall(rng, rng.choice(able), gap, correct) for _ in range(count)] if able else []
    answers = talker.answers([talker.prompt(probe.persona, probe.lines) for probe in probes])
    pairs = list(zip(probes, answers, strict=True))
    return Share(sum(holds(answer, probe.facts) for probe, answer in pairs), len(pairs)), pairs


def _asks(card: PlayerCard) -> bool:
    """Whether the card tells values that can be asked back (some tell a fact without any, such as a left hand)."""
    return all(map(slots, card.tell)) and any(map(slots, card.answer))


def abstention(
    talker: Talker, drills: Drills, deck: Sequence[PlayerCard], gap: int, count: int, seed: int = 1
) -> tuple[Share, list[tuple[Probe, str]]]:
    """(never-told facts answered with ignorance, probes with their answers)."""
    rng = random.Random(f"never/{seed}/{gap}/{len(deck)}")
    made = (drills.never(rng, rng.choice(list(deck)), gap) for _ in range(count)) if deck else ()
    probes = [probe for probe in made if probe is not None]
    answers = talker.answers([talker.prompt(probe.persona, probe.lines) for probe in probes])
    pairs = list(zip(probes, answers, strict=True))
    right = sum(
        ignorant(answer, " ".join((*persona_lines(p.persona), *(x.text for x in p.lines)))) for p, answer in pairs
    )
    return Share(right, len(pairs)), pairs
