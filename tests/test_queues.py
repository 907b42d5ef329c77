"""Queues: whose Turn may begin, in what order, and whose time is up."""

from __future__ import annotations

from typing import Any

import pytest

from npc_runtime.pool import Timeline
from npc_runtime.queues import Queues
from npc_runtime.turn import BACKGROUND, PLAYER, Turn


def turn(timeline: Timeline[Any], lane: int = PLAYER, deadline: float | None = None) -> Turn:
    return Turn(timeline, (1,), None, lane=lane, deadline=deadline)  # type: ignore[arg-type]  # nobody listens


def begin_all(queues: Queues) -> list[Turn]:
    """Every Turn in the order in which they may begin, each ending before the next one begins."""
    begun = []
    while first := queues.first():
        assert queues.take() is first
        begun.append(first)
        queues.leave(first)
    return begun


def test_the_player_goes_first_and_then_whoever_came_first() -> None:
    queues = Queues()
    turns = [turn(Timeline(), lane) for lane in (BACKGROUND, PLAYER, BACKGROUND, PLAYER)]
    for one in turns:
        queues.add(one)
    assert begin_all(queues) == [turns[1], turns[3], turns[0], turns[2]]
    assert not queues.any_ready


def test_a_timelines_turns_come_in_their_order_whatever_their_lanes() -> None:
    queues, marta, bram = Queues(), Timeline[Any](), Timeline[Any]()
    turns = [turn(marta, BACKGROUND), turn(marta, PLAYER), turn(bram, PLAYER)]
    for one in turns:
        queues.add(one)
    assert queues.of(marta) == turns[:2]
    assert queues.first() is turns[2]
    assert begin_all(queues) == [turns[2], turns[0], turns[1]]
    assert marta not in queues


def test_a_turn_under_way_holds_the_next_one_back_until_it_leaves() -> None:
    queues, marta = Queues(), Timeline[Any]()
    first, second = turn(marta), turn(marta)
    queues.add(first)
    queues.add(second)
    queues.take().slot = 3
    assert queues.first() is None
    assert marta in queues
    queues.leave(first)
    assert queues.first() is second


def test_a_turn_that_left_while_it_waited_does_not_begin() -> None:
    queues, marta = Queues(), Timeline[Any]()
    turns = [turn(marta), turn(marta), turn(Timeline())]
    for one in turns:
        queues.add(one)
    for one in (turns[1], turns[0]):
        queues.leave(one)
        one.slot = -2
    assert queues.any_ready
    assert begin_all(queues) == [turns[2]]
    with pytest.raises(KeyError):
        queues.leave(turns[0])


def test_deadlines_pass_once_and_only_for_turns_that_wait() -> None:
    queues = Queues()
    late, begun, gone, soon = (turn(Timeline(), deadline=deadline) for deadline in (5.0, 1.0, 2.0, 3.0))
    for one in (late, begun, gone, soon, turn(Timeline())):
        queues.add(one)
    begun.slot = 7
    queues.leave(gone)
    assert queues.next_deadline == 1.0
    assert list(queues.expired(4.0)) == [soon]
    assert list(queues.expired(4.0)) == []
    assert queues.next_deadline == 5.0
    assert list(queues.expired(5.0)) == [late]
    assert queues.next_deadline is None


def test_a_turn_may_leave_while_those_that_expired_are_told() -> None:
    """The scheduler fails each as it is told, and whoever hears of it may cancel others."""
    queues = Queues()
    turns = [turn(Timeline(), deadline=float(i)) for i in range(3)]
    for one in turns:
        queues.add(one)
    told = []
    for one in queues.expired(9.0):
        told.append(one)
        queues.leave(one)
        if one is turns[0]:
            queues.leave(turns[1])
    assert told == [turns[0], turns[2]]
