"""selective_scan on a CPU: the reference's arithmetic in chunks, with a backward pass written out.

Autograd through the reference keeps a dozen tensors a token; this keeps the state at each chunk's beginning and does
everything but the recurrence itself for a whole chunk at a time. T tokens of a chunk stand first: (T, b, N, E).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 16
"""Tokens at a time: their states (2 MB for two rows of 1024 channels) stay in the cache; 64 took half as long again."""


def selective_scan_cpu(
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
    """Scan; arguments and results as `selective_scan`. What stands around the recurrence is left to autograd."""
    xf = x.float()
    delta = F.softplus(dt.float() if dt_bias is None else dt.float() + dt_bias.float())
    if initial_state is None:
        initial_state = x.new_zeros(x.shape[0], A.shape[1], x.shape[2], dtype=torch.float32)
    y, state = _Recurrence.apply(  # type: ignore[no-untyped-call]
        delta, delta * xf, A.float(), B.float(), C.float(), initial_state.float(), _kept(seq_idx, x)
    )
    if D is not None:
        y = y + D.float() * xf
    if z is not None:
        y = y * F.silu(z.float())
    return y.to(x.dtype), state


def _kept(seq_idx: Tensor | None, x: Tensor) -> Tensor:
    """(L, b, 1, 1): 1 where a token goes on from the one before it, 0 where a document begins."""
    kept = torch.ones(x.shape[1], x.shape[0])
    if seq_idx is not None:
        kept[1:] = (seq_idx[:, 1:] == seq_idx[:, :-1]).float().t()
    return kept[:, :, None, None]


def _tokens_first(*tensors: Tensor) -> list[Tensor]:
    return [tensor.transpose(0, 1).contiguous() for tensor in tensors]


class _Recurrence(torch.autograd.Function):
    """state = exp(delta A) state + u B, y = C · state; delta and u (b, L, E), B and C (b, L, N)."""

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, kept: Tensor
    ) -> tuple[Tensor, Tensor]:
        delta, u, B, C = _tokens_first(delta, u, B, C)
        state, starts, rows = initial, [], []
        for at in range(0, len(delta), CHUNK):
            part = slice(at, at + CHUNK)
            starts.append(state)
            _, states = _states(delta[part], u[part], A, B[part], kept[part], state)
            rows.append((C[part, :, None, :] @ states)[:, :, 0])
            state = states[-1]
        ctx.save_for_backward(delta, u, A, B, C, kept, torch.stack(starts))
        return torch.cat(rows).transpose(0, 1), state.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        delta, u, A, B, C, kept, starts = ctx.saved_tensors
        (gy,) = _tokens_first(grads[0])
        carried = grads[1]
        found = [torch.empty_like(delta), torch.empty_like(u), torch.empty_like(B), torch.empty_like(C)]
        gA = torch.zeros_like(A)
        for number in range(len(starts) - 1, -1, -1):
            part = slice(number * CHUNK, (number + 1) * CHUNK)
            decay, states = _states(delta[part], u[part], A, B[part], kept[part], starts[number])
            through = gy[part, :, None, :] * C[part, :, :, None]
            for t in range(len(through) - 1, -1, -1):
                through[t] += carried
                carried = through[t] * decay[t]
            before = torch.cat([starts[number][None], states[:-1]])
            bent = through * decay * before  # the gradient of delta A
            found[0][part] = (bent * A.t()).sum(2)
            found[1][part] = (B[part, :, None, :] @ through)[:, :, 0]
            found[2][part] = (through @ u[part, :, :, None])[..., 0]
            found[3][part] = (states @ gy[part, :, :, None])[..., 0]
            gA += (bent * delta[part, :, None, :]).sum((0, 1)).t()
        gdelta, gu, gB, gC = (tensor.transpose(0, 1) for tensor in found)
        return gdelta, gu, gA, gB, gC, carried, None


def _states(delta: Tensor, u: Tensor, A: Tensor, B: Tensor, kept: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """(decay, state) after each token of a chunk, (T, b, N, E)."""
    decay = torch.exp(delta[:, :, None, :] * A.t()) * kept
    states = u[:, :, None, :] * B[:, :, :, None]
    for t in range(len(states)):
        states[t] += decay[t] * state
        state = states[t]
    return decay, states
