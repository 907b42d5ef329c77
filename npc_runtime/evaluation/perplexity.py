"""Perplexity of what characters say in scenes the model has not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.training.render import ONE, Renderer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.evaluation.rows import Rows
    from npc_runtime.tokenizer import Tokenizer
    from npc_runtime.training.corpus import Scene


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Of the character's tokens (mood, action, speech, end), given all before them."""

    per_token: float
    bits_per_byte: float
    """Bits for each byte of what the character says, moods and ends counted in."""
    tokens: int


def perplexity(rows: Rows, tokenizer: Tokenizer, scenes: Sequence[Scene]) -> Perplexity:
    """Over all scenes together."""
    renderer = Renderer(tokenizer)
    documents = [renderer.scene(scene) for scene in scenes]
    total, count = 0.0, 0
    for first in range(0, len(documents), rows.most):
        part = documents[first : first + rows.most]
        for document, scores in zip(part, rows.score([[int(t) for t in d.tokens] for d in part]), strict=True):
            counted = [score for score, weight in zip(scores, document.weights[1:], strict=True) if weight >= ONE // 2]
            total -= sum(counted)
            count += len(counted)
    return Perplexity(math.exp(total / max(count, 1)), total / math.log(2) / counted_bytes(scenes), count)


def counted_bytes(scenes: Sequence[Scene]) -> int:
    """Bytes that the characters of some scenes say, at least 1."""
    return max(1, sum(len(line.text.encode()) for scene in scenes for line in scene.lines if line.who == "npc"))
