"""Conversations and prose to token ids and loss weights, through the layout that the runtime itself uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from npc_runtime.persona import Persona
from npc_runtime.prompt import ControlLayout, Head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from npc_runtime.tokenizer import Tokenizer
    from npc_runtime.training.corpus import Line, Scene

ONE = 16
"""The stored weight that counts as 1.0; weights travel as uint8 sixteenths."""

_CACHED_TEXTS = 1 << 17


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids (L,) uint16 and, for each, how much predicting it counts, in sixteenths (L,) uint8."""

    tokens: NDArray[np.uint16]
    weights: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, length: int) -> Document:
        """The first `length` tokens."""
        return Document(self.tokens[:length], self.weights[:length])


class _Remembering:
    """A tokenizer that keeps the ids of texts it has seen: cards and scenes recur by the thousand."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.vocab_size, self.special = tokenizer.vocab_size, tokenizer.special
        self.unspeakable = tokenizer.unspeakable
        self.decode, self.control = tokenizer.decode, tokenizer.control
        self.encode = lru_cache(_CACHED_TEXTS)(tokenizer.encode)


class Renderer:
    """Renders prompt layout 1 with loss on the character's tokens only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.layout = ControlLayout(_Remembering(tokenizer))
        self._tokenizer = tokenizer
        self._cue = self.layout.cue(Persona("", ""))

    def conversation(self, persona: Persona, lines: Sequence[Line], typed: bool) -> Document:
        """The header and every turn. Untyped sources tell no action, so its absence is not learned from them."""
        tokens: list[int] = list(self.layout.persona(persona))
        weights = [0] * len(tokens)
        for line in lines:
            new, weight = self._line(line, typed)
            tokens += new
            weights += weight
        return _document(tokens, weights)

    def scene(self, scene: Scene) -> Document:
        """A conversation as its source tells it."""
        return self.conversation(scene.persona, scene.lines, scene.typed)

    def length(self, lines: Sequence[Line]) -> int:
        """Tokens of some turns."""
        return sum(len(self._line(line, True)[0]) for line in lines)

    def prose(self, text: str, weight: float = 1.0) -> Document:
        """Plain text, every token of it learned."""
        tokens = self._tokenizer.encode(text)
        return _document(tokens, [round(ONE * weight)] * len(tokens))

    def _line(self, line: Line, typed: bool) -> tuple[list[int], list[int]]:
        if line.who != "npc":
            heard = self.layout.player(line.text) if line.who == "player" else self.layout.event(line.text)
            return list(heard), [0] * len(heard)
        head = self.layout.head(Head(line.mood or "neutral", line.action))
        speech = (*self.layout.speech(line.text), *self.layout.end)
        head_weights = [round(ONE * line.head) if line.mood else 0] * (len(head) - 1)
        head_weights.append(round(ONE * line.head) if typed or line.typed else 0)  # <say>: that there is no action
        weights = [0] * len(self._cue) + head_weights + [round(ONE * line.speech)] * len(speech)
        return [*self._cue, *head, *speech], weights


def _document(tokens: Sequence[int], weights: Sequence[int]) -> Document:
    return Document(np.asarray(tokens, np.uint16), np.asarray(weights, np.uint8))
