"""The figures of `npc-runtime bench --backend cuda`, appended to results.csv.

    python kernels/bench/bench_backend.py [--part decode --part read ...]

Run from the repository root on an NVIDIA GPU. What is measured, checked and printed is `npc_runtime.bench_cuda`'s.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import torch  # noqa: E402
import triton  # noqa: E402

from npc_runtime.bench_cuda import PARTS, bench_cuda  # noqa: E402

FIELDS = ["op", "shape", "dtype", "pass", "p20_ms", "p50_ms", "p80_ms", "ratio", "gpu", "versions", "commit", "date"]


def rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """One row for each figure that is a time."""
    made = [
        {"op": f"backend decode {model}", "shape": str(each["rows"]), "p50_ms": str(each["ms"]), "ratio": each["ratio"]}
        for model, part in (("tiny", "decode"), ("130m", "decode_130m"))
        for each in found.get(part, ())
    ]
    for each in found.get("read", ()):
        shape = f"{each['rows']}x{each['tokens']}"
        made.append({"op": "backend read tiny", "shape": shape, "pass": "wall", "p50_ms": str(each["ms"])})
    for each in found.get("crowd", ()):
        for name in ("first", "token", "wait"):
            times = dict(zip(("p50", "p95", "p99"), each[f"{name}_ms"], strict=True))
            what = f"{name}; {each['tokens_per_s']} tokens/s; p95 {times['p95']}; p99 {times['p99']}"
            made.append({"op": "crowd tiny", "shape": str(each["npcs"]), "pass": what, "p50_ms": str(times["p50"])})
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="what to measure; all when not given")
    options = parser.parse_args()
    found = bench_cuda(parts=options.part or PARTS)
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    where = {
        "dtype": "bfloat16",
        "gpu": torch.cuda.get_device_name(),
        "versions": f"torch {torch.__version__} triton {triton.__version__}",
        "commit": done.stdout.strip() or "unknown",
        "date": date.today().isoformat(),
    }
    with (HERE / "results.csv").open("a", newline="") as file:
        csv.DictWriter(file, FIELDS, restval="").writerows([where | row for row in rows(found)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
