"""Where States live and tokens are computed; `choose` says which and why."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from npc_runtime.errors import BackendUnavailable, BudgetExceeded, ConfigError, install_hint

if TYPE_CHECKING:
    from npc_runtime.backends.base import Backend
    from npc_runtime.bundle import Bundle
    from npc_runtime.config import Config

NAMES = ("auto", "onnx", "reference", "cuda")
CPU_BUDGET_MB, CPU_BATCH = 512, 8
"""What `state_budget_mb` and `max_batch` mean on a CPU when nobody set them."""
MOST_MB = 2**40
"""No machine has so much: NumPy could not even count its bytes."""
GPU_SHARE, GPU_BATCH = 0.75, 8192
"""The same on a GPU: the share of its free memory that States may fill, and rows of a batch while Slots suffice."""
_SLOTS_PER_ROW = 12
"""Slots for each row of a batch: 8 are the scheduler's reserve for Turns under way, the others hold Npcs."""
_DRIVER = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")


def choose(name: str, bundle: Bundle, config: Config) -> tuple[Backend, str]:
    """The Backend of that name (one of `NAMES`) for a Bundle, and the reason, ready to print.

    Its Slots fill `config.state_budget_mb`. A Backend that cannot run here is an error, never
    silently another one: BackendUnavailable, or ConfigError for a name or budget that cannot be;
    BudgetExceeded where this machine has no such memory.
    `auto` is cuda where it can run, else onnx, and the reason says why.
    """
    if name not in NAMES:
        raise ConfigError(f"`backend` must be one of {', '.join(NAMES)}, got {name!r}")
    missing = gpu_missing() if name in ("auto", "cuda") else ""
    if name == "cuda" and missing:
        raise BackendUnavailable(f"the cuda backend cannot run here: {missing}", "Use `onnx`, the CPU backend")
    if name == "cuda" or (name == "auto" and not missing):
        return _cuda(bundle, config, "asked for" if name == "cuda" else "an NVIDIA GPU")
    slots = _slots(bundle, config.state_budget_mb or CPU_BUDGET_MB)
    try:
        if name == "reference":
            return _reference(bundle, slots, config), "asked for; plain NumPy in fp32, slow"
        return _onnx(bundle, slots, config, "asked for" if name == "onnx" else f"the CPU ({missing})")
    except MemoryError as error:
        raise _no_memory(config.state_budget_mb or CPU_BUDGET_MB) from error


def _no_memory(budget_mb: int) -> BudgetExceeded:
    free = free_memory_mb()
    told = "" if free is None else f"; {free:,} MB are free"
    return BudgetExceeded(f"this machine has no memory for {budget_mb:,} MB of States{told}", "Lower `state_budget_mb`")


def free_memory_mb() -> int | None:
    """Memory that programs may still take, or None where the system does not tell without further packages."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            found = re.search(r"^MemAvailable:\s+(\d+) kB", file.read(), re.MULTILINE)
        return int(found[1]) // 1024 if found else None
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def gpu_missing() -> str:
    """What keeps the cuda backend from running here, empty when nothing does. torch is imported only beside a GPU."""
    if not _has_driver():
        return "no NVIDIA GPU"
    for library in ("torch", "triton"):
        if find_spec(library) is None:
            return f"an NVIDIA GPU, but no {library}: {install_hint('gpu')}"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no NVIDIA GPU"
    if torch.cuda.get_device_capability() < (8, 0):
        return f"the {torch.cuda.get_device_name()} is older than Ampere and has no bf16"
    return ""


def _has_driver() -> bool:
    """True where NVIDIA's driver is installed, told by its files, because asking it takes a library."""
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll").exists()
    return any(Path(path).exists() for path in _DRIVER)


def _cuda(bundle: Bundle, config: Config, why: str) -> tuple[Backend, str]:
    import torch

    from npc_runtime.backends.cuda import CudaBackend

    free = int(torch.cuda.mem_get_info()[0] * GPU_SHARE) >> 20
    slots = _slots(bundle, min(config.state_budget_mb or free, free))
    rows = min(GPU_BATCH, 1 << max(slots // _SLOTS_PER_ROW, 1).bit_length() - 1)
    backend = CudaBackend(bundle, slots, config.max_batch or rows)
    slower = "" if backend.fused else ", without the fused step, which mixes rows on this GPU"
    return backend, f"{why}: {torch.cuda.get_device_name()}; bf16 weights, up to {slots} Slots{slower}"


def _slots(bundle: Bundle, budget_mb: int) -> int:
    if budget_mb >= MOST_MB:
        raise _no_memory(budget_mb)
    slots = budget_mb * 1024 * 1024 // bundle.spec.nbytes
    if slots < 2:
        needed = -(-2 * bundle.spec.nbytes // (1024 * 1024))
        raise ConfigError(
            f"`state_budget_mb` must be at least {needed} for `{bundle.name}`, whose State takes "
            f"{bundle.spec.nbytes / 1024 / 1024:.1f} MB, got {budget_mb}"
        )
    return slots


def _reference(bundle: Bundle, slots: int, config: Config) -> Backend:
    from npc_runtime.backends.reference import ReferenceBackend, ReferenceModel
    from npc_runtime.weights import dense_shapes

    names = dense_shapes(bundle.config, bundle.tied)
    model = ReferenceModel({name: bundle.dense(name) for name in names}, bundle.config)
    return ReferenceBackend(model, slots, config.max_batch or CPU_BATCH)


def _onnx(bundle: Bundle, slots: int, config: Config, why: str) -> tuple[Backend, str]:
    from npc_runtime.backends.onnx import OnnxBackend

    backend = OnnxBackend(bundle, slots, config.bits, config.threads, config.max_batch or CPU_BATCH)
    stored = "" if backend.bits == bundle.bits else f" (stored at {bundle.bits})"
    threads = f"{config.threads} thread{'s' if config.threads > 1 else ''}"
    return backend, f"{why}; {backend.bits}-bit weights{stored}, {threads}, {slots} Slots"
