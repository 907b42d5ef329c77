"""The journal's benchmark measures every engine, and says nothing of one that loses what it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bundles import tiny_bundle

from npc_runtime import bench_journal
from npc_runtime.errors import JournalError
from npc_runtime.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

    from npc_runtime.bundle import Bundle


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr(bench_journal, "MOST", 4)
    return tiny_bundle(tmp_path / "bundle", 8)


def test_it_measures_every_engine_and_a_turn(bundle: Bundle, tmp_path: Path) -> None:
    said: list[str] = []
    found = bench_journal.report(bundle, tmp_path, said.append, sqlite=True)
    assert set(found["batches"]) == set(bench_journal.SIZES)
    assert all(len(by) == len(bench_journal.BATCHES) for by in found["batches"].values())
    assert all(min(pair) > 0 for by in found["batches"].values() for pair in by.values())
    assert min(found["turn_ms"].values()) > 0
    assert len(said) == 3 + len(bench_journal.SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_is_not_read_back_is_not_measured(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Journal.write
    monkeypatch.setattr(Journal, "write", lambda self, records: write(self, dict(list(records.items())[:-1])))
    with pytest.raises(JournalError, match="not what was read back"):
        bench_journal.measure(bundle, tmp_path, rounds=1)
