"""Spare memory goes back to the system, and only that of free Slots."""

from __future__ import annotations

import sys
import weakref

import numpy as np
import pytest
from fakes import FakeBackend, fake_stage

from npc_runtime.backends.spare import release_rows, trim_heap

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are handed back on Linux")


@linux
def test_released_rows_are_zero_and_their_neighbours_untouched() -> None:
    store = np.ones((64, 5000), np.float32)
    freed = release_rows(store, [3, 4, 5, 6, 40, 63])
    assert 0 < freed <= 6 * 20_000
    inside = store[3:7].reshape(-1)[2048:-2048]  # pages are whole, rows are not
    assert not inside.any()
    kept = [row for row in range(64) if row not in (3, 4, 5, 6, 40, 63)]
    assert (store[kept] == 1).all()


@linux
def test_rows_smaller_than_a_page_are_released_together_or_not_at_all() -> None:
    store = np.ones((4, 8), np.float32)
    assert release_rows(store, [1]) == 0
    assert release_rows(store, []) == 0
    assert (store == 1).all()


def test_trimming_the_heap_is_harmless_anywhere() -> None:
    trim_heap()


def test_a_stage_at_rest_releases_the_slots_nobody_holds() -> None:
    backend, released = FakeBackend(slots=96), []
    backend.release = lambda slots: released.extend(slots)  # type: ignore[attr-defined]
    stage = fake_stage(backend=backend)
    held = stage.scheduler.take_slot()
    stage.rest()
    assert held not in released
    assert len(released) == 95
    stage.scheduler.pool.drop(held)
    stage.close()


def test_a_daemon_at_rest_lets_ended_sessions_go() -> None:
    """A Session and its verbs are a circle, which only the collector finds: after an attack hundreds stayed."""
    stage = fake_stage()
    gone = weakref.ref(stage.session("guest"))
    stage.forget("guest")
    stage.rest()
    assert gone() is None
    stage.close()
