"""Runs one kind of fault as often as asked: PYTHONPATH=tests python -m faults saves --rounds 1000.

Prints a line of JSON with what was counted; status 0 only when nothing was lost.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from faults import backend, disk, journal, leaks, saves

KINDS = {"saves": saves.run, "journal": journal.run, "backend": backend.run, "disk": disk.run, "leaks": leaks.run}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--bundle", default="", help="journal and leaks: a Bundle to compute with, instead of a fake or tiny one"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = KINDS[asked.kind](Path(folder), asked.rounds, asked.seed, asked.bundle)
    print(json.dumps({"kind": asked.kind, "rounds": asked.rounds, "seed": asked.seed, **found}))
    return 0 if not found["lost"] else 1


if __name__ == "__main__":
    sys.exit(main())
