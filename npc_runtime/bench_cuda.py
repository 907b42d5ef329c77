"""Figures of the GPU backend: decode, reading, a crowd that talks, and what a State in half precision costs.

The ceiling of the same run comes first; nothing is timed before the backend agrees with the definition. Ratios are to
mamba_ssm 2.3.2 on an H200 (`ANCHORS`, `generate` in CUDA graphs), scaled by this run's copy bandwidth.
"""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from npc_runtime.backends import gpu_missing
from npc_runtime.backends.cuda import CudaBackend
from npc_runtime.backends.cuda_bucket import STEPS
from npc_runtime.backends.reference import ReferenceBackend, ReferenceModel
from npc_runtime.bench import random_bundle
from npc_runtime.bench_crowd import crowd
from npc_runtime.bundle import Bundle, find_bundle
from npc_runtime.config import Config
from npc_runtime.doctor.forms import REFERENCE_BOUNDS, spread_share
from npc_runtime.errors import BackendError, BackendUnavailable
from npc_runtime.model.config import ModelConfig
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Say = Callable[[str], None]

PARTS = ("decode", "130m", "read", "crowd", "drift")
COPY_GB_S = 4282
"""Copy bandwidth of the run that measured the anchors."""
ANCHORS = {
    "tiny": {1: 0.288, 16: 0.339, 128: 0.420, 1024: 1.046, 8192: 6.05},
    "130m": {1: 0.732, 16: 0.750, 128: 1.010, 1024: 2.96, 8192: 20.75},
}
"""ms per step, fp32 States."""
MODEL_24M = ModelConfig(d_model=512, n_layer=12, vocab_size=8192)
MODEL_130M = ModelConfig(d_model=768, n_layer=24, vocab_size=50280)
"""The sizes that the anchors were measured with; their weights are random."""
RANDOM_BOUND = 0.06
"""Share of the spread for random weights of 24 layers, whose logits hardly vary: 0.035 read and 0.026 stepped."""
READS = ((1, 128), (1, 2048), (64, 128), (8192, 16), (64, 2048))
"""Rows and tokens each."""
DRIFT_STEPS = (1, 10, 100, 1000, 10_000)
_DRIFT_ROWS = 64


def bench_cuda(
    path: Path | str | None = None,
    parts: Sequence[str] = PARTS,
    crowds: Sequence[int] = (1, 128, 1024, 8192),
    seconds: float = 8.0,
    say: Say = print,
) -> dict[str, Any]:
    """Measures, prints, and returns what it found. Raises BackendUnavailable without a GPU, BackendError when wrong."""
    if missing := gpu_missing():
        raise BackendUnavailable(f"the cuda backend cannot run here: {missing}")
    bundle = Bundle.load(find_bundle("default") if path is None else path)
    found: dict[str, Any] = {"machine": machine(), "copy_gb_s": round(copy_gb_s())}
    say(f"{found['machine']}; copy {found['copy_gb_s']} GB/s (anchors: {COPY_GB_S})")
    with tempfile.TemporaryDirectory() as folder:
        if {"decode", "read"} & set(parts):
            backend = checked(random_bundle(Path(folder) / "tiny", MODEL_24M, 16), say, RANDOM_BOUND)
            if "decode" in parts:
                found["decode"] = decode(backend, "tiny", found["copy_gb_s"], say)
            if "read" in parts:
                found["read"] = read(backend, say)
            backend.close()
        if "130m" in parts:
            large = checked(random_bundle(Path(folder) / "130m", MODEL_130M, 16), say, RANDOM_BOUND)
            found["decode_130m"] = decode(large, "130m", found["copy_gb_s"], say)
            large.close()
    if "drift" in parts:
        found["drift"] = drift(bundle, say)
    if "crowd" in parts:
        found["crowd"] = [_crowd(bundle, npcs, seconds, say) for npcs in crowds]
    say(json.dumps(found))
    return found


def machine() -> str:
    """What the figures were measured on."""
    driver = torch.cuda.get_device_properties(0)
    return f"{driver.name}, {driver.multi_processor_count} SMs; torch {torch.__version__}, CUDA {torch.version.cuda}"


