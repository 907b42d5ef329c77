"""How the kernels of the selective scan are launched: the choices, and which one suits how many warps."""

from __future__ import annotations

from typing import NamedTuple

LANES = 32
SAVE_EVERY = 4
"""Steps between two states saved for the backward."""


class Plan(NamedTuple):
    """How a kernel is launched; what suits depends on the GPU and on how many warps there are."""

    steps: int
    """Steps unrolled, and in the backward kept in registers."""
    registers: int | None
    """Most registers a thread may have; fewer let more warps live on a multiprocessor."""
    prefetch: int
    """Cache level to ask ahead into, 0 for none."""
    ahead: int
    """How many steps early rows of B and C are loaded (forward)."""
    channels: int = 32
    """Channels of a warp: 32, or 16 or (forward) 8, each shared by 2 or 4 lanes, for more warps of fewer registers."""
    stages: int = 0
    """Groups of `steps` tokens with room in shared memory (`_scan_staged`), at least 2; 0 for none.

    The kernels then take no `prefetch` and no `ahead`. `steps` must be a multiple of SAVE_EVERY for a forward that
    saves, and SAVE_EVERY for a backward.
    """
    chunk_len: int | None = None
    """Tokens of a chunk in the backward, a multiple of 64, where not as in the forward; 0 for one pass."""


def forward_plan(warps: int, saving: bool) -> Plan:
    """For `warps` groups of 32 channels; an H200 holds 2048 warps of 128 registers, and 1584 of 168.

    With few warps a step of the recurrence costs what its slowest load does, however many lanes share it (measured: 1,
    2 and 4 lanes a channel take 0.51, 0.53 and 0.53 ms for 16 x 1024 channels and 2048 tokens, rows of B and C one step
    early), hence two lanes, which leave the registers to load rows four steps early.
    """
    if warps > 1584:
        return Plan(4, 128, 0, 0)
    if warps > 704:
        return Plan(4 if saving else 8, None if warps <= 1056 else 168, 1, 1)
    return Plan(4 if saving else 8, None, 1, 4, 16)


def chunk_plan(warps: int) -> Plan:
    """For what each chunk makes of zero, forwards or backwards."""
    return Plan(4, None, 0, 3) if warps > 704 else Plan(8, None, 0, 4, 16)


def backward_plan(warps: int) -> Plan:
    """Measured on an H200, see kernels/README.md."""
    return Plan(4, None, 2, 0)
