"""decode_step: one token a row through a whole model, on slots of resident stores."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from npc_kernels._check import check_shape, check_slots, check_tensor
from npc_kernels.norm_linear import few_rows, norm_linear_into
from npc_kernels.reference import decode_step_ref

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from npc_kernels.step_weights import LayerWeights, StepWeights


HALVED = 8192
"""From as many rows on a step runs in two halves at once (H200, 24.5M parameters: 5.53 ms for 5.70)."""


def decode_step(tokens: Tensor, slots: Tensor, conv: Tensor, ssm: Tensor, weights: StepWeights) -> Tensor:
    """Feed one token a row and give the logits (B, V) fp32 for what follows; the stores move on in place.

    Shapes: tokens (B) int32 or int64; slots (B) int32 or int64, all different, negative for padding rows, whose logits
    mean nothing and whose slots stay untouched; conv (layers, S, K-1, E) and ssm (layers, S, N, E) in fp32, bf16 or
    fp16, S slots. Launches only kernels on the current stream and allocates by torch, so that a CUDA graph may capture
    it. CPU tensors take `decode_step_ref`. Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    layer = weights.layers[0]
    channels, taps = layer.conv_weight.shape
    check_tensor("conv", conv, 4)
    check_tensor("ssm", ssm, 4)
    for name, store, shape in (("conv", conv, (taps - 1, channels)), ("ssm", ssm, (layer.A.shape[1], channels))):
        check_shape(name, store, (len(weights.layers), store.shape[1], *shape), weights.embedding)
    check_slots(ssm[0], slots, tokens, (layer.A.shape[1], channels))
    if tokens.device.type == "cpu":
        return decode_step_ref(tokens, slots, conv, ssm, weights)
    logits = torch.empty(tokens.shape[0], weights.head.shape[0], dtype=torch.float32, device=tokens.device)
    if tokens.shape[0] >= HALVED:
        return _in_halves(tokens, slots, conv, ssm, weights, logits)
    return _step(tokens, slots, conv, ssm, weights, logits)


def _step(tokens: Tensor, slots: Tensor, conv: Tensor, ssm: Tensor, weights: StepWeights, logits: Tensor) -> Tensor:
    from npc_kernels.step_triton import embed

    residual = embed(tokens, weights.embedding)
    layer_step = layer_for(tokens.shape[0], weights)
    for i, w in enumerate(weights.layers):
        layer_step(residual, conv[i], ssm[i], slots, w, weights.eps)
    return norm_linear_into(logits, residual, weights.norm_f, weights.head, weights.eps)


def layer_for(rows: int, weights: StepWeights) -> Callable[..., None]:
    """The kernels of a layer for so many rows."""
    from npc_kernels.step_triton import middling

    if few_rows(rows, weights.embedding):
        return few_layer
    return middle_layer if middling(rows, weights.layers[0].conv_weight.shape[0]) else many_layer


def _in_halves(
    tokens: Tensor, slots: Tensor, conv: Tensor, ssm: Tensor, weights: StepWeights, logits: Tensor
) -> Tensor:
    """The step of each half of the rows on a stream of its own: one's products run beside the other's recurrence."""
    main, rows = torch.cuda.current_stream(tokens.device), tokens.shape[0]
    half = rows // 256 * 128
    streams = [_stream(tokens.device, i) for i in range(2)]
    for stream, own in zip(streams, (slice(half), slice(half, rows)), strict=True):
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            _step(tokens[own], slots[own], conv, ssm, weights, logits[own])
    for stream in streams:
        main.wait_stream(stream)
    return logits


@cache
def _stream(device: torch.device, index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def few_layer(residual: Tensor, conv: Tensor, ssm: Tensor, slots: Tensor, w: LayerWeights, eps: float) -> None:
    """One layer in four kernels; adds to the residual in place."""
    from npc_kernels import step_triton as step

    xz = torch.empty(residual.shape[0], w.in_proj.shape[0], dtype=w.in_proj.dtype, device=residual.device)
    x, z = step.norm_linear(residual, w.norm, w.in_proj, xz, eps).chunk(2, -1)
    x, shares = step.conv_project(x, conv, slots, w.conv_weight, w.conv_bias, w.x_proj)
    low, B, C = _parts(shares, w)
    y = step.state(ssm, slots, x, low, w.dt_bias, w.A, B, C, w.D, z, w.dt_proj)
    step.linear_add(y, w.out_proj, residual)


def many_layer(residual: Tensor, conv: Tensor, ssm: Tensor, slots: Tensor, w: LayerWeights, eps: float) -> None:
    """The same layer, bit for bit, with products of large tiles in kernels of their own."""
    from npc_kernels import step_triton as step
    from npc_kernels.product_triton import product

    def empty(width: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(residual.shape[0], width, dtype=dtype, device=residual.device)

    dtype = w.in_proj.dtype
    normed, scale = step.norm_factor(residual, w.norm, eps, dtype)
    x, z = product(normed, w.in_proj, empty(w.in_proj.shape[0], dtype), scale).chunk(2, -1)
    x = step.conv(x, conv, slots, w.conv_weight, w.conv_bias)
    low, B, C = _parts(product(x, w.x_proj, empty(w.x_proj.shape[0], torch.float32), span=step.SHARE), w)
    dt = product(low, w.dt_proj_rows, empty(x.shape[1], dtype), span=low.shape[1])
    y = step.state(ssm, slots, x, dt, w.dt_bias, w.A, B, C, w.D, z, None, early=True)
    product(y, w.out_proj, residual, add=True)


def middle_layer(residual: Tensor, conv: Tensor, ssm: Tensor, slots: Tensor, w: LayerWeights, eps: float) -> None:
    """The same layer, bit for bit, with products of large tiles, but x_proj from the kernel of the convolution."""
    from npc_kernels import step_triton as step
    from npc_kernels.product_triton import product

    normed, scale = step.norm_factor(residual, w.norm, eps, w.in_proj.dtype)
    xz = torch.empty(residual.shape[0], w.in_proj.shape[0], dtype=w.in_proj.dtype, device=residual.device)
    x, z = product(normed, w.in_proj, xz, scale).chunk(2, -1)
    x, shares = step.conv_project(x, conv, slots, w.conv_weight, w.conv_bias, w.x_proj)
    low, B, C = _parts(shares, w)
    dt = step.dt_of_shares(low, w.dt_proj)
    y = step.state(ssm, slots, x, dt, w.dt_bias, w.A, B, C, w.D, z, None, early=True)
    product(y, w.out_proj, residual, add=True)


def _parts(proj: Tensor, w: LayerWeights) -> tuple[Tensor, Tensor, Tensor]:
    """delta's low rank, B and C, from the result of x_proj (or its shares)."""
    rank, n_state = w.dt_proj.shape[1], w.A.shape[1]
    return proj[..., :rank], proj[..., rank : rank + n_state], proj[..., rank + n_state :]
