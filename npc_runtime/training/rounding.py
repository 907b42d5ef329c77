"""Rounding weights in training as the Bundle will round them, gradients passed straight through (arXiv 1308.3432)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from npc_runtime.weights import stored_bits

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    def forward(ctx: torch.autograd.function.FunctionCtx, weight: Tensor, bits: int) -> Tensor:
        return rounded(weight, bits)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def fake_quantize(weight: Tensor, bits: int) -> Tensor:
    """As `rounded`, differentiable; 0 bits leave the weight as it is."""
    if not bits:
        return weight
    result: Tensor = _Straight.apply(weight, bits)  # type: ignore[no-untyped-call]
    return result


@contextmanager
def stored_as(model: torch.nn.Module, bits: int) -> Iterator[None]:
    """Inside, the model's matrices hold the values that a Bundle of `bits` would give back; 0 changes nothing.

    Gradients taken inside belong to the rounded weights and are applied to the exact ones, which
    come back at the end. The embedding keeps 8 bits; the output matrix is rounded where it is used.
    """
    exact: list[tuple[torch.nn.Parameter, Tensor]] = []
    with torch.no_grad():
        for name, weight in model.named_parameters():
            own = stored_bits(name.removesuffix(".weight"), bits) if bits else 32
            if own <= 8:
                exact.append((weight, weight.data))
                weight.data = rounded(weight.data, own)
    try:
        yield
    finally:
        for weight, data in exact:
            weight.data = data
