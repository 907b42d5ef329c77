"""Replies of many rows at once: heads under their trie, then speech up to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.evaluation.rows import GREEDY
from npc_runtime.persona import ACTIONS, MOODS, Persona
from npc_runtime.prompt import ControlLayout, Head, ReplyReader
from npc_runtime.sampling import FAILED, Draw, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.evaluation.rows import Rows
    from npc_runtime.tokenizer import Tokenizer
    from npc_runtime.training.corpus import Line

RECENT = 64
"""Tokens that repetition control looks back on."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A reply as the evaluation sees it."""

    mood: str
    action: str | None
    text: str
    finish: str


class Talker:
    """Drives Rows through prompts and replies of layout 1."""

    def __init__(self, rows: Rows, tokenizer: Tokenizer) -> None:
        self.rows, self.tokenizer = rows, tokenizer
        self.layout = ControlLayout(tokenizer)
        self._heads = self.layout.heads(MOODS, ACTIONS)
        self._calm = self.layout.heads(("neutral",), ())

    def prompt(self, persona: Persona, lines: Sequence[Line]) -> list[int]:
        """Tokens of a persona and turns."""
        tokens = list(self.layout.persona(persona))
        for line in lines:
            tokens += self.turn(line)
        return tokens

    def turn(self, line: Line) -> list[int]:
        """Tokens of one turn."""
        if line.who == "player":
            return list(self.layout.player(line.text))
        if line.who == "event":
            return list(self.layout.event(line.text))
        head = self.layout.head(Head(line.mood or "neutral", line.action))
        return [*self.layout.cue(Persona("", "")), *head, *self.layout.speech(line.text), *self.layout.end]

    def answers(self, prompts: Sequence[Sequence[int]], max_tokens: int = 40) -> list[str]:
        """The likeliest calm answer to each prompt: mood neutral, no action, temperature 0."""
        texts: list[str] = []
        for first in range(0, len(prompts), self.rows.most):
            part = prompts[first : first + self.rows.most]
            head = self.layout.head(Head("neutral"))
            cue = (*self.layout.cue(Persona("", "")), *head)
            self.rows.start([[*prompt, *cue[:-1]] for prompt in part])
            texts += [reply.text for reply in self._speak(len(part), cue[-1], GREEDY, max_tokens)]
        return texts

    def answers_now(self, questions: Sequence[Line], max_tokens: int = 40) -> list[str]:
        """As `answers`, each row asked where it stands."""
        head = self.layout.head(Head("neutral"))
        cue = (*self.layout.cue(Persona("", "")), *head)
        self.rows.read([[*self.turn(question), *cue[:-1]] for question in questions])
        return [reply.text for reply in self._speak(len(questions), cue[-1], GREEDY, max_tokens)]

    def heads(self, prompts: Sequence[Sequence[int]]) -> list[Head]:
        """The likeliest mood and action with which each prompt would be answered."""
        found: list[Head] = []
        for first in range(0, len(prompts), self.rows.most):
            part = prompts[first : first + self.rows.most]
            cue = self.layout.cue(Persona("", ""))
            self.rows.start([[*prompt, *cue[:-1]] for prompt in part])
            readers = [ReplyReader(self.layout, self.tokenizer, self._heads, 1) for _ in part]
            tokens = [cue[-1]] * len(part)
            while any(reader.head is None and reader.finish is None for reader in readers):
                draws = [
                    None if reader.head or reader.finish else Draw(token, GREEDY, 0, 0, 0, reader.allowed)
                    for reader, token in zip(readers, tokens, strict=True)
                ]
                tokens = self.rows.step(draws)
                for reader, token, draw in zip(readers, tokens, draws, strict=True):
                    if draw is not None:
                        self._push(reader, token, [])
            found += [reader.head or Head("neutral") for reader in readers]
        return found

    def _speak(self, count: int, token: int, sampling: Sampling, max_tokens: int) -> list[Spoken]:
        readers = []
        for _ in range(count):
            reader = ReplyReader(self.layout, self.tokenizer, self._calm, max_tokens)
            for known in self.layout.head(Head("neutral")):
                reader.push(known)
            readers.append(reader)
        return self._draw(readers, [token] * count, sampling, 0, 0, [[] for _ in range(count)])

    def reply(self, count: int, sampling: Sampling, seed: int, turn: int, recent: list[list[int]]) -> list[Spoken]:
        """A reply of every row, sampled; `recent` (each row's latest tokens) is brought up to date."""
        readers = [ReplyReader(self.layout, self.tokenizer, self._heads, sampling.max_tokens) for _ in range(count)]
        cue = self.layout.cue(Persona("", ""))
        self.rows.read([cue[:-1]] * count)
        return self._draw(readers, [cue[-1]] * count, sampling, seed, turn, recent)

    def _draw(
        self,
        readers: list[ReplyReader],
        tokens: list[int],
        sampling: Sampling,
        seed: int,
        turn: int,
        recent: list[list[int]],
    ) -> list[Spoken]:
        position = 0
        while any(reader.finish is None for reader in readers):
            draws = [
                None
                if reader.finish
                else Draw(token, sampling, seed + row, turn, position, reader.allowed, reader.banned, tuple(used))
                for row, (reader, token, used) in enumerate(zip(readers, tokens, recent, strict=True))
            ]
            drawn = self.rows.step(draws)
            for row, (reader, token) in enumerate(zip(readers, drawn, strict=True)):
                if reader.finish is None:
                    self._push(reader, token, recent[row])
                    tokens[row] = token
            position += 1
        self.rows.read([self._tail(reader, token) for reader, token in zip(readers, tokens, strict=True)])
        return [_spoken(reader) for reader in readers]

    def _push(self, reader: ReplyReader, token: int, recent: list[int]) -> None:
        if token == FAILED:
            reader.finish = "failed"
            return
        in_speech = reader.head is not None
        reader.push(token)
        if in_speech:
            recent.append(token)
            del recent[:-RECENT]

    def _tail(self, reader: ReplyReader, token: int) -> tuple[int, ...]:
        """What a row has yet to read so that its reply is whole: the last token drawn was not fed."""
        return self.layout.end if reader.finish == "end" else (token, *self.layout.end)


def _spoken(reader: ReplyReader) -> Spoken:
    head = reader.head or Head("neutral")
    return Spoken(head.mood, head.action, reader.text.strip(), reader.finish or "failed")
