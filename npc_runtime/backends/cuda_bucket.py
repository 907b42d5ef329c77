"""Bucket: fixed memory for a batch of so many rows, and its step, captured as a CUDA graph.

A step is the whole way from token to token: the model, the draw, and the rows' own next inputs, all on the device.
Several can therefore be launched one after another without the host looking at any of them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from npc_kernels import FIELDS, IDLE, Rows, draw_step

from npc_runtime.backends.cuda_reader import capture
from npc_runtime.sampling import TOP_K

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_kernels import StepWeights, Tables
    from numpy.typing import NDArray
    from torch import Tensor

    from npc_runtime.backends.cuda_step import Step
    from npc_runtime.backends.cuda_store import SlotStore

WINDOW = 64
"""Tokens that repetition control can look back on a device; rows with more are drawn for on the host."""
STEPS = 64
"""Most steps of one run."""
_RULES = 3


class Bucket:
    """`size` rows; those not filled are padding, which neither reads nor writes any Slot."""

    def __init__(
        self, size: int, step: Step, weights: StepWeights, store: SlotStore, tables: Tables, graphs: bool
    ) -> None:
        self.size = size
        self._model, self._weights, self._store = step, weights, store
        self._tables, self._graphs = tables, graphs
        device = store.device
        self._rows = Rows(
            torch.full((len(FIELDS), size), -1, dtype=torch.int64, device=device),
            torch.full((size, WINDOW), -1, dtype=torch.int32, device=device),
            torch.full((STEPS, size), IDLE, dtype=torch.int64, device=device),
            torch.zeros(1, dtype=torch.int64, device=device),
        )
        pinned = device.type == "cuda"
        self._table = torch.full((len(FIELDS), size), -1, dtype=torch.int64, pin_memory=pinned)
        self._recent = torch.full((size, WINDOW), -1, dtype=torch.int32, pin_memory=pinned)
        self._out = torch.full((STEPS, size), IDLE, dtype=torch.int64, pin_memory=pinned)
        self._sent = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured = -1
        self.logits: Tensor = torch.zeros(0)
        """(size, V) fp32 of the last step."""
        self.waited_s = 0.0
        """Time spent waiting for the device."""

    def fill(
        self,
        whole: Sequence[tuple[int, ...]],
        rules: Sequence[tuple[float, ...]],
        recent: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        """Sends rows to the device: `whole` are the whole-numbered FIELDS in order, `rules` the others."""
        if self._sent is not None:
            self._sent.synchronize()  # the copy before may still be reading what is written here
        count = len(whole)
        table: NDArray[np.int64] = self._table.numpy()
        table[:-_RULES, :count] = np.array(whole, np.int64).T
        table[-_RULES:, :count] = np.ascontiguousarray(np.array(rules, np.float64).T).view(np.int64)
        table[0, count:] = -1  # nobody's Slot
        table[1:, count:] = 0
        if recent is not None:
            window: NDArray[np.int32] = self._recent.numpy()
            window[:count] = -1
            for row, ids in enumerate(recent):
                if ids:
                    window[row, : len(ids)] = ids
            self._rows.recent.copy_(self._recent, non_blocking=True)
        self._rows.table.copy_(self._table, non_blocking=True)
        if self._sent is not None:
            self._sent.record()

    @torch.no_grad()
    def run(self, steps: int) -> None:
        """Launches steps one after another; nothing waits for them."""
        self._rows.step.zero_()
        graph = self._captured_graph() if self._graphs else None
        for _ in range(steps):
            if graph is None:
                self._step()
            else:
                graph.replay()

    def drawn(self, steps: int) -> list[list[int]]:
        """Waits, and gives the tokens of each of the last `steps` steps by row."""
        self._out[:steps].copy_(self._rows.out[:steps], non_blocking=True)
        if self._graphs:
            begun = time.perf_counter()
            torch.cuda.current_stream(self._store.device).synchronize()
            self.waited_s += time.perf_counter() - begun
        made: list[list[int]] = self._out[:steps].tolist()
        return made

    def _step(self) -> None:
        rows, store = self._rows, self._store
        self.logits = self._model(rows.field("token"), rows.field("slot"), store, self._weights)
        draw_step(self.logits, rows, self._tables, TOP_K)

    def _captured_graph(self) -> torch.cuda.CUDAGraph:
        if self._graph is None or self._captured != self._store.generation:
            self._graph = self._capture()
            self._captured = self._store.generation
        return self._graph

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Records a step; the rows waiting are put aside, so that what runs meanwhile touches no Slot."""
        table, recent = self._rows.table.clone(), self._rows.recent.clone()
        self._rows.table.zero_()[0] = -1
        graph = capture(self._step, self._store.device)
        self._rows.table.copy_(table)
        self._rows.recent.copy_(recent)
        self._rows.step.zero_()
        return graph