def copy_gb_s() -> float:
    """Bytes read and written by a copy on the device, the ceiling of everything that moves States."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed_ms(lambda: target.copy_(source), 20) / 1e6


def timed_ms(run: Callable[[], object], times: int) -> float:
    """Median device time of a few runs."""
    taken = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        run()
        end.record()
        end.synchronize()
        taken.append(float(begin.elapsed_time(end)))
    return statistics.median(taken)


def checked(bundle: Bundle, say: Say, bound: float = REFERENCE_BOUNDS["bf16"]) -> CudaBackend:
    """A backend of 8192 Slots that agrees with the definition, stepped and read, and whose rows are independent."""
    backend = CudaBackend(bundle, 8192 + 16, 8192)
    tokens = np.random.default_rng(1).integers(0, bundle.config.vocab_size, 48).tolist()
    names = dense_shapes(bundle.config, bundle.tied)
    model = ReferenceModel({name: bundle.dense(name) for name in names}, bundle.config, np.float64)
    truth = ReferenceBackend(model, slots=1).score(0, tokens)
    backend.clear(0)
    share = spread_share(truth, backend.score(0, tokens))
    stepped = np.zeros(len(tokens) - 1)
    for i, token in enumerate(tokens[:-1]):
        backend.prefill([0], [token])
        stepped[i] = torch.log_softmax(backend.bucket(1).logits[0].double(), 0)[tokens[i + 1]].item()
    shares = (share, spread_share(truth, stepped))
    exact = backend.exact_batches
    size = bundle.config.parameters / 1e6
    say(f"{bundle.name}, {size:.1f}M: {shares[0]:.4f} (read) and {shares[1]:.4f} (stepped) of the spread from fp64, "
        f"bound {bound}; rows independent: {exact}, fused step: {backend.fused}")  # fmt: skip
    if max(shares) > bound or not exact:
        raise BackendError(f"`{bundle.name}` is not computed right on this GPU: nothing is timed")
    return backend


def decode(backend: CudaBackend, anchor: str, copy: float, say: Say) -> list[dict[str, Any]]:
    """Steps from token to token, drawing included, by batch."""
    made = []
    for rows, ms_then in ANCHORS[anchor].items():
        ms = step_ms(backend, rows)
        ratio = ms_then * COPY_GB_S / copy / ms
        made.append(
            {"rows": rows, "ms": round(ms, 4), "tokens_per_s": round(1e3 * rows / ms), "ratio": round(ratio, 3)}
        )
        say(f"decode {anchor} B={rows}: {ms:.4f} ms a step, {1e3 * rows / ms:,.0f} tokens/s, {ratio:.2f}x mamba_ssm")
    return made


def step_ms(backend: CudaBackend, rows: int) -> float:
    """ms of a step of so many rows, median of 20 runs of up to 64 steps."""
    backend.store.reserve([rows - 1])
    bucket = backend.bucket(rows)
    rng = np.random.default_rng(rows)
    tokens = rng.integers(0, backend.vocab_size, rows).tolist()
    whole = [(slot, token, -1, 0, -1, -1, 1 << 40, slot, 0, 0, 0) for slot, token in enumerate(tokens)]
    bucket.fill(whole, [(0.7, 0.9, 0.3)] * rows, [()] * rows)
    bucket.run(4)
    return timed_ms(lambda: bucket.run(STEPS), 20 if rows < 4096 else 4) / STEPS


def read(backend: CudaBackend, say: Say) -> list[dict[str, Any]]:
    """Tokens read per second, wall time to the end of the device's work."""
    made, rng = [], np.random.default_rng(3)
    for rows, length in READS:
        slots = list(range(rows))
        tokens = rng.integers(0, backend.vocab_size, (rows, length)).tolist()
        taken = []
        for _ in range(4):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            backend.prefill_rows(slots, tokens)
            torch.cuda.synchronize()
            taken.append(1e3 * (time.perf_counter() - begun))
        ms = statistics.median(taken[1:])
        made.append(
            {"rows": rows, "tokens": length, "ms": round(ms, 3), "tokens_per_s": round(1e3 * rows * length / ms)}
        )
        say(f"read {rows} x {length}: {ms:.2f} ms, {1e3 * rows * length / ms:,.0f} tokens/s")
    return made


def drift(bundle: Bundle, say: Say) -> list[dict[str, Any]]:
    """How far what follows moves when the State is kept in bf16, over steps of the fp32 one's own speech."""
    whole = CudaBackend(bundle, _DRIFT_ROWS, _DRIFT_ROWS)
    half = CudaBackend(bundle, _DRIFT_ROWS, _DRIFT_ROWS, state_dtype=torch.bfloat16)
    tokens, made = list(range(100, 100 + _DRIFT_ROWS)), []
    for step in range(1, DRIFT_STEPS[-1] + 1):
        rows = [(i, token, -1, 0, -1, -1, 1 << 40, i, 0, step, 0) for i, token in enumerate(tokens)]
        for backend in (half, whole):
            backend.bucket(_DRIFT_ROWS).fill(rows, [(1.0, 0.95, 0.0)] * _DRIFT_ROWS)
            backend.bucket(_DRIFT_ROWS).run(1)
        if step in DRIFT_STEPS:
            one, other = (
                torch.log_softmax(backend.bucket(_DRIFT_ROWS).logits.double(), 1) for backend in (whole, half)
            )
            share = float((other - one).square().mean().sqrt() / one.std())
            same = float((one.argmax(1) == other.argmax(1)).double().mean())
            kl = float((one.exp() * (one - other)).sum(1).mean())
            made.append({"step": step, "share_of_spread": round(share, 5), "same_first": same, "kl_nats": round(kl, 6)})
            say(f"bf16 State after {step} steps: {share:.4f} of the spread, likeliest equal in {same:.0%}, KL {kl:.1e}")
        tokens = whole.bucket(_DRIFT_ROWS).drawn(1)[0]
    for backend in (whole, half):
        backend.close()
    return made


def _crowd(bundle: Bundle, npcs: int, seconds: float, say: Say) -> dict[str, Any]:
    from npc_runtime.backends import choose
    from npc_runtime.stage import Stage

    config = Config(max_npcs=npcs, max_queued=2 * npcs + 16, pace_tokens_per_s=0.0, rewind_turns=0)
    backend, reason = choose("cuda", bundle, config)
    if isinstance(backend, CudaBackend):
        backend.store.reserve([min(backend.slots, 8 * npcs + 64) - 1])
    stage = Stage(bundle, backend, reason, config)
    seldom = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as `serve` does on a GPU
    try:
        found = crowd(stage, npcs, seconds)
    finally:
        gc.set_threshold(*seldom)
        stage.close()
    say(
        f"{npcs} Npcs talk: {found['tokens_per_s']:,} tokens/s, first text {found['first_ms']} ms, "
        f"a token {found['token_ms']} ms, longest silence {found['wait_ms']} ms (p50, p95, p99); "
        f"host {found['host_us']} us a token, device {found['device_share']:.0%} of the time"
    )
    return found
