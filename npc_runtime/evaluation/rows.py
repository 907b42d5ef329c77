"""Rows: many independent conversations side by side, on a Bundle's backend or on the torch model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from npc_runtime.sampling import FAILED, Draw, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.backends.base import Backend

GREEDY = Sampling(temperature=0.0, repetition=0.0)


class Rows(Protocol):
    """What the evaluation asks of a model. Rows are numbered from 0; all start with nothing perceived."""

    most: int
    """Most rows at a time."""

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Forgets everything and reads one prompt into each row."""
        ...

    def read(self, texts: Sequence[Sequence[int]]) -> None:
        """Reads more tokens into each row; an empty sequence leaves a row as it is."""
        ...

    def step(self, draws: Sequence[Draw | None]) -> list[int]:
        """Feeds each row's token and draws its next; a row of None is left as it is."""
        ...

    def score(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probabilities of each prompt's tokens from the second on, from nothing perceived."""
        ...


class BackendRows:
    """Rows on a Backend's Slots: what a player's machine computes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.most = min(backend.slots, 64)

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Clears a Slot for each prompt and reads it."""
        for slot, prompt in enumerate(prompts):
            self._backend.clear(slot)
            self._backend.prefill([slot], prompt)

    def read(self, texts: Sequence[Sequence[int]]) -> None:
        """Reads more tokens into each Slot."""
        for slot, text in enumerate(texts):
            if text:
                self._backend.prefill([slot], text)

    def step(self, draws: Sequence[Draw | None]) -> list[int]:
        """One step of the rows that draw, in batches the backend allows."""
        drawn = [FAILED] * len(draws)
        rows = [(slot, draw) for slot, draw in enumerate(draws) if draw is not None]
        for first in range(0, len(rows), self._backend.max_batch):
            part = rows[first : first + self._backend.max_batch]
            batch = self._backend.open([slot for slot, _ in part])
            try:
                tokens = batch.step([draw for _, draw in part])
            finally:
                batch.close()
            for (slot, _), token in zip(part, tokens, strict=True):
                drawn[slot] = token
        return drawn

    def score(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Scores each prompt from an empty Slot."""
        scores = []
        for prompt in prompts:
            self._backend.clear(0)
            scores.append([float(value) for value in self._backend.score(0, prompt)])
        return scores
