"""conv_step: the causal convolution for one token a row, on slots of a resident store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_kernels._check import check_shape, check_slots, check_tensor, rows_contiguous
from npc_kernels.reference import conv_step_ref

if TYPE_CHECKING:
    from torch import Tensor


def conv_step(x: Tensor, store: Tensor, slots: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Give SiLU(convolution) of one token a row, (B, E) in x's dtype, and move the store on in place.

    Shapes: x (B, E), rows may lie apart; store (S, K-1, E), oldest input first, in fp32, bf16 or fp16; slots (B) int32
    or int64, each row's place in the store, all different; weight (E, K); bias (E). A row whose slot is negative is
    padding: nothing of it is read or written and its result is 0. CPU tensors take `conv_step_ref`.
    Raises ValueError for shapes, dtypes or devices that do not fit, naming the argument.
    """
    check_tensor("x", x, 2)
    check_tensor("weight", weight, 2)
    channels, taps = x.shape[1], weight.shape[1]
    check_shape("weight", weight, (channels, max(taps, 2)), x)
    check_shape("bias", bias, (channels,), x)
    check_slots(store, slots, x, (taps - 1, channels))
    if x.device.type == "cpu":
        return conv_step_ref(x, store, slots, weight, bias)
    from npc_kernels.step_triton import conv

    return conv(rows_contiguous(x), store, slots, weight, bias)
