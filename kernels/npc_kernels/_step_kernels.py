"""The kernels of the decode step, in Triton; step_triton launches them.

Every sum runs in one order whatever the number of rows, here and in product_triton: products in four quarters of their
depth, x_proj in shares of 128 channels, states and squares by a tree of neighbours.
"""

# Triton's kernels are not Python: their arguments have no Python types, and its tuples grow by addition only.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from npc_kernels._scan_parts import LOG2E, _sigmoid, _softplus


@triton.jit
def _let_next_start(PDL: tl.constexpr):
    if PDL:
        tl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def _wait_for_previous(PDL: tl.constexpr):
    """Until this nothing may be read that a kernel since `_embed_kernel` writes, and nothing written."""
    if PDL:
        tl.inline_asm_elementwise("griddepcontrol.wait; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def _embed_kernel(token_ptr, table_ptr, out_ptr, D, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """out = table[token] in fp32."""
    _let_next_start(PDL == 1)
    _wait_for_previous(PDL)
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    value = tl.load(table_ptr + tl.load(token_ptr + row).to(tl.int64) * D + offs, mask=offs < D, other=0.0)
    tl.store(out_ptr + row * D + offs, value.to(tl.float32), mask=offs < D)


@triton.jit
def _sum_of_four(quarters):
    """((q0 + q1) + q2) + q3 over the first of three dimensions."""
    last = tl.permute(quarters, 1, 2, 0)
    even, odd = tl.split(tl.reshape(last, last.shape[0], last.shape[1], 2, 2))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return ((first + second) + third) + fourth


@triton.jit
def _sum_pairs(tile, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    """Sums (ROWS) of a tile's (ROWS, 2 ** LEVELS) rows, neighbours first: an order that no layout changes."""
    for i in tl.static_range(LEVELS):
        even, odd = tl.split(tl.reshape(tile, ROWS, 1 << (LEVELS - 1 - i), 2))
        tile = even + odd
    return tl.reshape(tile, ROWS)


@triton.jit
def _scale(squares, D: tl.constexpr, eps, BLOCK_B: tl.constexpr):
    """The norm's factor (BLOCK_B, 1) from the squares (4, BLOCK_B, 64) of the quarters."""
    for i in tl.static_range(6):
        even, odd = tl.split(tl.reshape(squares, 4, BLOCK_B, 32 >> i, 2))
        squares = even + odd
    return 1.0 / tl.sqrt(_sum_of_four(squares) / D + eps)


@triton.jit(do_not_specialize=["rows"])
def _norm_linear_kernel(
    x_ptr, norm_ptr, weight_ptr, out_ptr, rows, F, eps, D: tl.constexpr, QUARTER: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_F: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = norm(x) W^T. Each of four warps sums a QUARTER of D in the order of D."""
    _let_next_start(PDL == 1)
    offs_b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_f = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    offs_d = tl.arange(0, 4)[:, None, None] * QUARTER + tl.arange(0, 64)[None, None, :]
    inside_b, inside_f = (offs_b < rows)[None, :, None], (offs_f < F)[None, :, None]
    weights = ()
    for i in tl.static_range(0, QUARTER, 64):
        address = weight_ptr + offs_f.to(tl.int64)[None, :, None] * D + i + offs_d
        weights = weights + (tl.load(address, mask=inside_f & (i + offs_d < D), other=0.0),)
    _wait_for_previous(PDL)
    squares = tl.zeros((4, BLOCK_B, 64), tl.float32)
    acc = tl.zeros((4, BLOCK_B, BLOCK_F), tl.float32)
    for i in tl.static_range(0, QUARTER, 64):
        x_at = x_ptr + offs_b.to(tl.int64)[None, :, None] * D + i + offs_d
        x = tl.load(x_at, mask=inside_b & (i + offs_d < D), other=0.0)
        squares += x * x
        x *= tl.load(norm_ptr + i + offs_d, mask=i + offs_d < D, other=0.0)
        weight = weights[i // 64]
        acc = tl.dot(x.to(weight.dtype), tl.trans(weight, 0, 2, 1), acc, input_precision=PRECISION)
    out = _sum_of_four(acc) * _scale(squares, D, eps, BLOCK_B)
    address = out_ptr + offs_b.to(tl.int64)[:, None] * F + offs_f[None, :]
    tl.store(address, out, mask=(offs_b < rows)[:, None] & (offs_f < F)[None, :])


@triton.jit(do_not_specialize=["rows"])
def _norm_kernel(
    x_ptr, norm_ptr, out_ptr, scale_ptr, rows, eps, D: tl.constexpr, QUARTER: tl.constexpr, BLOCK_B: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """The norm of _norm_linear_kernel alone: out = x norm, and the factor that is still to come."""
    _let_next_start(PDL == 1)
    _wait_for_previous(PDL)
    offs_b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_d = tl.arange(0, 4)[:, None, None] * QUARTER + tl.arange(0, 64)[None, None, :]
    offs = offs_b.to(tl.int64)[None, :, None] * D + offs_d
    squares = tl.zeros((4, BLOCK_B, 64), tl.float32)
    for i in tl.static_range(0, QUARTER, 64):
        mask = (offs_b < rows)[None, :, None] & (i + offs_d < D)
        x = tl.load(x_ptr + offs + i, mask=mask, other=0.0)
        squares += x * x
        tl.store(out_ptr + offs + i, x * tl.load(norm_ptr + i + offs_d, mask=i + offs_d < D, other=0.0), mask=mask)
    _let_next_start(PDL == 2)
    scale = _scale(squares, D, eps, BLOCK_B)
    tl.store(scale_ptr + offs_b[:, None], scale, mask=(offs_b < rows)[:, None])


@triton.jit(do_not_specialize=["rows"])
def _linear_add_kernel(
    x_ptr, weight_ptr, out_ptr, rows, F, D: tl.constexpr, QUARTER: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_F: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out += x W^T. Each of four warps sums a QUARTER of D in the order of D."""
    _let_next_start(PDL == 1)
    offs_b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_f = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    offs_d = tl.arange(0, 4)[:, None, None] * QUARTER + tl.arange(0, 64)[None, None, :]
    inside_b, inside_f = (offs_b < rows)[None, :, None], (offs_f < F)[None, :, None]
    weights = ()
    for i in tl.static_range(0, QUARTER, 64):
        address = weight_ptr + offs_f.to(tl.int64)[None, :, None] * D + i + offs_d
        weights = weights + (tl.load(address, mask=inside_f & (i + offs_d < D), other=0.0),)
    _wait_for_previous(PDL)
    address = out_ptr + offs_b.to(tl.int64)[:, None] * F + offs_f[None, :]
    mask = (offs_b < rows)[:, None] & (offs_f < F)[None, :]
    before = tl.load(address, mask=mask, other=0.0)
    acc = tl.zeros((4, BLOCK_B, BLOCK_F), tl.float32)
    for i in tl.static_range(0, QUARTER, 64):
        x_at = x_ptr + offs_b.to(tl.int64)[None, :, None] * D + i + offs_d
        x = tl.load(x_at, mask=inside_b & (i + offs_d < D), other=0.0)
        acc = tl.dot(x, tl.trans(weights[i // 64], 0, 2, 1), acc, input_precision=PRECISION)
    tl.store(address, _sum_of_four(acc) + before, mask=mask)


@triton.jit
def _past(store_ptr, slots, slot_stride, offs_e, E, K: tl.constexpr):
    """The K - 1 inputs before, oldest first, each a tile (rows, channels)."""
    mask = (slots >= 0)[:, None] & (offs_e < E)[None, :]
    line = store_ptr + slots.to(tl.int64)[:, None] * slot_stride + offs_e[None, :]
    past = ()
    for k in tl.static_range(K - 1):
        past = past + (tl.load(line + k * E, mask=mask, other=0.0),)
    return past


@triton.jit
def _convolve(
    x, past, store_ptr, slots, slot_stride, weight_ptr, bias_ptr, w_e, w_k, offs_e, E, K: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """SiLU(convolution) of a tile (rows, channels), zero where slots is negative; moves the store on."""
    inside = offs_e < E
    mask = (slots >= 0)[:, None] & inside[None, :]
    line = store_ptr + slots.to(tl.int64)[:, None] * slot_stride + offs_e[None, :]
    y = x * tl.load(weight_ptr + offs_e * w_e + (K - 1) * w_k, mask=inside, other=0.0)[None, :]
    if HAS_BIAS:
        y += tl.load(bias_ptr + offs_e, mask=inside, other=0.0)[None, :]
    for k in tl.static_range(K - 1):
        y += past[k].to(tl.float32) * tl.load(weight_ptr + offs_e * w_e + k * w_k, mask=inside, other=0.0)[None, :]
    tl.debug_barrier()  # should a store be laid out over the threads otherwise than the loads
    for k in tl.static_range(1, K - 1):
        tl.store(line + (k - 1) * E, past[k], mask=mask)
    tl.store(line + (K - 2) * E, x, mask=mask)
    return tl.where(mask, y * _sigmoid(y), 0.0)


@triton.jit(do_not_specialize=["rows"])
def _conv_kernel(
    x_ptr, store_ptr, slots_ptr, weight_ptr, bias_ptr, y_ptr, rows, E, x_row, slot_stride, w_e, w_k,
    K: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_E: tl.constexpr, HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    _let_next_start(PDL == 1)
    _wait_for_previous(PDL)
    offs_b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask = (offs_b < rows)[:, None] & (offs_e < E)[None, :]
    slots = tl.load(slots_ptr + offs_b, mask=offs_b < rows, other=-1)
    x = tl.load(x_ptr + offs_b.to(tl.int64)[:, None] * x_row + offs_e[None, :], mask=mask, other=0.0).to(tl.float32)
    past = _past(store_ptr, slots, slot_stride, offs_e, E, K)
    _let_next_start(PDL == 2)
    y = _convolve(x, past, store_ptr, slots, slot_stride, weight_ptr, bias_ptr, w_e, w_k, offs_e, E, K, HAS_BIAS)
    tl.store(y_ptr + offs_b.to(tl.int64)[:, None] * E + offs_e[None, :], y, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def _conv_project_kernel(
    x_ptr, store_ptr, slots_ptr, weight_ptr, bias_ptr, proj_ptr, y_ptr, part_ptr, rows, E, x_row, slot_stride,
    w_e, w_k, K: tl.constexpr, P: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The convolution of a block of channels, and that block's share of x_proj: part (blocks, rows, P)."""
    _let_next_start(PDL == 1)
    block = tl.program_id(0)
    offs_b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_e = block * BLOCK_E + tl.arange(0, BLOCK_E)
    offs_p = tl.arange(0, BLOCK_P)
    proj_mask = (offs_p < P)[:, None] & (offs_e < E)[None, :]
    proj = tl.load(proj_ptr + offs_p[:, None] * E + offs_e[None, :], mask=proj_mask, other=0.0)
    if not EARLY:
        _wait_for_previous(PDL)
    slots = tl.load(slots_ptr + offs_b, mask=offs_b < rows, other=-1)
    past = _past(store_ptr, slots, slot_stride, offs_e, E, K)
    if EARLY:
        _wait_for_previous(PDL)
    mask = (offs_b < rows)[:, None] & (offs_e < E)[None, :]
    x = tl.load(x_ptr + offs_b.to(tl.int64)[:, None] * x_row + offs_e[None, :], mask=mask, other=0.0).to(tl.float32)
    y = _convolve(x, past, store_ptr, slots, slot_stride, weight_ptr, bias_ptr, w_e, w_k, offs_e, E, K, True)
    y = y.to(proj.dtype)
    tl.store(y_ptr + offs_b.to(tl.int64)[:, None] * E + offs_e[None, :], y, mask=mask)
    part = tl.dot(y, tl.trans(proj), input_precision=PRECISION)
    address = part_ptr + (block.to(tl.int64) * rows + offs_b[:, None]) * P + offs_p[None, :]
    tl.store(address, part, mask=(offs_b < rows)[:, None] & (offs_p < P)[None, :])


@triton.jit
def _shares(ptr, stride, offs, size, SHARES: tl.constexpr):
    """A vector of `size` at ptr in fp32: the sum of SHARES of them, `stride` apart, in order."""
    vector = tl.load(ptr + offs, mask=offs < size, other=0.0).to(tl.float32)
    for i in tl.static_range(1, SHARES):
        vector += tl.load(ptr + i * stride + offs, mask=offs < size, other=0.0)
    return vector


@triton.jit
def _low_rank(ptr, stride, dtw, offs_r, R: tl.constexpr, BLOCK_E: tl.constexpr, SHARES: tl.constexpr):
    """dt (BLOCK_E) from its low rank and the matrix dtw (R, BLOCK_E), by the matrix unit: ours is a row of sixteen."""
    low = _shares(ptr, stride, offs_r, R, SHARES)
    low = tl.where((tl.arange(0, 16) == 0)[:, None], low[None, :], 0.0).to(dtw.dtype)
    precision: tl.constexpr = "tf32x3" if dtw.dtype == tl.float32 else "tf32"
    raw = tl.sum(tl.dot(low, dtw, input_precision=precision), 0)
    # each thread takes the channels it needs, or softplus would run for all that the matrix unit left it
    return tl.gather(raw, tl.arange(0, BLOCK_E), 0).to(dtw.dtype).to(tl.float32)


@triton.jit(do_not_specialize=["rows", "share"])
def _dt_kernel(
    dt_ptr, dtw_ptr, out_ptr, rows, E, dt_row, dtw_e, dtw_r, share, R: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_E: tl.constexpr, SHARES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """dt (rows, E) from the shares of its low rank, as `_low_rank` makes it."""
    _let_next_start(PDL == 1)
    offs_b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_e, offs_r = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_R)
    dtw_mask = (offs_r < R)[:, None] & (offs_e < E)[None, :]
    dtw = tl.load(dtw_ptr + offs_r[:, None] * dtw_r + offs_e[None, :] * dtw_e, mask=dtw_mask, other=0.0)
    _wait_for_previous(PDL)
    at = dt_ptr + offs_b.to(tl.int64)[:, None] * dt_row + offs_r[None, :]
    mask = (offs_b < rows)[:, None] & (offs_r < R)[None, :]
    low = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    for i in tl.static_range(1, SHARES):
        low += tl.load(at + i * share, mask=mask, other=0.0)
    precision: tl.constexpr = "tf32x3" if dtw.dtype == tl.float32 else "tf32"
    raw = tl.dot(low.to(dtw.dtype), dtw, input_precision=precision)
    out_mask = (offs_b < rows)[:, None] & (offs_e < E)[None, :]
    tl.store(out_ptr + offs_b.to(tl.int64)[:, None] * E + offs_e[None, :], raw.to(dtw.dtype), mask=out_mask)


@triton.jit(do_not_specialize=["share"])
def _state_kernel(
    store_ptr, slots_ptr, x_ptr, dt_ptr, bias_ptr, a_ptr, b_ptr, c_ptr, d_ptr, z_ptr, dtw_ptr, y_ptr,
    E, slot_stride, x_row, dt_row, b_row, c_row, z_row, a_e, a_n, dtw_e, dtw_r, share,
    N: tl.constexpr, LEVELS: tl.constexpr, R: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_E: tl.constexpr,
    SHARES: tl.constexpr, ROW_FIRST: tl.constexpr, EVICT: tl.constexpr, EARLY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The recurrence of a block of channels of a row. R > 0: dt is of low rank and goes through dtw first."""
    _let_next_start(PDL == 1)
    row = tl.program_id(0 if ROW_FIRST else 1).to(tl.int64)
    offs_e, offs_n = tl.program_id(1 if ROW_FIRST else 0) * BLOCK_E + tl.arange(0, BLOCK_E), tl.arange(0, N)
    inside = offs_e < E
    a = tl.load(a_ptr + offs_n[:, None] * a_n + offs_e[None, :] * a_e, mask=inside[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=inside, other=0.0).to(tl.float32)
    skip = tl.load(d_ptr + offs_e, mask=inside, other=0.0).to(tl.float32)
    if R > 0:
        offs_r = tl.arange(0, BLOCK_R)
        dtw_mask = (offs_r < R)[:, None] & inside[None, :]
        dtw = tl.load(dtw_ptr + offs_r[:, None] * dtw_r + offs_e[None, :] * dtw_e, mask=dtw_mask, other=0.0)
    if not EARLY:
        _wait_for_previous(PDL)
    slot = tl.load(slots_ptr + row).to(tl.int64)
    live = (offs_e < tl.where(slot >= 0, E, 0))[None, :]
    place = store_ptr + slot * slot_stride + offs_n[:, None] * E + offs_e[None, :]
    state = tl.load(place, mask=live, other=0.0, eviction_policy=EVICT).to(tl.float32)
    if EARLY:
        _wait_for_previous(PDL)
    x = tl.load(x_ptr + row * x_row + offs_e, mask=inside, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + row * z_row + offs_e, mask=inside, other=0.0).to(tl.float32)
    b = _shares(b_ptr + row * b_row, share, offs_n, N, SHARES)
    c = _shares(c_ptr + row * c_row, share, offs_n, N, SHARES)
    if R > 0:
        raw = _low_rank(dt_ptr + row * dt_row, share, dtw, offs_r, R, BLOCK_E, SHARES)
    else:
        raw = tl.load(dt_ptr + row * dt_row + offs_e, mask=inside, other=0.0).to(tl.float32)
    _let_next_start(PDL == 2)
    delta = _softplus(raw + bias)
    state = tl.exp2((delta * LOG2E)[None, :] * a) * state + b[:, None] * (delta * x)[None, :]
    tl.store(place, state, mask=live, eviction_policy=EVICT)
    y = (_sum_pairs(tl.trans(state * c[:, None]), BLOCK_E, LEVELS) + skip * x) * (z * _sigmoid(z))
    tl.store(y_ptr + row * E + offs_e, tl.where(slot >= 0, y, 0.0), mask=inside)
