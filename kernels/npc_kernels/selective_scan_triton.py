"""The selective scan on an NVIDIA GPU: Triton kernels and their autograd function.

One thread owns one channel and keeps its N states in registers. Tiles are (N, BLOCK_E) with the channels along the
lanes: Triton's default layout then gives each thread a whole column, sums over N cost no exchange between lanes, and
a row of B or C arrives as 128-bit loads that all lanes share. The maths is in `kernels/README.md`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
RESET = tl.constexpr(-1.0e30)  # added to an exponent it makes the decay exactly 0, also in a sum over a chunk


@triton.jit
def _softplus(v):
    """log(1 + exp(v)), exact for v > 20, by its series where 1 + exp(v) would round the exponential away."""
    e = tl.exp2(v * LOG2E)
    small = e * (1.0 - e * (0.5 - e * (0.3333333333333333 - e * (0.25 - e * 0.2))))
    large = tl.where(v > 20.0, v, tl.log2(1.0 + e) * LN2)
    return tl.where(e < 0.0625, small, large)


@triton.jit
def _sigmoid(v):
    return 1.0 / (1.0 + tl.exp2(-v * LOG2E))


@triton.jit
def _if(inside, offs, size):
    """Mask `offs < size` where the scalar `inside` holds, else nothing (the interpreter cannot spread a scalar bool)."""
    return offs < tl.where(inside, size, 0)


@triton.jit
def _rows(ptr, row, first, last, offs_e, E, STEPS: tl.constexpr):
    """Load STEPS rows of channels from `first` on, as a tuple; rows from `last` on read as zero."""
    rows = ()
    for s in tl.static_range(STEPS):
        t = first + s
        rows = rows + (tl.load(ptr + t.to(tl.int64) * row + offs_e, mask=_if(t < last, offs_e, E), other=0.0),)
    return rows


@triton.jit
def _row(ptr, t, last, offs_n, N: tl.constexpr):
    """Row t of B (or, from ptr + N, of C) in fp32, the same for every channel."""
    return tl.load(ptr + t.to(tl.int64) * 2 * N + offs_n, mask=_if(t < last, offs_n, N), other=0.0)


@triton.jit
def _delta(raw, bias, t, last):
    """Softplus of one row of dt; zero past the end, where a step must change nothing."""
    return tl.where(t < last, _softplus(raw.to(tl.float32) + bias), 0.0)


@triton.jit
def _border(seq_ptr, t, last, HAS_SEQ: tl.constexpr):
    """RESET where token t starts a new document, else 0."""
    shift = 0.0
    if HAS_SEQ:
        inside = (t > 0) & (t < last)
        here = tl.load(seq_ptr + t, mask=inside, other=0)
        before = tl.load(seq_ptr + t - 1, mask=inside, other=0)
        shift = tl.where(here != before, RESET, 0.0)
    return shift


@triton.jit
def _decay(delta, a2, shift, HAS_SEQ: tl.constexpr):
    """exp(delta A) for every state, 0 at a border. `a2` is A · log2(e)."""
    exponent = delta[None, :] * a2
    if HAS_SEQ:
        exponent += shift
    return tl.exp2(exponent)


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks"])
def _chunk_state_kernel(
    x_ptr, dt_ptr, bc_ptr, a_ptr, bias_ptr, seq_ptr, end_ptr, sum_ptr,
    L, E, chunk_len, n_chunks, x_batch, x_row, dt_batch, dt_row,
    N: tl.constexpr, BLOCK_E: tl.constexpr, STEPS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr,
):  # fmt: skip
    """State at the end of a chunk that starts from zero, and the sum of delta over it."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    offs_n, offs_e = tl.arange(0, N), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = offs_e < E
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    x_base, dt_base = x_ptr + batch * x_batch, dt_ptr + batch * dt_batch
    bc_base, seq_base = bc_ptr + batch * L * 2 * N, seq_ptr + batch * L
    first = chunk * chunk_len
    last = tl.minimum(first + chunk_len, L)
    state = tl.zeros((N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    xs, dts = _rows(x_base, x_row, first, last, offs_e, E, STEPS), _rows(dt_base, dt_row, first, last, offs_e, E, STEPS)
    for t0 in range(first, last, STEPS):
        next_xs = _rows(x_base, x_row, t0 + STEPS, last, offs_e, E, STEPS)
        next_dts = _rows(dt_base, dt_row, t0 + STEPS, last, offs_e, E, STEPS)
        for s in tl.static_range(STEPS):
            t = t0 + s
            delta = _delta(dts[s], bias, t, last)
            b_row = _row(bc_base, t, last, offs_n, N)
            shift = _border(seq_base, t, last, HAS_SEQ)
            state = _decay(delta, a2, shift, HAS_SEQ) * state + (delta * xs[s].to(tl.float32))[None, :] * b_row[:, None]
            total += delta - shift  # A is negative, so a border's share must be +1e30
        xs, dts = next_xs, next_dts
    place = batch * n_chunks + chunk
    tl.store(end_ptr + place * N * E + tile, state, mask=mask_e[None, :])
    tl.store(sum_ptr + place * E + offs_e, total, mask=mask_e)


@triton.jit(do_not_specialize=["E", "n_chunks"])
def _carry_kernel(
    local_ptr, sum_ptr, a_ptr, start_ptr, into_ptr, E, n_chunks,
    N: tl.constexpr, BLOCK_E: tl.constexpr, HAS_START: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Carry over the chunks, one after the other: what enters each chunk, from what each makes of zero."""
    batch = tl.program_id(1).to(tl.int64)
    offs_n, offs_e = tl.arange(0, N), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = offs_e < E
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    state = tl.zeros((N, BLOCK_E), tl.float32)
    if HAS_START:
        state = tl.load(start_ptr + batch * N * E + tile, mask=mask_e[None, :], other=0.0)
    for i in range(n_chunks):
        place = batch * n_chunks + (n_chunks - 1 - i if REVERSE else i)
        local = tl.load(local_ptr + place * N * E + tile, mask=mask_e[None, :], other=0.0)
        total = tl.load(sum_ptr + place * E + offs_e, mask=mask_e, other=0.0)
        tl.store(into_ptr + place * N * E + tile, state, mask=mask_e[None, :])
        state = tl.exp2(total[None, :] * a2) * state + local


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks", "n_saves"])
def _scan_fwd_kernel(
    x_ptr, dt_ptr, z_ptr, bc_ptr, a_ptr, d_ptr, bias_ptr, seq_ptr, start_ptr, y_ptr, final_ptr, save_ptr,
    L, E, chunk_len, n_chunks, n_saves, x_batch, x_row, dt_batch, dt_row, z_batch, z_row,
    N: tl.constexpr, BLOCK_E: tl.constexpr, STEPS: tl.constexpr, SAVE: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_START: tl.constexpr,
):  # fmt: skip
    """y and the final state of a chunk (all of L when there is one); every SAVE steps the state, for the backward."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    offs_n, offs_e = tl.arange(0, N), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = offs_e < E
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    skip = tl.load(d_ptr + offs_e, mask=mask_e, other=0.0) if HAS_D else 0.0
    x_base, dt_base = x_ptr + batch * x_batch, dt_ptr + batch * dt_batch
    z_base, y_base = z_ptr + batch * z_batch, y_ptr + batch * L * E + offs_e
    bc_base, seq_base = bc_ptr + batch * L * 2 * N, seq_ptr + batch * L
    first = chunk * chunk_len
    last = tl.minimum(first + chunk_len, L)
    state = tl.zeros((N, BLOCK_E), tl.float32)
    if HAS_START:
        state = tl.load(start_ptr + (batch * n_chunks + chunk) * N * E + tile, mask=mask_e[None, :], other=0.0)
    xs, dts = _rows(x_base, x_row, first, last, offs_e, E, STEPS), _rows(dt_base, dt_row, first, last, offs_e, E, STEPS)
    zs = _rows(z_base, z_row, first, last, offs_e, E, STEPS) if HAS_Z else ()
    for t0 in range(first, last, STEPS):
        next_xs = _rows(x_base, x_row, t0 + STEPS, last, offs_e, E, STEPS)
        next_dts = _rows(dt_base, dt_row, t0 + STEPS, last, offs_e, E, STEPS)
        next_zs = _rows(z_base, z_row, t0 + STEPS, last, offs_e, E, STEPS) if HAS_Z else ()
        if SAVE > 0:
            if t0 % SAVE == 0:
                place = batch * n_saves + t0 // SAVE
                tl.store(save_ptr + place * N * E + tile, state, mask=mask_e[None, :])
        for s in tl.static_range(STEPS):
            t = t0 + s
            x, delta = xs[s].to(tl.float32), _delta(dts[s], bias, t, last)
            b_row = _row(bc_base, t, last, offs_n, N)
            c_row = _row(bc_base + N, t, last, offs_n, N)
            shift = _border(seq_base, t, last, HAS_SEQ)
            state = _decay(delta, a2, shift, HAS_SEQ) * state + (delta * x)[None, :] * b_row[:, None]
            y = tl.sum(state * c_row[:, None], 0) + skip * x
            if HAS_Z:
                z = zs[s].to(tl.float32)
                y *= z * _sigmoid(z)
            tl.store(y_base + t.to(tl.int64) * E, y, mask=_if(t < last, offs_e, E))
        xs, dts, zs = next_xs, next_dts, next_zs
    if chunk == n_chunks - 1:
        tl.store(final_ptr + batch * N * E + tile, state, mask=mask_e[None, :])


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks"])
def _chunk_grad_kernel(
    dt_ptr, z_ptr, bc_ptr, a_ptr, bias_ptr, seq_ptr, dout_ptr, local_ptr, sum_ptr,
    L, E, chunk_len, n_chunks, dt_batch, dt_row, z_batch, z_row, dout_batch, dout_row,
    N: tl.constexpr, BLOCK_E: tl.constexpr, STEPS: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_SEQ: tl.constexpr,
):  # fmt: skip
    """Gradient for the state before a chunk when none comes from after it, and the sum of delta over the chunk."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    offs_n, offs_e = tl.arange(0, N), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = offs_e < E
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    dt_base, z_base = dt_ptr + batch * dt_batch, z_ptr + batch * z_batch
    dout_base, seq_base = dout_ptr + batch * dout_batch, seq_ptr + batch * L
    bc_base = bc_ptr + batch * L * 2 * N
    first = chunk * chunk_len
    last = tl.minimum(first + chunk_len, L)
    grad = tl.zeros((N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    for i in range(tl.cdiv(last - first, STEPS)):
        t0 = first + (tl.cdiv(last - first, STEPS) - 1 - i) * STEPS
        dts, dys = _rows(dt_base, dt_row, t0, last, offs_e, E, STEPS), _rows(dout_base, dout_row, t0, last, offs_e, E, STEPS)
        zs = _rows(z_base, z_row, t0, last, offs_e, E, STEPS) if HAS_Z else ()
        for r in tl.static_range(STEPS):
            t = t0 + (STEPS - 1 - r)
            delta, dy = _delta(dts[STEPS - 1 - r], bias, t, last), dys[STEPS - 1 - r].to(tl.float32)
            if HAS_Z:
                z = zs[STEPS - 1 - r].to(tl.float32)
                dy *= z * _sigmoid(z)
            c_row = _row(bc_base + N, t, last, offs_n, N)
            shift = _border(seq_base, t, last, HAS_SEQ)
            grad = _decay(delta, a2, shift, HAS_SEQ) * (grad + c_row[:, None] * dy[None, :])
            total += delta - shift
    place = batch * n_chunks + chunk
    tl.store(local_ptr + place * N * E + tile, grad, mask=mask_e[None, :])
    tl.store(sum_ptr + place * E + offs_e, total, mask=mask_e)


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks", "n_saves"])
def _scan_bwd_kernel(
    x_ptr, dt_ptr, z_ptr, bc_ptr, a_ptr, d_ptr, bias_ptr, seq_ptr, save_ptr, dout_ptr, into_ptr,
    dx_ptr, ddt_ptr, dz_ptr, part_ptr, dstart_ptr, dparam_ptr,
    L, E, chunk_len, n_chunks, n_saves, x_batch, x_row, dt_batch, dt_row, z_batch, z_row, dout_batch, dout_row,
    N: tl.constexpr, BLOCK_E: tl.constexpr, STEPS: tl.constexpr, SAVE: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_INTO: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk, newest token first.

    From each saved state SAVE steps are run again, the newest STEPS of them kept in registers and then walked back.
    dB and dC leave as sums over this program's channels, the gradients of A, D and the bias as sums over its tokens.
    """
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    offs_n, offs_e = tl.arange(0, N), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = offs_e < E
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    skip = tl.load(d_ptr + offs_e, mask=mask_e, other=0.0) if HAS_D else 0.0
    x_base, dt_base = x_ptr + batch * x_batch, dt_ptr + batch * dt_batch
    z_base, dout_base = z_ptr + batch * z_batch, dout_ptr + batch * dout_batch
    out = batch * L * E + offs_e
    bc_base, seq_base = bc_ptr + batch * L * 2 * N, seq_ptr + batch * L
    part_base = part_ptr + (batch * L * tl.num_programs(0) + tl.program_id(0)) * 2 * N
    part_row = tl.num_programs(0) * 2 * N
    first = chunk * chunk_len
    last = tl.minimum(first + chunk_len, L)
    grad = tl.zeros((N, BLOCK_E), tl.float32)
    if HAS_INTO:
        grad = tl.load(into_ptr + (batch * n_chunks + chunk) * N * E + tile, mask=mask_e[None, :], other=0.0)
    da = tl.zeros((N, BLOCK_E), tl.float32)
    dskip, dbias = tl.zeros((BLOCK_E,), tl.float32), tl.zeros((BLOCK_E,), tl.float32)
    groups = tl.cdiv(last - first, SAVE)
    for i in range(groups):
        t0 = first + (groups - 1 - i) * SAVE
        xs, dts = _rows(x_base, x_row, t0, last, offs_e, E, SAVE), _rows(dt_base, dt_row, t0, last, offs_e, E, SAVE)
        douts = _rows(dout_base, dout_row, t0, last, offs_e, E, SAVE)
        zs = _rows(z_base, z_row, t0, last, offs_e, E, SAVE) if HAS_Z else ()
        save_tile = save_ptr + (batch * n_saves + t0 // SAVE) * N * E + tile
        for block in tl.static_range(SAVE // STEPS):
            state = tl.load(save_tile, mask=mask_e[None, :], other=0.0)
            olds = ()  # what is left of the state before each kept step
            for s in tl.static_range(SAVE - block * STEPS):
                t = t0 + s
                delta = _delta(dts[s], bias, t, last)
                b_row = _row(bc_base, t, last, offs_n, N)
                old = _decay(delta, a2, _border(seq_base, t, last, HAS_SEQ), HAS_SEQ) * state
                state = old + (delta * xs[s].to(tl.float32))[None, :] * b_row[:, None]
                if s >= SAVE - (block + 1) * STEPS:
                    olds = olds + (old,)
            for r in tl.static_range(STEPS):
                t = t0 + (SAVE - 1 - block * STEPS - r)
                x, raw = xs[SAVE - 1 - block * STEPS - r].to(tl.float32), dts[SAVE - 1 - block * STEPS - r]
                delta = _delta(raw, bias, t, last)
                u, dy = delta * x, douts[SAVE - 1 - block * STEPS - r].to(tl.float32)
                b_row, c_row = _row(bc_base, t, last, offs_n, N), _row(bc_base + N, t, last, offs_n, N)
                old = olds[STEPS - 1 - r]
                state = old + u[None, :] * b_row[:, None]
                if HAS_Z:
                    z = zs[SAVE - 1 - block * STEPS - r].to(tl.float32)
                    gate = _sigmoid(z)
                    y = tl.sum(state * c_row[:, None], 0) + skip * x
                    dz = dy * y * gate * (1.0 + z * (1.0 - gate))
                    tl.store(dz_ptr + out + t.to(tl.int64) * E, dz, mask=_if(t < last, offs_e, E))
                    dy *= z * gate
                grad += c_row[:, None] * dy[None, :]
                part = part_base + t.to(tl.int64) * part_row + offs_n
                tl.store(part, tl.sum(grad * u[None, :], 1), mask=_if(t < last, offs_n, N))
                tl.store(part + N, tl.sum(state * dy[None, :], 1), mask=_if(t < last, offs_n, N))
                du = tl.sum(grad * b_row[:, None], 0)
                through = grad * old
                da += delta[None, :] * through
                ddelta = tl.sum(a2 * through, 0) * LN2 + x * du
                # the derivative of softplus: 1 - exp(-delta) loses digits for small delta, hence from dt itself
                ddt = tl.where(t < last, ddelta * _sigmoid(raw.to(tl.float32) + bias), 0.0)
                tl.store(ddt_ptr + out + t.to(tl.int64) * E, ddt, mask=_if(t < last, offs_e, E))
                tl.store(dx_ptr + out + t.to(tl.int64) * E, delta * du + skip * dy, mask=_if(t < last, offs_e, E))
                dbias += ddt
                dskip += dy * x
                grad *= _decay(delta, a2, _border(seq_base, t, last, HAS_SEQ), HAS_SEQ)
    if chunk == 0:
        tl.store(dstart_ptr + batch * N * E + tile, grad, mask=mask_e[None, :])
    param = dparam_ptr + (batch * n_chunks + chunk) * (N + 2) * E
    tl.store(param + tile, da, mask=mask_e[None, :])
    tl.store(param + N * E + offs_e, dskip, mask=mask_e)
    tl.store(param + (N + 1) * E + offs_e, dbias, mask=mask_e)


@triton.jit
def _reduce_kernel(part_ptr, db_ptr, dc_ptr, rows, blocks, N: tl.constexpr, ROWS: tl.constexpr):
    """Sum the parts of dB and dC over the blocks of channels, in order."""
    offs_row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    offs_n = tl.arange(0, N)
    mask = (offs_row < rows)[:, None]
    part = part_ptr + offs_row[:, None] * blocks * 2 * N + offs_n[None, :]
    db, dc = tl.zeros((ROWS, N), tl.float32), tl.zeros((ROWS, N), tl.float32)
    for i in range(blocks):
        db += tl.load(part + i * 2 * N, mask=mask, other=0.0)
        dc += tl.load(part + i * 2 * N + N, mask=mask, other=0.0)
    tl.store(db_ptr + offs_row[:, None] * N + offs_n[None, :], db, mask=mask)
    tl.store(dc_ptr + offs_row[:, None] * N + offs_n[None, :], dc, mask=mask)


# Steps between two saved states: 8 costs 64 bytes a channel and token in memory, half a recomputation of time.
SAVE_EVERY = 8
FWD_STEPS, BWD_STEPS, LANES = 4, 4, 32


class SelectiveScan(torch.autograd.Function):
    """`selective_scan` on tensors already checked; `chunk_len` 0 means the whole of L in one pass."""

    @staticmethod
    def forward(
        ctx: Any,
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
        chunk_len: int,
    ) -> tuple[Tensor, Tensor]:
        batch, length, channels = x.shape
        n_state = A.shape[1]
        a2 = (A.float() * LOG2E.value).t().contiguous()
        bc = torch.empty(batch, length, 2 * n_state, dtype=torch.float32, device=x.device)
        bc[..., :n_state].copy_(B)
        bc[..., n_state:].copy_(C)
        chunk_len = chunk_len or length
        n_chunks = -(-length // chunk_len)
        grid = (triton.cdiv(channels, LANES), n_chunks, batch)
        shape = {"N": n_state, "BLOCK_E": LANES, "num_warps": 1, "enable_fp_fusion": True}
        flags = {"HAS_BIAS": dt_bias is not None, "HAS_SEQ": seq_idx is not None}
        z_or_x, seq_or_x = x if z is None else z, x if seq_idx is None else seq_idx  # a pointer is needed to offset
        start = initial_state
        if n_chunks > 1:
            local, total, into = _chunk_buffers(x, n_chunks, n_state)
            _chunk_state_kernel[grid](
                x, dt, bc, a2, dt_bias, seq_or_x, local, total, length, channels, chunk_len, n_chunks,
                *_strides(x), *_strides(dt), STEPS=FWD_STEPS, **shape, **flags,
            )  # fmt: skip
            _carry_kernel[grid[0], batch](
                local, total, a2, initial_state, into, channels, n_chunks,
                HAS_START=initial_state is not None, REVERSE=False, **shape,
            )  # fmt: skip
            start = into
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        final = torch.empty(batch, n_state, channels, dtype=torch.float32, device=x.device)
        save_every = SAVE_EVERY if any(ctx.needs_input_grad) else 0
        n_saves = -(-length // save_every) if save_every else 0
        saves = torch.empty(batch, n_saves, n_state, channels, dtype=torch.float32, device=x.device)
        _scan_fwd_kernel[grid](
            x, dt, z_or_x, bc, a2, D, dt_bias, seq_or_x, start, y, final, saves,
            length, channels, chunk_len, n_chunks, n_saves, *_strides(x), *_strides(dt), *_strides(z),
            STEPS=FWD_STEPS, SAVE=save_every, HAS_D=D is not None, HAS_Z=z is not None, HAS_START=start is not None,
            **shape, **flags,
        )  # fmt: skip
        ctx.save_for_backward(x, dt, z, bc, a2, D, dt_bias, seq_idx, saves)
        ctx.chunk_len, ctx.dtypes = chunk_len, (A.dtype, B.dtype, C.dtype)
        ctx.has_start = initial_state is not None
        ctx.set_materialize_grads(False)
        return y, final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, dt, z, bc, a2, D, dt_bias, seq_idx, saves = ctx.saved_tensors
        dout, dfinal = grads
        dout = torch.zeros_like(x) if dout is None else _rows_contiguous(dout)
        batch, length, channels = x.shape
        n_state, chunk_len = a2.shape[0], ctx.chunk_len
        n_chunks = -(-length // chunk_len)
        grid = (triton.cdiv(channels, LANES), n_chunks, batch)
        shape = {"N": n_state, "BLOCK_E": LANES, "num_warps": 1, "enable_fp_fusion": True}
        flags = {"HAS_BIAS": dt_bias is not None, "HAS_SEQ": seq_idx is not None, "HAS_Z": z is not None}
        z_or_x, seq_or_x = x if z is None else z, x if seq_idx is None else seq_idx
        into = None if dfinal is None else dfinal.float().contiguous()
        if n_chunks > 1:
            local, total, carried = _chunk_buffers(x, n_chunks, n_state)
            _chunk_grad_kernel[grid](
                dt, z_or_x, bc, a2, dt_bias, seq_or_x, dout, local, total, length, channels, chunk_len, n_chunks,
                *_strides(dt), *_strides(z), *_strides(dout), STEPS=FWD_STEPS, **shape, **flags,
            )  # fmt: skip
            _carry_kernel[grid[0], batch](
                local, total, a2, into, carried, channels, n_chunks, HAS_START=into is not None, REVERSE=True, **shape
            )
            into = carried
        dx, ddt = (torch.empty(x.shape, dtype=t.dtype, device=x.device) for t in (x, dt))
        dz = None if z is None else torch.empty(x.shape, dtype=z.dtype, device=x.device)
        part = torch.empty(batch, length, grid[0], 2, n_state, dtype=torch.float32, device=x.device)
        dstart = torch.empty(batch, n_state, channels, dtype=torch.float32, device=x.device)
        dparam = torch.empty(batch * n_chunks, n_state + 2, channels, dtype=torch.float32, device=x.device)
        _scan_bwd_kernel[grid](
            x, dt, z_or_x, bc, a2, D, dt_bias, seq_or_x, saves, dout, into, dx, ddt, dx if z is None else dz, part, dstart, dparam,
            length, channels, chunk_len, n_chunks, saves.shape[1],
            *_strides(x), *_strides(dt), *_strides(z), *_strides(dout),
            STEPS=BWD_STEPS, SAVE=SAVE_EVERY, HAS_D=D is not None, HAS_INTO=into is not None, **shape, **flags,
        )  # fmt: skip
        db, dc = (torch.empty(batch, length, n_state, dtype=d, device=x.device) for d in ctx.dtypes[1:])
        _reduce_kernel[(triton.cdiv(batch * length, 16),)](part, db, dc, batch * length, grid[0], N=n_state, ROWS=16)
        dparam = dparam.sum(0)
        return (
            dx, ddt, dparam[:n_state].t().to(ctx.dtypes[0]), db, dc,
            None if D is None else dparam[n_state].to(D.dtype), dz,
            None if dt_bias is None else dparam[n_state + 1].to(dt_bias.dtype),
            dstart if ctx.has_start else None, None, None,
        )  # fmt: skip


def _chunk_buffers(x: Tensor, n_chunks: int, n_state: int) -> tuple[Tensor, Tensor, Tensor]:
    """What each chunk makes of zero, its sum of delta, and what the carry brings into it."""
    batch, _, channels = x.shape
    local, into = torch.empty(2, batch, n_chunks, n_state, channels, dtype=torch.float32, device=x.device)
    return local, torch.empty(batch, n_chunks, channels, dtype=torch.float32, device=x.device), into


def _strides(t: Tensor | None) -> tuple[int, int]:
    """Strides over the batch and over L."""
    return (0, 0) if t is None else (t.stride(0), t.stride(1))


def _rows_contiguous(t: Tensor) -> Tensor:
    """Give the tensor itself if its channels lie side by side, else a copy."""
    return t if t.stride(-1) == 1 else t.contiguous()
