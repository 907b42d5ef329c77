"""Time the scan, the convolution and training on an NVIDIA GPU: ceilings, then correctness, then medians.

    python kernels/bench/bench_scan.py [--part shapes --part train] [--seconds 120]

Run from the repository root. Ratios are to the times of mamba_ssm 2.3.2 on an H200 (`ANCHORS`), scaled by this run's
copy bandwidth. Nothing is timed unless every check passes. Rows go to `results.csv`; the last line is a JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import torch  # noqa: E402
import triton  # noqa: E402
from npc_kernels import (  # noqa: E402
    add_rms_norm,
    add_rms_norm_ref,
    causal_conv1d,
    causal_conv1d_ref,
    linear_cross_entropy,
    linear_cross_entropy_ref,
    selective_scan,
    selective_scan_ref,
)
from triton.testing import do_bench  # noqa: E402

COPY_GB_S = 4282
"""Copy bandwidth of the run that measured the anchors."""

# (op, batch, channels, length) -> ms of mamba_ssm 2.3.2 / causal-conv1d 1.6.2, bf16: forward, forward + backward
ANCHORS: dict[tuple[str, int, int, int], tuple[float, float | None]] = {
    ("scan", 8, 2048, 2048): (0.590, 2.88),
    ("scan", 16, 1024, 2048): (0.590, 2.88),
    ("scan", 64, 1024, 2048): (2.30, 11.3),
    ("scan", 1, 2048, 2**14): (0.723, 3.64),
    ("scan", 1, 2048, 2**17): (5.90, 28.0),
    ("scan", 1, 1024, 2**20): (22.8, None),
    ("conv", 8, 2048, 2048): (0.057, 0.458),
    ("conv", 1, 2048, 2**17): (0.290, 0.785),
}
TRAINING = {"tiny": ((512, 12, 8192), 628_000), "57.9M": ((640, 20, 8192), 311_000)}
FIELDS = ["op", "shape", "dtype", "pass", "p20_ms", "p50_ms", "p80_ms", "ratio", "gpu", "versions", "commit", "date"]


class Bench:
    """The run: its clock, its ceilings, its rows."""

    def __init__(self, seconds: float) -> None:
        self.started, self.deadline = time.time(), time.time() + seconds
        root = HERE.parent.parent
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
        self.where = {
            "gpu": torch.cuda.get_device_name(),
            "versions": f"torch {torch.__version__} triton {triton.__version__}",
            "commit": done.stdout.strip() or "unknown",
            "date": date.today().isoformat(),
        }
        self.rows: list[dict[str, str]] = []

    def say(self, *words: object) -> None:
        """Print with the clock."""
        print(f"[{time.time() - self.started:6.1f}]", *words, flush=True)

    @property
    def late(self) -> bool:
        """Whether the time for this run is used up."""
        return time.time() > self.deadline

    def ceilings(self) -> None:
        """Copy bandwidth, and the rate of exp2, the scan's own ceiling."""
        source = torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16)
        target = torch.empty_like(source)
        ms = do_bench(lambda: target.copy_(source), return_mode="median")
        self.copy = 4 * source.numel() / ms / 1e6
        self.say(f"copy {self.copy:.0f} GB/s (anchors: {COPY_GB_S})")

    def time(self, op: str, shape: tuple[int, ...], what: str, run: Any, anchor: float | None) -> float:
        """Median of a run, as a row."""
        low, middle, high = do_bench(run, warmup=25, rep=100, quantiles=[0.2, 0.5, 0.8])
        ratio = None if anchor is None else anchor * COPY_GB_S / self.copy / middle
        self.say(f"{op} {shape} {what}: {middle:.3f} ms" + ("" if ratio is None else f", {ratio:.2f}x the anchor"))
        self.add(
            {
                "op": op, "shape": "x".join(map(str, shape)), "dtype": "bfloat16", "pass": what,
                "p20_ms": f"{low:.4f}", "p50_ms": f"{middle:.4f}", "p80_ms": f"{high:.4f}",
                "ratio": "" if ratio is None else f"{ratio:.3f}",
            }
        )  # fmt: skip
        return middle

    def add(self, row: dict[str, str]) -> None:
        """Append a row to results.csv at once: a run may be cut short."""
        self.rows.append(row | self.where)
        path = HERE / "results.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, restval="")
            if new:
                writer.writeheader()
            writer.writerow(self.rows[-1])


