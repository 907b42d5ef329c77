"""Head and loss on an NVIDIA GPU: gradients are made in the forward pass, while the logits are at hand."""

# Triton's kernels are not Python: their arguments have no Python types.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _loss_kernel(logits_ptr, target_ptr, weight_ptr, loss_ptr, V, BLOCK: tl.constexpr, GRAD: tl.constexpr):
    """Loss of one token; its logits become their own gradient."""
    row = tl.program_id(0).to(tl.int64)
    logits = logits_ptr + row * V
    offs = tl.arange(0, BLOCK)
    top = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    for start in range(0, V, BLOCK):
        x = tl.load(logits + start + offs, mask=start + offs < V, other=float("-inf")).to(tl.float32)
        new_top = tl.maximum(top, tl.max(x, 0))
        total = total * tl.exp(top - new_top) + tl.sum(tl.exp(x - new_top), 0)
        top = new_top
    target = tl.load(target_ptr + row)
    weight = tl.load(weight_ptr + row)
    tl.store(loss_ptr + row, weight * (top + tl.log(total) - tl.load(logits + target).to(tl.float32)))
    if GRAD:
        tl.debug_barrier()  # the target's logit must be read before it is overwritten
        for start in range(0, V, BLOCK):
            x = tl.load(logits + start + offs, mask=start + offs < V, other=float("-inf")).to(tl.float32)
            p = tl.exp(x - top) / total - tl.where(start + offs == target, 1.0, 0.0)
            tl.store(logits + start + offs, weight * p, mask=start + offs < V)


TOKENS_AT_ONCE = 8192


class LinearCrossEntropy(torch.autograd.Function):
    """`linear_cross_entropy` on tensors already checked."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # noqa: D102 (torch's)
        head = weight.to(hidden.dtype)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        grad = any(ctx.needs_input_grad[:2])
        dhidden = torch.empty_like(hidden) if grad else None
        dweight = torch.zeros(weight.shape, dtype=torch.float32, device=hidden.device) if grad else None
        for start in range(0, len(hidden), TOKENS_AT_ONCE):
            some = slice(start, start + TOKENS_AT_ONCE)
            logits = hidden[some] @ head.t()
            _loss_kernel[(len(logits),)](
                logits, targets[some], weights[some], losses[some], len(head),
                BLOCK=min(8192, triton.next_power_of_2(len(head))), GRAD=grad, num_warps=8, enable_fp_fusion=True,
            )  # fmt: skip
            if dhidden is not None and dweight is not None:
                torch.mm(logits, head, out=dhidden[some])
                dweight += logits.t() @ hidden[some]
        if dhidden is not None and dweight is not None:
            ctx.save_for_backward(dhidden, dweight)
            ctx.weight_dtype = weight.dtype
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: D102 (torch's)
        dhidden, dweight = ctx.saved_tensors
        return dhidden * grads[0].to(dhidden.dtype), (dweight * grads[0]).to(ctx.weight_dtype), None, None
