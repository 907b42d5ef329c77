"""The causal convolution on an NVIDIA GPU: Triton kernels and their autograd function.

A program walks along L with the last three inputs in registers; fewer than 4 taps are 4 with zeros in front.
"""

# Triton's kernels are not Python: their arguments have no Python types, and its tuples grow by addition only.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"
# ruff: noqa: RUF005

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _sigmoid(v):
    return 1.0 / (1.0 + tl.exp2(-v * 1.4426950408889634))


@triton.jit
def _if(inside, offs_e, E):
    """Mask of the channels where the scalar `inside` holds (Triton's interpreter cannot spread a scalar bool)."""
    return offs_e < tl.where(inside, E, 0)


@triton.jit
def _row(x_base, x_row, state_base, E, t, last, offs_e, K: tl.constexpr, HAS_STATE: tl.constexpr):
    """One row of inputs in fp32: from x, before token 0 from the state, else zero."""
    mask = _if((t >= 0) & (t < last), offs_e, E)
    row = tl.load(x_base + t.to(tl.int64) * x_row + offs_e, mask=mask, other=0.0).to(tl.float32)
    if HAS_STATE:
        row += tl.load(state_base + (t + K - 1) * E + offs_e, mask=_if((t < 0) & (t >= 1 - K), offs_e, E), other=0.0)
    return row


@triton.jit
def _border(seq_base, t, L):
    """True where token t starts a new document."""
    inside = (t > 0) & (t < L)
    return tl.load(seq_base + t, mask=inside, other=0) != tl.load(seq_base + t - 1, mask=inside, other=0)


@triton.jit
def _window(
    x_base, x_row, state_base, seq_base, E, t, L, offs_e, K: tl.constexpr, HAS_STATE: tl.constexpr,
    HAS_SEQ: tl.constexpr,
):  # fmt: skip
    """The three inputs before token t, oldest first; zero beyond a border between them and token t-1."""
    x0 = _row(x_base, x_row, state_base, E, t - 3, L, offs_e, K, HAS_STATE)
    x1 = _row(x_base, x_row, state_base, E, t - 2, L, offs_e, K, HAS_STATE)
    x2 = _row(x_base, x_row, state_base, E, t - 1, L, offs_e, K, HAS_STATE)
    if HAS_SEQ:
        last_is_new, middle_is_new = _border(seq_base, t - 1, L), _border(seq_base, t - 2, L)
        x1 = tl.where(last_is_new, 0.0, x1)
        x0 = tl.where(last_is_new | middle_is_new, 0.0, x0)
    return x0, x1, x2


@triton.jit
def _tap(w_ptr, offs_e, mask_e, k: tl.constexpr, K: tl.constexpr):
    """Weight number k of four."""
    mask = mask_e & (offs_e >= 0 if k + K >= 4 else offs_e < 0)
    return tl.load(w_ptr + offs_e * K + (k + K - 4), mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["L", "E"])
