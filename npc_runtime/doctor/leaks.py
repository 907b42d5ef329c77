"""Promise 3: nothing of an Npc is left in the memory that the next one gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npc_runtime import wire
from npc_runtime.doctor.check import Finding, check
from npc_runtime.doctor.patient import LINES
from npc_runtime.state import State

if TYPE_CHECKING:
    from npc_runtime.doctor.patient import Game, Patient

REUSES = 60
"""Slots full of somebody else's memory that a doctor's visit hands out; tests/faults does it ten thousand times."""
CANARIES = 6
"""Slots filled at once: as many as a Turn may take."""
WAYS = ("spawned", "restored")
_LONG = {"max_tokens": 6}


@check("no-leak", 3, "Nothing of an Npc is left in the memory that the next one gets")
def no_leak(patient: Patient) -> Finding:
    """Strangers in Slots full of a canary, against the same strangers in fresh memory, bit by bit."""
    found = leaks(patient, REUSES)
    figure = (
        f"{found.reused} Slots full of a canary reused in {found.lives} lives: {found.bits} bits differ, "
        f"{found.dirty} left after clearing, {found.replies} other Replies"
    )
    figures = {"slots_reused": found.reused, "differing_bits": found.bits, "dirty_after_clear": found.dirty}
    good = found.reused >= REUSES and not found.bits + found.dirty + found.replies
    return Finding(good, figure, "no bit, no trace, equal Replies", {**figures, "replies_differing": found.replies})


@dataclass
class Leaks:
    """What was counted."""

    reused: int = 0
    lives: int = 0
    bits: int = 0
    dirty: int = 0
    replies: int = 0


def leaks(patient: Patient, reuses: int) -> Leaks:
    """Lets strangers live in canaries' Slots until so many have been reused."""
    expected = {way: _fresh(patient, way) for way in WAYS}
    found = Leaks()
    with patient.game() as game:
        game.spawn("witness")  # the persona is read in fresh memory, as it was there
        game.ask(wire.Drop(npc="witness"))
        while found.reused < reuses:
            way = WAYS[found.lives % 2]
            full = _canaries(game, found.lives, found)
            text, state, used = _life(game, way)
            found.reused += len(full & used)
            found.bits += _differing(expected[way][1], state)
            found.replies += text != expected[way][0]
            found.lives += 1
    return found


def _fresh(patient: Patient, way: str) -> tuple[str, State, set[int]]:
    with patient.game() as game:
        return _life(game, way)


def _life(game: Game, way: str) -> tuple[str, State, set[int]]:
    """What a stranger says who came by `spawn` or by `restore`, its State then, and the Slots it used."""
    game.spawn("stranger")
    if way == "restored":
        data = game.ask(wire.Snapshot(npc="stranger"))["data"]
        game.ask(wire.Restore(npc="stranger", data=data, replace=True))
    text = game.say("stranger", LINES[1], **_LONG).text
    state, timeline = game.state("stranger"), game.session.npcs["stranger"].timeline
    points = [*timeline.past, *([timeline.current] if timeline.current else [])]
    game.ask(wire.Drop(npc="stranger"))
    return text, state, {point.slot for point in points}


def _canaries(game: Game, number: int, found: Leaks) -> set[int]:
    """Free Slots, now full of a random State; every way to overwrite one is tried and looked at in between."""
    pool, backend = game.stage.scheduler.pool, game.backend
    rng = np.random.default_rng(number)
    canary, other = (State(backend.spec, rng.standard_normal(backend.spec.size).astype(np.float32)) for _ in range(2))
    canary.vector *= 1e3
    slots = [pool.take() for _ in range(CANARIES)]
    zeroed, cleared, written, copied = slots[:4]
    backend.write(zeroed, State.zeros(backend.spec))
    backend.write(zeroed, other)
    expected = backend.read(zeroed)
    for slot in slots:
        backend.write(slot, canary)
    backend.clear(cleared)
    backend.write(written, other)
    backend.copy(written, copied)
    found.dirty += bool(backend.read(cleared).vector.any())
    found.bits += sum(_differing(expected, backend.read(slot)) for slot in (written, copied))
    for slot in slots:
        backend.write(slot, canary)
        pool.drop(slot)
    return set(slots)


def _differing(expected: State, state: State) -> int:
    changed = expected.vector.view(np.uint32) ^ state.vector.view(np.uint32)
    return int(np.unpackbits(changed.view(np.uint8)).sum())
