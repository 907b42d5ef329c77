"""Hostile files, tried by the thousand: python tests/hostile/files.py --count 20000 --seed 1.

Each case is a pure function of seed and number (`--only N` repeats one). It is tried in a child process whose
memory is limited and watched; one that crashes or hangs is told of and replaced. What must hold for each:

- a typed error that is no defect of ours, or what the good file gives; where hashes were made to fit or there
  are none, what else the file may honestly say;
- within SECONDS of processor time and MEMORY beyond what the process held, plus eightfold the files' size;
- nothing is unpickled, evaluated or started, and no file outside the case's own folder is opened.
"""

from __future__ import annotations

import argparse
import codecs
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from multiprocessing.connection import Connection

SECONDS = 1.0
MEMORY = 32 * 2**20
CEILING = 2 * 2**30
"""Bytes of address space beyond those held at the start: what is asked for above it fails."""
CODECS = (
    "cp437",
    "utf_16",
    "utf_16_le",
    "utf_16_be",
    "utf_32",
    "utf_32_le",
    "utf_32_be",
    "utf_8_sig",
    "raw_unicode_escape",
)
"""Loaded before anything is watched: Python imports them when first used."""
HUNG = 10.0
"""Wall seconds after which a case is ended from outside."""
RUNS = ("pickle.find_class", "marshal.loads", "exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")


@dataclass(slots=True)
class Result:
    """What came of one case: `outcome` is an error's code, `same` or `other`; `fault` is what must not be."""

    number: int
    kind: str
    outcome: str
    seconds: float = 0.0
    memory: int = 0
    fault: str = ""


