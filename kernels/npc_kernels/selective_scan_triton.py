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




def _channel_sums_asm(split: bool) -> str:
    """PTX that sums two (16, 32) tiles over the lanes and stores the 32 sums (inputs $16 and $32 on, address $48).

    A tile's column is one thread's 16 registers v. Matrix unit first: `mma.m16n8k8` with v[4j:4j+4] as A and a B that
    picks columns leaves in lane (g, q) the sums of v[4q:4q+4] over the four lanes of group g; three exchanges then sum
    over the eight groups, each halving what a lane holds. tf32 keeps 11 bits of a term, enough for half-precision
    results; `split` feeds it the rest as a second term, for fp32.
    """
    lines = [".reg .b32 lane, group, v, w, s, k; .reg .b32 one<8>; .reg .b32 r<8>; .reg .b32 h<4>; .reg .b32 l<4>;"]
    lines += [".reg .pred p, here;", "mov.u32 lane, %laneid;", "shr.u32 group, lane, 2;"]
    for g in range(8):
        lines += [f"setp.eq.u32 p, group, {g};", f"selp.b32 one{g}, 0x3f800000, 0, p;"]
    lines += [f"mov.b32 r{i}, 0;" for i in range(8)]
    for tile in range(2):
        d = [f"r{4 * tile + i}" for i in (0, 2, 1, 3)]
        for j in range(4):
            a = [f"${16 + 16 * tile + 4 * j + i}" for i in range(4)]
            terms = [a]
            if split:
                lines += [f"and.b32 h{i}, {a[i]}, 0xffffe000;" for i in range(4)]
                lines += [f"sub.f32 l{i}, {a[i]}, h{i};" for i in range(4)]
                terms = [[f"h{i}" for i in range(4)], [f"l{i}" for i in range(4)]]
            acc = ", ".join(d)
            for term in terms:
                lines.append(
                    f"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {{{acc}}}, {{{', '.join(term)}}}, "
                    f"{{one{2 * j}, one{2 * j + 1}}}, {{{acc}}};"
                )
    for bit, half in ((16, 4), (8, 2), (4, 1)):
        lines += [f"and.b32 v, lane, {bit};", "setp.ne.u32 p, v, 0;"]
        for i in range(half):
            lines += [f"selp.b32 s, r{i}, r{i + half}, p;", f"selp.b32 k, r{i + half}, r{i}, p;"]
            lines += [f"shfl.sync.bfly.b32 w, s, {bit}, 31, -1;", f"add.f32 r{i}, k, w;"]
    lines += ["setp.ne.u64 here, $48, 0;", "@here st.global.b32 [$48], r0;"]
    return "{ " + "\n".join(lines) + " }"


_SUMS_TF32, _SUMS_FP32 = tl.constexpr(_channel_sums_asm(False)), tl.constexpr(_channel_sums_asm(True))
_SUMS_REGISTERS = tl.constexpr(",".join(["=r"] * 16 + ["r"] * 32 + ["l"] * 16))


@triton.jit
def _store_channel_sums(ptr, db, dc, offs_n, inside, N: tl.constexpr, BLOCK_E: tl.constexpr, SUMS: tl.constexpr):
    """Store the sums of two (N, BLOCK_E) tiles over the channels, 2N floats at ptr."""
    if SUMS == 0:
        tl.store(ptr + offs_n, tl.sum(db, 1), mask=_if(inside, offs_n, N, False))
        tl.store(ptr + N + offs_n, tl.sum(dc, 1), mask=_if(inside, offs_n, N, False))
    else:
        lane = tl.arange(0, BLOCK_E)
        place = lane // 16 * 16 + lane % 4 * 4 + lane // 8 % 2 * 2 + lane // 4 % 2
        address = tl.where(inside, ptr.to(tl.int64), 0) + tl.where(inside, place * 4, 0).to(tl.int64)
        address = address[None, :] + tl.zeros((N, BLOCK_E), tl.int64)
        tl.inline_asm_elementwise(
            _SUMS_TF32 if SUMS == 1 else _SUMS_FP32, _SUMS_REGISTERS, [db, dc, address],
            dtype=tl.int32, is_pure=False, pack=16,
        )  # fmt: skip


