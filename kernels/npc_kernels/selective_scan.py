"""selective_scan: the recurrence of Mamba over a whole sequence, with a state in and a state out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from npc_kernels._check import check_shape, check_tensor, rows_contiguous
from npc_kernels.selective_scan_cpu import selective_scan_cpu

if TYPE_CHECKING:
    from torch import Tensor

# A scan of one pass has one warp for 32 channels. With fewer warps than this some of a GPU's schedulers idle, and
# splitting the sequence pays for reading it twice (H200, 528 schedulers, 512 warps and 2048 tokens: 0.27 ms forwards in
# one pass, 0.39 in chunks of 512). Chunks longer than 2048 gained 2 % at a million tokens.
_WARPS_ENOUGH = 512
_WARPS_WANTED = 2048
_SHORTEST_CHUNK, _LONGEST_CHUNK = 64, 2048


def selective_scan(
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
    *,
    chunk_len: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan a batch of sequences and give (y, final_state), differentiable in every float argument.

    Shapes, with b batch, L tokens, E channels, N states a channel (a power of two):
    x, dt, z (b, L, E) in one of bf16, fp16, fp32; A (E, N), negative; B, C (b, L, N); D, dt_bias (E);
    initial_state and final_state (b, N, E) fp32; seq_idx (b, L) int32: where it changes a new document begins and
    the state restarts from zero (token 0 continues from `initial_state`). y is (b, L, E) in x's dtype.

    delta = softplus(dt + dt_bias); state = exp(delta A) state + delta B x; y = (C · state + D x) · SiLU(z)
    (arXiv 2312.00752, Algorithm 2; the official code's Euler step for B). All arithmetic is fp32 and bitwise
    repeatable. CPU tensors take `selective_scan_cpu`. `chunk_len` (a multiple of 64) overrides how many tokens run
    in one piece on a GPU; by itself the function splits long sequences of small batches.

    Raises ValueError for shapes, dtypes or devices that do not fit, naming the argument.
    """
    _check(x, dt, A, B, C, D, z, dt_bias, initial_state, seq_idx)
    if chunk_len is not None and (chunk_len < 1 or chunk_len % _SHORTEST_CHUNK):
        raise ValueError(f"`chunk_len` must be a positive multiple of {_SHORTEST_CHUNK}, got {chunk_len}")
    if x.device.type == "cpu":
        return selective_scan_cpu(x, dt, A, B, C, D, z, dt_bias, initial_state, seq_idx)
    from npc_kernels.selective_scan_triton import SelectiveScan

    if chunk_len is None:
        chunk_len = _chunk_len(x.shape[0], x.shape[1], x.shape[2])
    widest = max(t.stride(1) for t in (x, dt, x if z is None else z))
    if (chunk_len or x.shape[1]) * widest >= 1 << 31:  # offsets inside a chunk are 32-bit
        chunk_len = ((1 << 31) - 1) // widest // _SHORTEST_CHUNK * _SHORTEST_CHUNK
    y, state = SelectiveScan.apply(  # type: ignore[no-untyped-call]
        rows_contiguous(x),
        rows_contiguous(dt),
        A,
        B,
        C,
        None if D is None else D.float().contiguous(),
        None if z is None else rows_contiguous(z),
        None if dt_bias is None else dt_bias.float().contiguous(),
        None if initial_state is None else initial_state.contiguous(),
        None if seq_idx is None else seq_idx.contiguous(),
        chunk_len,
    )
    return y, state


def _chunk_len(batch: int, length: int, channels: int) -> int:
    """Tokens in one piece: all of them (0) when the batch alone fills a GPU."""
    warps = batch * -(-channels // 32)
    if warps >= _WARPS_ENOUGH or length < 2 * _SHORTEST_CHUNK:
        return 0
    chunks = -(-_WARPS_WANTED // warps)
    return min(max(_SHORTEST_CHUNK, length // chunks // _SHORTEST_CHUNK * _SHORTEST_CHUNK), _LONGEST_CHUNK)


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> None:
    check_tensor("x", x, 3)
    check_tensor("A", A, 2)
    batch, length, channels = x.shape
    n_state = A.shape[1]
    if 0 in x.shape:
        raise ValueError(f"`x` must hold at least one token, got shape {tuple(x.shape)}")
    if n_state & (n_state - 1) or n_state == 0:
        raise ValueError(f"`A` must have a power of two of states a channel, got shape {tuple(A.shape)}")
    check_shape("A", A, (channels, n_state), x)
    for name, rows in (("dt", dt), ("z", z)):
        check_shape(name, rows, (batch, length, channels), x)
    for name, rows in (("B", B), ("C", C)):
        check_shape(name, rows, (batch, length, n_state), x)
    for name, vector in (("D", D), ("dt_bias", dt_bias)):
        check_shape(name, vector, (channels,), x)
    check_shape("initial_state", initial_state, (batch, n_state, channels), x, torch.float32)
    check_shape("seq_idx", seq_idx, (batch, length), x, torch.int32)
