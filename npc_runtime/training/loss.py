"""The loss: cross-entropy of weighted tokens only; the output matrix is never multiplied where nothing is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from npc_kernels import linear_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from npc_runtime.model.mamba import Mamba
    from npc_runtime.training.batches import Batch


def character_loss(model: Mamba, batch: Batch, device: torch.device) -> Tensor:
    """The weighted mean over all targets of a batch."""
    targets, weights = batch.tokens[:, 1:].reshape(-1), batch.weights[:, 1:].reshape(-1)
    # Chosen on the host, so that the GPU need not be waited for to know how many there are.
    chosen = np.flatnonzero(weights)
    if not len(chosen):
        chosen = np.zeros(1, np.int64)
    tokens, seq_idx = batch.tokens[:, :-1], batch.seq_idx[:, :-1]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        hidden, _ = model.hidden(_moved(tokens, device), None, _moved(seq_idx, device))
        picked = hidden.flatten(0, 1)[_moved(chosen, device)]
        weight = _moved(weights[chosen], device)
        total = linear_cross_entropy(picked, model.head(), _moved(targets[chosen], device), weight)
    return total / weight.sum().clamp(min=1e-6)


def _moved(values: np.ndarray, device: torch.device) -> Tensor:
    found = torch.from_numpy(np.ascontiguousarray(values))
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found