@triton.jit
def _softplus(v):
    """log(1 + exp(v)) = max(v, 0) + log(1 + e), e = exp(-|v|), by a polynomial with relative error 3e-8 on [0, 1]."""
    e = tl.exp2(-tl.abs(v) * LOG2E)
    p = 0.005232695336001789
    p = p * e - 0.029505243080363407
    p = p * e + 0.07822595889937628
    p = p * e - 0.13663246391563588
    p = p * e + 0.19106007041772338
    p = p * e - 0.24842982285530363
    p = p * e + 0.3331909681655554
    p = p * e - 0.4999949314090758
    p = p * e + 0.9999999698795952
    return tl.maximum(v, 0.0) + p * e


@triton.jit
def _sigmoid(v):
    return 1.0 / (1.0 + tl.exp2(-v * LOG2E))


@triton.jit
def _if(inside, offs, size, FULL: tl.constexpr):
    """Mask `offs < size` where the scalar `inside` holds, else nothing (the interpreter cannot spread a scalar bool).

    FULL says that neither can fail, and saves the instructions.
    """
    mask = offs < tl.where(inside, size, 0)
    if FULL:
        mask = tl.full(offs.shape, 1, tl.int1)
    return mask


@triton.jit
def _rows(ptr, row, first, count, offs_e, E, STEPS: tl.constexpr, FULL: tl.constexpr):
    """Load STEPS rows of channels from `first` on, as a tuple; rows from `count` on read as zero, if FULL as anything."""
    rows = ()
    if FULL:
        first = tl.minimum(first, count - STEPS)
    for s in tl.static_range(STEPS):
        t = first + s
        rows = rows + (tl.load(ptr + t * row + offs_e, mask=_if(t < count, offs_e, E, FULL), other=0.0),)
    return rows


_ROW = tl.constexpr(
    "\n".join(f"ld.global.nc.v4.b32 {{${4 * i}, ${4 * i + 1}, ${4 * i + 2}, ${4 * i + 3}}}, [$16 + {16 * i}];" for i in range(4))
)
_ROW_REGISTERS = tl.constexpr(",".join(["=r"] * 16 + ["l"] * 16))


@triton.jit
def _row(ptr, t, count, offs_n, N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr):
    """Row t of B (or, from ptr + N, of C) in fp32 as an (N, BLOCK_E) tile; past the end the last row again.

    The instruction says that no store can change the row, so that it is loaded ahead of earlier steps' stores: with
    plain loads every step waits for the L2 cache.
    """
    ptr += (t if FULL else tl.minimum(t, count - 1)) * 2 * N
    if ASM:
        # Each element's own address, though only a thread's first is used: of a constant tile Triton computes one element.
        address = (ptr.to(tl.int64) + offs_n * 4)[:, None] + tl.zeros((N, BLOCK_E), tl.int64)
        row = tl.inline_asm_elementwise(_ROW, _ROW_REGISTERS, [address], dtype=tl.float32, is_pure=True, pack=16)
    else:
        row = tl.load(ptr + offs_n)[:, None]
    return row


