"""The selective scan on an NVIDIA GPU: its autograd function, which launches the kernels.

One thread owns one channel and keeps its N states in registers: sums over N cost no exchange between lanes, and a row
of B or C arrives as 128-bit loads that all lanes share. Latencies are hidden by copies into shared memory under way,
not by many warps. The maths is in `kernels/README.md`.
"""

# Triton's launches have no Python types.
# mypy: disable-error-code="no-untyped-call,misc"

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from npc_kernels._scan_backward import _chunk_grad_kernel, _reduce_kernel, _scan_bwd_kernel
from npc_kernels._scan_forward import _carry_kernel, _chunk_state_kernel, _prepare_kernel, _scan_fwd_kernel
from npc_kernels._scan_staged import _staged_fwd_kernel, _staged_state_kernel
from npc_kernels._scan_staged_backward import _staged_bwd_kernel

LANES = 32
"""Channels of a program, one a thread."""
SAVE_EVERY = 4
"""Steps between two states saved for the backward."""
STEPS, STAGES = 8, 4
"""Forwards: tokens of a group, and groups with room in shared memory.

The kernel does not depend on how many sequences there are, so that a sequence keeps its bits in every batch. Two lanes
a channel with groups of 16 were 3 % faster for 512 warps and 20 % slower for 2048 (H200).
"""
BACKWARD_STAGES = 2
"""The same backwards, where groups are of SAVE_EVERY tokens. 2, 3 and 4 take the same time."""


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
        batch, _, channels = x.shape
        n_state = A.shape[1]
        a2, bc = _prepared(A, B, C)
        launch = _Launch(x, n_state, chunk_len, dt_bias is not None, seq_idx is not None)
        z_or_x, seq_or_x = x if z is None else z, x if seq_idx is None else seq_idx  # a pointer is needed to offset
        start = initial_state
        if launch.n_chunks > 1:
            local, total, start = launch.chunk_buffers(x)
            staged = launch.staged(STEPS, STAGES, x, dt)
            kernel: Any = _staged_state_kernel if staged else _chunk_state_kernel
            kernel[launch.grid](
                x, dt, bc, a2, dt_bias, seq_or_x, local, total, *launch.sizes, *_strides(x), *_strides(dt),
                **(staged or launch.plain(SAVE_EVERY)), **launch.flags,
            )  # fmt: skip
            launch.carry(local, total, a2, initial_state, start, reverse=False)
        saving = any(ctx.needs_input_grad)
        saves = launch.saves(x) if saving else x
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        final = torch.empty(batch, n_state, channels, dtype=torch.float32, device=x.device)
        staged = launch.staged(STEPS, STAGES, x, dt, z)
        kernel = _staged_fwd_kernel if staged else _scan_fwd_kernel
        kernel[launch.grid](
            x, dt, z_or_x, bc, a2, D, dt_bias, seq_or_x, start, y, final, saves,
            *launch.sizes, launch.n_saves, *_strides(x), *_strides(dt), *_strides(z), out_row=channels,
            SAVE=SAVE_EVERY if saving else 0, HAS_D=D is not None, HAS_Z=z is not None, HAS_START=start is not None,
            **(staged or launch.plain(SAVE_EVERY)), **launch.flags,
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
            _chunk_grad_kernel[launch.grid](
                dt, z_or_x, bc, a2, dt_bias, seq_or_x, dout, local, total, *launch.sizes,
                *_strides(dt), *_strides(z), *_strides(dout), HAS_Z=z is not None,
                **launch.plain(STEPS), **launch.flags,
            )  # fmt: skip
            launch.carry(local, total, a2, into, carried, reverse=True)
            into = carried
        dx, ddt = (torch.empty(x.shape, dtype=t.dtype, device=x.device) for t in (x, dt))
        dz = None if z is None else torch.empty(x.shape, dtype=z.dtype, device=x.device)
        blocks = launch.grid[0]
        part = torch.empty(batch, length, blocks, 2, n_state, dtype=torch.float32, device=x.device)
        dstart = torch.empty(batch, n_state, channels, dtype=torch.float32, device=x.device)
        dparam = torch.empty(batch * launch.n_chunks, n_state + 2, channels, dtype=torch.float32, device=x.device)
        staged = launch.staged(SAVE_EVERY, BACKWARD_STAGES, x, dt, z, dout)
        kernel: Any = _staged_bwd_kernel if staged else _scan_bwd_kernel
        kernel[launch.grid](
            x, dt, z_or_x, bc, a2, D, dt_bias, seq_or_x, saves, dout, into,
            dx, ddt, dx if dz is None else dz, part, dstart, dparam, *launch.sizes, launch.n_saves,
            *_strides(x), *_strides(dt), *_strides(z), *_strides(dout), out_row=channels,
            HAS_D=D is not None, HAS_Z=z is not None, HAS_INTO=into is not None, SUMS=launch.sums(x),
            **(staged or launch.plain(SAVE_EVERY)), **launch.flags,
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
        self.batch, self.length, self.channels = x.shape
        self.n_state = n_state
        self.n_saves = triton.cdiv(self.length, SAVE_EVERY)
        chunk_len = chunk_len or self.length
        self.n_chunks = triton.cdiv(self.length, chunk_len)
        self.sizes = (self.length, self.channels, chunk_len, self.n_chunks)
        self.grid = (triton.cdiv(self.channels, LANES), self.n_chunks, self.batch)
        # The instructions written by hand expect 16 states in a thread's registers.
        self.asm = n_state == 16 and x.device.type == "cuda"
        self._common = {"N": n_state, "BLOCK_E": LANES, "num_warps": 1, "enable_fp_fusion": True}
        self.flags = {"ASM": self.asm, "HAS_BIAS": has_bias, "HAS_SEQ": has_seq, **self._common}

    def plain(self, steps: int) -> dict[str, int]:
        """Arguments of a kernel that reads its inputs where they are."""
        return {"STEPS": steps, "FULL": self._full(steps)}

    def _full(self, steps: int) -> bool:
        """Whether no program has channels or steps to spare (chunks are multiples of 64)."""
        return self.length % steps == 0 and self.channels % LANES == 0

    def staged(self, steps: int, stages: int, *rows: Tensor | None) -> dict[str, int]:
        """Arguments of a kernel that stages its inputs; empty where the inputs rule it out.

        Copies are of 16 bytes at addresses that 16 divides.
        """
        even = all(t is None or _on_borders(t) for t in rows)
        return {"STEPS": steps, "STAGES": stages} if self.n_state == 16 and self._full(steps) and even else {}

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
            HAS_START=start is not None, REVERSE=reverse, **self._common,
        )  # fmt: skip


def _prepared(A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """A log2(e) as (N, E), and B and C side by side as (b, L, 2N), in fp32."""
    (batch, length, n_state), channels, block = B.shape, A.shape[0], 64
    a2 = torch.empty(n_state, channels, dtype=torch.float32, device=A.device)
    bc = torch.empty(batch, length, 2 * n_state, dtype=torch.float32, device=A.device)
    rows = batch * length
    _prepare_kernel[(triton.cdiv(rows, block) + triton.cdiv(channels, block),)](
        A, B, C, a2, bc, rows, length, channels, *A.stride(), *B.stride(), *C.stride(), N=n_state, BLOCK=block
    )
    return a2, bc


def _strides(t: Tensor | None) -> tuple[int, int]:
    """Strides over the batch and over L."""
    return (0, 0) if t is None else (t.stride(0), t.stride(1))


def _on_borders(t: Tensor) -> bool:
    """Whether all rows begin at addresses that 16 divides."""
    return all(place * t.element_size() % 16 == 0 for place in t.stride()[:2]) and t.data_ptr() % 16 == 0
