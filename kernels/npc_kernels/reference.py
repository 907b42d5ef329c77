"""The definitions: every operation in plain PyTorch and fp32, differentiable by autograd.

Letters: B batch, L tokens, E channels (d_inner), N d_state, K d_conv.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor


def selective_scan_ref(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan token by token; arguments and results as `selective_scan` (arXiv 2312.00752, Algorithm 2)."""
    xf, zero = x.float(), x.new_zeros((), dtype=torch.float32)
    delta = F.softplus(dt.float() + (zero if dt_bias is None else dt_bias.float()))
    state = x.new_zeros(x.shape[0], A.shape[1], x.shape[2], dtype=torch.float32)
    if initial_state is not None:
        state = initial_state.float()
    rows = []
    for t in range(x.shape[1]):
        if seq_idx is not None and t > 0:
            state = torch.where((seq_idx[:, t] == seq_idx[:, t - 1])[:, None, None], state, zero)
        decay = torch.exp(delta[:, t, None, :] * A.float().t())  # (B, N, E)
        state = decay * state + B[:, t, :, None].float() * (delta[:, t] * xf[:, t])[:, None, :]
        rows.append((state * C[:, t, :, None].float()).sum(1))
    y = torch.stack(rows, 1)
    if D is not None:
        y = y + D.float() * xf
    if z is not None:
        y = y * F.silu(z.float())
    return y.to(x.dtype), state


def causal_conv1d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    activation: str | None = "silu",
) -> tuple[Tensor, Tensor]:
    """Convolve along L; arguments and results as `causal_conv1d`."""
    length, taps = x.shape[1], weight.shape[1]
    past = x.new_zeros(x.shape[0], taps - 1, x.shape[2], dtype=torch.float32)
    if initial_state is not None:
        past = initial_state.float()
    line = torch.cat([past, x.float()], 1)  # (B, K-1+L, E)
    document = None
    if seq_idx is not None:
        borders = F.pad((seq_idx[:, 1:] != seq_idx[:, :-1]).long(), (taps, 0))
        document = borders.cumsum(1)  # (B, K-1+L): what came before token 0 belongs to its document
    y = x.new_zeros(x.shape, dtype=torch.float32)
    for k in range(taps):
        tap = line[:, k : k + length] * weight[:, k].float()
        if document is not None:
            tap = tap * (document[:, k : k + length] == document[:, taps - 1 :])[..., None]
        y = y + tap
    if bias is not None:
        y = y + bias.float()
    if activation == "silu":
        y = F.silu(y)
    return y.to(x.dtype), _last_inputs(line, document, taps)


def _last_inputs(line: Tensor, document: Tensor | None, taps: int) -> Tensor:
    """Give the K-1 newest inputs, zero where they belong to an older document than the newest token."""
    last = line[:, line.shape[1] - (taps - 1) :]
    if document is None:
        return last.clone()
    return last * (document[:, document.shape[1] - (taps - 1) :] == document[:, -1:])[..., None]


def add_rms_norm_ref(
    branch: Tensor | None, residual: Tensor, weight: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Add and normalise; arguments and results as `add_rms_norm`, the norm in the residual's dtype."""
    if branch is not None:
        residual = residual + branch
    scale = torch.rsqrt(residual.square().mean(-1, keepdim=True) + eps)
    return residual * scale * weight, residual


def linear_cross_entropy_ref(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the cross-entropies; arguments and result as `linear_cross_entropy`."""
    losses = F.cross_entropy((hidden @ weight.to(hidden.dtype).t()).float(), targets, reduction="none")
    return (losses * weights.float()).sum()
