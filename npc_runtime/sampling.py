"""Logits to a token: candidates, repetition control, temperature, top-p, and a counter-based RNG.

The rule, the same on every backend:

1. candidates are the allowed ids, or else the `TOP_K` highest logits, sorted by falling logit
   (equal logits by rising id), banned ids left out;
2. each earlier use in the window of recent tokens lowers a candidate's logit by `repetition`;
3. temperature, softmax, and the smallest head of candidates whose probability reaches `top_p`;
4. one uniform number, a pure function of (seed, turn, position), picks among them.

So the same State, seed and Turn give the same token whatever else runs.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOP_K = 40
"""Candidates considered per token."""

FAILED = -1
"""The token of a row whose logits were not finite: that Turn fails, the others go on."""

_MASK32 = 0xFFFFFFFF
_PHILOX_M0, _PHILOX_M1 = 0xD2511F53, 0xCD9E8D57
_PHILOX_W0, _PHILOX_W1 = 0x9E3779B9, 0xBB67AE85


@dataclass(frozen=True, slots=True)
class Sampling:
    """How speech is drawn. temperature 0 takes the likeliest; `repetition` is in logits per earlier use."""

    temperature: float = 0.7
    top_p: float = 0.9
    repetition: float = 0.3
    max_tokens: int = 96


@dataclass(frozen=True, slots=True)
class Draw:
    """One row of a step: feed `token`, then draw the next by these rules.

    `allowed` are the ids that may follow (None: any but `banned`), `recent` the window for
    repetition control, and (`seed`, `turn`, `position`) the counter of the RNG.
    """

    token: int
    sampling: Sampling
    seed: int
    turn: int
    position: int
    allowed: tuple[int, ...] | None = None
    banned: frozenset[int] = frozenset()
    recent: tuple[int, ...] = ()


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al., SC 2011, section 3.3): four random 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = _PHILOX_M0 * c0, _PHILOX_M1 * c2
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & _MASK32,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & _MASK32,
        )
        k0, k1 = (k0 + _PHILOX_W0) & _MASK32, (k1 + _PHILOX_W1) & _MASK32
    return c0, c1, c2, c3


def uniform(seed: int, turn: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments (each taken modulo 2^64 or 2^32)."""
    counter = (position & _MASK32, turn & _MASK32, (turn >> 32) & _MASK32, 0)
    words = philox(counter, (seed & _MASK32, (seed >> 32) & _MASK32))
    return ((words[0] << 21) | (words[1] >> 11)) / (1 << 53)


def pick(draw: Draw, ids: Sequence[int], logits: Sequence[float]) -> int:
    """The next token among candidates sorted by falling logit; `FAILED` when the logits are not finite."""
    if not ids or not all(map(math.isfinite, logits)):
        return FAILED
    adjusted = _penalised(draw, ids, logits)
    if draw.sampling.temperature <= 0:
        return adjusted[0][1]
    top = adjusted[0][0]
    scale = 1.0 / draw.sampling.temperature
    weights = [math.exp((logit - top) * scale) for logit, _ in adjusted]
    limit = draw.sampling.top_p * sum(weights)
    head = 0.0
    for count, weight in enumerate(weights, 1):
        head += weight
        if head >= limit:
            break
    target = uniform(draw.seed, draw.turn, draw.position) * head
    for (_, token), weight in zip(adjusted[:count], weights, strict=False):
        target -= weight
        if target < 0:
            return token
    return adjusted[count - 1][1]


def _penalised(draw: Draw, ids: Sequence[int], logits: Sequence[float]) -> list[tuple[float, int]]:
    """(logit, id) after repetition control, falling; allowed ids (moods, actions) are not penalised."""
    pairs = [(float(logit), int(token)) for logit, token in zip(logits, ids, strict=True)]
    if draw.allowed is None and draw.recent and draw.sampling.repetition:
        used = Counter(draw.recent)
        pairs = [(logit - draw.sampling.repetition * used[token], token) for logit, token in pairs]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))


def pick_from_logits(draw: Draw, logits: NDArray[np.float32]) -> int:
    """As `pick`, from a whole row of logits (V,)."""
    if draw.allowed is not None:
        ids = np.asarray(draw.allowed, np.int64)
    else:
        count = min(TOP_K + len(draw.banned), logits.shape[0])
        ids = np.argpartition(-logits, count - 1)[:count]
        ids = ids[~np.isin(ids, list(draw.banned))] if draw.banned else ids
    order = np.lexsort((ids, -logits[ids]))[:TOP_K] if draw.allowed is None else np.lexsort((ids, -logits[ids]))
    chosen = ids[order]
    return pick(draw, chosen.tolist(), logits[chosen].tolist())
