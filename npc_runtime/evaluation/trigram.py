"""The trigram a model is held against: Kneser-Ney (Chen and Goodman 1998, section 2.7), in a table of its size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from npc_runtime.evaluation.perplexity import Perplexity, counted_bytes
from npc_runtime.training.corpus import read_scenes, split_scenes
from npc_runtime.training.render import ONE, Renderer
from npc_runtime.training.shards import SUFFIX, read_shard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from npc_runtime.tokenizer import Tokenizer
    from npc_runtime.training.corpus import Scene

ENTRY_BYTES = 6
"""A trigram of three 13-bit pieces and a count, packed."""
_DISCOUNT = 0.75
_BITS = 20


class Trigram:
    """Counts of a text; the rarest trigrams are forgotten until the table fits `size` bytes."""

    def __init__(self, tokens: NDArray[np.uint16], size: int) -> None:
        wide = tokens.astype(np.uint64)
        shift, double = np.uint64(_BITS), np.uint64(2 * _BITS)
        keys, counts = np.unique((wide[:-2] << double) | (wide[1:-1] << shift) | wide[2:], return_counts=True)
        most = max(1, size // ENTRY_BYTES)
        if len(keys) > most:
            kept = np.sort(np.argsort(-counts, kind="stable")[:most])
            keys, counts = keys[kept], counts[kept]
        self.tokens, self.entries = len(tokens), len(keys)
        self._tri, self._tri_counts = keys, counts.astype(np.float64)
        self._pair, start, self._pair_kinds = _groups(keys >> shift)
        self._pair_counts = np.add.reduceat(self._tri_counts, start)
        tails, self._tail_kinds = np.unique(keys & np.uint64((1 << 2 * _BITS) - 1), return_counts=True)
        self._tails = tails
        self._middle, start, self._middle_kinds = _groups(tails >> shift)
        self._middle_counts = np.add.reduceat(self._tail_kinds, start)
        self._last, self._last_kinds = np.unique(tails & np.uint64((1 << _BITS) - 1), return_counts=True)

    def probability(self, before: int, last: int, token: int, vocabulary: int) -> float:
        """Of `token` after two others; over a vocabulary of so many pieces it sums to 1."""
        one = (_count(self._last, self._last_kinds, token) + 1) / (int(self._last_kinds.sum()) + vocabulary)
        two = _mixed(
            _count(self._tails, self._tail_kinds, last << _BITS | token),
            _count(self._middle, self._middle_counts, last),
            _count(self._middle, self._middle_kinds, last),
            one,
        )
        pair = before << _BITS | last
        return _mixed(
            _count(self._tri, self._tri_counts, pair << _BITS | token),
            _count(self._pair, self._pair_counts, pair),
            _count(self._pair, self._pair_kinds, pair),
            two,
        )

    def perplexity(self, tokenizer: Tokenizer, scenes: Sequence[Scene]) -> Perplexity:
        """Of the same tokens that `perplexity.perplexity` counts."""
        renderer, total, count = Renderer(tokenizer), 0.0, 0
        for document in map(renderer.scene, scenes):
            tokens = [int(token) for token in document.tokens]
            for at in range(2, len(tokens)):
                if document.weights[at] >= ONE // 2:
                    before, last, token = tokens[at - 2 : at + 1]
                    total -= math.log(self.probability(before, last, token, tokenizer.vocab_size))
                    count += 1
        return Perplexity(math.exp(total / max(count, 1)), total / math.log(2) / counted_bytes(scenes), count)


def read_trigram(folder: Path, tokenizer: Tokenizer, size: int) -> Trigram:
    """A trigram of a corpus folder's training scenes and, where it is packed, of its shards."""
    scenes, _ = split_scenes(read_scenes(folder / "scenes"))
    texts = [Renderer(tokenizer).scene(scene).tokens for scene in scenes]
    texts += [read_shard(path).tokens for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return Trigram(np.concatenate(texts), size)


def _groups(
    keys: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """(each key once, where its run starts, how long it is) of sorted keys."""
    found, start, kinds = np.unique(keys, return_index=True, return_counts=True)
    return found, start, kinds


def _count(keys: NDArray[np.uint64], counts: NDArray[np.float64] | NDArray[np.int64], key: int) -> float:
    at = int(np.searchsorted(keys, np.uint64(key)))
    return float(counts[at]) if at < len(keys) and int(keys[at]) == key else 0.0


def _mixed(count: float, of: float, kinds: float, lower: float) -> float:
    """Absolute discounting: what is taken off goes to the shorter history's estimate."""
    return lower if not of else max(count - _DISCOUNT, 0.0) / of + _DISCOUNT * kinds / of * lower
