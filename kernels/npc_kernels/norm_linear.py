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
    fp32. CPU tensors take `norm_linear_ref`. Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    check_tensor("residual", residual, 2)
    check_shape("residual", residual, tuple(residual.shape), residual, torch.float32)
    check_tensor("weight", weight, 2)
    check_shape("weight", weight, (weight.shape[0], residual.shape[1]), residual)
    check_shape("norm", norm, (residual.shape[1],), residual)
    dtype = weight.dtype if dtype is None else dtype
    return norm_linear_ref(residual, norm, weight, eps).to(dtype)
