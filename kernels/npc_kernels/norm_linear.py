"""norm_linear: RMSNorm and the matrix product after it, for a few rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from npc_kernels._check import check_shape, check_tensor
from npc_kernels.reference import norm_linear_ref

if TYPE_CHECKING:
    from torch import Tensor


def norm_linear(
    residual: Tensor, norm: Tensor, weight: Tensor, eps: float = 1e-5, dtype: torch.dtype | None = None
) -> Tensor:
    """Give RMSNorm(residual) · norm times the transpose of weight, (B, F) in `dtype`, by default weight's.

    Shapes: residual (B, D) fp32; norm (D); weight (F, D) in bf16 or fp32, in which the products are computed; sums are
    fp32. A row's result does not depend on the other rows nor on how many there are. CPU tensors take
    `norm_linear_ref`. Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    check_tensor("residual", residual, 2)
    check_shape("residual", residual, tuple(residual.shape), residual, torch.float32)
    check_tensor("weight", weight, 2)
    check_shape("weight", weight, (weight.shape[0], residual.shape[1]), residual)
    check_shape("norm", norm, (residual.shape[1],), residual)
    dtype = weight.dtype if dtype is None else dtype
    if residual.device.type == "cpu":
        return norm_linear_ref(residual, norm, weight, eps).to(dtype)
    out = torch.empty(residual.shape[0], weight.shape[0], dtype=dtype, device=residual.device)
    return norm_linear_into(out, residual.contiguous(), norm, weight.contiguous(), eps)


def norm_linear_into(out: Tensor, residual: Tensor, norm: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`norm_linear` on tensors already checked, on a GPU."""
    from npc_kernels import step_triton as step

    if few_rows(residual.shape[0], weight):
        return step.norm_linear(residual, norm, weight, out, eps)
    from npc_kernels.product_triton import product

    normed, scale = step.norm_factor(residual, norm, eps, weight.dtype)
    return product(normed, weight, out, scale)


def few_rows(rows: int, weight: Tensor) -> bool:
    """Whether the kernels for few rows are the faster ones, as measured on an H200; fp32 weights have no others."""
    from npc_kernels.step_triton import FEW

    return rows <= FEW or weight.dtype == torch.float32