@triton.jit
def _prefetch(address, LEVEL: tl.constexpr):
    """Ask for the memory at each lane's address ahead of its use: LEVEL 1 into the L1 cache, 2 into L2, 0 not at all."""
    if LEVEL == 1:
        tl.inline_asm_elementwise("prefetch.global.L1 [$1];", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1)
    if LEVEL == 2:
        tl.inline_asm_elementwise("prefetch.global.L2 [$1];", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def _delta(raw, bias, t, count, FULL: tl.constexpr):
    """Softplus of one row of dt; zero past the end, where a step must change nothing."""
    delta = _softplus(raw.to(tl.float32) + bias)
    return delta if FULL else tl.where(t < count, delta, 0.0)


@triton.jit
def _zero(ptr, L):
    """A zero the compiler cannot see through.

    Added to delta it keeps the second exponentials from being taken for the first ones, which would then be held from
    one sweep to the next, more of them than there are registers.
    """
    return tl.load(ptr, mask=L < 0, other=0.0, volatile=True)


@triton.jit
def _borders(seq_ptr, first, t0, count, STEPS: tl.constexpr, HAS_SEQ: tl.constexpr, FULL: tl.constexpr):
    """For each of STEPS steps from t0 on: RESET where token first + t of the sequence starts a new document, else 0."""
    shifts = ()
    if HAS_SEQ:
        if FULL:
            t0 = tl.minimum(t0, count - STEPS)
        before = tl.load(seq_ptr + t0 - 1, mask=(first + t0 > 0) & (t0 - 1 < count), other=0)
        for s in tl.static_range(STEPS):
            t = t0 + s
            here = tl.load(seq_ptr + t) if FULL else tl.load(seq_ptr + t, mask=t < count, other=0)
            shift = tl.where(here != before, RESET, 0.0)
            if s == 0:
                shift = tl.where(first + t0 > 0, shift, 0.0)
            shifts = shifts + (shift if FULL else tl.where(t < count, shift, 0.0),)
            before = here
    else:
        for s in tl.static_range(STEPS):
            shifts = shifts + (0.0,)
    return shifts


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
    L, E, chunk_len, n_chunks, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr, STEPS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr,
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
    x_base, dt_base = x_ptr + batch * x_batch + first.to(tl.int64) * x_row, dt_ptr + batch * dt_batch + first.to(tl.int64) * dt_row
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    state = tl.zeros((N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    xs, dts = _rows(x_base, x_row, 0, count, offs_e, E, STEPS, FULL), _rows(dt_base, dt_row, 0, count, offs_e, E, STEPS, FULL)
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
    L, E, chunk_len, n_chunks, n_saves, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr, z_batch, z_row: tl.constexpr,
    out_row: tl.constexpr, N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr,
    STEPS: tl.constexpr, SAVE: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_START: tl.constexpr,
    PREFETCH: tl.constexpr, AHEAD: tl.constexpr,
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
    x_base, dt_base = x_ptr + batch * x_batch + first.to(tl.int64) * x_row, dt_ptr + batch * dt_batch + first.to(tl.int64) * dt_row
    z_base, y_base = z_ptr + batch * z_batch + first.to(tl.int64) * z_row, y_ptr + token * E + offs_e
    bc_base, seq_base = bc_ptr + token * 2 * N, seq_ptr + token
    state = tl.zeros((N, BLOCK_E), tl.float32)
    if HAS_START:
        state = tl.load(start_ptr + (batch * n_chunks + chunk) * N * E + tile, mask=mask_e[None, :], other=0.0)
    xs, dts = _rows(x_base, x_row, 0, count, offs_e, E, STEPS, FULL), _rows(dt_base, dt_row, 0, count, offs_e, E, STEPS, FULL)
    zs = _rows(z_base, z_row, 0, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
    shifts = _borders(seq_base, first, 0, count, STEPS, HAS_SEQ, FULL)
    if AHEAD:
        b_next = _row(bc_base, 0, count, offs_n, N, BLOCK_E, ASM, FULL)
        c_next = _row(bc_base + N, 0, count, offs_n, N, BLOCK_E, ASM, FULL)
    for t0 in range(0, count, STEPS):
        next_shifts = _borders(seq_base, first, t0 + STEPS, count, STEPS, HAS_SEQ, FULL)
        next_xs = _rows(x_base, x_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        next_dts = _rows(dt_base, dt_row, t0 + STEPS, count, offs_e, E, STEPS, FULL)
        next_zs = _rows(z_base, z_row, t0 + STEPS, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
        if PREFETCH > 0:
            lane, column = tl.arange(0, BLOCK_E), tl.program_id(0) * BLOCK_E
            to = tl.minimum(t0 + 2 * STEPS + lane % STEPS, count - 1)
            address = (bc_base + tl.minimum(t0 + STEPS + lane % STEPS, count - 1) * 2 * N).to(tl.int64)
            address = tl.where(lane < 3 * STEPS, (dt_base + to * dt_row + column).to(tl.int64), address)
            address = tl.where(lane < 2 * STEPS, (x_base + to * x_row + column).to(tl.int64), address)
            if HAS_Z:
                address = tl.where(lane < STEPS, (z_base + to * z_row + column).to(tl.int64), address)
            _prefetch(address, PREFETCH)
        if SAVE > 0:
            if SAVE == STEPS or t0 % SAVE == 0:
                place = batch * n_saves + (first + t0) // SAVE
                tl.store(save_ptr + place * N * E + tile, state, mask=mask_e[None, :])
        for s in tl.static_range(STEPS):
            t = t0 + s
            x, delta = xs[s].to(tl.float32), _delta(dts[s], bias, t, count, FULL)
            if AHEAD:
                b_row, c_row = b_next, c_next
                b_next = _row(bc_base, tl.minimum(t + 1, count - 1), count, offs_n, N, BLOCK_E, ASM, FULL)
                c_next = _row(bc_base + N, tl.minimum(t + 1, count - 1), count, offs_n, N, BLOCK_E, ASM, FULL)
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
    L, E, chunk_len, n_chunks, dt_batch, dt_row: tl.constexpr, z_batch, z_row: tl.constexpr, dout_batch, dout_row: tl.constexpr,
    N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr, STEPS: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_SEQ: tl.constexpr,
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
    dt_base, z_base = dt_ptr + batch * dt_batch + first.to(tl.int64) * dt_row, z_ptr + batch * z_batch + first.to(tl.int64) * z_row
    dout_base, seq_base = dout_ptr + batch * dout_batch + first.to(tl.int64) * dout_row, seq_ptr + token
    bc_base = bc_ptr + token * 2 * N
    grad = tl.zeros((N, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    for i in range(tl.cdiv(count, STEPS)):
        t0 = (tl.cdiv(count, STEPS) - 1 - i) * STEPS
        dts, dys = _rows(dt_base, dt_row, t0, count, offs_e, E, STEPS, FULL), _rows(dout_base, dout_row, t0, count, offs_e, E, STEPS, FULL)
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
    L, E, chunk_len, n_chunks, n_saves, x_batch, x_row: tl.constexpr, dt_batch, dt_row: tl.constexpr, z_batch, z_row: tl.constexpr, dout_batch, dout_row: tl.constexpr,
    out_row: tl.constexpr, N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr,
    STEPS: tl.constexpr, SAVE: tl.constexpr, HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr, HAS_INTO: tl.constexpr,
    SUMS: tl.constexpr, APART: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk, newest token first.

    From each saved state SAVE steps are run again, the newest STEPS of them kept in registers and then walked back.
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
    x_base, dt_base = x_ptr + batch * x_batch + first.to(tl.int64) * x_row, dt_ptr + batch * dt_batch + first.to(tl.int64) * dt_row
    z_base, dout_base = z_ptr + batch * z_batch + first.to(tl.int64) * z_row, dout_ptr + batch * dout_batch + first.to(tl.int64) * dout_row
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
        state = tl.load(save_ptr + (batch * n_saves + first // SAVE + saved) * N * E + tile, mask=mask_e[None, :], other=0.0)
        state = state.to(tl.float32)
        xs, dts = _rows(x_base, x_row, t0, count, offs_e, E, STEPS, FULL), _rows(dt_base, dt_row, t0, count, offs_e, E, STEPS, FULL)
        douts = _rows(dout_base, dout_row, t0, count, offs_e, E, STEPS, FULL)
        zs = _rows(z_base, z_row, t0, count, offs_e, E, STEPS, FULL) if HAS_Z else ()
        shifts = _borders(seq_base, first, t0, count, STEPS, HAS_SEQ, FULL)
        for r0 in range(saved * SAVE, t0, STEPS):
            replay_xs = _rows(x_base, x_row, r0, count, offs_e, E, STEPS, FULL)
            replay_dts = _rows(dt_base, dt_row, r0, count, offs_e, E, STEPS, FULL)
            replay_shifts = _borders(seq_base, first, r0, count, STEPS, HAS_SEQ, FULL)
            for s in tl.static_range(STEPS):
                t = r0 + s
                delta, b_row = _delta(replay_dts[s], bias, t, count, FULL), _row(bc_base, t, count, offs_n, N, BLOCK_E, ASM, FULL)
                step = (delta * replay_xs[s].to(tl.float32))[None, :] * b_row
                state = _decay(delta, a2, replay_shifts[s], HAS_SEQ) * state + step
        if PREFETCH > 0:  # the next group: its saved state, its rows, its B and C
            lane, t = tl.arange(0, BLOCK_E), tl.maximum(t0 - STEPS, 0)
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
            delta, b_row = _delta(dts[s], bias, t, count, FULL), _row(bc_base, t, count, offs_n, N, BLOCK_E, ASM, FULL)
            old = _decay(delta, a2, shifts[s], HAS_SEQ) * state
            state = old + (delta * xs[s].to(tl.float32))[None, :] * b_row
            olds = olds + (old,)
        zero = _zero(a_ptr, L)
        bc_again = bc_base + zero.to(tl.int32) if APART else bc_base
        for r in tl.static_range(STEPS):
            t = t0 + (STEPS - 1 - r)
            x, raw = xs[STEPS - 1 - r].to(tl.float32), dts[STEPS - 1 - r]
            delta = _delta(raw, bias, t, count, FULL) + zero
            u, dy = delta * x, douts[STEPS - 1 - r].to(tl.float32)
            b_row, c_row = _row(bc_again, t, count, offs_n, N, BLOCK_E, ASM, FULL), _row(bc_again + N, t, count, offs_n, N, BLOCK_E, ASM, FULL)
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
            _store_channel_sums(
                part, grad * u[None, :], state * dy[None, :], offs_n, t < count, N, BLOCK_E, SUMS
            )
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


# Steps between two saved states: 8 costs 64 bytes a channel and token in memory, half a recomputation of time.
SAVE_EVERY = 4
FWD_STEPS, BWD_STEPS, LANES = 4, 4, 32
FWD_REGISTERS: int | None = None
BWD_REGISTERS: int | None = None
APART = True
FWD_PREFETCH, BWD_PREFETCH = 0, 0
SAVE_DTYPE = torch.float32
AHEAD = True


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
        asm = n_state == 16 and x.device.type == "cuda"
        flags = {"HAS_BIAS": dt_bias is not None, "HAS_SEQ": seq_idx is not None}
        z_or_x, seq_or_x = x if z is None else z, x if seq_idx is None else seq_idx  # a pointer is needed to offset
        start = initial_state
        if n_chunks > 1:
            local, total, into = _chunk_buffers(x, n_chunks, n_state)
            _chunk_state_kernel[grid](
                x, dt, bc, a2, dt_bias, seq_or_x, local, total, length, channels, chunk_len, n_chunks,
                *_strides(x), *_strides(dt), ASM=asm, FULL=_full(x, FWD_STEPS), STEPS=FWD_STEPS, **shape, **flags,
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
        saves = torch.empty(batch, n_saves, n_state, channels, dtype=SAVE_DTYPE, device=x.device)
        _scan_fwd_kernel[grid](
            x, dt, z_or_x, bc, a2, D, dt_bias, seq_or_x, start, y, final, saves,
            length, channels, chunk_len, n_chunks, n_saves, *_strides(x), *_strides(dt), *_strides(z),
            out_row=channels, ASM=asm, FULL=_full(x, FWD_STEPS), STEPS=FWD_STEPS, SAVE=save_every, HAS_D=D is not None, HAS_Z=z is not None, HAS_START=start is not None,
            PREFETCH=FWD_PREFETCH if asm else 0, AHEAD=AHEAD, maxnreg=FWD_REGISTERS, **shape, **flags,
        )  # fmt: skip
        ctx.save_for_backward(x, dt, z, bc, a2, D, dt_bias, seq_idx, saves)
        ctx.chunk_len, ctx.save_every, ctx.dtypes = chunk_len, save_every, (A.dtype, B.dtype, C.dtype)
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
        asm = n_state == 16 and x.device.type == "cuda"
        flags = {"HAS_BIAS": dt_bias is not None, "HAS_SEQ": seq_idx is not None, "HAS_Z": z is not None}
        z_or_x, seq_or_x = x if z is None else z, x if seq_idx is None else seq_idx
        into = None if dfinal is None else dfinal.float().contiguous()
        if n_chunks > 1:
            local, total, carried = _chunk_buffers(x, n_chunks, n_state)
            _chunk_grad_kernel[grid](
                dt, z_or_x, bc, a2, dt_bias, seq_or_x, dout, local, total, length, channels, chunk_len, n_chunks,
                *_strides(dt), *_strides(z), *_strides(dout), ASM=asm, FULL=_full(x, FWD_STEPS), STEPS=FWD_STEPS, **shape, **flags,
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
            out_row=channels, ASM=asm, FULL=_full(x, BWD_STEPS), STEPS=BWD_STEPS, SAVE=ctx.save_every, HAS_D=D is not None, HAS_INTO=into is not None,
            SUMS=_sums(x, n_state), APART=APART,
            PREFETCH=BWD_PREFETCH if asm else 0, maxnreg=BWD_REGISTERS, **shape, **flags,
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


def _full(x: Tensor, steps: int) -> bool:
    """Whether no program has channels or steps to spare (chunks are multiples of 64)."""
    return x.shape[1] % steps == 0 and x.shape[2] % LANES == 0


def _sums(x: Tensor, n_state: int) -> int:
    """How to sum over channels: 1 the matrix unit in tf32, 2 the same in two terms, 0 plain (other sizes, no GPU)."""
    if n_state != 16 or x.device.type != "cuda":
        return 0
    return 2 if x.dtype == torch.float32 else 1


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
