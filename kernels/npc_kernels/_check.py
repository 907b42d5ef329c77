"""Refuse what a kernel could only read wrongly: shapes, dtypes, devices, strides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def check_tensor(name: str, tensor: Tensor, dims: int) -> None:
    """Raise ValueError unless `tensor` is a float tensor of `dims` dimensions."""
    if tensor.dim() != dims:
        raise ValueError(f"`{name}` must have {dims} dimensions, got shape {tuple(tensor.shape)}")
    if tensor.dtype not in _FLOATS:
        raise ValueError(f"`{name}` must be float32, bfloat16 or float16, got {tensor.dtype}")


def check_shape(
    name: str, tensor: Tensor | None, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None
) -> None:
    """Raise ValueError unless `tensor` is absent or has `shape`, `dtype` (by default any float) and `like`'s device."""
    if tensor is None:
        return
    if tuple(tensor.shape) != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.dtype not in (_FLOATS if dtype is None else (dtype,)):
        wanted = "float32, bfloat16 or float16" if dtype is None else str(dtype)
        raise ValueError(f"`{name}` must be {wanted}, got {tensor.dtype}")
    if tensor.device != like.device:
        raise ValueError(f"`{name}` must be on {like.device} like `x`, got {tensor.device}")


def rows_contiguous(tensor: Tensor) -> Tensor:
    """Give the tensor itself if its channels lie side by side, else a copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
