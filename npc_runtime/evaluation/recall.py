"""Recall: facts told are asked for again; facts never told must be answered with honest ignorance.

Scored by exact match: a right answer holds every value that was told, letter for letter but for case.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.prompt import persona_lines
from npc_runtime.training.values import slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.evaluation.talk import Talker
    from npc_runtime.training.cards import PlayerCard
    from npc_runtime.training.drills import Drills, Probe

GAPS = (1, 5, 20, 50, 100)
"""Exchanges between telling and asking."""

_DENIES = re.compile(
    r"n't\b|\?|\b(no|not|never|nothing|nobody|none|unless|only|neither|must have|should have|yet|so far|"
    r"guess\w*|wonder\w*|if (i|you|any)|far as|ask away|tell (it|me)|kept|first i|have to ask you|invent|"
    r"mak(e|ing) (it )?up|out of the air|left (it|that) out|unknown|all (i know|you've told)|blank|news to me)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+|\d+")


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
    able = [card for card in deck if asked_back(card) and (card.correct or not correct)]
    probes = [drills.recall(rng, rng.choice(able), gap, correct) for _ in range(count)] if able else []
    answers = talker.answers([talker.prompt(probe.persona, probe.lines) for probe in probes])
    pairs = list(zip(probes, answers, strict=True))
    return Share(sum(holds(answer, probe.facts) for probe, answer in pairs), len(pairs)), pairs


def asked_back(card: PlayerCard) -> bool:
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
