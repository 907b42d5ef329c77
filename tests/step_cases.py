"""Random cases for the kernels of the decode step, on whatever device is asked for."""

from __future__ import annotations

import torch
from npc_kernels import StepWeights
from torch import Tensor

Arguments = dict[str, "Tensor | None"]


def slots_of(rows: int, size: int, device: str, padding: bool = True) -> Tensor:
    """Different slots in random order, every fourth row (from the second on) padding."""
    slots = torch.randperm(size)[:rows].int()
    if padding:
        slots[1::4] = -1
    return slots.to(device)


def conv_step_inputs(
    rows: int, E: int, K: int, dtype: torch.dtype = torch.float32, store: torch.dtype = torch.float32,
    device: str = "cpu", bias: bool = True,
) -> Arguments:  # fmt: skip
    """Arguments of conv_step; x is the first half of a wider tensor."""
    return {
        "x": torch.randn(rows, 2 * E, device=device).to(dtype)[:, :E],
        "store": torch.randn(rows + 3, K - 1, E, device=device).to(store),
        "slots": slots_of(rows, rows + 3, device),
        "weight": torch.randn(E, K, device=device),
        "bias": torch.randn(E, device=device) if bias else None,
    }


def state_step_inputs(
    rows: int, E: int, N: int, rank: int = 0, dtype: torch.dtype = torch.float32, store: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Arguments:  # fmt: skip
    """Arguments of state_step; z is the second half of a wider tensor, dt, B and C are parts of one."""
    proj = torch.randn(rows, (rank or E) + 2 * N, device=device).to(dtype)
    low, B, C = torch.split(proj, [rank or E, N, N], 1)
    return {
        "store": torch.randn(rows + 3, N, E, device=device).to(store),
        "slots": slots_of(rows, rows + 3, device),
        "x": torch.randn(rows, E, device=device).to(dtype),
        "dt": low,
        "dt_bias": torch.randn(E, device=device) - 1,
        "A": (-torch.rand(N, E, device=device) * 4 - 0.05).t(),
        "B": B,
        "C": C,
        "D": torch.randn(E, device=device),
        "z": torch.randn(rows, 2 * E, device=device).to(dtype)[:, E:],
        "dt_weight": (torch.randn(rank, E, device=device) / rank**0.5).to(dtype).t() if rank else None,
    }


def step_weights(
    D: int, n_layer: int, V: int, N: int = 16, dtype: torch.dtype = torch.float32, device: str = "cpu", K: int = 4
) -> StepWeights:
    """A model of random weights, as large as a trained one's."""
    E, R = 2 * D, -(-D // 16)
    tensors = {"embedding": torch.randn(V, D) * 0.3, "norm_f": torch.rand(D) + 0.5}
    for i in range(n_layer):
        layer = {
            "norm": torch.rand(D) + 0.5,
            "in_proj": torch.randn(2 * E, D) / D**0.5,
            "conv_weight": torch.randn(E, K) / K**0.5,
            "conv_bias": torch.randn(E) * 0.1,
            "x_proj": torch.randn(R + 2 * N, E) / E**0.5,
            "dt_proj": torch.randn(E, R) / R**0.5,
            "dt_bias": torch.randn(E) - 3,
            "A_log": torch.log(torch.arange(1.0, N + 1)).repeat(E, 1),
            "D": torch.randn(E),
            "out_proj": torch.randn(D, E) / E**0.5,
        }
        tensors |= {f"layers.{i}.{name}": value for name, value in layer.items()}
    return StepWeights.of({name: value.to(device) for name, value in tensors.items()}, n_layer, 1e-5, dtype)
