"""The shipped cast asked about what it knows, each character whole: the nearest the sheet comes to a game."""

from __future__ import annotations

import json
import random
from importlib import resources
from typing import TYPE_CHECKING

from npc_runtime.evaluation.recall import Share, holds
from npc_runtime.persona import find_persona
from npc_runtime.training.corpus import Line
from npc_runtime.training.drills import Probe

if TYPE_CHECKING:
    from npc_runtime.evaluation.talk import Talker


def cast_questions(talker: Talker, count: int, seed: int = 1) -> tuple[Share, list[tuple[Probe, str]]]:
    """(right answers, the first `count` questions of the deck in an order by `seed`, with their answers).

    A line of `decks/cast.jsonl` is {"persona": name, "ask": text, "holds": [values]}; a value may have several
    wordings ("six|6"). Each question comes at once, after the character's samples and opening.
    """
    lines = (resources.files("npc_runtime.evaluation") / "decks" / "cast.jsonl").read_text("utf-8").splitlines()
    deck = list(map(json.loads, lines))
    cast = {name: find_persona(name) for name in {question["persona"] for question in deck}}
    asked = random.Random(f"cast/{seed}").sample(deck, min(count, len(deck)))
    probes = [Probe(cast[q["persona"]], (Line("player", q["ask"]),), tuple(q["holds"])) for q in asked]
    answers = talker.answers([talker.prompt(probe.persona, probe.lines) for probe in probes])
    pairs = list(zip(probes, answers, strict=True))
    return Share(sum(told(answer, probe.facts) for probe, answer in pairs), len(pairs)), pairs


def told(answer: str, values: tuple[str, ...]) -> bool:
    """Whether an answer holds every value in one of its wordings."""
    return all(any(holds(answer, [wording]) for wording in value.split("|")) for value in values)
