"""A process that saves without pause is killed at random moments: the file is always a complete save.

Every save of a child holds the same generation in all its States; the child tells a generation once its save was
answered. After the kill the file must hold one generation throughout, none older than the last one told.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from typing import TYPE_CHECKING

import numpy as np
from bundles import tiny_bundle

from npc_runtime import save, wire
from npc_runtime.backends.reference import ReferenceBackend, ReferenceModel
from npc_runtime.config import Config
from npc_runtime.doctor.patient import Game
from npc_runtime.errors import NpcError
from npc_runtime.stage import Stage
from npc_runtime.state import State
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from pathlib import Path

    from npc_runtime.bundle import Bundle

NPCS = 48
"""A save of some 2 MB: large enough to be hit in the middle."""


def run(folder: Path, rounds: int, seed: int, bundle: str = "") -> dict[str, int]:
    """Counts rounds, files that were complete, and kills that left a part of a save beside."""
    rng, model = random.Random(seed), tiny_bundle(folder / "bundle", bits=32)
    game, path = Game(_stage(model)), folder / "slot" / "one.npcsave"
    path.parent.mkdir()
    names = [f"npc-{i}" for i in range(NPCS)]
    game.spawn(*names)
    told, took, found = 0, _span(game, path), {"complete": 0, "in_the_middle": 0, "lost": 0, "generations": 0}
    for _ in range(rounds):
        told = max(told, _killed(game, path, told, rng.uniform(0, 2 * took)))
        generation = _generation(path, model)
        found["complete"] += generation is not None
        found["lost"] += generation is None or generation < told
        found["in_the_middle"] += _sweep(path)
        told = max(told, generation or 0)
    return {**found, "generations": told}


def _stage(model: Bundle) -> Stage:
    weights = {name: model.dense(name) for name in dense_shapes(model.config, model.tied)}
    config = Config(pace_tokens_per_s=0)
    backend = ReferenceBackend(ReferenceModel(weights, model.config), slots=NPCS + 80)
    return Stage(model, backend, "a test", config)


def _save(game: Game, path: Path, generation: int) -> None:
    for npc in game.session.npcs.values():
        if npc.timeline.current is not None:
            spec = game.backend.spec
            game.backend.write(npc.timeline.current.slot, State(spec, np.full(spec.size, generation, np.float32)))
    game.ask(wire.Save(path=str(path)))


def _span(game: Game, path: Path) -> float:
    """Seconds a save takes; the thread that writes it ends, so that the process can be forked."""
    begun = time.perf_counter()
    _save(game, path, 0)
    took = time.perf_counter() - begun
    game.stage.archive.close()
    return took


def _killed(game: Game, path: Path, told: int, delay: float) -> int:
    """The last generation that a child told before it was killed, `delay` seconds after its first."""
    out, inlet = os.pipe()
    child = os.fork()
    if not child:
        os.close(out)
        _save_for_ever(game, path, told, inlet)
    os.close(inlet)
    with open(out, "rb") as pipe:
        words = pipe.read(8)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        words += pipe.read()
    return int(struct.unpack("<Q", words[-8:])[0])


def _save_for_ever(game: Game, path: Path, told: int, inlet: int) -> None:
    """The child's life."""
    fresh = Game(game.stage)
    fresh.stage.archive = type(game.stage.archive)(
        game.stage.bundle, game.stage.backend, game.stage.cast, game.stage.scheduler
    )
    fresh.stage.archive.serve(fresh.session)
    while True:
        told += 1
        _save(fresh, path, told)
        os.write(inlet, struct.pack("<Q", told))


def _generation(path: Path, model: Bundle) -> int | None:
    """The generation that a save holds throughout; None when it is damaged or mixed."""
    try:
        records = save.decode(path.read_bytes(), model.spec, model.hash).records
    except NpcError:
        return None
    values = {float(value) for record in records if record.state for value in np.unique(record.state.vector)}
    return int(values.pop()) if len(values) == 1 and len(records) == NPCS else None


def _sweep(path: Path) -> int:
    """1 when the kill left a part beside, which is removed."""
    parts = list(path.parent.glob(".*.part"))
    for part in parts:
        part.unlink()
    return int(bool(parts))
