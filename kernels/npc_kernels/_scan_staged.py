"""The kernels that run the selective scan forwards, with inputs staged in shared memory.

For 16 states, channels and chunks without remainder, and rows on borders of 16 bytes; else `_scan_forward`.
"""

# Triton's kernels are not Python: their arguments have no Python types, and its tuples grow by addition only.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated,misc"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from npc_kernels._scan_parts import _borders, _decay, _sigmoid, _softplus
from npc_kernels._scan_stages import _arrived, _bytes, _close, _held, _held_row, _room, _stage


@triton.jit
def _stage_inputs(
    to, bc_base, x_base, dt_base, z_base, x_row, dt_row, z_row, t,
    N: tl.constexpr, STEPS: tl.constexpr, BLOCK_E: tl.constexpr, HAS_Z: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """Start the copies of a group: STEPS rows of B and C, then of x, of dt and of z."""
    AT: tl.constexpr = STEPS * 8 * N
    X: tl.constexpr = STEPS * BLOCK_E * _bytes(x_base.dtype.element_ty)
    DT: tl.constexpr = STEPS * BLOCK_E * _bytes(dt_base.dtype.element_ty)
    _stage(to, bc_base, 2 * N, t, STEPS, 2 * N, ASM)
    _stage(to + AT, x_base, x_row, t, STEPS, BLOCK_E, ASM)
    _stage(to + AT + X, dt_base, dt_row, t, STEPS, BLOCK_E, ASM)
    if HAS_Z:
        _stage(to + AT + X + DT, z_base, z_row, t, STEPS, BLOCK_E, ASM)
    _close(ASM)


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks", "n_saves"])
def _staged_fwd_kernel(
    x_ptr, dt_ptr, z_ptr, bc_ptr, a_ptr, d_ptr, bias_ptr, seq_ptr, start_ptr, y_ptr, final_ptr, save_ptr,
    L, E, chunk_len, n_chunks, n_saves, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr,
    z_batch, z_row: tl.constexpr, out_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr,
    STEPS: tl.constexpr, SAVE: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_START: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """`_scan_fwd_kernel` with staged inputs, for channels and chunks without remainder."""
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
    z_base, y_base = z_ptr + batch * z_batch + start * z_row + column, y_ptr + token * E + offs_e
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    state = tl.zeros((N, BLOCK_E), tl.float32)
    if HAS_START:
        state = tl.load(start_ptr + (batch * n_chunks + chunk) * N * E + tile)
    X: tl.constexpr = BLOCK_E * _bytes(x_ptr.dtype.element_ty)  # bytes of a row
    DT: tl.constexpr = BLOCK_E * _bytes(dt_ptr.dtype.element_ty)
    Z: tl.constexpr = BLOCK_E * _bytes(z_ptr.dtype.element_ty) if HAS_Z else 0
    BC: tl.constexpr = 8 * N
    GROUP: tl.constexpr = STEPS * (BC + X + DT + Z)
    room = _room(STAGES * GROUP, ASM)
    for i in tl.static_range(STAGES - 1):
        free, t = room + i * GROUP, tl.minimum(i * STEPS, count - STEPS)
        _stage_inputs(
            free, bc_base, x_base, dt_base, z_base, x_row, dt_row, z_row, t, N, STEPS, BLOCK_E, HAS_Z, ASM
        )  # fmt: skip
    shifts = _borders(seq_base, first, 0, count, STEPS, HAS_SEQ, True)
    here, free = room, room + (STAGES - 1) * GROUP
    for t0 in range(0, count, STEPS):
        _arrived(STAGES - 2, ASM)
        t = tl.minimum(t0 + (STAGES - 1) * STEPS, count - STEPS)  # past the end the last group again
        _stage_inputs(
            free, bc_base, x_base, dt_base, z_base, x_row, dt_row, z_row, t, N, STEPS, BLOCK_E, HAS_Z, ASM
        )  # fmt: skip
        next_shifts = _borders(seq_base, first, t0 + STEPS, count, STEPS, HAS_SEQ, True)
        xs, deltas, gates = (), (), ()
        for s in tl.static_range(STEPS):  # independent of the state: all at once, to hide their latencies
            t, at = t0 + s, here + STEPS * BC
            x_at, dt_at = at + s * X + lane * (X // BLOCK_E), at + STEPS * X + s * DT + lane * (DT // BLOCK_E)
            xs = xs + (_held(x_at, x_base + t * x_row + lane, ASM),)
            deltas = deltas + (_softplus(_held(dt_at, dt_base + t * dt_row + lane, ASM) + bias),)
            if HAS_Z:
                z = _held(at + STEPS * (X + DT) + s * Z + lane * (Z // BLOCK_E), z_base + t * z_row + lane, ASM)
                gates = gates + (z * _sigmoid(z),)
        for s in tl.static_range(STEPS):
            t = t0 + s
            if SAVE > 0:  # noqa: SIM102 (s % 0 must not be compiled)
                if s % SAVE == 0:
                    tl.store(save_ptr + (batch * n_saves + (first + t) // SAVE) * N * E + tile, state)
            b_row = _held_row(here + s * BC, bc_base + t * 2 * N, offs_n, N, BLOCK_E, ASM)
            c_row = _held_row(here + s * BC + 4 * N, bc_base + t * 2 * N + N, offs_n, N, BLOCK_E, ASM)
            state = _decay(deltas[s], a2, shifts[s], HAS_SEQ) * state + (deltas[s] * xs[s])[None, :] * b_row
            y = tl.sum(state * c_row, 0) + skip * xs[s]
            if HAS_Z:
                y *= gates[s]
            tl.store(y_base + t * out_row, y)
        shifts, free = next_shifts, here
        here = tl.where(here == room + (STAGES - 1) * GROUP, room, here + GROUP)
    if chunk == n_chunks - 1:
        tl.store(final_ptr + batch * N * E + tile, state)


@triton.jit(do_not_specialize=["L", "E", "chunk_len", "n_chunks"])
def _staged_state_kernel(
    x_ptr, dt_ptr, bc_ptr, a_ptr, bias_ptr, seq_ptr, end_ptr, sum_ptr,
    L, E, chunk_len, n_chunks, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, STEPS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """`_chunk_state_kernel` with staged inputs, for channels and chunks without remainder."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = chunk * chunk_len
    count = tl.minimum(chunk_len, L - first)
    token = batch * L + first
    lane, column = tl.arange(0, BLOCK_E), tl.program_id(0) * BLOCK_E
    offs_n, offs_e = tl.arange(0, N), column + lane
    tile = offs_n[:, None] * E + offs_e[None, :]
    a2 = tl.load(a_ptr + tile)
    bias = tl.load(bias_ptr + offs_e) if HAS_BIAS else 0.0
    start = first.to(tl.int64)
    x_base = x_ptr + batch * x_batch + start * x_row + column
    dt_base = dt_ptr + batch * dt_batch + start * dt_row + column
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    state = tl.zeros((N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    X: tl.constexpr = BLOCK_E * _bytes(x_ptr.dtype.element_ty)  # bytes of a row
    DT: tl.constexpr = BLOCK_E * _bytes(dt_ptr.dtype.element_ty)
    B: tl.constexpr = 4 * N
    GROUP: tl.constexpr = STEPS * (B + X + DT)
    room = _room(STAGES * GROUP, ASM)
    for i in tl.static_range(STAGES - 1):
        free, t = room + i * GROUP, tl.minimum(i * STEPS, count - STEPS)
        _stage(free, bc_base, 2 * N, t, STEPS, N, ASM)
        _stage(free + STEPS * B, x_base, x_row, t, STEPS, BLOCK_E, ASM)
        _stage(free + STEPS * (B + X), dt_base, dt_row, t, STEPS, BLOCK_E, ASM)
        _close(ASM)
    here, free = room, room + (STAGES - 1) * GROUP
    for t0 in range(0, count, STEPS):
        _arrived(STAGES - 2, ASM)
        t = tl.minimum(t0 + (STAGES - 1) * STEPS, count - STEPS)
        _stage(free, bc_base, 2 * N, t, STEPS, N, ASM)
        _stage(free + STEPS * B, x_base, x_row, t, STEPS, BLOCK_E, ASM)
        _stage(free + STEPS * (B + X), dt_base, dt_row, t, STEPS, BLOCK_E, ASM)
        _close(ASM)
        shifts = _borders(seq_base, first, t0, count, STEPS, HAS_SEQ, True)
        us, deltas = (), ()
        for s in tl.static_range(STEPS):
            t, at = t0 + s, here + STEPS * B
            x_at, dt_at = at + s * X + lane * (X // BLOCK_E), at + STEPS * X + s * DT + lane * (DT // BLOCK_E)
            delta = _softplus(_held(dt_at, dt_base + t * dt_row + lane, ASM) + bias)
            deltas = deltas + (delta,)
            us = us + (delta * _held(x_at, x_base + t * x_row + lane, ASM),)
        for s in tl.static_range(STEPS):
            b_row = _held_row(here + s * B, bc_base + (t0 + s) * 2 * N, offs_n, N, BLOCK_E, ASM)
            state = _decay(deltas[s], a2, shifts[s], HAS_SEQ) * state + us[s][None, :] * b_row
            total += deltas[s] - shifts[s]  # A is negative, so a border's share must be +1e30
        free = here
        here = tl.where(here == room + (STAGES - 1) * GROUP, room, here + GROUP)
    place = batch * n_chunks + chunk
    tl.store(end_ptr + place * N * E + tile, state)
    tl.store(sum_ptr + place * E + offs_e, total)
