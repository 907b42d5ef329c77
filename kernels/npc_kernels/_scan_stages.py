"""Rows staged in shared memory for the kernels of the selective scan, several groups of steps ahead.

Copies to shared memory hold no register and no scoreboard while they are under way, so that a warp alone on its
scheduler waits for shared memory (some 30 cycles) instead of for the L2 cache. Without the hand-written instructions
(`ASM` False: the interpreter) nothing is staged and rows are read where they are.
"""

# Triton's kernels are not Python: their arguments have no Python types, and its tuples grow by addition only.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated,misc,no-redef"

from __future__ import annotations

import triton
import triton.language as tl

from npc_kernels._scan_parts import _row_asm


@triton.constexpr_function
def _room_asm(size):
    return f"{{ .shared .align 128 .b8 room[{size}]; mov.u32 $0, room; }}"


@triton.constexpr_function
def _arrived_asm(later):
    return f"cp.async.wait_group {later}; bar.warp.sync 0xffffffff;"


@triton.constexpr_function
def _bytes(element):
    return element.primitive_bitwidth // 8


@triton.jit
def _room(BYTES: tl.constexpr, ASM: tl.constexpr):
    """Address of BYTES of shared memory."""
    address = tl.arange(0, 32) * 0
    if ASM:
        code: tl.constexpr = _room_asm(BYTES)
        address = tl.inline_asm_elementwise(code, "=r,r", [address], dtype=tl.int32, is_pure=False, pack=1)
    return tl.max(address, 0)


@triton.jit
def _stage(to, base, row, t0, ROWS: tl.constexpr, WIDTH: tl.constexpr, ASM: tl.constexpr):
    """Start the copy of ROWS rows of WIDTH values from row t0 of `base` to the address `to`, 16 bytes a lane."""
    if ASM:
        PER: tl.constexpr = 16 // _bytes(base.dtype.element_ty)  # values in 16 bytes
        PIECES: tl.constexpr = ROWS * WIDTH // PER
        for i in tl.static_range((PIECES + 31) // 32):
            piece = i * 32 + tl.arange(0, 32)
            value = piece // (WIDTH // PER) * row + piece % (WIDTH // PER) * PER
            address = (base + t0 * row).to(tl.int64) + value * (16 // PER)
            address = tl.where(piece < PIECES, address, 0)
            tl.inline_asm_elementwise(
                "{ .reg .pred p; setp.ne.u64 p, $2, 0; @p cp.async.cg.shared.global [$1], [$2], 16; }", "=r,r,l",
                [to + piece * 16, address], dtype=tl.int32, is_pure=False, pack=1,
            )  # fmt: skip


@triton.jit
def _close(ASM: tl.constexpr):
    """Make one group of the copies started since the last call."""
    if ASM:
        lane = tl.arange(0, 32)
        tl.inline_asm_elementwise("cp.async.commit_group;", "=r,r", [lane], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def _arrived(LATER: tl.constexpr, ASM: tl.constexpr):
    """Wait until all groups but the LATER newest are there, for every lane to see, and every lane has read before."""
    if ASM:
        lane = tl.arange(0, 32)
        code: tl.constexpr = _arrived_asm(LATER)
        tl.inline_asm_elementwise(code, "=r,r", [lane], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def _held(address, ptr, ASM: tl.constexpr):
    """Values as fp32, from their addresses in shared memory; without the hand-written part from `ptr`."""
    if ASM:
        kind: tl.constexpr = ptr.dtype.element_ty
        if kind == tl.bfloat16:
            code: tl.constexpr = "{ .reg .b16 v, n; ld.shared.b16 v, [$1]; mov.b16 n, 0; mov.b32 $0, {n, v}; }"
        elif kind == tl.float16:
            code: tl.constexpr = "{ .reg .b16 v; ld.shared.b16 v, [$1]; cvt.f32.f16 $0, v; }"
        else:
            code: tl.constexpr = "ld.shared.b32 $0, [$1];"
        value = tl.inline_asm_elementwise(code, "=r,r", [address], dtype=tl.float32, is_pure=False, pack=1)
    else:
        value = tl.load(ptr).to(tl.float32)
    return value


_HELD = tl.constexpr(_row_asm("ld.shared"))
_HELD_REGISTERS = tl.constexpr(",".join(["=r"] * 16 + ["r"] * 16))


@triton.jit
def _held_row(address, ptr, offs_n, N: tl.constexpr, BLOCK_E: tl.constexpr, ASM: tl.constexpr):
    """A row of B or C as an (N, BLOCK_E) tile, from where `_held` takes its values."""
    if ASM:
        places = (address + offs_n * 4)[:, None] + tl.zeros((N, BLOCK_E), tl.int32)
        row = tl.inline_asm_elementwise(_HELD, _HELD_REGISTERS, [places], dtype=tl.float32, is_pure=False, pack=16)
    else:
        row = tl.load(ptr + offs_n)[:, None]
    return row
