"""The parts that the kernels of the selective scan are put together from.

A tile is (N, BLOCK_E) with the channels along the lanes: Triton's default layout then gives each thread one column.
Tiles of memory are addressed with a run-time E, whose divisibility Triton does not know: were it known, the tile
would be loaded as vectors of channels and every tile after it laid out that way.
"""

# Triton's kernels are not Python: their arguments have no Python types, and its tuples grow by addition only.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
RESET = tl.constexpr(-1.0e30)  # added to an exponent it makes the decay exactly 0, also in a sum over a chunk


def _channel_sums_asm(split: bool) -> str:
    """PTX that sums two tiles of 16 states over the channels, one a thread, and stores a lane's sum.

    The tiles' registers v come as inputs after 16 results, then the addresses; 0 stands for no store. Matrix unit
    first: `mma.m16n8k8` with v[4j:4j+4] as A and a B that picks columns leaves in lane (g, q) the sums of v[4q:4q+4]
    over the four lanes of group g; exchanges then sum over the groups, each halving what a lane holds. tf32 keeps 11
    bits of a term, enough for half-precision results; `split` feeds it the rest as a second term, for fp32.
    """
    lines = [".reg .b32 lane, group, v, w, s, k; .reg .b32 one<8>; .reg .b32 r<8>; .reg .b32 h<4>; .reg .b32 l<4>;"]
    lines += [".reg .pred p, here;", "mov.u32 lane, %laneid;", "shr.u32 group, lane, 2;"]
    for g in range(8):
        lines += [f"setp.eq.u32 p, group, {g};", f"selp.b32 one{g}, 0x3f800000, 0, p;"]
    lines += [f"mov.b32 r{i}, 0;" for i in range(8)]
    for quad in range(8):  # of both tiles
        column, half = quad % 4, quad // 4
        d = [f"r{4 * half + i}" for i in (0, 2, 1, 3)]
        a = [f"${16 + 4 * quad + i}" for i in range(4)]
        terms = [a]
        if split:
            lines += [f"and.b32 h{i}, {a[i]}, 0xffffe000;" for i in range(4)]
            lines += [f"sub.f32 l{i}, {a[i]}, h{i};" for i in range(4)]
            terms = [[f"h{i}" for i in range(4)], [f"l{i}" for i in range(4)]]
        acc = ", ".join(d)
        for term in terms:
            lines.append(
                f"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {{{acc}}}, {{{', '.join(term)}}}, "
                f"{{one{2 * column}, one{2 * column + 1}}}, {{{acc}}};"
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
    """Load STEPS rows of channels from `first` on, as a tuple; from `count` on as zero (FULL: as anything)."""
    rows = ()
    if FULL:
        first = tl.minimum(first, count - STEPS)
    for s in tl.static_range(STEPS):
        t = first + s
        rows = rows + (tl.load(ptr + t * row + offs_e, mask=_if(t < count, offs_e, E, FULL), other=0.0),)
    return rows


def _row_asm(load: str) -> str:
    """PTX that loads 16 floats at the first of as many addresses."""
    return "\n".join(f"{load}.v4.b32 {{${i}, ${i + 1}, ${i + 2}, ${i + 3}}}, [$16 + {4 * i}];" for i in range(0, 16, 4))


_ROW = tl.constexpr(_row_asm("ld.global.nc"))
_ROW_REGISTERS = tl.constexpr(",".join(["=r"] * 16 + ["l"] * 16))


@triton.jit
def _row(ptr, t, count, offs_n, N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr, FULL: tl.constexpr):
    """Row t of B (or, from ptr + N, of C) in fp32 as an (N, BLOCK_E) tile; past the end the last row again.

    The instruction says that no store can change the row, so that it is loaded ahead of earlier steps' stores: with
    plain loads every step waits for the L2 cache.
    """
    ptr += (t if FULL else tl.minimum(t, count - 1)) * 2 * N
    if ASM:
        # Each element's own address, though only a thread's first is used: of a constant tile Triton makes one element.
        address = (ptr.to(tl.int64) + offs_n * 4)[:, None] + tl.zeros((N, BLOCK_E), tl.int64)
        row = tl.inline_asm_elementwise(_ROW, _ROW_REGISTERS, [address], dtype=tl.float32, is_pure=True, pack=16)
    else:
        row = tl.load(ptr + offs_n)[:, None]
    return row


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
        for _ in tl.static_range(STEPS):
            shifts = shifts + (0.0,)
    return shifts


@triton.jit
def _decay(delta, a2, shift, HAS_SEQ: tl.constexpr):
    """exp(delta A) for every state, 0 at a border. `a2` is A · log2(e)."""
    exponent = delta[None, :] * a2
    if HAS_SEQ:
        exponent += shift
    return tl.exp2(exponent)
