"""One token a row through the model, on Slots in place: npc_kernels' own step, and one whose products never mix rows.

Promise 3 asks for the same bits whoever else is in the batch. `decode_step` is made so; where a machine shows it not
to be, `composed_step` gives up its speed and keeps the promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from npc_kernels import add_rms_norm, conv_step, decode_step, row_linear, state_step

from npc_runtime.backends.cuda_store import SlotStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from npc_kernels import StepWeights
    from torch import Tensor

    Step = Callable[[Tensor, Tensor, SlotStore, StepWeights], Tensor]
    Row = tuple[Tensor, Tensor, Tensor]

_PROBES = 3


def fused_step(tokens: Tensor, slots: Tensor, store: SlotStore, weights: StepWeights) -> Tensor:
    """Feeds one token a row (B) to its Slot (B, negative: nobody's); the logits (B, V) fp32.

    On a CPU row by row: its matrix products, unlike the kernels', round a row otherwise in another batch.
    """
    if store.device.type == "cuda":
        return decode_step(tokens, slots, store.conv, store.ssm, weights)
    rows = zip(tokens[:, None], slots[:, None], strict=True)
    return torch.cat([decode_step(token, slot, store.conv, store.ssm, weights) for token, slot in rows])


def composed_step(tokens: Tensor, slots: Tensor, store: SlotStore, weights: StepWeights) -> Tensor:
    """As `fused_step`, of the products that reading takes."""
    dtype = weights.embedding.dtype
    residual = torch.nn.functional.embedding(tokens, weights.embedding).float()[:, None]  # (B, 1, D)
    branch: Tensor | None = None
    for w, conv, ssm in zip(weights.layers, store.conv, store.ssm, strict=True):
        normed, residual = add_rms_norm(branch, residual, w.norm, weights.eps, dtype)
        x, z = row_linear(normed[:, 0], w.in_proj).chunk(2, -1)
        x = conv_step(x, conv, slots, w.conv_weight, w.conv_bias)
        low = row_linear(x, w.x_proj, torch.float32)
        dt, B, C = torch.tensor_split(low, (w.dt_proj.shape[1], w.dt_proj.shape[1] + w.A.shape[1]), -1)
        y = state_step(ssm, slots, x, dt, w.dt_bias, w.A, B, C, w.D, z, w.dt_proj)
        branch = row_linear(y, w.out_proj)[:, None]
    normed, _ = add_rms_norm(branch, residual, weights.norm_f, weights.eps, dtype)
    return row_linear(normed[:, 0], weights.head, torch.float32)


def choose_step(store: SlotStore, weights: StepWeights, most: int) -> tuple[Step, bool]:
    """The fastest step whose rows are independent in batches of up to `most`, or the fastest and False."""
    with torch.no_grad():
        for step in (fused_step, composed_step):
            if independent(step, store, weights, most):
                return step, True
    return fused_step, False


def independent(step: Step, store: SlotStore, weights: StepWeights, most: int) -> bool:
    """True when rows first, in the middle and last of a batch come out bit for bit as they did alone."""
    tokens = torch.arange(_PROBES, device=store.device) * (weights.embedding.shape[0] // _PROBES)
    alone = [_stepped(step, 1, tokens[row : row + 1], (0,), row, store, weights)[0] for row in range(_PROBES)]
    sizes = [1 << n for n in range(1, (most - 1).bit_length() + 1)]
    for size in sizes:
        places = sorted({0, size // 2, size - 1})
        made = _stepped(step, size, tokens[: len(places)], places, 0, store, weights)
        if not all(
            torch.equal(a, b) for row, one in zip(made, alone, strict=False) for a, b in zip(row, one, strict=True)
        ):
            return False
    return True


def _stepped(
    step: Step, size: int, tokens: Tensor, places: Sequence[int], first: int, store: SlotStore, weights: StepWeights
) -> list[Row]:
    """Logits and both parts of the State of rows at `places` of a batch, each from random Slots `first` and on."""
    probe = probe_store(store)
    fed = torch.zeros(size, dtype=torch.int64, device=store.device)
    slots = torch.full_like(fed, -1)
    for row, place in enumerate(places):
        fed[place], slots[place] = tokens[row], first + row
    logits = step(fed, slots, probe, weights)
    return [(logits[place], probe.conv[:, first + i], probe.ssm[:, first + i]) for i, place in enumerate(places)]


def probe_store(store: SlotStore) -> SlotStore:
    """A store like another with a few random Slots, the same every time."""
    probe = SlotStore(store.spec, _PROBES, store.device, store.dtype)
    generator = torch.Generator(store.device).manual_seed(0)
    probe.conv.normal_(generator=generator)
    probe.ssm.normal_(generator=generator)
    return probe
