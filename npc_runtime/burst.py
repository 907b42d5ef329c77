"""Burst: speaking Turns that draw tokens together, in one batch, for so many steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.backends.base import runs
from npc_runtime.sampling import FAILED
from npc_runtime.turn import Released, Speech

if TYPE_CHECKING:
    from npc_runtime.backends.base import Batch, RunningBatch
    from npc_runtime.turn import Turn


class Burst:
    """Draws at most `length` tokens for each Turn, fewer where its Reply ends, and makes pieces of them."""

    def __init__(self, turns: list[Turn], length: int) -> None:
        self.turns, self.length = turns, length
        self.failed: list[Turn] = []
        """Turns whose logits were not finite."""
        self.spoken = 0
        """Tokens drawn."""
        self._speeches = [turn.ask for turn in turns if isinstance(turn.ask, Speech)]

    def draw(self, batch: Batch) -> None:
        """Steps the batch, whose rows are the Turns, until every one has ended or the burst has."""
        if runs(batch) and self._run(batch):
            return
        live = [True] * len(self.turns)
        for _ in range(self.length):
            rows = zip(self.turns, self._speeches, live, strict=True)
            draws = [speech.draw(turn.pending) if on else None for turn, speech, on in rows]
            for i, token in enumerate(batch.step(draws)):
                if live[i]:
                    live[i] = self._push(self.turns[i], self._speeches[i], token)
            if not any(live):
                return

    def _run(self, batch: RunningBatch) -> bool:
        """A burst that nobody looks into; False where some row's every token has to be looked at."""
        courses = [speech.course(turn.pending) for turn, speech in zip(self.turns, self._speeches, strict=True)]
        if None in courses:
            return False
        for turn, speech, tokens in zip(self.turns, self._speeches, batch.run(courses, self.length), strict=True):
            push, drawn = speech.reader.push, speech.drawn
            before = len(drawn)
            for token in tokens:
                if token == FAILED:
                    self.failed.append(turn)
                    break
                drawn.append(token)
                piece = push(token)
                if piece is not None:
                    turn.waiting.append(Released(len(drawn), piece))
            turn.pending = drawn[-1] if drawn else turn.pending
            self.spoken += len(drawn) - before
        return True

    def _push(self, turn: Turn, speech: Speech, token: int) -> bool:
        """Takes a drawn token; True while more are wanted."""
        if token == FAILED:
            self.failed.append(turn)
            return False
        speech.drawn.append(token)
        turn.pending = token
        self.spoken += 1
        piece = speech.reader.push(token)
        if piece is not None:
            turn.waiting.append(Released(len(speech.drawn), piece))
        return speech.reader.finish is None
