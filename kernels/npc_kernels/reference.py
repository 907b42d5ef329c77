"""The definitions: every operation in plain PyTorch and fp32, differentiable by autograd (the steps excepted).

Letters: B batch, L tokens, E channels (d_inner), N d_state, K d_conv.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

if TYPE_CHECKING:
    from npc_kernels.step_weights import StepWeights


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


def conv_step_ref(x: Tensor, store: Tensor, slots: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve one token a row; arguments and result as `conv_step`."""
    live, rows = slots >= 0, slots.clamp(min=0).long()
    window = torch.cat([store[rows].float(), x.float()[:, None]], 1)  # (B, K, E)
    y = (window * weight.float().t()).sum(1)
    if bias is not None:
        y = y + bias.float()
    store[rows[live]] = window[live, 1:].to(store.dtype)
    return torch.where(live[:, None], F.silu(y), torch.zeros_like(y)).to(x.dtype)


def state_step_ref(
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
    """Advance one token a row; arguments and result as `state_step`."""
    live, rows = slots >= 0, slots.clamp(min=0).long()
    dt = dt.float() if dt_weight is None else dt.float() @ dt_weight.float().t()
    delta = F.softplus(dt + dt_bias.float())  # (B, E)
    decay = torch.exp(delta[:, None, :] * A.float().t())  # (B, N, E)
    state = decay * store[rows].float() + B.float()[:, :, None] * (delta * x.float())[:, None, :]
    y = (state * C.float()[:, :, None]).sum(1) + D.float() * x.float()
    store[rows[live]] = state[live].to(store.dtype)
    y = y * F.silu(z.float())
    return torch.where(live[:, None], y, torch.zeros_like(y)).to(x.dtype)


def norm_linear_ref(residual: Tensor, norm: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise and multiply in fp32; arguments and result as `norm_linear`."""
    scale = torch.rsqrt(residual.float().square().mean(-1, keepdim=True) + eps)
    return (residual.float() * scale * norm.float()) @ weight.float().t()


def decode_step_ref(tokens: Tensor, slots: Tensor, conv: Tensor, ssm: Tensor, weights: StepWeights) -> Tensor:
    """Feed one token a row; arguments and result as `decode_step`, all in fp32."""
    residual = F.embedding(tokens, weights.embedding).float()
    for w, conv_store, ssm_store in zip(weights.layers, conv, ssm, strict=True):
        xz = norm_linear_ref(residual, w.norm, w.in_proj, weights.eps)
        x, z = xz.chunk(2, -1)
        x = conv_step_ref(x, conv_store, slots, w.conv_weight, w.conv_bias)
        n_state = w.A.shape[1]
        dt, B, C = torch.split(x @ w.x_proj.float().t(), [w.dt_proj.shape[1], n_state, n_state], -1)
        y = state_step_ref(ssm_store, slots, x, dt, w.dt_bias, w.A, B, C, w.D, z, w.dt_proj)
        residual = residual + y @ w.out_proj.float().t()
    return norm_linear_ref(residual, weights.norm_f, weights.head, weights.eps)
