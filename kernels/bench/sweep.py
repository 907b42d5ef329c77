"""What the sweeps share: where they run, their clock, and the copy bandwidth that anchors are scaled by.

`--dry` on the command line means a CPU, tiny shapes and Triton's interpreter; import this before npc_kernels.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "tests")]
DRY = "--dry" in sys.argv
if DRY:
    os.environ["TRITON_INTERPRET"] = "1"
DEVICE = "cpu" if DRY else "cuda"
COPY_GB_S = 4282
"""Of the anchors' H200."""


class Clock:
    """A run that tells when it is late, and how fast this machine copies."""

    def __init__(self, seconds: float) -> None:
        self.started = time.time()
        self.deadline = self.started + seconds
        self.copy = float(COPY_GB_S)

    def say(self, *words: object) -> None:
        """Print with the clock."""
        print(f"[{time.time() - self.started:6.1f}]", *words, flush=True)

    def late(self, reserve: float = 0.0) -> bool:
        """Whether less than `reserve` seconds are left."""
        return time.time() > self.deadline - reserve

    def ceiling(self, milliseconds: Callable[[Callable[[], object]], float]) -> None:
        """Copy bandwidth, by the sweep's own way to time a call."""
        import torch  # after the interpreter is chosen

        source = torch.randn(1 << (10 if DRY else 30), device=DEVICE, dtype=torch.bfloat16)
        target = torch.empty_like(source)
        ms = milliseconds(lambda: target.copy_(source))
        self.copy = COPY_GB_S if DRY else 4 * source.numel() / ms / 1e6
        self.say(f"copy {self.copy:.0f} GB/s (anchors: {COPY_GB_S})")
