"""Figures against llama.cpp on the same weights: fresh processes in turn, CPU time, medians.

A machine is never quiet, so engines alternate and ratios are what to compare. Memory and cold start
are wall-clock figures of the same processes. Nothing is reported before the logits of both engines
agree with the definition.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime.bench_journal import report
from npc_runtime.bench_onnx import CHECKED
from npc_runtime.bundle import Bundle, find_bundle, write_bundle
from npc_runtime.errors import BackendError, BackendUnavailable, ConfigError, reason
from npc_runtime.model.config import ModelConfig
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

LLAMA_PYTHON = "NPC_RUNTIME_LLAMA_PYTHON"
"""Environment variable naming a Python that has llama_cpp, where this one has not."""
TARGETS = {
    "decode": {4: 0.60, 8: 0.80},
    "prefill_128": {4: 0.40, 8: 0.40},
    "prefill_512": {4: 0.40, 8: 0.40},
    "batch_8": {4: 0.45, 8: 0.45},
}
"""Largest share of llama.cpp's time, by measure and bits."""
WORDS = {
    "decode": "decode, ms per token",
    "prefill_128": "read 128 tokens, ms",
    "prefill_512": "read 512 tokens, ms",
    "batch_8": "8 at once, ms per step",
    "first_token": "64-token prompt to first token, ms",
    "ready": "process start to ready, ms (wall)",
    "rss": "resident when ready, MB",
    "rss_after": "resident after the run, MB",
}
AGREE = 0.1
"""Largest rms difference from the definition, as a share of the logits' spread: both round activations to 8 bits."""


