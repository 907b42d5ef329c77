"""What a journal costs: until a batch of Npcs is on the disk, beside SQLite, and what a Turn takes longer for it.

Engines alternate in one process and are read back before their figures count. The folder's disk decides:
`python -m npc_runtime.bench_journal BUNDLE FOLDER`.
"""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime import save
from npc_runtime.config import Config
from npc_runtime.doctor.patient import LINES, open_patient
from npc_runtime.errors import JournalError
from npc_runtime.journal import Journal
from npc_runtime.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from npc_runtime.bundle import Bundle
    from npc_runtime.journal import Key
    from npc_runtime.save import NpcRecord

BATCHES = (1, 8, 32)
SIZES = {"segments": 0, "SQLite, 4 KiB pages": 4096, "SQLite, 64 KiB pages": 65536}
NPCS = 64
MOST = 64
"""Batches of one figure, at most."""
_BYTES = 256 * 2**20
"""Written for each figure, at most."""


def measure(bundle: Bundle, folder: Path, rounds: int = 3, sqlite: bool = True) -> dict[str, dict[str, list[float]]]:
    """By engine and Npcs in a batch: median ms until it is on the disk, and processor ms.

    Raises JournalError when what was written is not what is read back.
    """
    records = [_record(bundle, number) for number in range(NPCS)]
    engines = {name: size for name, size in SIZES.items() if sqlite or not size}
    runs: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in engines}
    for _ in range(rounds):
        for count in BATCHES:
            batches = max(4, min(MOST, _BYTES // (rounds * count * bundle.spec.nbytes)))
            for name, size in engines.items():
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    write = _sqlite if size else _segments
                    figures = write(bundle, Path(place) / "journal", _batches(records, count, batches), size)
                runs[name].setdefault(str(count), []).append(figures)
    return {
        name: {
            count: [round(statistics.median(part), 2) for part in zip(*each, strict=True)] for count, each in by.items()
        }
        for name, by in runs.items()
    }


def turns(bundle: Bundle, folder: Path, rounds: int = 12) -> dict[str, float]:
    """Median ms of an unpaced Turn until it is acknowledged, without a journal and with one, in turn."""
    ms: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        plain = open_patient(bundle, Config(state_budget_mb=128), "onnx")
        with plain.game() as without, plain.game(journal=str(Path(place) / "journal")) as with_journal:
            games = {"without": without, "with": with_journal}
            for game in games.values():
                game.spawn("odalys")
            for number in range(rounds):
                for name, game in games.items():
                    begun = time.perf_counter()
                    game.say("odalys", LINES[number % len(LINES)])
                    ms[name].append(1e3 * (time.perf_counter() - begun))
            same = without.state("odalys").equals(with_journal.state("odalys"))
    if not same:
        raise JournalError("a Turn with a journal left another State than one without")
    return {name: round(statistics.median(values), 2) for name, values in ms.items()}


def _record(bundle: Bundle, number: int) -> NpcRecord:
    vector = np.random.default_rng(number).standard_normal(bundle.spec.size).astype(np.float32)
    persona = {"name": "Odalys", "role": "ferry keeper"}
    return save.NpcRecord(f"npc-{number}", persona, "0" * 64, 7, number, number, (), (), State(bundle.spec, vector))


def _batches(records: Sequence[NpcRecord], count: int, batches: int) -> list[dict[Key, NpcRecord | None]]:
    """The Npcs in turn, so many at once."""
    chosen = ([records[(first * count + i) % len(records)] for i in range(count)] for first in range(batches))
    return [{("bench", record.id): record for record in batch} for batch in chosen]


def _segments(
    bundle: Bundle, place: Path, batches: Sequence[Mapping[Key, NpcRecord | None]], page: int
) -> tuple[float, float]:
    journal = Journal(place, bundle.name, bundle.hash, bundle.spec)
    figures = _timed(journal.write, batches)
    found = {record.id: record.state for _, record in journal.read()}
    journal.close()
    _check(found, batches)
    return figures


def _sqlite(
    bundle: Bundle, place: Path, batches: Sequence[Mapping[Key, NpcRecord | None]], page: int
) -> tuple[float, float]:
    base = sqlite3.connect(place, isolation_level=None)
    for line in (f"PRAGMA page_size={page}", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
        base.execute(line)
    base.execute("CREATE TABLE npcs (session TEXT, id TEXT, data BLOB, PRIMARY KEY (session, id)) WITHOUT ROWID")

    def write(batch: Mapping[Key, NpcRecord | None]) -> None:
        rows = [(*key, save.encode([item], bundle.name, bundle.hash)) for key, item in batch.items() if item]
        base.execute("BEGIN")
        base.executemany("INSERT OR REPLACE INTO npcs VALUES (?, ?, ?)", rows)
        base.execute("COMMIT")

    figures = _timed(write, batches)
    rows = base.execute("SELECT id, data FROM npcs").fetchall()
    base.close()
    _check({id: save.decode(data, bundle.spec, bundle.hash).records[0].state for id, data in rows}, batches)
    return figures


def _timed(
    write: Callable[[Mapping[Key, NpcRecord | None]], None], batches: Sequence[Mapping[Key, NpcRecord | None]]
) -> tuple[float, float]:
    ms, begun = [], time.process_time()
    for batch in batches:
        start = time.perf_counter()
        write(batch)
        ms.append(1e3 * (time.perf_counter() - start))
    return statistics.median(ms), 1e3 * (time.process_time() - begun) / len(batches)


def _check(found: Mapping[str, State | None], batches: Sequence[Mapping[Key, NpcRecord | None]]) -> None:
    expected = {key[1]: item.state for batch in batches for key, item in batch.items() if item}
    pairs = [(state, found.get(id)) for id, state in expected.items()]
    if len(found) != len(expected) or not all(one and other and one.equals(other) for one, other in pairs):
        raise JournalError("what was written is not what was read back")


def table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Lines for people."""
    lines = [f"{'ms until on the disk (processor ms)':36}" + "".join(f"{f'{count} Npcs':>20}" for count in BATCHES)]
    for name, by in found.items():
        cells = (f"{by[str(count)][0]:.1f} ({by[str(count)][1]:.1f})" for count in BATCHES)
        lines.append(f"{name:36}" + "".join(f"{cell:>20}" for cell in cells))
    return lines


def report(bundle: Bundle, folder: Path, say: Callable[[str], None], sqlite: bool = False) -> dict[str, Any]:
    """Measures, prints and returns."""
    place = shutil.disk_usage(folder)
    say(
        f"\njournal of {bundle.name}, States of {bundle.spec.nbytes:,} bytes; {place.free >> 30} GiB free where it lies"
    )
    batches, each = measure(bundle, folder, sqlite=sqlite), turns(bundle, folder)
    for line in table(batches):
        say(line)
    more = each["with"] - each["without"]
    say(f"a Turn to its acknowledgement: {each['without']:.1f} ms, with a journal {each['with']:.1f} ms ({more:+.1f})")
    return {"batches": batches, "turn_ms": each}


if __name__ == "__main__":
    from npc_runtime.bundle import Bundle, find_bundle

    report(Bundle.load(find_bundle(sys.argv[1])), Path(sys.argv[2]), print, sqlite=True)
