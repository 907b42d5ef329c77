"""row_linear: a matrix product whose rows keep their bits whatever other rows are multiplied with them."""

from __future__ import annotations

import torch
from torch import Tensor

from npc_kernels._check import check_shape, check_tensor, rows_contiguous


def row_linear(x: Tensor, weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Give x · weightᵀ (M, N) in `dtype`, by default x's; sums are fp32.

    Shapes: x (M, K), its rows may lie apart; weight (N, K) of x's dtype, bf16, fp16 or fp32. A row of the result does
    not depend on M or on the other rows, bit for bit, which a library that chooses its kernel by M does not promise:
    every tile walks K in the same steps of the same instruction. CPU tensors take `row_linear_ref`. No gradients.
    Raises ValueError for shapes, dtypes or devices that do not fit, naming the argument.
    """
    check_tensor("x", x, 2)
    check_tensor("weight", weight, 2)
    check_shape("weight", weight, (weight.shape[0], x.shape[1]), x, x.dtype)
    dtype = x.dtype if dtype is None else dtype
    if x.device.type == "cpu":
        return row_linear_ref(x, weight, dtype)
    from npc_kernels.row_linear_triton import multiply

    return multiply(rows_contiguous(x), weight.contiguous(), dtype)


def row_linear_ref(x: Tensor, weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Multiply row by row; arguments and result as `row_linear`."""
    wide = weight.float()
    rows = [torch.mv(wide, row) for row in x.float()]
    made = torch.stack(rows) if rows else wide.new_zeros(0, weight.shape[0])
    return made.to(x.dtype if dtype is None else dtype)