def bench(
    path: Path | str | None = None,
    bits: Sequence[int] = (4, 8),
    rounds: int = 5,
    llama_python: str | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures a Bundle (None: random weights of 24.5M parameters), prints, and returns what it found.

    `llama_python` is a Python with llama_cpp, else the environment names it, else llama.cpp is left out.
    Raises BackendError when an engine's logits are not those of the weights.
    """
    other = llama_python or os.environ.get(LLAMA_PYTHON)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        bundle = Bundle.load(path) if path else random_bundle(scratch / "random")
        found: dict[str, Any] = {
            "machine": machine(other),
            "bundle": bundle.name,
            "parameters": bundle.config.parameters,
        }
        say(f"{found['machine']['cpu']}; {found['machine']['versions']}")
        for width in bits:
            size = f"{bundle.config.parameters / 1e6:.1f}M parameters"
            say(f"\n{bundle.name}, {size}, {width} bits, 1 thread, {rounds} rounds")
            found[str(width)] = _compare(_at_bits(bundle, width, scratch), width, rounds, other, scratch, say)
        found["journal"] = report(bundle, scratch, say)
    say("\n" + json.dumps(found, allow_nan=False))
    return found


def random_bundle(folder: Path, config: ModelConfig | None = None, bits: int = 4) -> Bundle:
    """Weights as a training run would begin, with the shipped tokenizer."""
    shipped = Bundle.load(find_bundle("default"), verify=False)
    config = config or ModelConfig(d_model=512, n_layer=12, vocab_size=shipped.config.vocab_size)
    rng = np.random.default_rng(0)
    tensors = {name: _fresh(rng, name, shape) for name, shape in dense_shapes(config).items()}
    tokenizer = shipped.tokenizer_path
    return write_bundle(folder, "random", config, tensors, bits, tokenizer, shipped.layout, "MIT", "# Random weights\n")


def _fresh(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    kind = name.rpartition(".")[2]
    if kind in ("norm", "norm_f", "D"):
        return np.ones(shape, np.float32)
    if kind == "A_log":
        return np.asarray(np.log(np.tile(np.arange(1, shape[1] + 1, dtype=np.float32), (shape[0], 1))))
    if kind == "dt_bias":
        return np.asarray(np.log(np.expm1(np.exp(rng.uniform(np.log(1e-3), np.log(0.1), shape)))), np.float32)
    scale = 0.02 if kind == "embedding" else shape[-1] ** -0.5
    return np.asarray(rng.standard_normal(shape, np.float32) * np.float32(scale))


def machine(llama_python: str | None) -> dict[str, Any]:
    """What the figures were measured on."""
    from npc_runtime.backends.onnx import load_library

    onnxruntime = load_library()
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, onnxruntime {onnxruntime.__version__}"
    if llama_python:
        code = "import llama_cpp; print(llama_cpp.__version__)"
        try:
            done = subprocess.run([llama_python, "-c", code], capture_output=True, text=True, check=False)
        except OSError as error:
            text = f"`{llama_python}` cannot be run: {reason(error)}"
            raise ConfigError(text, f"`--llama-python` or {LLAMA_PYTHON} names a Python with llama_cpp") from error
        if done.returncode:
            raise BackendUnavailable(f"`{llama_python}` has no llama_cpp", f"Name another Python in {LLAMA_PYTHON}")
        versions += f", llama-cpp-python {done.stdout.strip()}"
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": platform.platform(), "versions": versions}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _at_bits(bundle: Bundle, bits: int, scratch: Path) -> Bundle:
    """The Bundle itself, or its weights stored again at other bits."""
    if bundle.bits == bits:
        return bundle
    tensors = {name: bundle.dense(name) for name in dense_shapes(bundle.config, bundle.tied)}
    copy = scratch / f"at-{bits}"
    tokenizer = bundle.tokenizer_path
    return write_bundle(copy, bundle.name, bundle.config, tensors, bits, tokenizer, bundle.layout, "-", "A copy\n")


def _compare(
    bundle: Bundle, bits: int, rounds: int, llama_python: str | None, scratch: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    logits = scratch / "logits.npy"
    engines = {"onnx": [sys.executable, "-m", "npc_runtime.bench_onnx", str(bundle.path), str(bits), str(logits)]}
    if llama_python:
        from npc_runtime.gguf_export import export_gguf

        model = scratch / f"model-{bits}.gguf"
        export_gguf(bundle, model, bits)
        engines["llama"] = [llama_python, str(Path(__file__).with_name("bench_llama.py")), str(model), str(logits)]
    exact = _exact_logits(bundle)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    errors = {}
    for _ in range(rounds):
        for name, command in engines.items():
            runs[name].append(_run(command))
            errors[name] = float(np.sqrt(np.mean((np.load(logits) - exact) ** 2)) / exact.std())
            if not errors[name] < AGREE:
                raise BackendError(f"`{name}` is {errors[name]:.3f} from the definition, more than {AGREE}: {command}")
    say("logits against the definition in fp64, rms as a share of their spread: " + _listed(errors, "{:.4f}"))
    medians = {name: _medians(each) for name, each in runs.items()}
    _print_table(medians, runs, bits, say)
    return {"medians": medians, "logits_error": errors}


def _exact_logits(bundle: Bundle) -> NDArray[Any]:
    from npc_runtime.backends.reference import ReferenceModel

    names = dense_shapes(bundle.config, bundle.tied)
    model = ReferenceModel({name: bundle.dense(name) for name in (*names, "head")}, bundle.config, np.float64)
    tokens = np.random.default_rng(1).integers(0, bundle.config.vocab_size, CHECKED)
    return model.parallel(tokens.tolist(), model.empty())[0]


def _run(command: list[str]) -> dict[str, float]:
    """One fresh process: its start, its memory, what it measured."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_root()) as process:
        if process.stdin is None or process.stdout is None:
            raise BackendError("the engine's process has no pipes")
        if process.stdout.readline().strip() != "ready":
            raise BackendError(f"the engine did not start: {' '.join(command)}", "Its own words stand above")
        found = {"ready": (time.perf_counter() - begin) * 1e3, "rss": _resident_mb(process.pid)}
        process.stdin.write("\n")
        process.stdin.flush()
        found |= json.loads(process.stdout.readline())
        found["rss_after"] = _resident_mb(process.pid)
    return {name: value for name, value in found.items() if value is not None}


def _root() -> Path:
    return Path(__file__).resolve().parents[1]


def _resident_mb(pid: int) -> float | None:
    """Resident memory of a process; None where the system has no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def _listed(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())


def _print_table(
    medians: dict[str, dict[str, float]], runs: dict[str, list[dict[str, float]]], bits: int, say: Callable[[str], None]
) -> None:
    say(f"{'':36}{'onnx':>24}{'llama.cpp':>24}{'share':>8}{'target':>8}")
    for name, words in WORDS.items():
        cells = [_cell(runs.get(engine, []), name) for engine in ("onnx", "llama")]
        both = [found[name] for found in medians.values() if name in found]
        share = f"{both[0] / both[1]:.2f}" if len(both) == 2 else "-"
        target = TARGETS.get(name, {}).get(bits)
        say(f"{words:36}{cells[0]:>24}{cells[1]:>24}{share:>8}{target or '':>8}")
    if "llama" not in medians:
        say(
            f"llama.cpp was not measured: neither `--llama-python` nor {LLAMA_PYTHON} names a Python that has llama_cpp"
        )
    python = {name.removesuffix("_us"): us for name, us in medians["onnx"].items() if name.endswith("_us")}
    say(f"Python, us per token: {_listed(python, '{:.1f}')}, together {sum(python.values()):.1f}")


def _cell(runs: list[dict[str, float]], name: str) -> str:
    values = sorted(run[name] for run in runs if name in run)
    return f"{statistics.median(values):.2f} [{values[0]:.2f}..{values[-1]:.2f}]" if values else "-"


if __name__ == "__main__":
    bench(sys.argv[1] if len(sys.argv) > 1 else None)
