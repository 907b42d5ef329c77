"""Residual addition and RMSNorm on an NVIDIA GPU: Triton kernels and their autograd function."""

# Triton's kernels are not Python: their arguments have no Python types.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _norm_fwd_kernel(
    branch_ptr, residual_ptr, weight_ptr, out_ptr, sum_ptr, scale_ptr, D, eps,
    BLOCK: tl.constexpr, HAS_BRANCH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    mask = offs < D
    x = tl.load(residual_ptr + row * D + offs, mask=mask, other=0.0)
    if HAS_BRANCH:
        x += tl.load(branch_ptr + row * D + offs, mask=mask, other=0.0).to(tl.float32)
        tl.store(sum_ptr + row * D + offs, x, mask=mask)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 0) / D + eps)
    tl.store(scale_ptr + row, scale)
    tl.store(out_ptr + row * D + offs, x * scale * tl.load(weight_ptr + offs, mask=mask, other=0.0), mask=mask)


@triton.jit
def _norm_bwd_kernel(
    dout_ptr, dsum_ptr, sum_ptr, scale_ptr, weight_ptr, dresidual_ptr, dbranch_ptr, dweight_ptr, rows, per, D,
    BLOCK: tl.constexpr, HAS_BRANCH: tl.constexpr, HAS_DSUM: tl.constexpr,
):  # fmt: skip
    """Gradients of `per` rows; that of the weight as this program's share of the sum."""
    program = tl.program_id(0)
    offs = tl.arange(0, BLOCK)
    mask = offs < D
    weight = tl.load(weight_ptr + offs, mask=mask, other=0.0).to(tl.float32)
    dweight = tl.zeros((BLOCK,), tl.float32)
    for i in range(program * per, tl.minimum(program * per + per, rows)):
        at = tl.full((), i, tl.int64) * D + offs
        x = tl.load(sum_ptr + at, mask=mask, other=0.0) * tl.load(scale_ptr + i)
        dout = tl.load(dout_ptr + at, mask=mask, other=0.0).to(tl.float32)
        dweight += dout * x
        dout *= weight
        dx = (dout - x * (tl.sum(dout * x, 0) / D)) * tl.load(scale_ptr + i)
        if HAS_DSUM:
            dx += tl.load(dsum_ptr + at, mask=mask, other=0.0)
        tl.store(dresidual_ptr + at, dx, mask=mask)
        if HAS_BRANCH:
            tl.store(dbranch_ptr + at, dx, mask=mask)
    tl.store(dweight_ptr + program * D + offs, dweight, mask=mask)


PROGRAMS = 132 * 16


class AddRMSNorm(torch.autograd.Function):
    """`add_rms_norm` on tensors already checked and contiguous."""

    @staticmethod
    def forward(  # noqa: D102 (torch's)
        ctx: Any, branch: Tensor | None, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        width = residual.shape[-1]
        rows = residual.numel() // width
        out = torch.empty(residual.shape, dtype=dtype, device=residual.device)
        total = residual if branch is None else torch.empty_like(residual)
        scale = torch.empty(rows, dtype=torch.float32, device=residual.device)
        _norm_fwd_kernel[(rows,)](
            branch, residual, weight, out, total, scale, width, eps,
            BLOCK=triton.next_power_of_2(width), HAS_BRANCH=branch is not None, num_warps=_warps(width),
            enable_fp_fusion=True,
        )  # fmt: skip
        ctx.save_for_backward(total, scale, weight)
        ctx.branch_dtype = None if branch is None else branch.dtype
        ctx.set_materialize_grads(False)
        # with nothing added the sum is the residual itself, which autograd wants marked as a view
        return out, total.view_as(total) if branch is None else total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: D102 (torch's)
        total, scale, weight = ctx.saved_tensors
        dout, dsum = grads
        if dout is None:
            dbranch = None if ctx.branch_dtype is None or dsum is None else dsum.to(ctx.branch_dtype)
            return dbranch, dsum, None, None, None
        width = total.shape[-1]
        rows = total.numel() // width
        per = triton.cdiv(rows, PROGRAMS)
        programs = triton.cdiv(rows, per)
        dresidual = torch.empty_like(total)
        dbranch = None
        if ctx.branch_dtype == torch.float32:
            dbranch = dresidual
        elif ctx.branch_dtype is not None:
            dbranch = torch.empty(total.shape, dtype=ctx.branch_dtype, device=total.device)
        dweight = torch.empty(programs, width, dtype=torch.float32, device=total.device)
        _norm_bwd_kernel[(programs,)](
            dout.contiguous(), None if dsum is None else dsum.contiguous(), total, scale, weight, dresidual, dbranch,
            dweight, rows, per, width,
            BLOCK=triton.next_power_of_2(width), HAS_BRANCH=dbranch is not None and dbranch is not dresidual,
            HAS_DSUM=dsum is not None, num_warps=_warps(width), enable_fp_fusion=True,
        )  # fmt: skip
        return dbranch, dresidual, dweight.sum(0).to(weight.dtype), None, None


def _warps(width: int) -> int:
    warps: int = triton.next_power_of_2(width) // 512
    return max(1, min(16, warps))
