"""The kernels that run the selective scan forwards: its inputs, what chunks make of zero, the carry, the output."""

# Triton's kernels are not Python: their arguments have no Python types, and its tuples grow by addition only.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated,misc"

from __future__ import annotations

import triton
import triton.language as tl

from npc_kernels._scan_parts import (
    LOG2E,
    _borders,
    _decay,
    _delta,
    _if,
    _row,
    _rows,
    _sigmoid,
)


@triton.jit(do_not_specialize=["rows", "L", "E"])
def _prepare_kernel(
    a_ptr, b_ptr, c_ptr, a2_ptr, bc_ptr, rows, L, E, a_e, a_n, b_batch, b_row, b_n, c_batch, c_row, c_n,
    N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What every other kernel takes: a2 (N, E), A log2(e), and bc (rows, 2N), B and C side by side, in fp32."""
    blocks = tl.cdiv(rows, BLOCK)
    offs, offs_n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, N)[None, :]
    if tl.program_id(0) < blocks:
        mask = (offs < rows)[:, None]
        batch, t = (offs // L).to(tl.int64)[:, None], (offs % L).to(tl.int64)[:, None]
        b = tl.load(b_ptr + batch * b_batch + t * b_row + offs_n * b_n, mask=mask, other=0.0)
        c = tl.load(c_ptr + batch * c_batch + t * c_row + offs_n * c_n, mask=mask, other=0.0)
        row = bc_ptr + offs.to(tl.int64)[:, None] * 2 * N + offs_n
        tl.store(row, b.to(tl.float32), mask=mask)
        tl.store(row + N, c.to(tl.float32), mask=mask)
    else:
        offs_e = (offs - blocks * BLOCK)[:, None]
        a = tl.load(a_ptr + offs_e * a_e + offs_n * a_n, mask=offs_e < E, other=0.0)
        tl.store(a2_ptr + offs_n * E + offs_e, a.to(tl.float32) * LOG2E, mask=offs_e < E)


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks"])
def _chunk_state_kernel(
    x_ptr, dt_ptr, bc_ptr, a_ptr, bias_ptr, seq_ptr, end_ptr, sum_ptr,
    L, E, chunk_len, n_chunks, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr, STEPS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr,
):  # fmt: skip
    """State at the end of a chunk that starts from zero, and the sum of delta over it."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = chunk * chunk_len
    count = tl.minimum(chunk_len, L - first)
    token = batch * L + first
    offs_n, offs_e = tl.arange(0, N), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    mask_e = _if(True, offs_e, E, FULL)
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile, mask=mask_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e, other=0.0) if HAS_BIAS else 0.0
    start = first.to(tl.int64)
    x_base, dt_base = x_ptr + batch * x_batch + start * x_row, dt_ptr + batch * dt_batch + start * dt_row
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    state = tl.zeros((N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    xs = _rows(x_base, x_row, 0, count, offs_e, E, STEPS, FULL)
    dts = _rows(dt_base, dt_row, 0, count, offs_e, E, STEPS, FULL)
    for t0 in range(0, count, STEPS):
        next_xs = _rows(x_base, x_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        next_dts = _rows(dt_base, dt_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        shifts = _borders(seq_base, first, t0, count, STEPS, HAS_SEQ, FULL)
        for s in tl.static_range(STEPS):
            t = t0 + s
            delta, shift = _delta(dts[s], bias, t, count, FULL), shifts[s]
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
):  # fmt: skip
    """y and the final state of a chunk (all of L when there is one); every SAVE steps the state, for the backward."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = chunk * chunk_len
    count = tl.minimum(chunk_len, L - first)
    token = batch * L + first
    offs_n, offs_e = tl.arange(0, N), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
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
    for t0 in range(0, count, STEPS):
        next_shifts = _borders(seq_base, first, t0 + STEPS, count, STEPS, HAS_SEQ, FULL)
        next_xs = _rows(x_base, x_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        next_dts = _rows(dt_base, dt_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        next_zs = _rows(z_base, z_row, t0 + STEPS, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
        if SAVE > 0:  # noqa: SIM102 (t0 % 0 must not be compiled)
            if SAVE == STEPS or t0 % SAVE == 0:
                place = batch * n_saves + (first + t0) // SAVE
                tl.store(save_ptr + place * N * E + tile, state, mask=mask_e[None, :])
        for s in tl.static_range(STEPS):
            t = t0 + s
            x, delta = xs[s].to(tl.float32), _delta(dts[s], bias, t, count, FULL)
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
