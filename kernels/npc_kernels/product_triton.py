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


@triton.jit(do_not_specialize=["rows"])
def _product_kernel(
    x_ptr, weight_ptr, scale_ptr, out_ptr, rows, F, x_row, D: tl.constexpr, SPAN: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_F: tl.constexpr, GROUP: tl.constexpr, STAGES: tl.constexpr,
    SCALE: tl.constexpr, ADD: tl.constexpr, FLAT: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = x W^T, times scale (SCALE), added to out (ADD), summed in parts of SPAN of D."""
    _let_next_start(PDL)
    _wait_for_previous(PDL)
    # programs in groups of GROUP tiles of rows, so that those side by side share rows and weights in the L2 cache
    tiles_f, tiles_b = tl.cdiv(F, BLOCK_F), tl.cdiv(rows, BLOCK_B)
    group = tl.program_id(0) // (GROUP * tiles_f)
    height = tl.minimum(tiles_b - group * GROUP, GROUP)
    place = tl.program_id(0) % (GROUP * tiles_f)
    offs_b = (group * GROUP + place % height) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_f = (place // height) * BLOCK_F + tl.arange(0, BLOCK_F)
    offs_d = tl.arange(0, BLOCK_D)
    inside_b, inside_f = (offs_b < rows)[:, None], (offs_f < F)[None, :]
    x_at = x_ptr + offs_b.to(tl.int64)[:, None] * x_row + offs_d[None, :]
    w_at = weight_ptr + offs_f.to(tl.int64)[None, :] * D + offs_d[:, None]
    total = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
    if SPAN >= D:
        for i in tl.range(0, D, BLOCK_D, num_stages=STAGES):
            x = tl.load(x_at + i, mask=inside_b & (i + offs_d < D)[None, :], other=0.0)
            w = tl.load(w_at + i, mask=inside_f & (i + offs_d < D)[:, None], other=0.0)
            total = tl.dot(x.to(w.dtype), w, total)
    elif FLAT:
        for q in tl.range(tl.cdiv(D, SPAN), flatten=True, num_stages=STAGES):
            part = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
            for i in range(q * SPAN, q * SPAN + SPAN, BLOCK_D):
                x = tl.load(x_at + i, mask=inside_b & (i + offs_d < D)[None, :], other=0.0)
                w = tl.load(w_at + i, mask=inside_f & (i + offs_d < D)[:, None], other=0.0)
                part = tl.dot(x, w, part)
            total += part
    else:
        for q in tl.static_range((D + SPAN - 1) // SPAN):
            part = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
            for i in tl.range(q * SPAN, q * SPAN + SPAN, BLOCK_D, num_stages=STAGES):
                x = tl.load(x_at + i, mask=inside_b & (i + offs_d < D)[None, :], other=0.0)
                w = tl.load(w_at + i, mask=inside_f & (i + offs_d < D)[:, None], other=0.0)
                part = tl.dot(x, w, part)
            total += part
    if SCALE:
        total *= tl.load(scale_ptr + offs_b, mask=offs_b < rows, other=0.0)[:, None]
    address = out_ptr + offs_b.to(tl.int64)[:, None] * F + offs_f[None, :]
    if ADD:
        total += tl.load(address, mask=inside_b & inside_f, other=0.0)
    tl.store(address, total, mask=inside_b & inside_f)


class Tile(NamedTuple):
    """One program of a product."""

    rows: int
    columns: int
    warps: int
    stages: int
    flat: bool = True
    """One pipeline over all parts of the sum, or one for each part."""


WIDE = (Tile(64, 128, 4, 4), Tile(128, 64, 4, 4), Tile(64, 64, 4, 4), Tile(64, 32, 4, 4), Tile(32, 32, 4, 4))
"""Best first: the first that gives every multiprocessor one is taken."""
NARROW = (Tile(64, 64, 4, 4), Tile(64, 32, 4, 4), Tile(16, 32, 4, 4))
"""For x_proj."""
PROGRAMS_WANTED = 132


def product(
    x: Tensor, weight: Tensor, out: Tensor, scale: Tensor | None = None, add: bool = False, span: int | None = None
) -> Tensor:
    """Write x W^T, times `scale` (B), into out, or add it; in parts of `span`, by default quarters, of the depth."""
    rows, depth = x.shape
    features = weight.shape[0]

    def programs(tile: Tile) -> int:
        return -(-rows // tile.rows) * -(-features // tile.columns)

    tiles = WIDE if span is None else NARROW
    tile = next((tile for tile in tiles if programs(tile) >= PROGRAMS_WANTED), tiles[-1])
    return launch(x, weight, out, tile, quarter(depth) if span is None else span, scale, add)


def launch(x: Tensor, weight: Tensor, out: Tensor, tile: Tile, span: int, scale: Tensor | None, add: bool) -> Tensor:
    """`product` with a certain tile."""
    rows, features = x.shape[0], weight.shape[0]
    programs = -(-rows // tile.rows) * -(-features // tile.columns)
    _product_kernel[(programs,)](
        x, weight, scale, out, rows, features, x.stride(0), D=x.shape[1], SPAN=span, BLOCK_D=64,
        BLOCK_B=tile.rows, BLOCK_F=tile.columns, GROUP=8, STAGES=tile.stages, SCALE=scale is not None, ADD=add,
        FLAT=tile.flat, num_warps=tile.warps, **options(x.device),
    )  # fmt: skip
    return out
