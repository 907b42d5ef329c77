"""Burst: what is drawn is pushed and counted, row by row, until the last row has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fakes import MARTA, FakeBackend, FakeTokenizer

from npc_runtime.burst import Burst
from npc_runtime.errors import BackendError
from npc_runtime.pool import Timeline
from npc_runtime.prompt import ControlLayout, Head, PlainLayout, ReplyReader
from npc_runtime.sampling import FAILED, Sampling
from npc_runtime.turn import Speech, Turn

if TYPE_CHECKING:
    from npc_runtime.prompt import Layout

TOKENIZER = FakeTokenizer()
LAYOUT = ControlLayout(TOKENIZER)


def speaker(slot: int, max_tokens: int = 40, layout: Layout = LAYOUT) -> Turn:
    cue = layout.cue(MARTA)
    heads = layout.heads(("happy", "sad"), ("give",))
    speech = Speech(cue, ReplyReader(layout, TOKENIZER, heads, max_tokens), Sampling(), slot, 0)
    return Turn(Timeline(), (), None, speech, slot=slot, pending=cue[-1])  # type: ignore[arg-type]  # nobody listens


def drawn(turn: Turn) -> list[int]:
    assert isinstance(turn.ask, Speech)
    return turn.ask.drawn


def burst(backend: FakeBackend, turns: list[Turn], length: int) -> Burst:
    made = Burst(turns, length)
    batch = backend.open([turn.slot for turn in turns])
    try:
        made.draw(batch)
    finally:
        batch.close()
    return made


def test_bursts_one_after_the_other_are_one_long_one() -> None:
    turns = [speaker(1), speaker(1)]
    long = burst(FakeBackend(), turns[:1], 12)
    backend = FakeBackend()
    short = [burst(backend, turns[1:], 4) for _ in range(3)]
    assert drawn(turns[0]) == drawn(turns[1])
    assert long.spoken == sum(part.spoken for part in short) == len(drawn(turns[0])) == 12
    assert turns[0].pending == drawn(turns[0])[-1]
    assert "".join(item.piece.text for item in turns[0].waiting) == "".join(
        item.piece.text for item in turns[1].waiting
    )
    assert [item.tokens for item in turns[0].waiting] == sorted(item.tokens for item in turns[0].waiting)


def test_a_row_that_has_ended_rests_and_the_burst_ends_with_the_last() -> None:
    backend = FakeBackend(end_bias=-60.0)
    turns = [speaker(1, max_tokens=3), speaker(2, max_tokens=9)]
    made = burst(backend, turns, 500)
    finished = [turn.ask.reader.finish for turn in turns if isinstance(turn.ask, Speech)]
    assert finished == ["length", "length"]
    assert len(drawn(turns[0])) < len(drawn(turns[1])) == len([name for name, _ in backend.calls if name == "step"])
    assert made.spoken == sum(map(len, map(drawn, turns)))


def test_a_row_that_fails_is_told_and_the_others_go_on() -> None:
    backend = FakeBackend(end_bias=-60.0)
    backend.poison.add(2)
    turns = [speaker(1), speaker(2), speaker(3)]
    made = burst(backend, turns, 6)
    assert made.failed == [turns[1]]
    assert [len(drawn(turn)) for turn in turns] == [6, 0, 6]
    assert made.spoken == 12


def test_what_was_drawn_before_the_device_raised_is_counted() -> None:
    backend = FakeBackend()
    made = Burst([speaker(1)], 6)
    batch = backend.open([1])
    step, steps = batch.step, iter((1, 2, 3))

    def third_raises(draws: Any) -> list[int]:
        if next(steps) == 3:
            raise BackendError("the device fell over")
        return step(draws)

    batch.step = third_raises  # type: ignore[method-assign]
    with pytest.raises(BackendError):
        made.draw(batch)
    assert (made.spoken, made.failed) == (2, [])


class Running:
    """A batch that runs on by itself, as a GPU's does, with the tokens it is given."""

    def __init__(self, *rows: list[int]) -> None:
        self.rows, self.courses, self.length = rows, [], 0  # type: ignore[var-annotated]

    def run(self, courses: Any, length: int) -> list[list[int]]:
        self.courses, self.length = courses, length
        return list(self.rows)

    def step(self, draws: Any) -> list[int]:
        raise AssertionError("a burst that runs is not stepped")

    def close(self) -> None:
        """Nothing is held."""


def test_a_batch_that_runs_is_not_stepped() -> None:
    turns = [speaker(1), speaker(2)]
    spoken = [*LAYOUT.head(Head("happy")), *TOKENIZER.encode(" hello")]
    batch: Any = Running(spoken, [*spoken[:3], FAILED])
    made = Burst(turns, 32)
    made.draw(batch)
    assert (batch.length, len(batch.courses)) == (32, 2)
    assert (drawn(turns[0]), drawn(turns[1])) == (spoken, spoken[:3])
    assert made.failed == [turns[1]]
    assert made.spoken == len(spoken) + 3
    assert turns[0].pending == spoken[-1]
    assert "".join(item.piece.text for item in turns[0].waiting).strip() == "hello"


def test_speech_that_a_reader_alone_can_end_is_stepped_though_the_batch_could_run() -> None:
    backend = FakeBackend()
    made = Burst([speaker(1, layout=PlainLayout(TOKENIZER))], 5)
    batch: Any = backend.open([1])
    batch.run = lambda courses, length: pytest.fail("a stop string would be run over")
    made.draw(batch)
    batch.close()
    assert made.spoken == 5
