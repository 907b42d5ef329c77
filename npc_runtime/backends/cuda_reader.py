"""Reading many tokens at once on a device: the model's parallel form over rows of unequal length.

Letters as in model/mamba.py: b rows, L tokens (padded), D d_model, E d_inner, N d_state, K d_conv, R dt_rank.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from npc_kernels import add_rms_norm, causal_conv1d, row_linear, selective_scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from npc_kernels import LayerWeights, StepWeights
    from torch import Tensor

    from npc_runtime.backends.cuda_store import SlotStore

_NEVER = -1e4
"""A time step so small that its softplus is exactly 0: the padding leaves a State as it is."""
_ONE_PASS, _CHUNKED = 128, 2048
_GROUP = 8
"""The scan of a multiple of so many tokens is one kernel at every length, and the fast one."""


class Reader:
    """Advances Slots by many tokens each. A row's bits depend neither on the other rows nor on the padding."""

    def __init__(self, weights: StepWeights, store: SlotStore) -> None:
        self._weights, self._store = weights, store
        self._dt_proj = [layer.dt_proj.contiguous() for layer in weights.layers]

    def read(self, tokens: Tensor, lengths: Tensor, slots: Tensor, keep: bool = True) -> Tensor:
        """Feeds tokens (b, L), the first `lengths` (b) of each row, to `slots` (b); what the head multiplies (b, L, D).

        Without `keep` the Slots stay as they were.
        """
        w, store = self._weights, self._store
        dtype = w.embedding.dtype
        given = tokens.shape[1]
        tokens = F.pad(tokens, (0, -given % _GROUP))
        residual = F.embedding(tokens, w.embedding).float()
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (b, L)
        branch: Tensor | None = None
        for i, layer in enumerate(w.layers):
            normed, residual = add_rms_norm(branch, residual, layer.norm, w.eps, dtype)
            branch, conv, ssm = self._mix(i, layer, normed, real, lengths, slots)
            if keep:
                store.conv[i][slots] = conv
                store.ssm[i][slots] = ssm.to(store.dtype)
        return add_rms_norm(branch, residual, w.norm_f, w.eps, dtype)[0][:, :given]

    def _mix(
        self, i: int, layer: LayerWeights, u: Tensor, real: Tensor, lengths: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output (b, L, D) of a mixer and the memory after the last real token, (b, K-1, E) and (b, N, E)."""
        (b, L, D), N, R = u.shape, layer.A.shape[1], layer.dt_proj.shape[1]
        xz = row_linear(u.reshape(b * L, D), layer.in_proj).view(b, L, -1)
        x, z = xz.chunk(2, -1)  # (b, L, E)
        before = self._store.conv[i][slots]
        conv = _newest(before, x, lengths)
        x, _ = causal_conv1d(x, layer.conv_weight, layer.conv_bias, before)
        low = row_linear(x.reshape(b * L, -1), layer.x_proj)
        dt = row_linear(low[:, :R], self._dt_proj[i]).view(b, L, -1)
        dt = torch.where(real[..., None], dt, _NEVER)
        B, C = (part.view(b, L, N) for part in low[:, R:].chunk(2, -1))
        start = self._store.ssm[i][slots].float()
        y, ssm = selective_scan(x, dt, layer.A, B, C, layer.D, z, layer.dt_bias, start, chunk_len=_chunk_len(L))
        return row_linear(y.reshape(b * L, -1), layer.out_proj).view(b, L, D), conv, ssm


class ReadingGraph:
    """A reading of up to `rows` by up to `length` tokens, captured once: its launches cost the host one."""

    def __init__(self, reader: Reader, store: SlotStore, rows: int, length: int) -> None:
        self._reader, self._store = reader, store
        self._given = torch.zeros(rows, length + 2, dtype=torch.int64, device=store.device)
        self._given[:, length:] = torch.tensor([1, -1], device=store.device)  # one token each, nobody's Slot
        self.generation = store.generation
        self._graph = capture(self._read, store.device)

    def _read(self) -> None:
        given = self._given
        self._reader.read(given[:, :-2], given[:, -2], given[:, -1])

    def read(self, given: Tensor) -> None:
        """Reads rows given as their padded tokens, length and Slot, (rows, length + 2) int64 on the host."""
        self._given.copy_(given)
        self._graph.replay()


def capture(run: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """Records what `run` launches, after two runs that compile what is not compiled yet."""
    side: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        run()
        run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool()):
        run()
    return graph


@cache
def _pool() -> Any:
    """The memory that all graphs share: no two of them ever run at once."""
    return torch.cuda.graph_pool_handle()


def _newest(before: Tensor, x: Tensor, lengths: Tensor) -> Tensor:
    """The K-1 newest of the inputs before (b, K-1, E) and of the first `lengths` of x (b, L, E)."""
    taps = torch.arange(before.shape[1], device=x.device)
    at = lengths[:, None] + taps  # in the line of `before` and x
    row = torch.arange(x.shape[0], device=x.device)[:, None]
    old = before[row, at.clamp(max=before.shape[1] - 1)]
    new = x[row, (at - before.shape[1]).clamp(min=0)].float()
    return torch.where((at < before.shape[1])[..., None], old, new)


def _chunk_len(length: int) -> int:
    """By the length alone: were it chosen by the rows too, a row's bits would depend on its mates."""
    if length <= _ONE_PASS:
        return -(-length // 64) * 64
    return _ONE_PASS if length <= _CHUNKED else 512
