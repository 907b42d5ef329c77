"""SlotStore: the States of all Npcs, resident on a device as rows of two tensors.

Both have the layout of a State with the Slot after the layer, so that moving one to the host and back is a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from npc_runtime.errors import BackendError
from npc_runtime.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from npc_runtime.state import StateSpec

FIRST = 256
"""Slots allocated before anybody needs more."""


class SlotStore:
    """Up to `capacity` Slots, allocated as they come into use: doubled, and from a quarter on filled up at once.

    The last row of the tensors belongs to nobody: index -1 is where padding rows are read from and written to.
    A `dtype` of bf16 halves the SSM part and rounds it at every step; fp32 keeps a State's bits.
    """

    def __init__(self, spec: StateSpec, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        self.spec, self.capacity, self.device, self.dtype = spec, capacity, device, dtype
        self.generation = 0
        """Counts reallocations: whoever kept the tensors' addresses must look again."""
        self.slots = 0
        self.conv, self.ssm = self._tensors(0)
        self._grow(min(FIRST, capacity))

    def reserve(self, slots: Sequence[int]) -> None:
        """Makes sure that these Slots are allocated. Raises ValueError for one that cannot be."""
        if not slots:
            return
        if not 0 <= min(slots) <= max(slots) < self.capacity:
            raise ValueError(f"Slots are from 0 to {self.capacity - 1}, got {min(slots)} to {max(slots)}")
        if max(slots) >= self.slots:
            wanted = self.slots
            while wanted <= max(slots):
                # The old rows live until the new ones are filled: from a quarter to the whole needs 5/4 of it.
                wanted = wanted * 2 if wanted * 4 < self.capacity else self.capacity
            self._grow(wanted)

    def _tensors(self, slots: int) -> tuple[Tensor, Tensor]:
        (layers, *conv), (_, *ssm) = self.spec.conv_shape, self.spec.ssm_shape
        try:
            return (
                torch.zeros(layers, slots + 1, *conv, device=self.device),
                torch.zeros(layers, slots + 1, *ssm, device=self.device, dtype=self.dtype),
            )
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"the GPU has no memory for {slots} Slots of {self.spec.nbytes / 1e6:.1f} MB", "Lower `state_budget_mb`"
            ) from error

    def _grow(self, slots: int) -> None:
        conv, ssm = self._tensors(slots)
        conv[:, : self.slots], ssm[:, : self.slots] = self.conv[:, : self.slots], self.ssm[:, : self.slots]
        self.conv, self.ssm, self.slots = conv, ssm, slots
        self.generation += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # the old rows' memory serves nobody else: the next tensors are larger

    def clear(self, slot: int) -> None:
        """Zeroes a Slot."""
        self.reserve([slot])
        self.conv[:, slot] = 0
        self.ssm[:, slot] = 0

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies Slots onto others, bit for bit; no target may be a source too."""
        self.reserve([*sources, *targets])
        if len(sources) == 1:
            self.conv[:, targets[0]] = self.conv[:, sources[0]]
            self.ssm[:, targets[0]] = self.ssm[:, sources[0]]
            return
        here, there = self.index(sources), self.index(targets)
        for conv, ssm in zip(self.conv, self.ssm, strict=True):  # a layer at a time: what is in between stays small
            conv[there] = conv[here]
            ssm[there] = ssm[here]

    def finite(self, slots: Sequence[int]) -> list[bool]:
        """False for each Slot that holds NaN or infinity."""
        self.reserve(slots)
        here = self.index(slots)
        total = torch.zeros(len(slots), dtype=torch.float64, device=self.device)
        for conv, ssm in zip(self.conv, self.ssm, strict=True):  # what is not finite makes its sum so, too
            total += conv[here].sum((1, 2), dtype=torch.float64) + ssm[here].sum((1, 2), dtype=torch.float64)
        finite: list[bool] = torch.isfinite(total).tolist()
        return finite

    def read(self, slot: int) -> State:
        """A Slot as a State in host memory."""
        self.reserve([slot])
        conv, ssm = self.conv[:, slot].float().cpu(), self.ssm[:, slot].float().cpu()
        return State.of(self.spec, conv.numpy(), ssm.numpy())

    def write(self, slot: int, state: State) -> None:
        """Puts a State into a Slot; ValueError when it is of another shape."""
        if state.spec != self.spec:
            raise ValueError(f"a State of this model has {self.spec}, got {state.spec}")
        self.reserve([slot])
        self.conv[:, slot] = torch.tensor(state.conv, device=self.device)
        self.ssm[:, slot] = torch.tensor(state.ssm, device=self.device).to(self.dtype)

    def release(self) -> None:
        """Frees every Slot; the store is of no use afterwards."""
        self.conv, self.ssm = self.conv[:, :0].clone(), self.ssm[:, :0].clone()
        self.slots = 0

    def index(self, slots: Sequence[int]) -> Tensor:
        """Slots as a tensor of indices."""
        return torch.tensor(slots, dtype=torch.int64).to(self.device, non_blocking=True)
