"""Matrix products for many rows on an NVIDIA GPU, summed in the order in which step_triton sums them for few."""

# Triton's kernels are not Python: their arguments have no Python types.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import triton
import triton.language as tl

from npc_kernels._step_kernels import _let_next_start, _wait_for_previous
from npc_kernels.step_triton import options, quarter

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _place(tile, rows, F, BLOCK_B: tl.constexpr, BLOCK_F: tl.constexpr, GROUP: tl.constexpr):
    """Rows and columns of a tile, in groups of GROUP tiles of rows: neighbours share what they read in the L2 cache."""
    tiles_f, tiles_b = tl.cdiv(F, BLOCK_F), tl.cdiv(rows, BLOCK_B)
    group = tile // (GROUP * tiles_f)
    height = tl.minimum(tiles_b - group * GROUP, GROUP)
    place = tile % (GROUP * tiles_f)
    offs_b = (group * GROUP + place % height) * BLOCK_B + tl.arange(0, BLOCK_B)
    return offs_b, (place // height) * BLOCK_F + tl.arange(0, BLOCK_F)


@triton.jit
def _write(total, scale_ptr, out_ptr, offs_b, offs_f, rows, F, SCALE: tl.constexpr, ADD: tl.constexpr):
    """Stores a tile, times scale (SCALE), added to what is there (ADD)."""
    mask = (offs_b < rows)[:, None] & (offs_f < F)[None, :]
    if SCALE:
        total *= tl.load(scale_ptr + offs_b, mask=offs_b < rows, other=0.0)[:, None]
    address = out_ptr + offs_b.to(tl.int64)[:, None] * F + offs_f[None, :]
    if ADD:
        total += tl.load(address, mask=mask, other=0.0)
    tl.store(address, total, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def _product_kernel(
    x_ptr, weight_ptr, scale_ptr, out_ptr, rows, F, x_row, D: tl.constexpr, SPAN: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_F: tl.constexpr, GROUP: tl.constexpr, STAGES: tl.constexpr,
    SCALE: tl.constexpr, ADD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = x W^T, times scale (SCALE), added to out (ADD), summed in parts of SPAN of D.

    One loop over all of D: loads run on over the parts, whose ends wait for the matrix unit alone.
    """
    _let_next_start(PDL == 1)
    _wait_for_previous(PDL)
    offs_b, offs_f = _place(tl.program_id(0), rows, F, BLOCK_B, BLOCK_F, GROUP)
    offs_d = tl.arange(0, BLOCK_D)
    x_at = x_ptr + tl.minimum(offs_b, rows - 1).to(tl.int64)[:, None] * x_row + offs_d[None, :]
    w_at = weight_ptr + tl.minimum(offs_f, F - 1).to(tl.int64)[None, :] * D + offs_d[:, None]
    total = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
    part = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
    for i in tl.range(0, D, BLOCK_D, num_stages=STAGES):
        if D % BLOCK_D == 0:
            x = tl.load(x_at + i)
            w = tl.load(w_at + i)
        else:
            x = tl.load(x_at + i, mask=(i + offs_d < D)[None, :], other=0.0)
            w = tl.load(w_at + i, mask=(i + offs_d < D)[:, None], other=0.0)
        part = tl.dot(x.to(w.dtype), w, part)
        if SPAN < D:  # noqa: SIM102 - known when compiled
            if ((i + BLOCK_D) % SPAN == 0) | (i + BLOCK_D >= D):
                total += part
                part = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
    if SPAN >= D:
        total = part
    _let_next_start(PDL == 2)
    _write(total, scale_ptr, out_ptr, offs_b, offs_f, rows, F, SCALE, ADD)


class Tile(NamedTuple):
    """One program of a product."""

    rows: int
    columns: int
    warps: int
    stages: int


WIDENING = Tile(64, 128, 4, 3), Tile(64, 64, 4, 4), Tile(64, 32, 4, 4)
NARROWING = Tile(64, 128, 4, 4), Tile(64, 64, 4, 4), Tile(64, 32, 4, 4), Tile(32, 32, 4, 4), Tile(16, 32, 4, 4)
"""Tiles of products with more and with fewer features than depth: the first that makes WANTED programs is taken."""
WIDENING_WANTED, NARROWING_WANTED = 256, 128
DEPTH = 64
"""What one step of the loop multiplies."""


def product(
    x: Tensor, weight: Tensor, out: Tensor, scale: Tensor | None = None, add: bool = False, span: int | None = None
) -> Tensor:
    """Write x W^T, times `scale` (B), into out, or add it; in parts of `span`, by default quarters, of the depth."""
    tile = tile_for(x.shape[0], x.shape[1], weight.shape[0])
    return launch(x, weight, out, tile, quarter(x.shape[1]) if span is None else span, scale, add)


def tile_for(rows: int, depth: int, features: int) -> Tile:
    """The tile of a product (rows, depth) x (depth, features), as measured on an H200 for 64 to 8192 rows."""
    tiles, wanted = (WIDENING, WIDENING_WANTED) if features > depth else (NARROWING, NARROWING_WANTED)
    fit = (t for t in tiles if t.columns <= features and -(-rows // t.rows) * -(-features // t.columns) >= wanted)
    return next(fit, tiles[-1])


def launch(x: Tensor, weight: Tensor, out: Tensor, tile: Tile, span: int, scale: Tensor | None, add: bool) -> Tensor:
    """`product` with a certain tile."""
    rows, features = x.shape[0], weight.shape[0]
    _product_kernel[(-(-rows // tile.rows) * -(-features // tile.columns),)](
        x, weight, scale, out, rows, features, x.stride(0), D=x.shape[1], SPAN=span, BLOCK_D=DEPTH,
        BLOCK_B=tile.rows, BLOCK_F=tile.columns, GROUP=8, STAGES=tile.stages, SCALE=scale is not None, ADD=add,
        num_warps=tile.warps, **options(x.device, rows),
    )  # fmt: skip
    return out
