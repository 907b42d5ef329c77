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


def check_slots(store: Tensor, slots: Tensor, rows: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `store` has (S, *shape), contiguous but for S, and `slots` one integer for each row."""
    if tuple(store.shape[1:]) != shape or store.dim() != len(shape) + 1:
        raise ValueError(f"`store` must have shape (S, {', '.join(map(str, shape))}), got {tuple(store.shape)}")
    if store.dtype not in _FLOATS:
        raise ValueError(f"`store` must be float32, bfloat16 or float16, got {store.dtype}")
    if store.stride()[1:] != (shape[1], 1):
        raise ValueError(f"`store` must be contiguous within a slot, got strides {store.stride()}")
    if tuple(slots.shape) != rows.shape[:1] or slots.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"`slots` must be ({rows.shape[0]}) int32 or int64, got {tuple(slots.shape)} {slots.dtype}")
    for name, tensor in (("store", store), ("slots", slots)):
        if tensor.device != rows.device:
            raise ValueError(f"`{name}` must be on {rows.device} like the rows, got {tensor.device}")


def rows_contiguous(tensor: Tensor) -> Tensor:
    """Give the tensor itself if its channels lie side by side, else a copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
