"""Time one token a row on an NVIDIA GPU: the kernels on slots, then whole steps of two models.

    python kernels/bench/bench_step.py [--seconds 120]

Run from the repository root. Times are of CUDA graphs, over slots and buffers that no cache holds. Ratios are to the
times of mamba_ssm 2.3.2 on an H200, scaled by this run's copy bandwidth. Nothing is timed unless every check passes.
Rows go to `results.csv`; the last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "tests")]

import torch  # noqa: E402
from bench_scan import COPY_GB_S, Bench  # noqa: E402
from npc_kernels import (  # noqa: E402
    StepWeights,
    conv_step,
    conv_step_ref,
    decode_step,
    decode_step_ref,
    state_step,
    state_step_ref,
)
from step_cases import step_weights  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

E, N, K, POOL = 1536, 16, 4, 8192
STATE_ANCHORS = {("float32", 64): 6.06, ("float32", 1024): 63.2, ("float32", 8192): 470.0}
STATE_ANCHORS |= {("bfloat16", 64): 5.65, ("bfloat16", 1024): 61.0, ("bfloat16", 8192): 467.0}
"""Microseconds of mamba_ssm's state update, not gathered (gathered: 66.2 and 509)."""
CONV_ANCHORS = {64: 3.9, 1024: 19.2, 8192: 132.0}
MODELS = {
    "tiny": ((512, 12, 8192), {1: 0.288, 16: 0.339, 128: 0.420, 1024: 1.046, 8192: 6.05}),
    "130m": ((768, 24, 50280), {1: 0.732, 16: 0.750, 128: 1.010, 1024: 2.96, 8192: 20.75}),
}
"""(d_model, layers, vocabulary), milliseconds of mamba_ssm's generate by batch: bf16 weights, fp32 state, greedy."""
HALF_STATE_ANCHORS = {"tiny": 5.99, "130m": 19.1}
"""The same with a bf16 state, 8192 rows."""