@dataclass
class Tally:
    """What came of the cases of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    memory: int = 0
    faults: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.outcomes[result.outcome] += 1
        self.seconds, self.memory = max(self.seconds, result.seconds), max(self.memory, result.memory)
        if result.fault:
            self.faults.append(result)


def kind_of(number: int) -> tuple[str, int]:
    """The kind of a case and its place among those of its kind."""
    from hostile.specimens import SHARES, SPECIMENS

    order = [kind for kind in SPECIMENS for _ in range(SHARES.get(kind, 1))]
    kind = order[number % len(order)]
    return kind, number // len(order) * SHARES.get(kind, 1) + number % len(order) - order.index(kind)


class Watch:
    """Sees what the interpreter is asked to run and to open while a case is tried."""

    def __init__(self) -> None:
        self.folder = ""
        self.seen: list[str] = []
        self._known = (sys.prefix, sys.base_prefix, str(HERE.parents[1]), f"/proc/{os.getpid()}/", "/sys/", "/usr/")
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event in RUNS:
            self.seen.append(f"{event} {arguments!r:.100}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(arguments[0]).replace("\0", "?"))
            writes = isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
            if not path.startswith(self.folder) and (writes or not path.startswith(self._known)):
                self.seen.append(f"open {path:.200} {arguments[1]}")


class Bench:
    """Tries cases in this process."""

    def __init__(self, seed: int, place: str) -> None:
        from hostile import specimens

        self.seed, self.place = seed, os.path.realpath(place)
        self.specimens = specimens.SPECIMENS
        for name in CODECS:
            codecs.lookup(name)
        for specimen in self.specimens.values():  # the good ones pass, and whatever is imported late is imported
            for number in (0, 1):
                assert self._used(specimen, specimen.good(), number) == "same"
        self.watch = Watch()
        _limit_memory()

    def try_case(self, number: int) -> Result:
        kind, step = kind_of(number)
        specimen, rng = self.specimens[kind], random.Random(f"{self.seed}:{number}")
        good = specimen.good()
        files, forged = specimen.spoil(rng, good, step)
        result = Result(number, kind, "")
        before, begun = _memory(reset=True), time.process_time()
        try:
            result.outcome = self._used(specimen, files, number)
            if result.outcome == "other" and not forged:
                result.fault = "a file that was changed was accepted, though no hash was made to fit"
        except BaseException as error:
            result.outcome, result.fault = _judged(error)
        result.seconds, result.memory = time.process_time() - begun, _memory() - before
        result.fault = result.fault or self._bounds(result, sum(map(len, files.values())))
        return result

    def _used(self, specimen: Any, files: dict[str, bytes], number: int) -> str:
        with tempfile.TemporaryDirectory(dir=self.place) as folder:
            for name, data in files.items():
                Path(folder, name).write_bytes(data)
            watch = getattr(self, "watch", None)
            if watch is not None:
                watch.seen.clear()
                watch.folder = folder
            try:
                outcome: str = specimen.use(Path(folder), files, number)
                return outcome
            finally:
                if watch is not None:
                    watch.folder = ""

    def _bounds(self, result: Result, size: int) -> str:
        if self.watch.seen:
            return "; ".join(self.watch.seen[:3])
        if result.seconds > SECONDS:
            return f"took {result.seconds:.2f} s"
        if result.memory > MEMORY + 8 * size:
            return f"took {result.memory / 2**20:.0f} MiB for {size} bytes"
        return ""


def _judged(error: BaseException) -> tuple[str, str]:
    """(outcome, fault) of what was raised."""
    from npc_runtime.errors import NpcError

    if isinstance(error, KeyboardInterrupt):
        raise error
    if not isinstance(error, NpcError) or error.code == "internal":
        return type(error).__name__, "".join(traceback.format_exception(error))[-1500:]
    return error.code, f"an error text of {len(error.text)} characters" if len(error.text) > 4096 else ""


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _LINUX else 0
        resource.setrlimit(resource.RLIMIT_AS, (held + CEILING, resource.RLIM_INFINITY)) if held else None


_LINUX = sys.platform == "linux"


def _memory(reset: bool = False) -> int:
    """Bytes resident now (and the peak forgotten), or the most since; 0 where the system does not tell."""
    if not _LINUX:
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    field = "VmRSS:" if reset else "VmHWM:"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _work(pipe: Connection, seed: int, place: str) -> None:
    """A child: tries the numbers it is sent."""
    with open(os.devnull, "w") as nowhere:  # native libraries complain there of every bad file
        os.dup2(nowhere.fileno(), 2)
    bench = Bench(seed, place)
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        pipe.send(bench.try_case(number))


class Crew:
    """One child at a time, replaced when it dies or hangs."""

    def __init__(self, seed: int, place: str) -> None:
        self.seed, self.place = seed, place
        self.begin()

    def begin(self) -> None:
        forms = multiprocessing.get_context("spawn")
        self.pipe, theirs = forms.Pipe()
        self.child = forms.Process(target=_work, args=(theirs, self.seed, self.place), daemon=True)
        self.child.start()
        theirs.close()
        try:
            assert self.pipe.recv() == "ready"
        except EOFError:
            text = "nothing was tried: the child did not start (`--only 0` shows why)"
            raise SystemExit(f"{text}; what it needs, a plain install lacks: pip install -e '.[dev]'") from None

    def try_case(self, number: int) -> Result:
        self.pipe.send(number)
        try:
            if self.pipe.poll(HUNG):
                result: Result = self.pipe.recv()
                return result
            fault = f"hung for {HUNG:.0f} s"
        except (EOFError, ConnectionError):
            fault = ""
        self.end()
        self.begin()
        return Result(number, kind_of(number)[0], "none", fault=fault or f"the process died ({self.died})")

    def end(self) -> None:
        self.child.join(0.5)
        self.died = self.child.exitcode
        self.child.kill()
        self.child.join()
        self.pipe.close()


def run(numbers: Iterable[int], seed: int, jobs: int) -> Iterator[Result]:
    """Tries the cases, `jobs` at a time."""
    listed = list(numbers)
    with tempfile.TemporaryDirectory(prefix="hostile-") as place, ThreadPoolExecutor(jobs) as pool:
        for results in pool.map(lambda part: _part(part, seed, place), [listed[job::jobs] for job in range(jobs)]):
            yield from results


def _part(numbers: list[int], seed: int, place: str) -> list[Result]:
    crew = Crew(seed, place)
    try:
        return [crew.try_case(number) for number in numbers]
    finally:
        crew.end()


def report(results: Iterable[Result]) -> tuple[str, int]:
    """A table by kind, and how many faults there are."""
    tallies: dict[str, Tally] = {}
    for result in results:
        tallies.setdefault(result.kind, Tally()).add(result)
    lines = [f"{'kind':16} {'tried':>6} {'refused':>8} {'same':>6} {'other':>6} {'s, most':>8} {'MiB, most':>10}"]
    for kind, tally in sorted(tallies.items()):
        count, same, other = tally.outcomes.total(), tally.outcomes["same"], tally.outcomes["other"]
        figures = f"{count:>6} {count - same - other:>8} {same:>6} {other:>6} {tally.seconds:>8.3f}"
        lines.append(f"{kind:16} {figures} {tally.memory / 2**20:>10.1f}")
    faults = [result for tally in tallies.values() for result in tally.faults]
    lines.append(f"{sum(t.outcomes.total() for t in tallies.values())} tried, {len(faults)} faults")
    lines += [f"--only {result.number} ({result.kind}, {result.outcome}): {result.fault}" for result in faults[:200]]
    return "\n".join(lines), len(faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kind", help="only files of this kind")
    parser.add_argument("--only", type=int, help="repeat one case, in this process")
    told = parser.parse_args()
    if told.only is not None:
        with tempfile.TemporaryDirectory() as place:
            text, bad = report([Bench(told.seed, place).try_case(told.only)])
    else:
        numbers = [number for number in range(told.count) if told.kind in (None, kind_of(number)[0])]
        text, bad = report(run(numbers, told.seed, told.jobs))
    print(text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
