"""Steps of many threads in one order, and scenes as what is said between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.training.threads import quiet

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from npc_runtime.training.corpus import Line
    from npc_runtime.training.threads import Step

SCENE_FILLER = 0.0
"""Loss weight of the own scene's turns that stand in drills as filler: at 0.125 scenes were learned by heart."""


def exchanges(lines: Sequence[Line]) -> list[Step]:
    """Turns in steps that each end with an answer."""
    steps: list[Step] = []
    start = 0
    for index, line in enumerate(lines):
        if line.who == "npc":
            steps.append(tuple(lines[start : index + 1]))
            start = index + 1
    return steps


def as_filler(lines: Sequence[Line]) -> list[Step]:
    """A scene's exchanges as filler."""
    return [quiet(step, SCENE_FILLER) for step in exchanges(lines)]


def woven(groups: Sequence[Sequence[Step]], rng: random.Random) -> list[Step]:
    """All steps in one order that keeps each thread's own; some threads span the whole conversation."""
    placed: list[tuple[float, int, int, Step]] = []
    for number, steps in enumerate(groups):
        points = _points(steps, rng)
        placed += [(point, number, index, step) for index, (point, step) in enumerate(zip(points, steps, strict=True))]
    return [step for _, _, _, step in sorted(placed, key=lambda entry: entry[:3])]


def _points(steps: Sequence[Step], rng: random.Random) -> list[float]:
    """Where a thread's steps stand between 0 and 1; filler mostly stays together, facts often span it all."""
    count = len(steps)
    if count > 2 and steps[0][-1].speech == SCENE_FILLER and rng.random() < 0.7:
        start = rng.random()
        return [start + 1e-6 * index for index in range(count)]
    if count > 1 and rng.random() < 0.4:
        inner = sorted(0.1 + 0.8 * rng.random() for _ in range(count - 2))
        return [rng.random() * 0.1, *inner, 0.9 + 0.1 * rng.random()]
    return sorted(rng.random() for _ in range(count))
