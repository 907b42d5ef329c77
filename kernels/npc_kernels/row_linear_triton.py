"""The matrix product with independent rows on an NVIDIA GPU, in Triton."""

# Triton's kernels are not Python: their arguments have no Python types.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tile(NamedTuple):
    """Rows and columns of one program, and how it walks K."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


# At least 64 rows everywhere, for on Hopper fewer would take another instruction, whose sums round otherwise.
TILES = (
    Tile(128, 128, 64, 8, 3),
    Tile(128, 64, 64, 4, 4),
    Tile(64, 64, 64, 4, 4),
    Tile(64, 32, 128, 4, 3),
    Tile(64, 16, 128, 4, 4),
)
"""Largest first."""
PROGRAMS_WANTED = 132
"""Multiprocessors of an H200: the largest tile that gives each one something to do is taken."""


@triton.jit
def _row_linear_kernel(
    x_ptr, weight_ptr, out_ptr, M, N, K, x_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(N, COLUMNS)
    offs_m = (tl.program_id(0) // tiles_n).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    offs_n = (tl.program_id(0) % tiles_n).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    offs_k = tl.arange(0, DEPTH)
    mask_m, mask_n = offs_m[:, None] < M, offs_n[None, :] < N
    x_at = x_ptr + offs_m[:, None] * x_row + offs_k[None, :]
    w_at = weight_ptr + offs_n[None, :] * K + offs_k[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, K, DEPTH):
        if EVEN_K:
            x = tl.load(x_at + k, mask=mask_m, other=0.0)
            w = tl.load(w_at + k, mask=mask_n, other=0.0)
        else:
            x = tl.load(x_at + k, mask=mask_m & (offs_k[None, :] + k < K), other=0.0)
            w = tl.load(w_at + k, mask=mask_n & (offs_k[:, None] + k < K), other=0.0)
        total = tl.dot(x, w, total, input_precision=PRECISION)
    out_at = out_ptr + offs_m[:, None] * N + offs_n[None, :]
    tl.store(out_at, total.to(out_ptr.dtype.element_ty), mask=mask_m & mask_n)


def tile_for(rows: int, columns: int, dtype: torch.dtype) -> Tile:
    """The largest tile that leaves no multiprocessor idle; for fp32, which has no matrix unit, a small one."""
    if dtype == torch.float32:
        return Tile(64, 32, 32, 4, 2)
    for tile in TILES:
        if -(-rows // tile.rows) * -(-columns // tile.columns) >= PROGRAMS_WANTED:
            return tile
    return TILES[-1]


def multiply(x: Tensor, weight: Tensor, dtype: torch.dtype, tile: Tile | None = None) -> Tensor:
    """`row_linear` on tensors already checked."""
    rows, depth = x.shape
    columns = weight.shape[0]
    out = torch.empty(rows, columns, dtype=dtype, device=x.device)
    tile = tile_for(rows, columns, x.dtype) if tile is None else tile
    grid = (-(-rows // tile.rows) * -(-columns // tile.columns),)
    step = min(tile.depth, max(16, triton.next_power_of_2(depth)))
    if grid[0]:
        _row_linear_kernel[grid](
            x, weight, out, rows, columns, depth, x.stride(0), ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=step,
            EVEN_K=depth % step == 0, PRECISION="ieee", num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return out
