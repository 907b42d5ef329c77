"""The kernels that run the selective scan backwards, with inputs staged in shared memory.

For 16 states, channels and chunks without remainder, and rows on borders of 16 bytes; else `_scan_backward`.
"""

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
    _sigmoid,
    _softplus,
    _store_channel_sums,
    _zero,
)
from npc_kernels._scan_stages import _arrived, _bytes, _close, _held, _held_row, _room, _stage


@triton.jit
def _stage_group(
    to, save, bc_base, x_base, dt_base, dout_base, z_base, E, x_row, dt_row, dout_row, z_row, t,
    N: tl.constexpr, STEPS: tl.constexpr, BLOCK_E: tl.constexpr, HAS_Z: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """Start the copies of a group: the state saved before it, then STEPS rows of B and C, of x, dt, dy and z."""
    BC: tl.constexpr = N * BLOCK_E * _bytes(save.dtype.element_ty)
    X: tl.constexpr = BC + STEPS * 8 * N
    DT: tl.constexpr = X + STEPS * BLOCK_E * _bytes(x_base.dtype.element_ty)
    DOUT: tl.constexpr = DT + STEPS * BLOCK_E * _bytes(dt_base.dtype.element_ty)
    Z: tl.constexpr = DOUT + STEPS * BLOCK_E * _bytes(dout_base.dtype.element_ty)
    _stage(to, save + (t // STEPS).to(tl.int64) * N * E, E, 0, N, BLOCK_E, ASM)
    _stage(to + BC, bc_base, 2 * N, t, STEPS, 2 * N, ASM)
    _stage(to + X, x_base, x_row, t, STEPS, BLOCK_E, ASM)
    _stage(to + DT, dt_base, dt_row, t, STEPS, BLOCK_E, ASM)
    _stage(to + DOUT, dout_base, dout_row, t, STEPS, BLOCK_E, ASM)
    if HAS_Z:
        _stage(to + Z, z_base, z_row, t, STEPS, BLOCK_E, ASM)
    _close(ASM)


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks", "n_saves"])
def _staged_bwd_kernel(
    x_ptr, dt_ptr, z_ptr, bc_ptr, a_ptr, d_ptr, bias_ptr, seq_ptr, save_ptr, dout_ptr, into_ptr,
    dx_ptr, ddt_ptr, dz_ptr, part_ptr, dstart_ptr, dparam_ptr,
    L, E, chunk_len, n_chunks, n_saves, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr,
    z_batch, z_row: tl.constexpr, dout_batch, dout_row: tl.constexpr, out_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, STEPS: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_INTO: tl.constexpr,
    SUMS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """`_scan_bwd_kernel` with staged inputs; states are saved every STEPS steps, and nothing has a remainder."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = chunk * chunk_len
    count = tl.minimum(chunk_len, L - first)
    token = batch * L + first
    lane, column = tl.arange(0, BLOCK_E), tl.program_id(0) * BLOCK_E
    offs_n, offs_e = tl.arange(0, N), column + lane
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile)
    bias = tl.load(bias_ptr + offs_e) if HAS_BIAS else 0.0
    skip = tl.load(d_ptr + offs_e) if HAS_D else 0.0
    start = first.to(tl.int64)
    x_base = x_ptr + batch * x_batch + start * x_row + column
    dt_base = dt_ptr + batch * dt_batch + start * dt_row + column
    z_base = z_ptr + batch * z_batch + start * z_row + column
    dout_base = dout_ptr + batch * dout_batch + start * dout_row + column
    save_base = save_ptr + (batch * n_saves + first // STEPS) * N * E + column
    out = token * E + offs_e
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    part_base = part_ptr + (token * tl.num_programs(0) + tl.program_id(0)) * 2 * N
    part_row = tl.num_programs(0) * 2 * N
    grad = tl.zeros((N, BLOCK_E), tl.float32)
    if HAS_INTO:
        grad = tl.load(into_ptr + (batch * n_chunks + chunk) * N * E + tile)
    da = tl.zeros((N, BLOCK_E), tl.float32)
    dskip, dbias = tl.zeros((BLOCK_E,), tl.float32), tl.zeros((BLOCK_E,), tl.float32)
    W_X: tl.constexpr = _bytes(x_ptr.dtype.element_ty)
    W_DT: tl.constexpr = _bytes(dt_ptr.dtype.element_ty)
    W_DOUT: tl.constexpr = _bytes(dout_ptr.dtype.element_ty)
    W_Z: tl.constexpr = _bytes(z_ptr.dtype.element_ty)
    W_SAVE: tl.constexpr = _bytes(save_ptr.dtype.element_ty)
    AT_BC: tl.constexpr = N * BLOCK_E * W_SAVE
    AT_X: tl.constexpr = AT_BC + STEPS * 8 * N
    AT_DT: tl.constexpr = AT_X + STEPS * BLOCK_E * W_X
    AT_DOUT: tl.constexpr = AT_DT + STEPS * BLOCK_E * W_DT
    AT_Z: tl.constexpr = AT_DOUT + STEPS * BLOCK_E * W_DOUT
    GROUP: tl.constexpr = AT_Z + (STEPS * BLOCK_E * W_Z if HAS_Z else 0)
    room = _room(STAGES * GROUP, ASM)
    for i in tl.static_range(STAGES - 1):
        _stage_group(
            room + i * GROUP, save_base, bc_base, x_base, dt_base, dout_base, z_base, E, x_row, dt_row, dout_row,
            z_row, tl.maximum(count - (i + 1) * STEPS, 0), N, STEPS, BLOCK_E, HAS_Z, ASM,
        )  # fmt: skip
    here, free = room, room + (STAGES - 1) * GROUP
    for i in range(count // STEPS):
        t0 = count - (i + 1) * STEPS
        _arrived(STAGES - 2, ASM)
        _stage_group(
            free, save_base, bc_base, x_base, dt_base, dout_base, z_base, E, x_row, dt_row, dout_row,
            z_row, tl.maximum(t0 - (STAGES - 1) * STEPS, 0), N, STEPS, BLOCK_E, HAS_Z, ASM,
        )  # fmt: skip
        shifts = _borders(seq_base, first, t0, count, STEPS, HAS_SEQ, True)
        saved = save_ptr + (batch * n_saves + (first + t0) // STEPS) * N * E + tile
        state = _held(here + offs_n[:, None] * (BLOCK_E * W_SAVE) + lane[None, :] * W_SAVE, saved, ASM)
        xs, raws, olds = (), (), ()  # olds: what is left of the state before each step
        for s in tl.static_range(STEPS):
            t = t0 + s
            x = _held(here + (AT_X + s * BLOCK_E * W_X) + lane * W_X, x_base + t * x_row + lane, ASM)
            raw = _held(here + (AT_DT + s * BLOCK_E * W_DT) + lane * W_DT, dt_base + t * dt_row + lane, ASM) + bias
            delta = _softplus(raw)
            b_row = _held_row(here + AT_BC + s * 8 * N, bc_base + t * 2 * N, offs_n, N, BLOCK_E, ASM)
            old = _decay(delta, a2, shifts[s], HAS_SEQ) * state
            state = old + (delta * x)[None, :] * b_row
            xs, raws, olds = xs + (x,), raws + (raw,), olds + (old,)
        zero = _zero(a_ptr, L)
        again = here + zero.to(tl.int32)
        for s in tl.static_range(STEPS - 1, -1, -1):
            t = t0 + s
            x, raw = xs[s], raws[s]
            delta = _softplus(raw) + zero
            dy = _held(here + (AT_DOUT + s * BLOCK_E * W_DOUT) + lane * W_DOUT, dout_base + t * dout_row + lane, ASM)
            u = delta * x
            b_row = _held_row(again + AT_BC + s * 8 * N, bc_base + t * 2 * N, offs_n, N, BLOCK_E, ASM)
            c_row = _held_row(again + AT_BC + s * 8 * N + 4 * N, bc_base + t * 2 * N + N, offs_n, N, BLOCK_E, ASM)
            state = olds[s] + u[None, :] * b_row
            if HAS_Z:
                z = _held(here + (AT_Z + s * BLOCK_E * W_Z) + lane * W_Z, z_base + t * z_row + lane, ASM)
                gate = _sigmoid(z)
                y = tl.sum(state * c_row, 0) + skip * x
                tl.store(dz_ptr + out + t * out_row, dy * y * gate * (1.0 + z * (1.0 - gate)))
                dy *= z * gate
            grad += c_row * dy[None, :]
            part = part_base + t * part_row
            _store_channel_sums(part, grad * u[None, :], state * dy[None, :], offs_n, t < count, N, BLOCK_E, SUMS)
            du = tl.sum(grad * b_row, 0)
            through = grad * olds[s]
            da += delta[None, :] * through
            ddelta = tl.sum(a2 * through, 0) * LN2 + x * du
            # the derivative of softplus: 1 - exp(-delta) loses digits for small delta, hence from dt itself
            ddt = ddelta * _sigmoid(raw)
            tl.store(ddt_ptr + out + t * out_row, ddt)
            tl.store(dx_ptr + out + t * out_row, delta * du + skip * dy)
            dbias += ddt
            dskip += dy * x
            grad *= _decay(delta, a2, shifts[s], HAS_SEQ)
        free = here
        here = tl.where(here == room + (STAGES - 1) * GROUP, room, here + GROUP)
    if chunk == 0:
        tl.store(dstart_ptr + batch * N * E + tile, grad)
    param = dparam_ptr + (batch * n_chunks + chunk) * (N + 2) * E
    tl.store(param + tile, da)
    tl.store(param + N * E + offs_e, dskip)
    tl.store(param + (N + 1) * E + offs_e, dbias)
