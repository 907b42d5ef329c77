"""Recall as it is in play: the character's own replies stand between the telling and the question, not an author's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from npc_runtime.evaluation.recall import Share, asked_back, holds
from npc_runtime.sampling import Sampling
from npc_runtime.training.corpus import Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.evaluation.talk import Talker
    from npc_runtime.training.cards import PlayerCard
    from npc_runtime.training.drills import Drills, Probe

_SILENCE = [Line("event", "Nothing happens for a while.")]


def played(
    talker: Talker, drills: Drills, deck: Sequence[PlayerCard], gap: int, count: int, seed: int = 1
) -> tuple[Share, list[tuple[Probe, str]]]:
    """(told facts given back after `gap` exchanges that the model itself took part in, probes with their answers)."""
    rng = random.Random(f"play/{seed}/{gap}/{len(deck)}")
    able = [card for card in deck if asked_back(card)]
    probes = [drills.recall(rng, rng.choice(able), gap) for _ in range(count)] if able else []
    pairs = []
    for first in range(0, len(probes), talker.rows.most):
        some = probes[first : first + talker.rows.most]
        pairs += list(zip(some, _play(talker, some, seed + first), strict=True))
    return Share(sum(holds(answer, probe.facts) for probe, answer in pairs), len(pairs)), pairs


def _play(talker: Talker, probes: Sequence[Probe], seed: int) -> list[str]:
    heard = [turns(probe.lines[:-1]) for probe in probes]
    talker.rows.start([talker.prompt(probe.persona, ()) for probe in probes])
    recent: list[list[int]] = [[] for _ in probes]
    for turn in range(max(map(len, heard))):
        # Shorter conversations wait with a silence, so that all stay in step.
        said = [lines[turn] if turn < len(lines) else _SILENCE for lines in heard]
        talker.rows.read([[token for line in lines for token in talker.turn(line)] for lines in said])
        talker.reply(len(probes), Sampling(temperature=0.6, top_p=0.9, repetition=0.3), seed, turn, recent)
    return talker.answers_now([probe.lines[-1] for probe in probes])


def turns(lines: Sequence[Line]) -> list[list[Line]]:
    """What is heard before each reply; the author's replies are left out, and no player speaks twice unanswered."""
    found: list[list[Line]] = [[]]
    for line in lines:
        answered = line.who == "npc" or (line.who == "player" and any(other.who == "player" for other in found[-1]))
        if answered and found[-1]:
            found.append([])
        if line.who != "npc":
            found[-1].append(line)
    return [part for part in found if part]
