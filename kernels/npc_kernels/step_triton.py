"""One token a row on an NVIDIA GPU: the launches of the decode step's kernels.

A step of one layer for few rows is four kernels: norm and in_proj; convolution and x_proj; dt_proj, recurrence and
gate; out_proj and the addition. Each asks for its weights before it waits for the kernel that feeds it (programmatic
dependent launch). `decode_step` says which kernels other numbers of rows take.
"""

# Triton's launches have no Python types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from npc_kernels._step_kernels import (
    _conv_kernel,
    _conv_project_kernel,
    _dt_kernel,
    _embed_kernel,
    _linear_add_kernel,
    _norm_kernel,
    _norm_linear_kernel,
    _state_kernel,
)

FEW = 64
"""Up to as many rows products are made by the small tiles."""
MIDDLE, MIDDLE_CHANNELS = 256, 1024
"""Up to as many rows, where they are more than FEW, of as many channels, x_proj is made by the convolution's kernel.

With 1536 channels that kernel's twelve shares cost more than a kernel of x_proj's own (H200, 130M parameters: a step of
128 rows takes 1.34 ms with it and 1.07 without; of 24.5M 0.34 and 0.41).
"""
EARLY = 512
"""Up to as many rows a kernel starts before the one that feeds it ends.

With more, programs that wait keep the running ones from the multiprocessors (H200, 24.5M parameters: a step of 1 row
takes 220 us without the early start and 136 with it, one of 1024 rows 1.04 ms without and 1.22 with it).
"""
LATE = 1024
"""Up to as many rows, where they are more than EARLY, it starts when the last programs have only results to write."""


@cache
def options(device: torch.device, rows: int) -> dict[str, int]:
    """Switches a kernel for so many rows is launched with. PDL: 1, the next starts at once; 2, late; 0, at the end."""
    if device.type != "cuda":  # the interpreter
        return {"PDL": 0}
    from triton.backends.nvidia.compiler import CUDAOptions

    fields = CUDAOptions.__dataclass_fields__
    if rows > LATE or "launch_pdl" not in fields or torch.cuda.get_device_capability(device) < (9, 0):
        return {"PDL": 0, "enable_fp_fusion": True}
    return {"PDL": 1 if rows <= EARLY else 2, "launch_pdl": True, "enable_fp_fusion": True}


def embed(tokens: Tensor, table: Tensor) -> Tensor:
    """Rows of a table in fp32."""
    width = table.shape[1]
    out = torch.empty(tokens.shape[0], width, dtype=torch.float32, device=table.device)
    # with more rows than FEW kernels read their stores before they wait, and this one alone waits for the step before
    switches = {"PDL": 0} if tokens.shape[0] > FEW else options(table.device, tokens.shape[0])
    _embed_kernel[(tokens.shape[0],)](tokens, table, out, width, BLOCK=triton.next_power_of_2(width), **switches)
    return out


def norm_linear(x: Tensor, norm: Tensor, weight: Tensor, out: Tensor, eps: float) -> Tensor:
    """Write norm(x) W^T into `out`."""
    rows, width = x.shape
    features = weight.shape[0]
    block_b = _tile_rows(rows)
    _norm_linear_kernel[(triton.cdiv(features, 16), triton.cdiv(rows, block_b))](
        x, norm, weight, out, rows, features, eps, D=width, QUARTER=quarter(width), BLOCK_B=block_b,
        BLOCK_F=16, PRECISION=_precision(weight), num_warps=4, **options(x.device, rows),
    )  # fmt: skip
    return out


