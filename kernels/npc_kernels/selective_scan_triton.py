"""The selective scan on an NVIDIA GPU: Triton kernels and their autograd function.

One thread owns one channel and keeps its N states in registers: sums over N cost no exchange between lanes, and a row
of B or C arrives as 128-bit loads that all lanes share. Latencies are hidden by loading ahead, not by many warps. The
maths is in `kernels/README.md`.
"""

# Triton's kernels are not Python: their arguments have no Python types, and its tuples grow by addition only.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated,misc"
# ruff: noqa: RUF005

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from npc_kernels._scan_parts import (
    LN2,
    LOG2E,
    _borders,
    _decay,
    _delta,
    _if,
    _prefetch,
    _row,
    _rows,
    _shift,
    _sigmoid,
    _states,
    _store_channel_sums,
    _zero,
)


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks"])
def _chunk_state_kernel(
    x_ptr, dt_ptr, bc_ptr, a_ptr, bias_ptr, seq_ptr, end_ptr, sum_ptr,
    L, E, chunk_len, n_chunks, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr, STEPS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """State at the end of a chunk that starts from zero, and the sum of delta over it."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = chunk * chunk_len
    count = tl.minimum(chunk_len, L - first)
    token = batch * L + first
    offs_n, offs_e = _states(N, BLOCK_E), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = _if(True, offs_e, E, FULL)
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    start = first.to(tl.int64)
    x_base, dt_base = x_ptr + batch * x_batch + start * x_row, dt_ptr + batch * dt_batch + start * dt_row
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    state = tl.zeros((N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    b_rows = ()
    for i in tl.static_range(AHEAD):
        b_rows = b_rows + (_row(bc_base, tl.minimum(i, count - 1), count, offs_n, N, BLOCK_E, ASM, FULL),)
    xs = _rows(x_base, x_row, 0, count, offs_e, E, STEPS, FULL)
    dts = _rows(dt_base, dt_row, 0, count, offs_e, E, STEPS, FULL)
    for t0 in range(0, count, STEPS):
        next_xs = _rows(x_base, x_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        next_dts = _rows(dt_base, dt_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        shifts = _borders(seq_base, first, t0, count, STEPS, HAS_SEQ, FULL)
        for s in tl.static_range(STEPS):
            t = t0 + s
            delta, shift = _delta(dts[s], bias, t, count, FULL), shifts[s]
            if AHEAD > 0:
                b_row, later = b_rows[0], tl.minimum(t + AHEAD, count - 1)
                b_rows = _shift(b_rows, _row(bc_base, later, count, offs_n, N, BLOCK_E, ASM, FULL), AHEAD)
            else:
                b_row = _row(bc_base, t, count, offs_n, N, BLOCK_E, ASM, FULL)
            state = _decay(delta, a2, shift, HAS_SEQ) * state + (delta * xs[s].to(tl.float32))[None, :] * b_row
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
    L, E, chunk_len, n_chunks, n_saves, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr,
    z_batch, z_row: tl.constexpr, out_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr,
    STEPS: tl.constexpr, SAVE: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_START: tl.constexpr,
    PREFETCH: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """y and the final state of a chunk (all of L when there is one); every SAVE steps the state, for the backward."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = chunk * chunk_len
    count = tl.minimum(chunk_len, L - first)
    token = batch * L + first
    offs_n, offs_e = _states(N, BLOCK_E), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = _if(True, offs_e, E, FULL)
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    skip = tl.load(d_ptr + offs_e, mask=mask_e, other=0.0) if HAS_D else 0.0
    start = first.to(tl.int64)
    x_base, dt_base = x_ptr + batch * x_batch + start * x_row, dt_ptr + batch * dt_batch + start * dt_row
    z_base, y_base = z_ptr + batch * z_batch + start * z_row, y_ptr + token * E + offs_e
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    state = tl.zeros((N, BLOCK_E), tl.float32)
    if HAS_START:
        state = tl.load(start_ptr + (batch * n_chunks + chunk) * N * E + tile, mask=mask_e[None, :], other=0.0)
    xs = _rows(x_base, x_row, 0, count, offs_e, E, STEPS, FULL)
    dts = _rows(dt_base, dt_row, 0, count, offs_e, E, STEPS, FULL)
    zs = _rows(z_base, z_row, 0, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
    shifts = _borders(seq_base, first, 0, count, STEPS, HAS_SEQ, FULL)
    b_rows, c_rows = (), ()
    for i in tl.static_range(AHEAD):
        b_rows = b_rows + (_row(bc_base, tl.minimum(i, count - 1), count, offs_n, N, BLOCK_E, ASM, FULL),)
        c_rows = c_rows + (_row(bc_base + N, tl.minimum(i, count - 1), count, offs_n, N, BLOCK_E, ASM, FULL),)
    for t0 in range(0, count, STEPS):
        next_shifts = _borders(seq_base, first, t0 + STEPS, count, STEPS, HAS_SEQ, FULL)
        next_xs = _rows(x_base, x_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        next_dts = _rows(dt_base, dt_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        next_zs = _rows(z_base, z_row, t0 + STEPS, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
        if PREFETCH > 0:
            lane, column = tl.arange(0, 32), tl.program_id(0) * BLOCK_E
            to = tl.minimum(t0 + 2 * STEPS + lane % STEPS, count - 1)
            address = (bc_base + tl.minimum(t0 + STEPS + lane % STEPS, count - 1) * 2 * N).to(tl.int64)
            address = tl.where(lane < 3 * STEPS, (dt_base + to * dt_row + column).to(tl.int64), address)
            address = tl.where(lane < 2 * STEPS, (x_base + to * x_row + column).to(tl.int64), address)
            if HAS_Z:
                address = tl.where(lane < STEPS, (z_base + to * z_row + column).to(tl.int64), address)
            _prefetch(address, PREFETCH)
        if SAVE > 0:  # noqa: SIM102 (t0 % 0 must not be compiled)
            if SAVE == STEPS or t0 % SAVE == 0:
                place = batch * n_saves + (first + t0) // SAVE
                tl.store(save_ptr + place * N * E + tile, state, mask=mask_e[None, :])
        for s in tl.static_range(STEPS):
            t = t0 + s
            x, delta = xs[s].to(tl.float32), _delta(dts[s], bias, t, count, FULL)
            if AHEAD > 0:
                b_row, c_row, later = b_rows[0], c_rows[0], tl.minimum(t + AHEAD, count - 1)
                b_rows = _shift(b_rows, _row(bc_base, later, count, offs_n, N, BLOCK_E, ASM, FULL), AHEAD)
                c_rows = _shift(c_rows, _row(bc_base + N, later, count, offs_n, N, BLOCK_E, ASM, FULL), AHEAD)
            else:
                b_row = _row(bc_base, t, count, offs_n, N, BLOCK_E, ASM, FULL)
                c_row = _row(bc_base + N, t, count, offs_n, N, BLOCK_E, ASM, FULL)
            state = _decay(delta, a2, shifts[s], HAS_SEQ) * state + (delta * x)[None, :] * b_row
            y = tl.sum(state * c_row, 0) + skip * x
            if HAS_Z:
                z = zs[s].to(tl.float32)
                y *= z * _sigmoid(z)
            tl.store(y_base + t * out_row, y, mask=_if(t < count, offs_e, E, FULL))
        xs, dts, zs, shifts = next_xs, next_dts, next_zs, next_shifts
    if chunk == n_chunks - 1:
        tl.store(final_ptr + batch * N * E + tile, state, mask=mask_e[None, :])


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks"])
def _chunk_grad_kernel(
    dt_ptr, z_ptr, bc_ptr, a_ptr, bias_ptr, seq_ptr, dout_ptr, local_ptr, sum_ptr,
    L, E, chunk_len, n_chunks, dt_batch, dt_row: tl.constexpr, z_batch, z_row: tl.constexpr,
    dout_batch, dout_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr, STEPS: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr,
):  # fmt: skip
    """Gradient for the state before a chunk when none comes from after it, and the sum of delta over the chunk."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = chunk * chunk_len
    count = tl.minimum(chunk_len, L - first)
    token = batch * L + first
    offs_n, offs_e = _states(N, BLOCK_E), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = _if(True, offs_e, E, FULL)
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    start = first.to(tl.int64)
    dt_base, z_base = dt_ptr + batch * dt_batch + start * dt_row, z_ptr + batch * z_batch + start * z_row
    dout_base, seq_base = dout_ptr + batch * dout_batch + start * dout_row, seq_ptr + token
    bc_base = bc_ptr + token * 2 * N
    grad = tl.zeros((N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    for i in range(tl.cdiv(count, STEPS)):
        t0 = (tl.cdiv(count, STEPS) - 1 - i) * STEPS
        dts = _rows(dt_base, dt_row, t0, count, offs_e, E, STEPS, FULL)
        dys = _rows(dout_base, dout_row, t0, count, offs_e, E, STEPS, FULL)
        zs = _rows(z_base, z_row, t0, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
        shifts = _borders(seq_base, first, t0, count, STEPS, HAS_SEQ, FULL)
        for r in tl.static_range(STEPS):
            t, shift = t0 + (STEPS - 1 - r), shifts[STEPS - 1 - r]
            delta, dy = _delta(dts[STEPS - 1 - r], bias, t, count, FULL), dys[STEPS - 1 - r].to(tl.float32)
            if HAS_Z:
                z = zs[STEPS - 1 - r].to(tl.float32)
                dy *= z * _sigmoid(z)
            c_row = _row(bc_base + N, t, count, offs_n, N, BLOCK_E, ASM, FULL)
            grad = _decay(delta, a2, shift, HAS_SEQ) * (grad + c_row * dy[None, :])
            total += delta - shift
    place = batch * n_chunks + chunk
    tl.store(local_ptr + place * N * E + tile, grad, mask=mask_e[None, :])
    tl.store(sum_ptr + place * E + offs_e, total, mask=mask_e)


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks", "n_saves"])
def _scan_bwd_kernel(
    x_ptr, dt_ptr, z_ptr, bc_ptr, a_ptr, d_ptr, bias_ptr, seq_ptr, save_ptr, dout_ptr, into_ptr,
    dx_ptr, ddt_ptr, dz_ptr, part_ptr, dstart_ptr, dparam_ptr,
    L, E, chunk_len, n_chunks, n_saves, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr,
    z_batch, z_row: tl.constexpr, dout_batch, dout_row: tl.constexpr, out_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr,
    STEPS: tl.constexpr, SAVE: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_INTO: tl.constexpr,
    SUMS: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk, newest token first.

    From each saved state SAVE steps are run again, the newest STEPS of them kept in registers and then walked back.
    dB and dC leave as sums over this program's channels, the gradients of A, D and the bias as sums over its tokens.
    """
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = chunk * chunk_len
    count = tl.minimum(chunk_len, L - first)
    token = batch * L + first
    offs_n, offs_e = _states(N, BLOCK_E), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = _if(True, offs_e, E, FULL)
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    skip = tl.load(d_ptr + offs_e, mask=mask_e, other=0.0) if HAS_D else 0.0
    start = first.to(tl.int64)
    x_base, dt_base = x_ptr + batch * x_batch + start * x_row, dt_ptr + batch * dt_batch + start * dt_row
    z_base, dout_base = z_ptr + batch * z_batch + start * z_row, dout_ptr + batch * dout_batch + start * dout_row
    out = token * E + offs_e
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    part_base = part_ptr + (token * tl.num_programs(0) + tl.program_id(0)) * 2 * N
    part_row = tl.num_programs(0) * 2 * N
    grad = tl.zeros((N, BLOCK_E), tl.float32)
    if HAS_INTO:
        grad = tl.load(into_ptr + (batch * n_chunks + chunk) * N * E + tile, mask=mask_e[None, :], other=0.0)
    da = tl.zeros((N, BLOCK_E), tl.float32)
    dskip, dbias = tl.zeros((BLOCK_E,), tl.float32), tl.zeros((BLOCK_E,), tl.float32)
    blocks = tl.cdiv(count, STEPS)
    for i in range(blocks):
        t0 = (blocks - 1 - i) * STEPS
        saved = t0 // SAVE
        save = save_ptr + (batch * n_saves + first // SAVE + saved) * N * E
        state = tl.load(save + tile, mask=mask_e[None, :], other=0.0)
        state = state.to(tl.float32)
        xs = _rows(x_base, x_row, t0, count, offs_e, E, STEPS, FULL)
        dts = _rows(dt_base, dt_row, t0, count, offs_e, E, STEPS, FULL)
        douts = _rows(dout_base, dout_row, t0, count, offs_e, E, STEPS, FULL)
        zs = _rows(z_base, z_row, t0, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
        shifts = _borders(seq_base, first, t0, count, STEPS, HAS_SEQ, FULL)
        for r0 in range(saved * SAVE, t0, STEPS):
            replay_xs = _rows(x_base, x_row, r0, count, offs_e, E, STEPS, FULL)
            replay_dts = _rows(dt_base, dt_row, r0, count, offs_e, E, STEPS, FULL)
            replay_shifts = _borders(seq_base, first, r0, count, STEPS, HAS_SEQ, FULL)
            for s in tl.static_range(STEPS):
                t = r0 + s
                delta = _delta(replay_dts[s], bias, t, count, FULL)
                b_row = _row(bc_base, t, count, offs_n, N, BLOCK_E, ASM, FULL)
                step = (delta * replay_xs[s].to(tl.float32))[None, :] * b_row
                state = _decay(delta, a2, replay_shifts[s], HAS_SEQ) * state + step
        if PREFETCH > 0:  # the next group: its saved state, its rows, its B and C
            lane, t = tl.arange(0, 32), tl.maximum(t0 - STEPS, 0)
            column = tl.program_id(0) * BLOCK_E
            row = lane - N  # lanes N and up take the rows, the ones below the saved state
            to = t + lane % STEPS
            address = (x_base + to * x_row + column).to(tl.int64)
            address = tl.where(row < 3 * STEPS, (dt_base + to * dt_row + column).to(tl.int64), address)
            address = tl.where(row < 2 * STEPS, (dout_base + to * dout_row + column).to(tl.int64), address)
            if HAS_Z:
                address = tl.where(row < STEPS, (z_base + to * z_row + column).to(tl.int64), address)
            line = save_ptr + (batch * n_saves + (first + t) // SAVE) * N * E + lane % N * E + column
            _prefetch(tl.where(lane < N, line.to(tl.int64), address), PREFETCH)
            _prefetch((bc_base + to * 2 * N).to(tl.int64), 1)
        olds = ()  # what is left of the state before each step
        for s in tl.static_range(STEPS):
            t = t0 + s
            delta = _delta(dts[s], bias, t, count, FULL)
            b_row = _row(bc_base, t, count, offs_n, N, BLOCK_E, ASM, FULL)
            old = _decay(delta, a2, shifts[s], HAS_SEQ) * state
            state = old + (delta * xs[s].to(tl.float32))[None, :] * b_row
            olds = olds + (old,)
        zero = _zero(a_ptr, L)
        bc_again = bc_base + zero.to(tl.int32)
        for r in tl.static_range(STEPS):
            t = t0 + (STEPS - 1 - r)
            x, raw = xs[STEPS - 1 - r].to(tl.float32), dts[STEPS - 1 - r]
            delta = _delta(raw, bias, t, count, FULL) + zero
            u, dy = delta * x, douts[STEPS - 1 - r].to(tl.float32)
            b_row = _row(bc_again, t, count, offs_n, N, BLOCK_E, ASM, FULL)
            c_row = _row(bc_again + N, t, count, offs_n, N, BLOCK_E, ASM, FULL)
            old = olds[STEPS - 1 - r]
            state = old + u[None, :] * b_row
            if HAS_Z:
                z = zs[STEPS - 1 - r].to(tl.float32)
                gate = _sigmoid(z)
                y = tl.sum(state * c_row, 0) + skip * x
                dz = dy * y * gate * (1.0 + z * (1.0 - gate))
                tl.store(dz_ptr + out + t * out_row, dz, mask=_if(t < count, offs_e, E, FULL))
                dy *= z * gate
            grad += c_row * dy[None, :]
            part = part_base + t * part_row
            _store_channel_sums(part, grad * u[None, :], state * dy[None, :], offs_n, t < count, N, BLOCK_E, SUMS)
            du = tl.sum(grad * b_row, 0)
            through = grad * old
            da += delta[None, :] * through
            ddelta = tl.sum(a2 * through, 0) * LN2 + x * du
            # the derivative of softplus: 1 - exp(-delta) loses digits for small delta, hence from dt itself
            ddt = ddelta * _sigmoid(raw.to(tl.float32) + bias)
            ddt = ddt if FULL else tl.where(t < count, ddt, 0.0)
            tl.store(ddt_ptr + out + t * out_row, ddt, mask=_if(t < count, offs_e, E, FULL))
            tl.store(dx_ptr + out + t * out_row, delta * du + skip * dy, mask=_if(t < count, offs_e, E, FULL))
            dbias += ddt
            dskip += dy * x
            grad *= _decay(delta, a2, shifts[STEPS - 1 - r], HAS_SEQ)
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


LANES = 32
SAVE_EVERY = 4
"""Steps between two states saved for the backward."""


class Plan(NamedTuple):
    """How a kernel is launched; what suits depends on the GPU and on how many warps there are."""

    steps: int
    """Steps unrolled, and in the backward kept in registers."""
    registers: int | None
    """Most registers a thread may have; fewer let more warps live on a multiprocessor."""
    prefetch: int
    """Cache level to ask ahead into, 0 for none."""
    ahead: int
    """How many steps early rows of B and C are loaded (forward)."""
    channels: int = 32
    """Channels of a warp: 32, or 16 or (forward) 8, each shared by 2 or 4 lanes, for more warps of fewer registers."""


def forward_plan(warps: int, saving: bool) -> Plan:
    """For `warps` groups of 32 channels; an H200 holds 2048 warps of 128 registers, and 1584 of 168.

    With few warps a step of the recurrence costs what its slowest load does, however many lanes share it (measured: 1,
    2 and 4 lanes a channel take 0.51, 0.53 and 0.53 ms for 16 x 1024 channels and 2048 tokens, rows of B and C one step
    early), hence two lanes, which leave the registers to load rows four steps early.
    """
    if warps > 1584:
        return Plan(4, 128, 0, 0)
    if warps > 704:
        return Plan(4 if saving else 8, None if warps <= 1056 else 168, 1, 1)
    return Plan(4 if saving else 8, None, 1, 4, 16)


def chunk_plan(warps: int) -> Plan:
    """For what each chunk makes of zero, forwards or backwards."""
    return Plan(4, None, 0, 3) if warps > 704 else Plan(8, None, 0, 4, 16)


def backward_plan(warps: int) -> Plan:
    """Measured on an H200, see kernels/README.md."""
    return Plan(4, None, 2, 0)


class SelectiveScan(torch.autograd.Function):
    """`selective_scan` on tensors already checked; `chunk_len` 0 means the whole of L in one pass."""

    @staticmethod
    def forward(  # noqa: D102 (torch's)
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
        launch = _Launch(x, n_state, chunk_len, dt_bias is not None, seq_idx is not None)
        z_or_x, seq_or_x = x if z is None else z, x if seq_idx is None else seq_idx  # a pointer is needed to offset
        start = initial_state
        if launch.n_chunks > 1:
            plan = chunk_plan(launch.warps)
            local, total, start = launch.chunk_buffers(x)
            _chunk_state_kernel[launch.grid(plan)](
                x, dt, bc, a2, dt_bias, seq_or_x, local, total, *launch.sizes, *_strides(x), *_strides(dt),
                AHEAD=plan.ahead, **launch.steps(plan), **launch.flags,
            )  # fmt: skip
            launch.carry(local, total, a2, initial_state, start, reverse=False)
        saving = any(ctx.needs_input_grad)
        saves = launch.saves(x) if saving else x
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        final = torch.empty(batch, n_state, channels, dtype=torch.float32, device=x.device)
        plan = forward_plan(launch.warps, saving)
        _scan_fwd_kernel[launch.grid(plan)](
            x, dt, z_or_x, bc, a2, D, dt_bias, seq_or_x, start, y, final, saves,
            *launch.sizes, launch.n_saves, *_strides(x), *_strides(dt), *_strides(z), out_row=channels,
            SAVE=SAVE_EVERY if saving else 0, HAS_D=D is not None, HAS_Z=z is not None, HAS_START=start is not None,
            PREFETCH=launch.prefetch(plan), AHEAD=plan.ahead, **launch.steps(plan), **launch.flags,
        )  # fmt: skip
        ctx.save_for_backward(x, dt, z, bc, a2, D, dt_bias, seq_idx, saves)
        ctx.launch, ctx.dtypes, ctx.has_start = launch, (A.dtype, B.dtype, C.dtype), initial_state is not None
        ctx.set_materialize_grads(False)
        return y, final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: D102 (torch's)
        x, dt, z, bc, a2, D, dt_bias, seq_idx, saves = ctx.saved_tensors
        launch: _Launch = ctx.launch
        dout, dfinal = grads
        dout = torch.zeros_like(x) if dout is None else dout if dout.stride(-1) == 1 else dout.contiguous()
        batch, length, channels = x.shape
        n_state = a2.shape[0]
        z_or_x, seq_or_x = x if z is None else z, x if seq_idx is None else seq_idx
        into = None if dfinal is None else dfinal.float().contiguous()
        if launch.n_chunks > 1:
            local, total, carried = launch.chunk_buffers(x)
            plan = chunk_plan(launch.warps)
            _chunk_grad_kernel[launch.grid(plan)](
                dt, z_or_x, bc, a2, dt_bias, seq_or_x, dout, local, total, *launch.sizes,
                *_strides(dt), *_strides(z), *_strides(dout), HAS_Z=z is not None,
                **launch.steps(plan), **launch.flags,
            )  # fmt: skip
            launch.carry(local, total, a2, into, carried, reverse=True)
            into = carried
        dx, ddt = (torch.empty(x.shape, dtype=t.dtype, device=x.device) for t in (x, dt))
        dz = None if z is None else torch.empty(x.shape, dtype=z.dtype, device=x.device)
        plan = backward_plan(launch.warps)
        blocks = launch.grid(plan)[0]
        part = torch.empty(batch, length, blocks, 2, n_state, dtype=torch.float32, device=x.device)
        dstart = torch.empty(batch, n_state, channels, dtype=torch.float32, device=x.device)
        dparam = torch.empty(batch * launch.n_chunks, n_state + 2, channels, dtype=torch.float32, device=x.device)
        _scan_bwd_kernel[launch.grid(plan)](
            x, dt, z_or_x, bc, a2, D, dt_bias, seq_or_x, saves, dout, into,
            dx, ddt, dx if dz is None else dz, part, dstart, dparam, *launch.sizes, launch.n_saves,
            *_strides(x), *_strides(dt), *_strides(z), *_strides(dout), out_row=channels, SAVE=SAVE_EVERY,
            HAS_D=D is not None, HAS_Z=z is not None, HAS_INTO=into is not None, SUMS=launch.sums(x),
            PREFETCH=launch.prefetch(plan), **launch.steps(plan), **launch.flags,
        )  # fmt: skip
        db, dc = (torch.empty(batch, length, n_state, dtype=d, device=x.device) for d in ctx.dtypes[1:])
        _reduce_kernel[(triton.cdiv(batch * length, 16),)](part, db, dc, batch * length, blocks, N=n_state, ROWS=16)
        dparam = dparam.sum(0)
        return (
            dx, ddt, dparam[:n_state].t().to(ctx.dtypes[0]), db, dc,
            None if D is None else dparam[n_state].to(D.dtype), dz,
            None if dt_bias is None else dparam[n_state + 1].to(dt_bias.dtype),
            dstart if ctx.has_start else None, None, None,
        )  # fmt: skip


class _Launch:
    """Sizes and switches that the kernels of one scan share."""

    def __init__(self, x: Tensor, n_state: int, chunk_len: int, has_bias: bool, has_seq: bool) -> None:
        batch, length, channels = x.shape
        chunk_len = chunk_len or length
        self.batch, self.n_state, self.channels = batch, n_state, channels
        self.n_chunks = triton.cdiv(length, chunk_len)
        self.n_saves = triton.cdiv(length, SAVE_EVERY)
        self.warps = triton.cdiv(channels, LANES) * self.n_chunks * batch
        self.sizes = (length, channels, chunk_len, self.n_chunks)
        # The instructions written by hand expect 16 states in a thread's registers.
        self.asm = n_state == 16 and x.device.type == "cuda"
        self._common = {"N": n_state, "num_warps": 1, "enable_fp_fusion": True}
        self.flags = {"ASM": self.asm, "HAS_BIAS": has_bias, "HAS_SEQ": has_seq, **self._common}

    def grid(self, plan: Plan) -> tuple[int, int, int]:
        """One program for a warp's channels, a chunk and a row of the batch."""
        return (triton.cdiv(self.channels, self._block(plan)), self.n_chunks, self.batch)

    def _block(self, plan: Plan) -> int:
        return plan.channels if self.n_state == 16 else LANES

    def steps(self, plan: Plan) -> dict[str, int | bool | None]:
        """Steps at a time, and whether no program has channels or steps to spare (chunks are multiples of 64)."""
        length, channels = self.sizes[:2]
        block = self._block(plan)
        full = length % plan.steps == 0 and channels % block == 0
        registers = plan.registers if self.asm else None
        return {"STEPS": plan.steps, "FULL": full, "BLOCK_E": block, "maxnreg": registers}

    def prefetch(self, plan: Plan) -> int:
        """Cache level to ask ahead into."""
        return plan.prefetch if self.asm else 0

    def sums(self, x: Tensor) -> int:
        """How to sum over channels: 1 the matrix unit in tf32, 2 the same in two terms, 0 by Triton."""
        if not self.asm:
            return 0
        return 2 if x.dtype == torch.float32 else 1

    def saves(self, x: Tensor) -> Tensor:
        """Room for the states before every SAVE_EVERY steps.

        They only start the backward's recomputation of the next few steps, so that with bf16 inputs bf16 costs no
        more than the inputs' own rounding.
        """
        shape = (self.batch, self.n_saves, self.n_state, self.channels)
        return torch.empty(shape, dtype=torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32, device=x.device)

    def chunk_buffers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each chunk makes of zero, its sum of delta, and what the carry brings into it."""
        shape = (self.batch, self.n_chunks, self.n_state, self.channels)
        local, into = torch.empty(2, *shape, dtype=torch.float32, device=x.device)
        total = torch.empty(self.batch, self.n_chunks, self.channels, dtype=torch.float32, device=x.device)
        return local, total, into

    def carry(
        self, local: Tensor, total: Tensor, a2: Tensor, start: Tensor | None, into: Tensor, reverse: bool
    ) -> None:
        """Fill `into` with what enters each chunk."""
        _carry_kernel[triton.cdiv(self.channels, LANES), self.batch](
            local, total, a2, start, into, self.channels, self.n_chunks,
            HAS_START=start is not None, REVERSE=reverse, BLOCK_E=LANES, **self._common,
        )  # fmt: skip


def _strides(t: Tensor | None) -> tuple[int, int]:
    """Strides over the batch and over L."""
    return (0, 0) if t is None else (t.stride(0), t.stride(1))
