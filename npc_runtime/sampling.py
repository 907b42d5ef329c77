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
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, compress
from operator import neg
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from npc_runtime.constraint import Trie

TOP_K = 40
"""Candidates considered per token."""

FAILED = -1
"""The token of a row whose logits were not finite: that Turn fails, the others go on."""

_MASK32 = 0xFFFFFFFF


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


@dataclass(frozen=True, slots=True)
class Course:
    """How a row goes on after `draw` as long as nobody has to look at its tokens: what a device can follow alone.

    In the head the ids of `trie` alone may follow (None: the row is in speech). Speech draws any id but `early` until
    an id that is not `blank` has made it a text, then any but `banned`; the id `end` or `left` draws end it.
    `recent` is the window of repetition control, whatever `draw` says of it.
    """

    draw: Draw
    trie: Trie[Any] | None
    early: frozenset[int] | None
    """None once there is a text."""
    banned: frozenset[int]
    blank: frozenset[int]
    end: int
    left: int
    recent: tuple[int, ...]


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al., SC 2011, section 3.3): four random 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & 0xFFFFFFFF,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & 0xFFFFFFFF,
        )
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return c0, c1, c2, c3


def uniform(seed: int, turn: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments (each taken modulo 2^64 or 2^32)."""
    counter = (position & _MASK32, turn & _MASK32, (turn >> 32) & _MASK32, 0)
    words = philox(counter, (seed & _MASK32, (seed >> 32) & _MASK32))
    return ((words[0] << 21) | (words[1] >> 11)) / (1 << 53)


def pick(draw: Draw, ids: Sequence[int], logits: Sequence[float]) -> int:
    """The next token among candidates; `FAILED` when there are none or a logit is not finite."""
    if not math.isfinite(sum(logits)) or not ids:
        return FAILED
    if len(ids) == 1:
        return ids[0]
    pairs = _penalised(draw, ids, logits)
    if draw.sampling.temperature <= 0:
        return pairs[0][1]
    top, scale, exp = pairs[0][0], 1.0 / draw.sampling.temperature, math.exp
    heads = list(accumulate([exp((top - minus) * scale) for minus, _ in pairs]))
    last = min(bisect_left(heads, draw.sampling.top_p * heads[-1]), len(heads) - 1)
    target = uniform(draw.seed, draw.turn, draw.position) * heads[last]
    return pairs[min(bisect_right(heads, target), last)][1]


def _penalised(draw: Draw, ids: Sequence[int], logits: Sequence[float]) -> list[tuple[float, int]]:
    """(-logit, id) after repetition control, likeliest first; allowed ids (moods, actions) are not penalised."""
    pairs = list(zip(map(neg, logits), ids, strict=True))
    penalty = draw.sampling.repetition if draw.allowed is None else 0.0
    if penalty:
        for token in set(draw.recent).intersection(ids):
            place = ids.index(token)
            pairs[place] = (penalty * draw.recent.count(token) - logits[place], token)
    pairs.sort()
    return pairs


def pick_from_logits(draw: Draw, logits: NDArray[np.float32]) -> int:
    """As `pick`, from a whole row of logits (V,)."""
    if draw.allowed is not None:
        return pick(draw, draw.allowed, logits[list(draw.allowed)].tolist())
    if not np.isfinite(logits).all():
        return FAILED
    count = min(TOP_K + len(draw.banned), logits.shape[0])
    if count < logits.shape[0]:
        # All that equal the last one taken, so that ties fall to the lowest id, not to the partition's order.
        ids = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
    else:
        ids = np.arange(count)
    ids = ids[np.lexsort((ids, -logits[ids]))]
    return pick_from_top(draw, ids.tolist(), logits[ids].tolist())


def pick_from_top(draw: Draw, ids: list[int], logits: list[float]) -> int:
    """As `pick`, from the best of the vocabulary, likeliest first, banned ones still among them.

    The caller sees to it that `TOP_K` are left without the banned, or else the whole vocabulary.
    """
    if not draw.banned.isdisjoint(ids):
        allowed = [token not in draw.banned for token in ids]
        ids, logits = list(compress(ids, allowed)), list(compress(logits, allowed))
    return pick(draw, ids[:TOP_K], logits[:TOP_K])
