"""state_step: the recurrence for one token a row, on slots of a resident store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_kernels._check import check_shape, check_slots, check_tensor, rows_contiguous
from npc_kernels.reference import state_step_ref

if TYPE_CHECKING:
    from torch import Tensor


def state_step(
    store: Tensor,
    slots: Tensor,
    x: Tensor,
    dt: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_weight: Tensor | None = None,
) -> Tensor:
    """Give (C · h + D x) SiLU(z) of one token a row, (B, E) in x's dtype, and h in its slot moved on in place.

    delta = softplus(dt + dt_bias); h = exp(delta A) h + delta B x (arXiv 2312.00752, Algorithm 2, one token).

    Shapes: store (S, N, E) in fp32, bf16 or fp16; slots (B) int32 or int64, each row's place in the store, all
    different; x, z, dt (B, E), rows may lie apart; dt_bias, D (E); A (E, N), negative (fastest when it is the transpose
    of a contiguous tensor); B, C (B, N). With `dt_weight` (E, R), dt is (B, R) and is multiplied by it first, on a GPU
    rounded to its dtype. A row whose slot is negative is padding: nothing of it is read or written and its result is 0.
    All other arithmetic is fp32.
    A row's result does not depend on the other rows nor on how many there are. CPU tensors take `state_step_ref`.
    Raises ValueError for shapes, dtypes or devices that do not fit, naming the argument.
    """
    check_tensor("x", x, 2)
    check_tensor("A", A, 2)
    rows, channels = x.shape
    n_state = A.shape[1]
    if n_state & (n_state - 1) or n_state == 0:
        raise ValueError(f"`A` must have a power of two of states a channel, got shape {tuple(A.shape)}")
    check_shape("A", A, (channels, n_state), x)
    check_shape("z", z, (rows, channels), x)
    if dt_weight is not None:
        check_tensor("dt_weight", dt_weight, 2)
        check_shape("dt_weight", dt_weight, (channels, dt_weight.shape[1]), x)
    check_shape("dt", dt, (rows, channels if dt_weight is None else dt_weight.shape[1]), x)
    for name, vector in (("dt_bias", dt_bias), ("D", D)):
        check_shape(name, vector, (channels,), x)
    for name, states in (("B", B), ("C", C)):
        check_shape(name, states, (rows, n_state), x)
    check_slots(store, slots, x, (n_state, channels))
    if x.device.type == "cpu":
        return state_step_ref(store, slots, x, dt, dt_bias, A, B, C, D, z, dt_weight)
    from npc_kernels.step_triton import state

    x, dt, B, C, z = (rows_contiguous(tensor) for tensor in (x, dt, B, C, z))
    return state(store, slots, x, dt, dt_bias, A, B, C, D, z, dt_weight)
