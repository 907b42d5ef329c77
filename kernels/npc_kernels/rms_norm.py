"""add_rms_norm: a residual stream's addition and its RMSNorm in one pass over memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from npc_kernels._check import check_shape, check_tensor
from npc_kernels.reference import add_rms_norm_ref

if TYPE_CHECKING:
    from torch import Tensor


def add_rms_norm(
    branch: Tensor | None,
    residual: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Give (norm(residual + branch) * weight, residual + branch), differentiable in all three.

    Shapes: residual (b, L, D) fp32; branch the same in any float dtype, or None for nothing to add; weight (D). The
    norm comes in `dtype`, by default the residual's. CPU tensors take `add_rms_norm_ref`.
    Raises ValueError for shapes, dtypes or devices that do not fit, naming the argument.
    """
    check_tensor("residual", residual, 3)
    check_shape("residual", residual, tuple(residual.shape), residual, torch.float32)
    check_shape("branch", branch, tuple(residual.shape), residual)
    check_shape("weight", weight, (residual.shape[2],), residual)
    dtype = residual.dtype if dtype is None else dtype
    if residual.device.type == "cpu":
        normed, residual = add_rms_norm_ref(branch, residual, weight, eps)
        return normed.to(dtype), residual
    from npc_kernels.rms_norm_triton import AddRMSNorm

    branch = None if branch is None else branch.contiguous()
    normed, residual = AddRMSNorm.apply(branch, residual.contiguous(), weight, eps, dtype)  # type: ignore[no-untyped-call]
    return normed, residual
