"""The journal's files: what was written is there, one moment at a time, and what is damaged is refused untouched."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fakes import MARTA, SPEC

from npc_runtime import save
from npc_runtime.errors import JournalError, JournalFailed
from npc_runtime.journal import BATCH, Journal
from npc_runtime.persona import to_mapping
from npc_runtime.save import NpcRecord
from npc_runtime.state import State

if TYPE_CHECKING:
    from pathlib import Path

HASH = "ab" * 32


def record(id: str = "smith", turns: int = 0) -> NpcRecord:
    rng = np.random.default_rng(turns)
    state = State(SPEC, rng.standard_normal(SPEC.size).astype(np.float32))
    log = (("player", f"line {turns}"),)
    return NpcRecord(id, to_mapping(MARTA), MARTA.digest(), 7, turns, 3 * turns, (1, 2), log, state)


def opened(folder: Path, bundle: str = "tavern", hash: str = HASH) -> Journal:
    return Journal(folder, bundle, hash, SPEC)


def held(folder: Path) -> dict[tuple[str, str], tuple[int, str]]:
    """Turns and State digest of all that a journal holds."""
    journal = opened(folder)
    try:
        found = {(session, item.id): item for session, item in journal.read()}
        assert all(item.state is not None for item in found.values())
        return {key: (item.turns, item.state.digest()) for key, item in found.items() if item.state is not None}
    finally:
        journal.close()


def told(item: NpcRecord) -> tuple[int, str]:
    assert item.state is not None
    return item.turns, item.state.digest()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_what_was_written_is_there_bit_for_bit(tmp_path):
    journal = opened(tmp_path / "new" / "folder")
    journal.write({("game", "smith"): record(turns=1), ("game", "smith's dog, é"): record("smith's dog, é", 2)})
    journal.write({("other", "smith"): record(turns=3)})
    journal.close()
    journal = opened(tmp_path / "new" / "folder")
    found = {(session, item.id): item for session, item in journal.read()}
    journal.close()
    assert len(journal) == 3
    assert set(found) == {("game", "smith"), ("game", "smith's dog, é"), ("other", "smith")}
    expected = record(turns=3)
    again = found["other", "smith"]
    assert again.state is not None
    assert expected.state is not None
    assert again.state.equals(expected.state)
    assert replace(again, state=None) == replace(expected, state=None)


def test_the_newest_counts_and_the_dead_leave_the_disk(tmp_path):
    journal = opened(tmp_path)
    for turns in range(20):
        journal.write({("game", "smith"): record(turns=turns)})
    journal.close()
    assert [path.name for path in tmp_path.glob("*.segment")] == ["000000000020.segment"]
    assert held(tmp_path) == {("game", "smith"): told(record(turns=19))}


def test_a_dropped_npc_stays_away(tmp_path):
    journal = opened(tmp_path)
    journal.write({("game", "smith"): record(turns=1), ("game", "guard"): record("guard", 2)})
    journal.write({("game", "smith"): None})
    journal.close()
    assert held(tmp_path) == {("game", "guard"): told(record("guard", 2))}
    journal = opened(tmp_path)
    journal.write({("game", "guard"): None})
    journal.close()
    assert held(tmp_path) == {}


def test_numbers_go_on_after_a_restart(tmp_path):
    for turns in range(3):
        journal = opened(tmp_path)
        journal.write({("game", f"npc-{turns}"): record(f"npc-{turns}", turns)})
        journal.close()
    assert sorted(path.name for path in tmp_path.glob("*.segment"))[-1] == "000000000003.segment"
    assert len(held(tmp_path)) == 3


def test_sparse_segments_are_written_anew_so_that_the_folder_stays_small(tmp_path):
    """One Npc of every batch stays silent while the others talk: its segment would live for its sake alone."""
    journal = opened(tmp_path)
    silent = [f"silent-{i}" for i in range(12)]
    turns, current = 0, {}
    for name in silent:
        batch = {("game", name): record(name, turns)}
        for loud in range(BATCH - 1):
            turns += 1
            batch["game", f"loud-{loud}"] = record(f"loud-{loud}", turns)
        current |= batch
        journal.write(batch)
        while keys := journal.sparse():
            journal.write({key: current[key] for key in keys})
    on_disk = sum(len(list(opened_names)) for opened_names in _listed(journal))
    journal.close()
    assert on_disk <= 2 * len(current) + BATCH
    assert held(tmp_path) == {key: told(item) for key, item in current.items()}


def _listed(journal: Journal) -> list[list[tuple[str, str]]]:
    return [journal._segment(int(path.stem))[1]["npcs"] for path in journal.folder.glob("*.segment")]


def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch):
    journal = opened(tmp_path)
    journal.write({("game", "smith"): record(turns=1)})
    before = contents(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(save.os, "fsync", full)
        with pytest.raises(JournalFailed, match="No space left"):
            journal.write({("game", "smith"): record(turns=2), ("game", "guard"): record("guard", 3)})
    assert contents(tmp_path) == before
    journal.write({("game", "guard"): record("guard", 4)})
    journal.close()
    assert held(tmp_path) == {("game", "smith"): told(record(turns=1)), ("game", "guard"): told(record("guard", 4))}


def test_parts_and_dead_segments_of_a_crash_are_swept(tmp_path):
    journal = opened(tmp_path)
    journal.write({("game", "smith"): record(turns=1)})
    dead = (tmp_path / "000000000001.segment").read_bytes()
    journal.write({("game", "smith"): record(turns=2)})
    journal.close()
    (tmp_path / "000000000001.segment").write_bytes(dead)
    (tmp_path / ".000000000003.segment.abcd0123.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert held(tmp_path) == {("game", "smith"): told(record(turns=2))}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000002.segment", "lock", "notes.txt"]


def test_two_daemons_cannot_share_a_journal(tmp_path):
    journal = opened(tmp_path)
    with pytest.raises(JournalError, match=r"is in use by process [0-9]+"):
        opened(tmp_path)
    journal.close()
    opened(tmp_path).close()


def test_a_lock_dies_with_its_process(tmp_path):
    code = f"""
