"""The loss: cross-entropy of weighted tokens only; the output matrix is never multiplied where nothing is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)

from npc_runtime.training.rounding import fake_quantize

if TYPE_CHECKING:
    from torch import Tensor

    from npc_runtime.model.mamba import Mamba
    from npc_runtime.training.batches import Batch


def character_loss(model: Mamba, batch: Batch, bits: int, device: torch.device) -> Tensor:
    """The weighted mean over all targets of a batch; `bits` rounds the output matrix as a Bundle would."""
    targets, weights = batch.tokens[:, 1:].reshape(-1), batch.weights[:, 1:].reshape(-1)
    # Chosen on the host, so that the GPU need not be waited for to know how many there are.
    chosen = np.flatnonzero(weights)
    if not len(chosen):
        chosen = np.zeros(1, np.int64)
    tokens = torch.from_numpy(np.ascontiguousarray(batch.tokens[:, :-1])).to(device, non_blocking=True)
    seq_idx = torch.from_numpy(np.ascontiguousarray(batch.seq_idx[:, :-1])).to(device, non_blocking=True)
    index = torch.from_numpy(chosen).to(device, non_blocking=True)
    target = torch.from_numpy(targets[chosen]).to(device, non_blocking=True)
    weight = torch.from_numpy(weights[chosen]).to(device, non_blocking=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        hidden, _ = model.hidden(tokens, None, seq_idx)
        picked = hidden.flatten(0, 1)[index]
        logits = F.linear(picked, fake_quantize(model.embedding, bits))
    losses = F.cross_entropy(logits.float(), target, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp(min=1e-6)