def norm_factor(x: Tensor, norm: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Give x norm (B, D), and the factors (B) that make RMSNorm of it."""
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=dtype, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    _norm_kernel[(triton.cdiv(rows, 4),)](
        x, norm, out, scale, rows, eps, D=width, QUARTER=quarter(width), BLOCK_B=4,
        num_warps=4, **options(x.device, rows),
    )  # fmt: skip
    return out, scale


def linear_add(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Add x W^T to `out`."""
    rows, width = x.shape
    features = weight.shape[0]
    block_b = _tile_rows(rows)
    _linear_add_kernel[(triton.cdiv(features, 8), triton.cdiv(rows, block_b))](
        x, weight, out, rows, features, D=width, QUARTER=quarter(width), BLOCK_B=block_b, BLOCK_F=8,
        PRECISION=_precision(weight), num_warps=4, **options(x.device, rows),
    )  # fmt: skip
    return out


def quarter(width: int) -> int:
    """What each of four partial sums over `width` spans."""
    span: int = 64 * triton.cdiv(width, 256)
    return span


def conv(x: Tensor, store: Tensor, slots: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv_step` on tensors already checked."""
    rows, channels = x.shape
    y = torch.empty(rows, channels, dtype=x.dtype, device=x.device)
    block = min(512, triton.next_power_of_2(channels))
    _conv_kernel[(rows, triton.cdiv(channels, block))](
        x, store, slots, weight, bias, y, rows, channels, x.stride(0), store.stride(0),
        *weight.stride(), K=weight.shape[1], BLOCK_B=1, BLOCK_E=block, HAS_BIAS=bias is not None,
        num_warps=4, **options(x.device, rows),
    )  # fmt: skip
    return y


SHARE = 128
"""Channels of one partial sum of x_proj."""


def conv_project(
    x: Tensor, store: Tensor, slots: Tensor, weight: Tensor, bias: Tensor, proj: Tensor
) -> tuple[Tensor, Tensor]:
    """Give the convolution (B, E) and the shares of its product with proj, (E / SHARE, B, P) fp32, to be summed."""
    rows, channels = x.shape
    size = proj.shape[0]
    blocks = triton.cdiv(channels, SHARE)
    y = torch.empty(rows, channels, dtype=proj.dtype, device=x.device)
    part = torch.empty(blocks, rows, size, dtype=torch.float32, device=x.device)
    block_b = _tile_rows(rows) if rows <= FEW else 16
    _conv_project_kernel[(blocks, triton.cdiv(rows, block_b))](
        x, store, slots, weight, bias, proj, y, part, rows, channels, x.stride(0), store.stride(0),
        *weight.stride(), K=weight.shape[1], P=size, BLOCK_P=triton.next_power_of_2(size), BLOCK_B=block_b,
        BLOCK_E=SHARE, PRECISION=_precision(proj), EARLY=rows > FEW, num_warps=4, **options(x.device, rows),
    )  # fmt: skip
    return y, part


def dt_of_shares(shares: Tensor, weight: Tensor) -> Tensor:
    """Give dt (B, E) from the shares (shares, B, R) of its low rank, in the dtype of weight (E, R)."""
    (count, rows, rank), channels = shares.shape, weight.shape[0]
    out = torch.empty(rows, channels, dtype=weight.dtype, device=weight.device)
    _dt_kernel[(triton.cdiv(rows, 16), triton.cdiv(channels, 64))](
        shares, weight, out, rows, channels, shares.stride(1), *weight.stride(), shares.stride(0), R=rank,
        BLOCK_R=max(16, triton.next_power_of_2(rank)), BLOCK_B=16, BLOCK_E=64, SHARES=count,
        num_warps=4, **options(shares.device, rows),
    )  # fmt: skip
    return out


def state(
    store: Tensor,
    slots: Tensor,
    x: Tensor,
    dt: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_weight: Tensor | None,
    early: bool = False,
) -> Tensor:
    """`state_step` on tensors already checked; dt, B and C may be (shares, B, ...), to be summed.

    early: the store is at rest, so that it may be read before the kernels launched just before have ended.
    """
    rows, channels = x.shape
    n_state = A.shape[1]
    y = torch.empty(rows, channels, dtype=x.dtype, device=x.device)
    shares = B.shape[0] if B.dim() == 3 else 1
    rank = 0 if dt_weight is None else dt_weight.shape[1]
    strides = (0, 0) if dt_weight is None else dt_weight.stride()
    switches = options(x.device, rows)
    few = middling(rows, channels) or (rows <= MIDDLE and not early)
    block, warps = (128, 4) if rank else (64, 2) if few else (128, 2)
    # fp32 states keep the memory busy, and then it is faster to walk over the rows first (H200, 8192 x 1536: 442 us
    # against 459); halves are bound by instructions, and want A left in the cache instead (286 against 271)
    row_first = store.dtype == torch.float32
    grid = (triton.cdiv(channels, block), rows)
    _state_kernel[grid[::-1] if row_first else grid](
        store, slots, x, dt, dt_bias, A, B, C, D, z, dt_weight, y, channels, store.stride(0), x.stride(0),
        dt.stride(-2), B.stride(-2), C.stride(-2), z.stride(0), *A.stride(), *strides, B.stride(0),
        N=n_state, LEVELS=n_state.bit_length() - 1, R=rank, BLOCK_R=max(16, triton.next_power_of_2(max(rank, 1))),
        BLOCK_E=block, SHARES=shares, ROW_FIRST=row_first, EVICT="" if row_first else "evict_first",
        EARLY=early and switches["PDL"] == 1, num_warps=warps, **switches,
    )  # fmt: skip
    return y


def middling(rows: int, channels: int) -> bool:
    """Whether a layer of more than FEW rows is made by `middle_layer`'s kernels."""
    return rows <= MIDDLE and channels <= MIDDLE_CHANNELS


def _tile_rows(rows: int) -> int:
    return 16 if rows <= 32 else 32


def _precision(weight: Tensor) -> str:
    """fp32 products in three tf32 terms, which lose nothing that fp32 would keep."""
    return "tf32x3" if weight.dtype == torch.float32 else "tf32"
