"""Rounding weights as a Bundle stores them (weights.quantize), with gradients passed straight through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rounded(weight: Tensor, bits: int, block: int = 32) -> Tensor:
    """Give a (rows, columns) matrix as it reads back from `bits`: one scale for each `block` along the columns.

    The element of largest magnitude gets the lowest code, as in GGML's Q4_0: codes reach from -2^(bits-1) to
    2^(bits-1) - 1.
    """
    rows, columns = weight.shape
    blocks = -(-columns // block)
    padded = torch.nn.functional.pad(weight, (0, blocks * block - columns)) if columns % block else weight
    values = padded.float().reshape(rows, blocks, block)
    zero = 1 << (bits - 1)
    low, high = values.amin(2, keepdim=True), values.amax(2, keepdim=True)
    scale = torch.where(-low >= high, low, high) / -zero
    codes = torch.round(values / torch.where(scale == 0, 1.0, scale)).clamp(-zero, zero - 1)
    return (codes * scale).reshape(rows, blocks * block)[:, :columns].to(weight.dtype)


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: int, block: int) -> Tensor:
        return rounded(weight, bits, block)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


def straight_through(weight: Tensor, bits: int, block: int = 32) -> Tensor:
    """`rounded`, whose gradient is that of doing nothing (arXiv 1308.3432)."""
    result: Tensor = _Straight.apply(weight, bits, block)  # type: ignore[no-untyped-call]
    return result
