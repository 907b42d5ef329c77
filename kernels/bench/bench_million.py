"""One million tokens through one State: time and memory for each 65,536, as a table and a plot.

    python kernels/bench/bench_million.py [--tokens 1048576] [--out FOLDER]

Run from the repository root on an NVIDIA GPU. Nothing is timed before reading in pieces gives the State of reading at
once. Writes `million.csv` and `million.svg` into --out, by default beside this script.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from npc_runtime.backends.cuda import PIECE, CudaBackend  # noqa: E402
from npc_runtime.bench_cuda import copy_gb_s, machine  # noqa: E402
from npc_runtime.bundle import Bundle, find_bundle  # noqa: E402
from npc_runtime.doctor.forms import FORM_BOUNDS, rms_ratio  # noqa: E402

EACH = 65_536
FIELDS = ("tokens", "seconds", "us_per_token", "state_bytes", "allocated_mb", "peak_mb")


def check(backend: CudaBackend, tokens: list[int]) -> float:
    """RMS ratio of the States of 6,000 tokens read at once and in uneven pieces."""
    backend.clear(0)
    backend.prefill([0], tokens[:6000])
    backend.clear(1)
    for first, last in ((0, 700), (700, 4321), (4321, 6000)):
        backend.prefill([1], tokens[first:last])
    return rms_ratio(backend.read(0), backend.read(1))


def measure(backend: CudaBackend, tokens: list[int]) -> list[dict[str, float]]:
    """A row for each EACH tokens."""
    backend.clear(0)
    backend.prefill([0], tokens[:EACH])  # compiles and allocates
    backend.clear(0)
    rows = []
    for first in range(0, len(tokens), EACH):
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        backend.prefill([0], tokens[first : first + EACH])
        torch.cuda.synchronize()
        spent = time.perf_counter() - begun
        state = backend.read(0)
        if not state.finite():
            raise SystemExit(f"the State is not finite after {first + EACH} tokens")
        rows.append(
            {
                "tokens": first + EACH,
                "seconds": round(spent, 5),
                "us_per_token": round(1e6 * spent / EACH, 4),
                "state_bytes": state.vector.nbytes,
                "allocated_mb": torch.cuda.memory_allocated() >> 20,
                "peak_mb": torch.cuda.max_memory_allocated() >> 20,
            }
        )
    return rows


def plot(rows: list[dict[str, float]], title: str) -> str:
    """An SVG of two lines: time for each piece, and peak memory; both from zero."""
    width, height, left, top = 760, 300, 60, 40
    last = rows[-1]["tokens"]

    def line(field: str, colour: str, most: float) -> str:
        points = " ".join(
            f"{left + row['tokens'] / last * (width - 2 * left):.1f},"
            f"{height - top - row[field] / most * (height - 2 * top):.1f}"
            for row in rows
        )
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    slowest, peak = (1.5 * max(row[field] for row in rows) for field in ("us_per_token", "peak_mb"))
    bottom = height - top
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
            'font-size="12"><rect width="100%" height="100%" fill="white"/>',
            f'<text x="{left}" y="20">{title}</text>',
            f'<path d="M{left} {top}V{bottom}H{width - left}" fill="none" stroke="black"/>',
            line("us_per_token", "#1f6fb4", slowest),
            line("peak_mb", "#c4591b", peak),
            f'<text x="{left}" y="{bottom + 18}">0</text>',
            f'<text x="{width - left}" y="{bottom + 18}" text-anchor="end">{last:,.0f} tokens</text>',
            f'<text x="{width - left + 4}" y="{top + 40}" fill="#1f6fb4" text-anchor="end">'
            f"us a token: {rows[0]['us_per_token']:.2f} first, {rows[-1]['us_per_token']:.2f} last</text>",
            f'<text x="{width - left + 4}" y="{top + 58}" fill="#c4591b" text-anchor="end">'
            f"peak memory: {rows[0]['peak_mb']:.0f} MB first, {rows[-1]['peak_mb']:.0f} MB last</text>",
            "</svg>\n",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1 << 20, help="how many")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the table and the plot")
    options = parser.parse_args()
    bundle = Bundle.load(find_bundle("default"))
    backend = CudaBackend(bundle, 2, 1)
    tokens = np.random.default_rng(0).integers(8, bundle.config.vocab_size, options.tokens).tolist()
    error = check(backend, tokens)
    print(f"{machine()}; copy {copy_gb_s():.0f} GB/s; read in pieces: {error:.1e}, bound {FORM_BOUNDS['bf16']}")
    if error > FORM_BOUNDS["bf16"]:
        return 1
    torch.cuda.empty_cache()
    rows = measure(backend, tokens)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "million.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    title = f"{bundle.config.parameters / 1e6:.1f}M parameters, one State of {rows[0]['state_bytes']:,.0f} bytes"
    (options.out / "million.svg").write_text(plot(rows, f"{title}; {torch.cuda.get_device_name()}"))
    times = [row["us_per_token"] for row in rows]
    found = {"tokens": options.tokens, "seconds": round(sum(row["seconds"] for row in rows), 3)}
    found |= {"us_per_token": [min(times), max(times)], "peak_mb": [rows[0]["peak_mb"], rows[-1]["peak_mb"]]}
    print(json.dumps(found | {"state_bytes": rows[-1]["state_bytes"], "piece": PIECE}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
