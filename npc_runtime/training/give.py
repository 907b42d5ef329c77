"""Giving results away from a lent machine: weights and Bundles in parts that are small enough to come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from npc_runtime.errors import FileError
from npc_runtime.weights import from_bfloat16

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PART_BYTES = 15 << 20
WEIGHTS = "weights.bf16"


def give_weights(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Writes all tensors end to end as bfloat16, in order of name, split into parts."""
    raw = b"".join(
        weights[name].detach().to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes()
        for name in sorted(weights)
    )
    split(raw, folder, WEIGHTS)


def take_weights(folder: Path, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `give_weights` wrote, for a model whose tensors have the names and shapes of `like`."""
    values = from_bfloat16(np.frombuffer(joined(folder, WEIGHTS), np.uint16))
    if len(values) != sum(tensor.numel() for tensor in like.values()):
        raise FileError(f"`{folder}` holds {len(values)} weights, the model another number", "Use its own recipe")
    found, at = {}, 0
    for name in sorted(like):
        size = like[name].numel()
        found[name] = torch.from_numpy(values[at : at + size].reshape(like[name].shape).copy())
        at += size
    return found


def split(raw: bytes, folder: Path, name: str) -> None:
    """Writes `raw` as name.0, name.1, ... and takes older parts away."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}.*"):
        old.unlink()
    for number, start in enumerate(range(0, len(raw), PART_BYTES)):
        (folder / f"{name}.{number}").write_bytes(raw[start : start + PART_BYTES])


def joined(folder: Path, name: str) -> bytes:
    """The parts of a file, end to end."""
    parts = sorted(folder.glob(f"{name}.*"), key=lambda path: int(path.suffix[1:]))
    if not parts:
        raise FileError(f"`{folder}` holds no parts of `{name}`")
    return b"".join(part.read_bytes() for part in parts)
