"""Memory: whether a recipe fits the device, reckoned before anything is trained."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from npc_runtime.errors import ConfigError

if TYPE_CHECKING:
    from npc_runtime.model.config import ModelConfig
    from npc_runtime.training.recipe import Phase, Recipe

WEIGHT_BYTES = 20
"""A parameter in fp32, its gradient, AdamW's two moments, and the copy in which gradients travel."""

GPU_WIDTHS, CPU_WIDTHS = (9, 7), (6, 16)
"""(d_model, d_inner) numbers kept for each token and layer until the backward pass; measured, rounded up."""

SPARE = 0.9
"""Share of the memory that a run may fill."""


def needed_bytes(config: ModelConfig, phase: Phase, world: int, on_gpu: bool) -> int:
    """Bytes that a phase takes on one device of `world`: weights, and what the backward pass reads again."""
    tokens = max(1, phase.rows // world) * phase.length
    wide, inner = GPU_WIDTHS if on_gpu else CPU_WIDTHS
    number = 2 if on_gpu else 4
    kept = tokens * config.n_layer * (wide * config.d_model + inner * config.d_inner) * number
    logits = min(tokens, 1 << 14) * config.vocab_size * 4
    return parameters(config) * WEIGHT_BYTES + kept + logits


def parameters(config: ModelConfig) -> int:
    """How many numbers the model learns."""
    D, E, N, R, K = config.d_model, config.d_inner, config.d_state, config.dt_rank, config.d_conv
    layer = D + 2 * E * D + E * (K + 1) + (R + 2 * N) * E + E * (R + 1) + E * N + E + D * E
    return config.vocab_size * D + D + config.n_layer * layer


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 1 << 62


def check_memory(recipe: Recipe, world: int, device: torch.device) -> None:
    """Raises ConfigError naming the first phase that does not fit, and how many rows would."""
    free = int(free_bytes(device) * SPARE)
    for phase in recipe.phases:
        needed = needed_bytes(recipe.model, phase, world, device.type == "cuda")
        if needed > free:
            raise ConfigError(
                f"phase `{phase.name}` of recipe `{recipe.name}` needs about {needed / 1e9:.1f} GB on each device, "
                f"but {device} has {free / 1e9:.1f} GB to give",
                f"Set its `rows` to {_rows_that_fit(recipe, phase, world, device, free)} or shorten `length`",
            )


def _rows_that_fit(recipe: Recipe, phase: Phase, world: int, device: torch.device, free: int) -> int:
    rows = phase.rows
    while rows > world and needed_bytes(recipe.model, replace(phase, rows=rows), world, device.type == "cuda") > free:
        rows //= 2
    return max(rows, world)
