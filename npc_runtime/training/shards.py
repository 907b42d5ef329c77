"""Shards: one source's documents as token ids and weights in one packed file, small enough to carry to a GPU."""

from __future__ import annotations

import bisect
import io
import lzma
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npc_runtime.errors import reason
from npc_runtime.training.corpus import CorpusError
from npc_runtime.training.render import Document

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIX = ".shard"
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 1, "pb": 1}]  # 16-bit symbols
MAX_TOKENS = 1 << 30


@dataclass(frozen=True, slots=True)
class Shard:
    """Documents end to end: tokens (T,) uint16, weights (T,) uint8, and where each starts (D + 1,) int64."""

    name: str
    tokens: NDArray[np.uint16]
    weights: NDArray[np.uint8]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def document(self, index: int) -> Document:
        """One document."""
        start, end = self.starts[index], self.starts[index + 1]
        return Document(self.tokens[start:end], self.weights[start:end])

    def excerpt(self, rng: random.Random, length: int) -> Document:
        """At most `length` tokens from a random place (so that long documents are read throughout)."""
        at = rng.randrange(len(self.tokens))
        index = bisect.bisect_right(self.starts, at) - 1
        start, end = int(self.starts[index]), int(self.starts[index + 1])
        start = max(start, min(at, end - length))
        end = min(end, start + length)
        return Document(self.tokens[start:end], self.weights[start:end])


def make_shard(name: str, documents: Iterable[Document]) -> Shard:
    """Documents end to end; empty ones are left out."""
    kept = [document for document in documents if len(document)]
    if not kept:
        raise CorpusError(f"`{name}` has no documents")
    starts = np.cumsum([0, *(len(document) for document in kept)]).astype(np.int64)
    tokens = np.concatenate([document.tokens for document in kept])
    return Shard(name, tokens, np.concatenate([document.weights for document in kept]), starts)


def write_shard(shard: Shard, folder: Path) -> Path:
    """Writes `<name>.shard`."""
    raw = io.BytesIO()
    np.savez(raw, tokens=shard.tokens, weights=shard.weights, starts=shard.starts)
    path = folder / f"{shard.name}{SUFFIX}"
    path.write_bytes(lzma.compress(raw.getvalue(), format=lzma.FORMAT_XZ, filters=_FILTERS))
    return path


def read_shard(path: Path) -> Shard:
    """A shard from disk; CorpusError when it is damaged."""
    try:
        with lzma.open(path) as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as arrays:
            shard = Shard(path.name.removesuffix(SUFFIX), arrays["tokens"], arrays["weights"], arrays["starts"])
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError) as error:
        raise CorpusError(f"`{path}` is not a shard: {reason(error)}") from error
    if shard.starts[-1] != len(shard.tokens) or len(shard.tokens) != len(shard.weights):
        raise CorpusError(f"`{path}` is damaged: starts, tokens and weights do not agree")
    return shard