def graph_us(calls: list[Callable[[], object]], repeats: int = 20) -> tuple[float, float, float]:
    """Percentiles 20, 50 and 80 of the microseconds of one call, all of them captured in one graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    for _ in range(3):
        graph.replay()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / len(calls))
    low, *_, high = statistics.quantiles(times, n=5)
    return low, statistics.median(times), high


def row(
    bench: Bench, op: str, shape: str, dtype: str, what: str, us: tuple[float, float, float], anchor_us: float | None
) -> None:
    ratio = None if anchor_us is None else anchor_us * COPY_GB_S / bench.copy / us[1]
    bench.say(f"{op} {shape} {dtype} {what}: {us[1]:.2f} us" + ("" if ratio is None else f", {ratio:.2f}x the anchor"))
    bench.add(
        {
            "op": op, "shape": shape, "dtype": dtype, "pass": what,
            **{f"p{p}_ms": f"{t / 1000:.5f}" for p, t in zip((20, 50, 80), us, strict=True)},
            "ratio": "" if ratio is None else f"{ratio:.3f}",
        }
    )  # fmt: skip


def state_arguments(rows: int, slots: Tensor) -> dict[str, Tensor]:
    """Arguments of state_step but for the store; bf16 rows."""
    proj = torch.randn(rows, 48 + 2 * N, device="cuda").bfloat16()
    return {
        "slots": slots,
        "x": torch.randn(rows, E, device="cuda").bfloat16(),
        "dt": torch.randn(rows, E, device="cuda").bfloat16(),
        "dt_bias": torch.randn(E, device="cuda") - 3,
        "A": -torch.arange(1.0, N + 1, device="cuda")[:, None].repeat(1, E).t(),
        "B": proj[:, 48 : 48 + N],
        "C": proj[:, 48 + N :],
        "D": torch.randn(E, device="cuda"),
        "z": torch.randn(rows, 2 * E, device="cuda").bfloat16()[:, E:],
    }


def slot_sets(rows: int) -> list[Tensor]:
    """Random slots of the pool for as many calls as touch 1 GB of fp32 states."""
    calls = max(1, min(64, (1 << 30) // (rows * E * N * 4)))
    return [torch.randperm(POOL, device="cuda")[:rows].int() for _ in range(calls)]


def time_state(bench: Bench, dtype: torch.dtype, rows: int) -> None:
    store = torch.randn(POOL, N, E, device="cuda").to(dtype)
    sets = [state_arguments(rows, slots) for slots in slot_sets(rows)]
    us = graph_us([lambda a=a: state_step(store, **a) for a in sets])
    name = str(dtype).removeprefix("torch.")
    row(bench, "state step", f"{rows}x{E}", name, "gathered", us, STATE_ANCHORS.get((name, rows)))


def time_conv(bench: Bench, dtype: torch.dtype, rows: int) -> None:
    store = torch.randn(POOL, K - 1, E, device="cuda").to(dtype)
    weight, bias = torch.randn(K, E, device="cuda").t(), torch.randn(E, device="cuda")
    sets = [(torch.randn(rows, 2 * E, device="cuda").bfloat16()[:, :E], slots) for slots in slot_sets(rows)]
    us = graph_us([lambda x=x, s=s: conv_step(x, store, s, weight, bias) for x, s in sets])
    name = str(dtype).removeprefix("torch.")
    row(bench, "conv step", f"{rows}x{E}", name, "gathered", us, CONV_ANCHORS.get(rows))


def model_stores(weights: StepWeights, slots: int, conv: torch.dtype, ssm: torch.dtype) -> tuple[Tensor, Tensor]:
    layers, channels = len(weights.layers), weights.layers[0].D.shape[0]
    shape = (layers, slots, K - 1, channels), (layers, slots, N, channels)
    return torch.zeros(shape[0], dtype=conv, device="cuda"), torch.zeros(shape[1], dtype=ssm, device="cuda")


def time_decode(bench: Bench, name: str, weights: StepWeights, rows: int, ssm: torch.dtype) -> None:
    """Whole greedy steps: decode_step and the choice of the next tokens."""
    sizes, anchors = MODELS[name]
    stores = model_stores(weights, rows, torch.bfloat16, ssm)
    tokens, slots = torch.randint(0, sizes[2], (rows,), device="cuda"), torch.randperm(rows, device="cuda").int()

    def step() -> None:
        tokens.copy_(decode_step(tokens, slots, *stores, weights).argmax(1))

    us = graph_us([step] * (8 if rows <= 128 else 2))
    anchor = anchors[rows] if ssm == torch.float32 else HALF_STATE_ANCHORS[name]
    row(bench, f"decode {name}", str(rows), str(ssm).removeprefix("torch."), "greedy step", us, anchor * 1000)


def error(actual: Tensor, expected: Tensor) -> float:
    actual, expected = actual.double(), expected.double()
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def check(bench: Bench) -> bool:
    """Whether the kernels timed agree with their definitions, and whole steps do for few rows and for many."""
    errors: dict[str, tuple[float, float]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        args = state_arguments(1024, torch.randperm(2000, device="cuda")[:1024].int())
        store = torch.randn(2000, N, E, device="cuda").to(dtype)
        other = store.clone()
        y, expected = state_step(store, **args), state_step_ref(other, **args)
        errors[f"state {dtype} y"] = error(y, expected), 6e-3
        errors[f"state {dtype} h"] = error(store, other), 1e-5 if dtype == torch.float32 else 6e-3
        x, weight = torch.randn(1024, E, device="cuda").bfloat16(), torch.randn(E, K, device="cuda")
        store = torch.randn(2000, K - 1, E, device="cuda").to(dtype)
        other = store.clone()
        y, expected = (f(x, s, args["slots"], weight) for f, s in ((conv_step, store), (conv_step_ref, other)))
        errors[f"conv {dtype}"] = error(y, expected) + error(store, other), 6e-3
    weights = step_weights(512, 2, 1000, dtype=torch.bfloat16, device="cuda")
    for rows in (1, 16, 300):
        stores = model_stores(weights, rows, torch.bfloat16, torch.float32)
        others = tuple(store.clone() for store in stores)
        for _ in range(3):
            tokens, slots = torch.randint(0, 1000, (rows,), device="cuda"), torch.randperm(rows, device="cuda").int()
            logits = decode_step(tokens, slots, *stores, weights)
            expected = decode_step_ref(tokens, slots, *others, weights)
        errors[f"decode {rows}"] = error(logits, expected), 1.5e-2
        errors[f"decode {rows} h"] = error(stores[1], others[1]), 1.5e-2
    for name, (found, bound) in errors.items():
        bench.say(f"{name}: error {found:.1e}, bound {bound:.1e}")
    return all(found < bound for found, bound in errors.values())


def jobs(bench: Bench) -> list[Callable[[], None]]:
    made: list[Callable[[], None]] = []
    for dtype in (torch.float32, torch.bfloat16):
        for rows in (1, 64, 1024, 8192):
            made.append(lambda d=dtype, r=rows: time_state(bench, d, r))
            made.append(lambda d=dtype, r=rows: time_conv(bench, d, r))
    for name, (sizes, anchors) in MODELS.items():
        weights = step_weights(*sizes, dtype=torch.bfloat16, device="cuda")
        for rows in anchors:
            made.append(lambda n=name, w=weights, r=rows: time_decode(bench, n, w, r, torch.float32))
        made.append(lambda n=name, w=weights: time_decode(bench, n, w, 8192, torch.bfloat16))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="start nothing new after this many seconds")
    options = parser.parse_args()
    bench = Bench(options.seconds)
    bench.say(bench.where)
    bench.ceilings()
    if not check(bench):
        bench.say("a kernel is wrong: nothing is timed")
        return 1
    for job in jobs(bench):
        if not bench.late:
            job()
            torch.cuda.empty_cache()
    print(json.dumps({"copy_gb_s": round(bench.copy), "rows": bench.rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
