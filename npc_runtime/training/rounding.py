"""Rounding weights in training as the Bundle will round them, gradients passed straight through (arXiv 1308.3432)."""

from __future__ import annotations

import torch
from torch import Tensor


def rounded(weight: Tensor, bits: int, block: int = 32) -> Tensor:
    """What a (rows, columns) matrix becomes when stored in `bits` and read back; see weights.quantize."""
    rows, columns = weight.shape
    blocks = -(-columns // block)
    padded = torch.nn.functional.pad(weight, (0, blocks * block - columns)) if columns % block else weight
    values = padded.reshape(rows, blocks, block)
    zero = 1 << (bits - 1)
    low, high = values.amin(2, keepdim=True), values.amax(2, keepdim=True)
    scale = torch.where(-low >= high, low, high) / -zero
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    codes = torch.clamp(torch.round(values / safe), -zero, zero - 1)
    return (codes * scale).reshape(rows, blocks * block)[:, :columns]


class _Straight(torch.autograd.Function):
    """Rounds forward; backward passes the gradient on as if nothing had been rounded."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, weight: Tensor, bits: int, block: int) -> Tensor:
        return rounded(weight, bits, block)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


def fake_quantize(weight: Tensor, bits: int, block: int = 32) -> Tensor:
    """As `rounded`, differentiable."""
    result: Tensor = _Straight.apply(weight, bits, block)  # type: ignore[no-untyped-call]
    return result
