"""Precision: how a State is written to disk. fp32 is exact; fp16 and int8 are smaller and measured by `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from npc_runtime.state import StateSpec

PRECISIONS = ("fp32", "fp16", "int8")


def stored_shapes(spec: StateSpec, precision: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """(safetensors dtype, shape) of each part of a State on disk, in the order it is written."""
    if precision == "int8":
        scales = (spec.n_layer, spec.d_inner)
        return {"scale": ("F32", scales), "conv": ("F16", spec.conv_shape), "ssm": ("I8", spec.ssm_shape)}
    dtype = "F32" if precision == "fp32" else "F16"
    return {"conv": (dtype, spec.conv_shape), "ssm": (dtype, spec.ssm_shape)}


def to_disk(state: State, precision: str) -> dict[str, NDArray[Any]]:
    """The parts of a State as they are written. Raises ValueError when a value does not fit."""
    if not state.finite():
        raise ValueError("a State must be finite, and this one holds NaN or infinity")
    if precision == "fp32":
        return {"conv": state.conv, "ssm": state.ssm}
    parts: dict[str, NDArray[Any]] = {"conv": _half(state.conv)}
    if precision == "fp16":
        return {**parts, "ssm": _half(state.ssm)}
    # One scale per layer and channel: the decay rates of a channel's N values keep them within a
    # few orders of magnitude, while channels differ by many.
    scale = np.abs(state.ssm).max(axis=1) / np.float32(127)  # (layers, E)
    codes = np.rint(state.ssm / np.where(scale == 0, np.float32(1), scale)[:, None])
    return {"scale": scale, **parts, "ssm": np.clip(codes, -127, 127).astype(np.int8)}


def from_disk(spec: StateSpec, parts: Mapping[str, NDArray[Any]], precision: str) -> State:
    """The State that parts stand for, copied. Raises ValueError when a value is not finite."""
    ssm = parts["ssm"].astype(np.float32)
    if precision == "int8":
        with np.errstate(over="ignore", invalid="ignore"):  # a hostile scale shows in the check below
            ssm *= parts["scale"][:, None]
    state = State.of(spec, parts["conv"].astype(np.float32), ssm)
    if not state.finite():
        raise ValueError("a State holds NaN or infinity")
    return state


def round_trip(state: State, precision: str) -> State:
    """What a State becomes by being saved and loaded; the same bits at fp32."""
    return from_disk(state.spec, to_disk(state, precision), precision)


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.isfinite(half).all():
        raise ValueError("a value of the State is beyond fp16's 65504; save at fp32")
    return half
