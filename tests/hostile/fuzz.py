"""Coverage-guided fuzzing of the targets with atheris (libFuzzer): python tests/hostile/fuzz.py TARGET --seconds N.

`all` runs every target, `--jobs` at a time. The kept corpus is read, never written; what a run finds on the
way stays in --work DIR, and `--keep` merges it into the corpus: the fewest files that reach as much.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
CORPUS = HERE / "corpus"
NAMES = ("wire", "prompt", "persona", "save", "trie", "verbs", "header", "torch")
INPUT_SECONDS = 60
"""A single input that takes longer is a finding: of the wall's clock, so that a machine left without time is none."""
RSS_MB = 1024
MAX_BYTES = 4096
KEPT_FILES = 60
AGAIN = "HOSTILE_FUZZ_AGAIN"


def drive(target: str, arguments: list[str]) -> None:
    """Becomes libFuzzer on one target; does not return."""
    import atheris

    with atheris.instrument_imports(include=["npc_runtime", "tomllib"]):
        from hostile import targets
    atheris.Setup([os.environ.get(AGAIN, sys.argv[0]), *arguments], targets.TARGETS[target])
    atheris.Fuzz()


def command(target: str, *arguments: str) -> list[str]:
    return [sys.executable, str(Path(__file__)), "--drive", target, *arguments]


def limits() -> list[str]:
    return [f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={RSS_MB}", f"-max_len={MAX_BYTES}", "-print_final_stats=1"]


def fuzz(target: str, seconds: int, work: Path) -> tuple[int, int, str]:
    """(exit status, executions, tail of what libFuzzer said) of one run."""
    grown, begun = work / target, work / f"{target}-seeds"
    grown.mkdir(parents=True, exist_ok=True)
    begun.mkdir(exist_ok=True)
    _sow(target, begun)
    folders = [str(grown), str(begun), *([str(CORPUS / target)] if (CORPUS / target).is_dir() else [])]
    found = f"-artifact_prefix={work}/{target}-finding-"
    done = subprocess.run(
        command(target, *limits(), f"-max_total_time={seconds}", found, *folders),
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    count = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    return done.returncode, int(count[1]) if count else 0, (done.stdout + done.stderr)[-6000:]


def _sow(target: str, folder: Path) -> None:
    from hostile import targets

    for number, data in enumerate(targets.seeds(target)):
        (folder / f"seed-{number:02d}").write_bytes(data[:MAX_BYTES])


def _again(target: str, place: str) -> dict[str, str]:
    """The environment in which libFuzzer can start itself anew, as merging does: by a file that is this program."""
    script = Path(place) / "again"
    script.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in command(target)) + ' "$@"\n')
    script.chmod(0o755)
    return {**os.environ, AGAIN: str(script)}


def keep(target: str, work: Path) -> int:
    """Replaces a target's kept corpus by the fewest, shortest inputs that cover what all of them do."""
    with tempfile.TemporaryDirectory() as place:
        merged = Path(place) / "merged"
        merged.mkdir()
        sources = [folder for folder in (CORPUS / target, work / f"{target}-seeds", work / target) if folder.is_dir()]
        subprocess.run(
            command(target, *limits(), "-merge=1", str(merged), *map(str, sources)),
            capture_output=True, check=True, env=_again(target, place),
        )  # fmt: skip
        files = sorted(merged.iterdir(), key=lambda path: path.stat().st_size)[:KEPT_FILES]
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for old in (CORPUS / target).iterdir():
            old.unlink()
        for path in files:
            (CORPUS / target / path.name[:12]).write_bytes(path.read_bytes())
        return len(files)


def main() -> int:
    if sys.argv[1:2] == ["--drive"]:
        drive(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=[*NAMES, "all"])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time (all processors)")
    parser.add_argument("--work", type=Path, help="folder for findings and the grown corpus (a temporary one)")
    parser.add_argument("--keep", action="store_true", help="merge what was found into the kept corpus")
    told = parser.parse_args()
    if find_spec("atheris") is None:
        print("nothing was fuzzed: atheris is not installed: pip install -e '.[dev]'; pytest runs the kept corpus")
        return 0
    names = NAMES if told.target == "all" else (told.target,)
    with tempfile.TemporaryDirectory() as place:
        work = told.work or Path(place)
        work.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        with ThreadPoolExecutor(told.jobs) as crew:
            ended = list(crew.map(lambda name: fuzz(name, told.seconds, work), names))
        bad = 0
        for name, (status, count, said) in zip(names, ended, strict=True):
            print(f"{name:8} {count:>12,} executions, {'no finding' if status == 0 else 'A FINDING'}", flush=True)
            if status or not count:
                bad += 1
                print(said)
        print(f"all      {sum(count for _, count, _ in ended):>12,} executions in {time.monotonic() - begun:.0f} s")
        for name in names if told.keep and not bad else ():
            print(f"{name}: {keep(name, work)} inputs kept")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
