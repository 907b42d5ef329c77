"""Where States live and tokens are computed; `choose` says which and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.errors import BackendUnavailable, ConfigError

if TYPE_CHECKING:
    from npc_runtime.backends.base import Backend
    from npc_runtime.bundle import Bundle
    from npc_runtime.config import Config

NAMES = ("auto", "onnx", "reference", "cuda")


def choose(name: str, bundle: Bundle, config: Config) -> tuple[Backend, str]:
    """The Backend of that name (one of `NAMES`) for a Bundle, and the reason, ready to print.

    Its Slots fill `config.state_budget_mb`. A Backend that cannot run here is an error, never
    silently another one: BackendUnavailable, or ConfigError for a name or budget that cannot be.
    """
    if name not in NAMES:
        raise ConfigError(f"`backend` must be one of {', '.join(NAMES)}, got {name!r}")
    slots = _slots(bundle, config)
    if name == "cuda":
        raise BackendUnavailable("the cuda backend is not built yet", "Use `onnx`, the CPU backend")
    if name == "reference":
        return _reference(bundle, slots, config), "asked for; plain NumPy in fp32, slow"
    why = "asked for" if name == "onnx" else "the CPU (this version has no GPU backend)"
    return _onnx(bundle, slots, config, why)


def _slots(bundle: Bundle, config: Config) -> int:
    slots = config.state_budget_mb * 1024 * 1024 // bundle.spec.nbytes
    if slots < 2:
        needed = -(-2 * bundle.spec.nbytes // (1024 * 1024))
        raise ConfigError(
            f"`state_budget_mb` must be at least {needed} for `{bundle.name}`, whose State takes "
            f"{bundle.spec.nbytes / 1024 / 1024:.1f} MB, got {config.state_budget_mb}"
        )
    return slots


def _reference(bundle: Bundle, slots: int, config: Config) -> Backend:
    from npc_runtime.backends.reference import ReferenceBackend, ReferenceModel
    from npc_runtime.weights import dense_shapes

    names = dense_shapes(bundle.config, bundle.tied)
    model = ReferenceModel({name: bundle.dense(name) for name in names}, bundle.config)
    return ReferenceBackend(model, slots, config.max_batch)


def _onnx(bundle: Bundle, slots: int, config: Config, why: str) -> tuple[Backend, str]:
    from npc_runtime.backends.onnx import OnnxBackend

    backend = OnnxBackend(bundle, slots, config.bits, config.threads, config.max_batch)
    stored = "" if backend.bits == bundle.bits else f" (stored at {bundle.bits})"
    threads = f"{config.threads} thread{'s' if config.threads > 1 else ''}"
    return backend, f"{why}; {backend.bits}-bit weights{stored}, {threads}, {slots} Slots"
