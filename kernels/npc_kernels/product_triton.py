"""Matrix products for many rows on an NVIDIA GPU, summed in the order in which step_triton sums them for few."""

# Triton's kernels are not Python: their arguments have no Python types.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import triton
import triton.language as tl

from npc_kernels._scan_parts import _prefetch
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
    SCALE: tl.constexpr, ADD: tl.constexpr, LOOP: tl.constexpr, AHEAD: tl.constexpr,
    LINES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = x W^T, times scale (SCALE), added to out (ADD), summed in parts of SPAN of D."""
    _let_next_start(PDL == 1)
    if not AHEAD:
        _wait_for_previous(PDL)
    offs_b, offs_f = _place(tl.program_id(0), rows, F, BLOCK_B, BLOCK_F, GROUP)
    offs_d = tl.arange(0, BLOCK_D)
    inside_b, inside_f = (offs_b < rows)[:, None], (offs_f < F)[None, :]
    x_at = x_ptr + offs_b.to(tl.int64)[:, None] * x_row + offs_d[None, :]
    w_at = weight_ptr + offs_f.to(tl.int64)[None, :] * D + offs_d[:, None]
    if AHEAD:  # the weights, a line of 128 bytes each, come into the L2 cache while the rows are still made
        lines = tl.arange(0, LINES) * 64
        w_line = tl.minimum(offs_f, F - 1).to(tl.int64)[:, None] * D + tl.minimum(lines, D - 1)[None, :]
        _prefetch(weight_ptr + w_line, 2)
        _wait_for_previous(PDL)
    total = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
    if LOOP == "one":  # one pipeline of loads over all parts; a part's end waits for the matrix unit alone
        x_at = x_ptr + tl.minimum(offs_b, rows - 1).to(tl.int64)[:, None] * x_row + offs_d[None, :]
        w_at = weight_ptr + tl.minimum(offs_f, F - 1).to(tl.int64)[None, :] * D + offs_d[:, None]
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
    elif SPAN >= D:
        for i in tl.range(0, D, BLOCK_D, num_stages=STAGES):
            x = tl.load(x_at + i, mask=inside_b & (i + offs_d < D)[None, :], other=0.0)
            w = tl.load(w_at + i, mask=inside_f & (i + offs_d < D)[:, None], other=0.0)
            total = tl.dot(x.to(w.dtype), w, total)
    elif LOOP == "flat":
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
    _let_next_start(PDL == 2)
    _write(total, scale_ptr, out_ptr, offs_b, offs_f, rows, F, SCALE, ADD)


@triton.jit(do_not_specialize=["rows"])
def _persistent_product_kernel(
    x_ptr, weight_ptr, scale_ptr, out_ptr, rows, F, x_row, D: tl.constexpr, SPAN: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_F: tl.constexpr, GROUP: tl.constexpr, STAGES: tl.constexpr,
    SCALE: tl.constexpr, ADD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The same, one program a multiprocessor: its loads run on over the ends of tiles."""
    _let_next_start(PDL == 1)
    _wait_for_previous(PDL)
    STEPS: tl.constexpr = D // BLOCK_D
    tiles = tl.cdiv(F, BLOCK_F) * tl.cdiv(rows, BLOCK_B)
    own = tl.cdiv(tiles - tl.program_id(0), tl.num_programs(0))
    offs_d = tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
    part = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
    for j in tl.range(0, own * STEPS, num_stages=STAGES):
        tile = tl.program_id(0) + (j // STEPS) * tl.num_programs(0)
        done = (j % STEPS + 1) * BLOCK_D
        offs_b, offs_f = _place(tile, rows, F, BLOCK_B, BLOCK_F, GROUP)
        near_b, near_f = tl.minimum(offs_b, rows - 1).to(tl.int64), tl.minimum(offs_f, F - 1).to(tl.int64)
        x = tl.load(x_ptr + near_b[:, None] * x_row + (done - BLOCK_D + offs_d)[None, :])
        w = tl.load(weight_ptr + near_f[None, :] * D + (done - BLOCK_D + offs_d)[:, None])
        part = tl.dot(x, w, part)
        if done % SPAN == 0:
            total += part
            part = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
            if done == D:
                _write(total, scale_ptr, out_ptr, offs_b, offs_f, rows, F, SCALE, ADD)
                total = tl.zeros((BLOCK_B, BLOCK_F), tl.float32)
    _let_next_start(PDL == 2)


class Tile(NamedTuple):
    """One program of a product."""

    rows: int
    columns: int
    warps: int
    stages: int
    loop: str = "flat"
    """"flat": a loop over parts around one over their depth; "parts": the parts unrolled; "one": a single loop;
    "persistent": one loop over all tiles of a multiprocessor."""
    depth: int = 64
    """What one step of the loop multiplies."""
    ahead: bool = False
    """Whether weights are asked for before the kernel before has ended (with an early start only)."""


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
    tile = tile_for(rows, depth, weight.shape[0], span is not None)
    return launch(x, weight, out, tile, quarter(depth) if span is None else span, scale, add)


def tile_for(rows: int, depth: int, features: int, narrow: bool) -> Tile:
    """The tile of a product (rows, depth) x (depth, features)."""
    tiles = NARROW if narrow else WIDE
    return next((t for t in tiles if -(-rows // t.rows) * -(-features // t.columns) >= PROGRAMS_WANTED), tiles[-1])


def launch(x: Tensor, weight: Tensor, out: Tensor, tile: Tile, span: int, scale: Tensor | None, add: bool) -> Tensor:
    """`product` with a certain tile."""
    rows, features = x.shape[0], weight.shape[0]
    switches = options(x.device, rows)
    programs = -(-rows // tile.rows) * -(-features // tile.columns)
    if tile.loop == "persistent" and x.shape[1] % tile.depth == 0 and x.shape[1] % span == 0:
        _persistent_product_kernel[(min(programs, PROGRAMS_WANTED),)](
            x, weight, scale, out, rows, features, x.stride(0), D=x.shape[1], SPAN=span, BLOCK_D=tile.depth,
            BLOCK_B=tile.rows, BLOCK_F=tile.columns, GROUP=8, STAGES=tile.stages, SCALE=scale is not None, ADD=add,
            num_warps=tile.warps, **switches,
        )  # fmt: skip
        return out
    _product_kernel[(programs,)](
        x, weight, scale, out, rows, features, x.stride(0), D=x.shape[1], SPAN=span, BLOCK_D=tile.depth,
        BLOCK_B=tile.rows, BLOCK_F=tile.columns, GROUP=8, STAGES=tile.stages, SCALE=scale is not None, ADD=add,
        LOOP=tile.loop, AHEAD=tile.ahead and bool(switches["PDL"]),
        LINES=max(1, triton.next_power_of_2(x.shape[1]) // 64), num_warps=tile.warps, **switches,
    )  # fmt: skip
    return out
