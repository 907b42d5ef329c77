"""linear_cross_entropy: a language model's head and its loss, without ever holding all logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from npc_kernels._check import check_shape, check_tensor
from npc_kernels.reference import linear_cross_entropy_ref

if TYPE_CHECKING:
    from torch import Tensor


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Give the sum over tokens of weights · cross-entropy(hidden @ weight^T, targets), an fp32 scalar.

    Shapes: hidden (T, D); weight (V, D), used in hidden's dtype; targets (T) int64; weights (T). Differentiable in
    hidden and weight. On a GPU the logits exist for 8192 tokens at a time. CPU tensors take `linear_cross_entropy_ref`.
    Raises ValueError for shapes, dtypes or devices that do not fit, naming the argument.
    """
    check_tensor("hidden", hidden, 2)
    check_tensor("weight", weight, 2)
    check_shape("weight", weight, (weight.shape[0], hidden.shape[1]), hidden)
    check_shape("targets", targets, (hidden.shape[0],), hidden, torch.int64)
    check_shape("weights", weights, (hidden.shape[0],), hidden)
    if hidden.device.type == "cpu":
        return linear_cross_entropy_ref(hidden, weight, targets, weights)
    from npc_kernels.cross_entropy_triton import LinearCrossEntropy

    loss: Tensor = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden.contiguous(), weight, targets.contiguous(), weights.float().contiguous()
    )
    return loss
