"""causal_conv1d: the short depthwise convolution of Mamba, with a state in and a state out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from npc_kernels._check import check_shape, check_tensor, rows_contiguous
from npc_kernels.reference import causal_conv1d_ref

if TYPE_CHECKING:
    from torch import Tensor

_MOST_TAPS = 4


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    activation: str | None = "silu",
) -> tuple[Tensor, Tensor]:
    """Convolve a batch of sequences along L and give (y, final_state), differentiable in every float argument.

    Shapes, with b batch, L tokens, E channels, K taps (2 to 4 on a GPU): x (b, L, E) in one of bf16, fp16, fp32;
    weight (E, K), its last tap for the current token; bias (E); initial_state and final_state (b, K-1, E) fp32, the
    inputs before token 0 and the newest ones, oldest first; seq_idx (b, L) int32: where it changes a new document
    begins and no tap reaches back across (what precedes token 0 belongs to its document). y is (b, L, E) in x's dtype.

    `activation` is "silu" or None. Arithmetic is fp32 and bitwise repeatable. CPU tensors take `causal_conv1d_ref`.
    Raises ValueError for shapes, dtypes or devices that do not fit, naming the argument.
    """
    check_tensor("x", x, 3)
    check_tensor("weight", weight, 2)
    batch, length, channels = x.shape
    taps = weight.shape[1]
    if 0 in x.shape:
        raise ValueError(f"`x` must hold at least one token, got shape {tuple(x.shape)}")
    if activation not in ("silu", None):
        raise ValueError(f"`activation` must be 'silu' or None, got {activation!r}")
    check_shape("weight", weight, (channels, max(taps, 1)), x)
    check_shape("bias", bias, (channels,), x)
    check_shape("initial_state", initial_state, (batch, taps - 1, channels), x, torch.float32)
    check_shape("seq_idx", seq_idx, (batch, length), x, torch.int32)
    if x.device.type == "cpu":
        return causal_conv1d_ref(x, weight, bias, initial_state, seq_idx, activation)
    if not 2 <= taps <= _MOST_TAPS:
        raise ValueError(f"`weight` must have 2 to {_MOST_TAPS} taps on a GPU, got shape {tuple(weight.shape)}")
    from npc_kernels.causal_conv_triton import CausalConv

    y, state = CausalConv.apply(  # type: ignore[no-untyped-call]
        rows_contiguous(x),
        weight,
        bias,
        None if initial_state is None else initial_state.contiguous(),
        None if seq_idx is None else seq_idx.contiguous(),
        activation == "silu",
    )
    return y, state