def rows(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, device="cuda").to(dtype)


def scan_inputs(b: int, E: int, L: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """Inputs of a scan with an initial state, steps small as in a model."""
    f32 = torch.float32
    return {
        "x": rows(b, L, E, dtype=dtype), "dt": rows(b, L, E, dtype=dtype) - 1,
        "A": -torch.arange(1.0, 17.0, device="cuda").repeat(E, 1),
        "B": rows(b, L, 16, dtype=dtype), "C": rows(b, L, 16, dtype=dtype), "D": rows(E, dtype=f32),
        "z": rows(b, L, E, dtype=dtype), "dt_bias": rows(E, dtype=f32) - 3,
        "initial_state": rows(b, 16, E, dtype=f32),
    }  # fmt: skip


def worst(run: Any, reference: Any, inputs: dict[str, torch.Tensor]) -> float:
    """Largest RMS ratio over results and gradients."""
    made = []
    for function in (reference, run):
        leaves = {k: v.detach().clone().requires_grad_(v.is_floating_point()) for k, v in inputs.items()}
        result = function(**leaves)
        outputs = [result] if isinstance(result, torch.Tensor) else list(result)
        wanted = [v for v in leaves.values() if v.requires_grad]
        torch.manual_seed(1)
        seeds = [torch.randn(o.shape, device=o.device).to(o.dtype) for o in outputs]  # whatever the strides
        grads = torch.autograd.grad(outputs, wanted, seeds)
        made.append([*(output.detach() for output in outputs), *grads])
    return max(
        float((a.double() - e.double()).square().mean().sqrt() / e.double().square().mean().sqrt().clamp(min=1e-30))
        for e, a in zip(*made, strict=True)
    )


def check(bench: Bench) -> bool:
    """Whether every kernel agrees with its definition, forward and backward, on small shapes of the paths timed."""
    right = True
    for dtype, bound in ((torch.bfloat16, 6e-3), (torch.float32, 1e-5)):
        for name, chunk_len in (("one pass", None), ("chunked", 64)):
            inputs = scan_inputs(2, 1024, 256, dtype)
            error = worst(lambda c=chunk_len, **k: selective_scan(**k, chunk_len=c), selective_scan_ref, inputs)
            bench.say(f"scan {dtype} {name}: error {error:.1e}, bound {bound:.0e}")
            right &= error < bound
        inputs = {"x": rows(2, 200, 1024, dtype=dtype), "weight": rows(1024, 4, dtype=torch.float32)}
        error = worst(causal_conv1d, causal_conv1d_ref, inputs)
        bench.say(f"conv {dtype}: error {error:.1e}, bound {bound:.0e}")
        right &= error < bound
    f32 = torch.float32
    inputs = {
        "branch": rows(2, 300, 512, dtype=f32),
        "residual": rows(2, 300, 512, dtype=f32),
        "weight": rows(512, dtype=f32),
    }
    errors = [worst(add_rms_norm, add_rms_norm_ref, inputs)]
    inputs = {
        "hidden": rows(300, 512, dtype=f32),
        "weight": rows(8192, 512, dtype=f32) / 20,
        "weights": torch.rand(300).cuda(),
    }
    targets = torch.randint(0, 8192, (300,), device="cuda")
    fixed = inputs.pop("weights")
    errors.append(
        worst(
            lambda hidden, weight: linear_cross_entropy(hidden, weight, targets, fixed),
            lambda hidden, weight: linear_cross_entropy_ref(hidden, weight, targets, fixed),
            inputs,
        )
    )
    bench.say(f"norm, loss: errors {errors[0]:.1e}, {errors[1]:.1e}, bound 1e-5")
    return right and max(errors) < 1e-5


def time_shape(bench: Bench, op: str, b: int, E: int, L: int, anchors: tuple[float, float | None]) -> None:
    forward, both = anchors
    inputs: dict[str, torch.Tensor]
    run: Any
    if op == "scan":
        inputs, run = scan_inputs(b, E, L), selective_scan
    else:
        inputs, run = {"x": rows(b, L, E), "weight": rows(E, 4, dtype=torch.float32)}, causal_conv1d
        inputs["bias"] = rows(E, dtype=torch.float32)
    bench.time(op, (b, E, L), "forward", lambda: run(**inputs), forward)
    if both is None:
        return
    leaves = [v.requires_grad_() for v in inputs.values()]
    dy = torch.randn_like(run(**inputs)[0])
    bench.time(op, (b, E, L), "forward+backward", lambda: torch.autograd.grad(run(**inputs)[0], leaves, dy), both)


def train(bench: Bench, name: str, packed: bool) -> None:
    """Tokens per second of whole training steps: bf16 autocast, fused AdamW, clipping, L 2048."""
    from npc_runtime.model.config import ModelConfig
    from npc_runtime.model.mamba import Mamba

    sizes, anchor = TRAINING[name]
    model = Mamba(ModelConfig(*sizes)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for batch in (32, 64):
        tokens = torch.randint(0, sizes[2], (batch, 2049), device="cuda")
        weights = torch.ones(batch, 2048, device="cuda")
        borders = torch.rand(batch, 2048, device="cuda") < 0.002
        seq_idx = borders.cumsum(1).int() if packed else None

        def step(
            tokens: torch.Tensor = tokens, weights: torch.Tensor = weights, seq_idx: torch.Tensor | None = seq_idx
        ) -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = model.loss(tokens[:, :-1], tokens[:, 1:], weights, seq_idx=seq_idx)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        for _ in range(3):
            step()
        ms = do_bench(step, warmup=1, rep=1000, return_mode="median")
        rate = batch * 2048 / ms * 1000
        how = "packed" if packed else "step"
        bench.say(f"training {name} {how} batch {batch}: {rate / 1e3:.0f} k tokens/s, {rate / anchor:.2f}x the anchor")
        row = {
            "op": f"training {name}",
            "shape": f"{batch}x2048",
            "dtype": "bfloat16",
            "pass": "packed" if packed else "step",
        }
        row |= {"p50_ms": f"{ms:.3f}", "ratio": f"{rate / anchor:.3f}"}
        bench.add(row)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=("shapes", "train"), help="what to time; all when not given")
    parser.add_argument("--seconds", type=float, default=300.0, help="start nothing new after this many seconds")
    options = parser.parse_args()
    bench = Bench(options.seconds)
    bench.say(bench.where)
    bench.ceilings()
    if not check(bench):
        bench.say("a kernel is wrong: nothing is timed")
        return 1
    parts, jobs = options.part or ("train", "shapes"), list[Any]()
    if "train" in parts:
        jobs += [lambda n=n, p=p: train(bench, n, p) for n, p in (("tiny", False), ("57.9M", False), ("tiny", True))]
    if "shapes" in parts:
        jobs += [lambda k=k, v=v: time_shape(bench, *k, v) for k, v in ANCHORS.items()]
    failed = 0
    for job in jobs:
        if bench.late:
            break
        try:
            job()
        except Exception as error:  # one shape that fails must not cost the others their times
            failed += 1
            bench.say("failed:", repr(error)[:400])
        torch.cuda.empty_cache()
    print(json.dumps({"copy_gb_s": round(bench.copy), "rows": bench.rows, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