import os, signal
from npc_runtime.journal import Journal
from npc_runtime.state import StateSpec
journal = Journal({str(tmp_path)!r}, "tavern", {HASH!r}, StateSpec(1, 2, 2, 2))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    opened(tmp_path).close()


def test_another_bundles_journal_is_refused_by_name(tmp_path):
    journal = opened(tmp_path)
    journal.write({("game", "smith"): record(turns=1)})
    journal.close()
    before = contents(tmp_path)
    with pytest.raises(JournalError, match=r"is of the Bundle `tavern` \(abababababab\), and `other` \(cdcdcdcdcdcd\)"):
        opened(tmp_path, "other", "cd" * 32)
    assert contents(tmp_path) == before


def test_every_damage_is_refused_and_left_as_it_is(tmp_path):
    journal = opened(tmp_path)
    journal.write({("game", "smith"): record(turns=1), ("game", "guard"): record("guard", 2)})
    journal.write({("game", "guard"): record("guard", 3)})
    journal.close()
    paths = sorted(tmp_path.glob("*.segment"))
    assert len(paths) == 2
    for path in paths:
        sound = path.read_bytes()
        cut = [sound[: len(sound) * part // 64] for part in range(64)]
        step = max(1, len(sound) // 150)
        flipped = [sound[:i] + bytes([sound[i] ^ 4]) + sound[i + 1 :] for i in range(0, len(sound), step)]
        silent = [data for data in (*cut, *flipped, sound + b"\0") if not _refused(tmp_path, path, data, sound)]
        assert silent == []
        path.write_bytes(sound)


def _refused(folder: Path, path: Path, data: bytes, sound: bytes) -> bool:
    """True when the damage is refused, or lies in a snapshot that no longer counts."""
    path.write_bytes(data)
    before = contents(folder)
    try:
        found = held(folder)
    except JournalError as error:
        return path.name in str(error) and contents(folder) == before
    assert len(data) == len(sound)
    return found == {("game", "smith"): told(record(turns=1)), ("game", "guard"): told(record("guard", 3))}


def test_a_missing_segment_is_noticed(tmp_path):
    journal = opened(tmp_path)
    journal.write({("game", "smith"): record(turns=1)})
    journal.write({("game", "guard"): record("guard", 2)})
    journal.close()
    (tmp_path / "000000000001.segment").unlink()
    with pytest.raises(JournalError, match=r"000000000001\.segment`: it is missing"):
        opened(tmp_path)


@pytest.mark.parametrize("folder", ["a-file", "a-file/inside", "nul\0l"])
def test_a_folder_that_cannot_be_is_an_error_at_start(tmp_path, folder):
    (tmp_path / "a-file").write_text("x")
    with pytest.raises(JournalError, match="cannot be opened"):
        opened(tmp_path / folder)
