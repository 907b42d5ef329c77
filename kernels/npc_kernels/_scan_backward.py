"""The kernels that run the selective scan backwards: the gradient over chunks, all gradients of a chunk, their sums."""

# Triton's kernels are not Python: their arguments have no Python types, and its tuples grow by addition only.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated,misc"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from npc_kernels._scan_parts import (
    LN2,
    _borders,
    _decay,
    _delta,
    _if,
    _row,
    _rows,
    _sigmoid,
    _store_channel_sums,
    _zero,
)


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
    offs_n, offs_e = tl.arange(0, N), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
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
    STEPS: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_INTO: tl.constexpr,
    SUMS: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk, newest token first.

    From each saved state STEPS steps are run again, kept in registers and then walked back.
    dB and dC leave as sums over this program's channels, the gradients of A, D and the bias as sums over its tokens.
    """
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
        save = save_ptr + (batch * n_saves + (first + t0) // STEPS) * N * E
        state = tl.load(save + tile, mask=mask_e[None, :], other=0.0).to(tl.float32)
        xs = _rows(x_base, x_row, t0, count, offs_e, E, STEPS, FULL)
        dts = _rows(dt_base, dt_row, t0, count, offs_e, E, STEPS, FULL)
        douts = _rows(dout_base, dout_row, t0, count, offs_e, E, STEPS, FULL)
        zs = _rows(z_base, z_row, t0, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
        shifts = _borders(seq_base, first, t0, count, STEPS, HAS_SEQ, FULL)
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
