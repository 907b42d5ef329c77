"""decode_step: one token a row through a whole model, on slots of resident stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_kernels._check import check_shape, check_slots, check_tensor
from npc_kernels.reference import decode_step_ref

if TYPE_CHECKING:
    from torch import Tensor

    from npc_kernels.step_weights import StepWeights


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
    return decode_step_ref(tokens, slots, conv, ssm, weights)