def _conv_fwd_kernel(
    x_ptr, w_ptr, bias_ptr, state_ptr, seq_ptr, y_ptr, final_ptr, L, E, x_batch, x_row,
    K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_E: tl.constexpr, STEPS: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_SEQ: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    offs_e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = offs_e < E
    w0, w1 = _tap(w_ptr, offs_e, mask_e, 0, K), _tap(w_ptr, offs_e, mask_e, 1, K)
    w2, w3 = _tap(w_ptr, offs_e, mask_e, 2, K), _tap(w_ptr, offs_e, mask_e, 3, K)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    x_base, y_base = x_ptr + batch * x_batch, y_ptr + batch * L * E + offs_e
    state_base, seq_base = state_ptr + batch * (K - 1) * E, seq_ptr + batch * L
    first = tl.program_id(1) * BLOCK_L
    x0, x1, x2 = _window(x_base, x_row, state_base, seq_base, E, first, L, offs_e, K, HAS_STATE, HAS_SEQ)
    last = tl.minimum(first + BLOCK_L, L)
    for t0 in range(first, last, STEPS):
        rows = ()
        for s in tl.static_range(STEPS):
            t = t0 + s
            mask = _if(t < last, offs_e, E)
            rows = rows + (tl.load(x_base + t.to(tl.int64) * x_row + offs_e, mask=mask, other=0.0),)
        for s in tl.static_range(STEPS):
            t = t0 + s
            x3 = rows[s].to(tl.float32)
            if HAS_SEQ:
                new = _border(seq_base, t, L)
                x0, x1, x2 = tl.where(new, 0.0, x0), tl.where(new, 0.0, x1), tl.where(new, 0.0, x2)
            y = bias + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3
            if SILU:
                y *= _sigmoid(y)
            tl.store(y_base + t.to(tl.int64) * E, y, mask=_if(t < last, offs_e, E))
            x0, x1, x2 = x1, x2, x3
    if last == L:
        x0, x1, x2 = _window(x_base, x_row, state_base, seq_base, E, L, L, offs_e, K, HAS_STATE, HAS_SEQ)
        final = final_ptr + batch * (K - 1) * E + offs_e
        if K == 4:
            tl.store(final, x0, mask=mask_e)
        if K >= 3:
            tl.store(final + (K - 3) * E, x1, mask=mask_e)
        tl.store(final + (K - 2) * E, x2, mask=mask_e)


@triton.jit(do_not_specialize=["L", "E"])
def _conv_bwd_kernel(
    x_ptr, w_ptr, bias_ptr, state_ptr, seq_ptr, dout_ptr, dfinal_ptr, dx_ptr, dstate_ptr, dparam_ptr,
    L, E, x_batch, x_row, dout_batch, dout_row,
    K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_E: tl.constexpr, STEPS: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_DFINAL: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Walk forward with four open sums: the gradient of input t-3 is complete when token t has been seen."""
    batch = tl.program_id(2).to(tl.int64)
    offs_e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = offs_e < E
    w0, w1 = _tap(w_ptr, offs_e, mask_e, 0, K), _tap(w_ptr, offs_e, mask_e, 1, K)
    w2, w3 = _tap(w_ptr, offs_e, mask_e, 2, K), _tap(w_ptr, offs_e, mask_e, 3, K)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    x_base, dout_base = x_ptr + batch * x_batch, dout_ptr + batch * dout_batch
    dx_base, seq_base = dx_ptr + batch * L * E + offs_e, seq_ptr + batch * L
    state = batch * (K - 1) * E
    first = tl.program_id(1) * BLOCK_L
    x0, x1, x2 = _window(x_base, x_row, state_ptr + state, seq_base, E, first, L, offs_e, K, HAS_STATE, HAS_SEQ)
    # 1.0 while no border lies between that input and the current token
    open0, open1, open2 = 1.0, 1.0, 1.0
    if HAS_SEQ:
        last_is_new, middle_is_new = _border(seq_base, first - 1, L), _border(seq_base, first - 2, L)
        open1 = tl.where(last_is_new, 0.0, 1.0)
        open0 = tl.where(last_is_new | middle_is_new, 0.0, 1.0)
    zero = tl.zeros((BLOCK_E,), tl.float32)
    d0, d1, d2 = zero, zero, zero
    dw0, dw1, dw2, dw3, dbias = zero, zero, zero, zero, zero
    last = tl.minimum(first + BLOCK_L, L)
    for t0 in range(first, last + 3, STEPS):
        rows, douts = (), ()
        for s in tl.static_range(STEPS):
            t = t0 + s
            mask = _if(t < L, offs_e, E)
            rows = rows + (tl.load(x_base + t.to(tl.int64) * x_row + offs_e, mask=mask, other=0.0),)
            douts = douts + (tl.load(dout_base + t.to(tl.int64) * dout_row + offs_e, mask=mask, other=0.0),)
        for s in tl.static_range(STEPS):
            t = t0 + s
            x3, d = rows[s].to(tl.float32), douts[s].to(tl.float32)
            if HAS_SEQ:
                keep = tl.where(_border(seq_base, t, L), 0.0, 1.0)
                open0, open1, open2 = open0 * keep, open1 * keep, open2 * keep
            y0, y1, y2 = x0 * open0, x1 * open1, x2 * open2
            if SILU:
                pre = bias + w0 * y0 + w1 * y1 + w2 * y2 + w3 * x3
                gate = _sigmoid(pre)
                d *= gate * (1.0 + pre * (1.0 - gate))
            mine = tl.where(t < last, d, 0.0)  # the tokens after are another program's
            dw0, dw1, dw2, dw3 = dw0 + mine * y0, dw1 + mine * y1, dw2 + mine * y2, dw3 + mine * x3
            dbias += mine
            done = d0 + d * w0 * open0
            old = t - 3
            if HAS_DFINAL:
                row = old - L + K - 1
                inside = _if((row >= 0) & (row < K - 1), offs_e, E)
                done += tl.load(dfinal_ptr + state + row * E + offs_e, mask=inside, other=0.0) * open0
            tl.store(dx_base + old.to(tl.int64) * E, done, mask=_if((old >= first) & (old < last), offs_e, E))
            if HAS_STATE:
                row = state + (old + K - 1) * E + offs_e
                tl.store(dstate_ptr + row, done, mask=_if((old < 0) & (old >= 1 - K), offs_e, E))
            d0, d1, d2 = d1 + d * w1 * open1, d2 + d * w2 * open2, d * w3
            x0, x1, x2 = x1, x2, x3
            open0, open1, open2 = open1, open2, 1.0
    param = dparam_ptr + (batch * tl.num_programs(1) + tl.program_id(1)) * 5 * E + offs_e
    tl.store(param, dw0, mask=mask_e)
    tl.store(param + E, dw1, mask=mask_e)
    tl.store(param + 2 * E, dw2, mask=mask_e)
    tl.store(param + 3 * E, dw3, mask=mask_e)
    tl.store(param + 4 * E, dbias, mask=mask_e)


BLOCK_L, BLOCK_E, STEPS = 64, 128, 4


class CausalConv(torch.autograd.Function):
    """`causal_conv1d` on tensors already checked."""

    @staticmethod
    def forward(  # noqa: D102 (torch's)
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        initial_state: Tensor | None,
        seq_idx: Tensor | None,
        silu: bool,
    ) -> tuple[Tensor, Tensor]:
        batch, length, channels = x.shape
        taps = weight.shape[1]
        weight = weight.contiguous()
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        final = torch.empty(batch, taps - 1, channels, dtype=torch.float32, device=x.device)
        grid = (triton.cdiv(channels, BLOCK_E), triton.cdiv(length, BLOCK_L), batch)
        state_or_x = x if initial_state is None else initial_state  # a pointer is needed to offset
        seq_or_x = x if seq_idx is None else seq_idx
        _conv_fwd_kernel[grid](
            x, weight, bias, state_or_x, seq_or_x, y, final, length, channels, x.stride(0), x.stride(1),
            K=taps, BLOCK_L=BLOCK_L, BLOCK_E=BLOCK_E, STEPS=STEPS, HAS_BIAS=bias is not None,
            HAS_STATE=initial_state is not None, HAS_SEQ=seq_idx is not None, SILU=silu,
            num_warps=1, enable_fp_fusion=True,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, initial_state, seq_idx)
        ctx.silu = silu
        ctx.set_materialize_grads(False)
        return y, final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: D102 (torch's)
        x, weight, bias, initial_state, seq_idx = ctx.saved_tensors
        dout, dfinal = grads
        dout = torch.zeros_like(x) if dout is None else dout
        dout = dout if dout.stride(-1) == 1 else dout.contiguous()
        batch, length, channels = x.shape
        taps = weight.shape[1]
        grid = (triton.cdiv(channels, BLOCK_E), triton.cdiv(length, BLOCK_L), batch)
        state_or_x = x if initial_state is None else initial_state  # a pointer is needed to offset
        seq_or_x = x if seq_idx is None else seq_idx
        dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        dstate = None if initial_state is None else torch.empty_like(initial_state)
        dparam = torch.empty(grid[1] * batch, 5, channels, dtype=torch.float32, device=x.device)
        _conv_bwd_kernel[grid](
            x, weight, bias, state_or_x, seq_or_x, dout, None if dfinal is None else dfinal.float().contiguous(),
            dx, dstate, dparam, length, channels, x.stride(0), x.stride(1), dout.stride(0), dout.stride(1),
            K=taps, BLOCK_L=BLOCK_L, BLOCK_E=BLOCK_E, STEPS=STEPS, HAS_BIAS=bias is not None,
            HAS_STATE=initial_state is not None, HAS_SEQ=seq_idx is not None, HAS_DFINAL=dfinal is not None,
            SILU=ctx.silu, num_warps=1, enable_fp_fusion=True,
        )  # fmt: skip
        dparam = dparam.sum(0)
        dweight = dparam[4 - taps : 4].t().to(weight.dtype)
        return dx, dweight, None if bias is None else dparam[4].to(bias.dtype), dstate, None, None
