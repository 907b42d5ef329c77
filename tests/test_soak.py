"""A share of tests/soak.py: every count is exact, no handle is left open. Growth and drift need its long run."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("figures of /proc", allow_module_level=True)

from soak import Soak, soak

LONG = {"memory grew", "slower"}
"""What a short run cannot tell: caches and rewind points are still filling."""


@pytest.mark.parametrize("journal", [False, True], ids=["plain", "journal"])
def test_an_hour_of_play_is_counted_exactly(journal):
    found = soak(900, journal=journal, games=3, seed=2)
    assert {name: fault for name, fault in found["wrong"].items() if name not in LONG} == {}
    assert found["turns"] >= 900
    assert found["cancelled"] > 0


def test_what_grows_slows_down_or_is_miscounted_is_found():
    judge = Soak.__new__(Soak)
    judge.done, judge.failed, judge.games = 1000, 0, []
    judge.faults = Counter({"turns done: 9, not 10": 1})
    names = ("turns", "kb", "threads", "handles", "cpu_s", "p50_ms", "p95_ms")
    windows = [dict(zip(names, (n * 50, n * 1000, 5, 20 + n, n * n / 100, 1.0, 2.0), strict=True)) for n in range(21)]
    assert set(judge._judge(windows)["wrong"]) == {
        "turns done: 9, not 10",
        "memory grew",
        "handles grew",
        "slower",
    }
