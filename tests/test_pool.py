"""Slots are counted exactly, shared until written, and never lost."""

from __future__ import annotations

import pytest

from npc_runtime.errors import BudgetExceeded, NothingToRewind
from npc_runtime.pool import Point, Pool, Timeline


def test_a_slot_is_free_again_when_its_last_holder_drops_it():
    pool = Pool(2)
    slot = pool.take()
    pool.hold(slot)
    pool.drop(slot)
    assert pool.free == 1
    pool.drop(slot)
    assert pool.free == 2


def test_taking_beyond_the_capacity_is_refused_with_the_figure():
    pool = Pool(1)
    pool.take()
    with pytest.raises(BudgetExceeded, match="all 1 Slots"):
        pool.take()


@pytest.mark.parametrize("misuse", ["hold", "drop"])
def test_a_free_slot_can_be_neither_shared_nor_dropped(misuse):
    with pytest.raises(ValueError, match="Slot 0 is free"):
        getattr(Pool(1), misuse)(0)


def grown(pool: Pool, points: int, keep: int) -> Timeline[int]:
    line: Timeline[int] = Timeline()
    for mark in range(points):
        line.advance(pool, Point(pool.take(), mark), keep)
    return line


def test_a_timeline_keeps_only_its_last_rewind_points():
    pool = Pool(8)
    line = grown(pool, 6, keep=3)
    assert [point.mark for point in line.past] == [2, 3, 4]
    assert pool.free == 8 - 4


def test_rewind_goes_back_and_frees_what_came_later():
    pool = Pool(8)
    line = grown(pool, 5, keep=8)
    line.rewind(pool, 3)
    assert line.current is not None
    assert line.current.mark == 1
    assert pool.free == 6


def test_rewinding_too_far_changes_nothing():
    pool = Pool(8)
    line = grown(pool, 3, keep=8)
    with pytest.raises(NothingToRewind, match="turns to go back: 3 asked for, 2 kept"):
        line.rewind(pool, 3)
    assert line.current is not None
    assert line.current.mark == 2
    assert pool.free == 5


def test_a_fork_shares_slots_until_both_are_cleared():
    pool = Pool(8)
    line = grown(pool, 3, keep=8)
    twin = line.fork(pool)
    assert pool.free == 5
    line.clear(pool)
    assert pool.free == 5
    assert twin.current is not None
    twin.clear(pool)
    assert pool.free == 8
