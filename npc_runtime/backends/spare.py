"""Spare memory, handed back to the system while nothing happens: free Slots, and what the allocator keeps.

A page that was once touched stays with a process: after a busy hour, or an attack, a daemon would hold all its
budget for ever. On Linux both go back; elsewhere nothing changes. What is read of such a page is zero.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_MADV_DONTNEED = 4


@cache
def _system() -> Any:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def trim_heap() -> None:
    """Hands back what was freed but kept by the C allocator."""
    trim = getattr(_system(), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def release_rows(store: NDArray[Any], rows: Sequence[int]) -> int:
    """Hands back the whole pages of rows of a C-ordered array, whose values are of no more use; the bytes."""
    system, size, total = _system(), store.strides[0], 0
    if system is None or not store.flags.c_contiguous:
        return 0
    for first, count in _runs(sorted(rows)):
        begin = store.ctypes.data + first * size
        low = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (begin + count * size) // mmap.PAGESIZE * mmap.PAGESIZE - low
        if length > 0 and not system.madvise(ctypes.c_void_p(low), ctypes.c_size_t(length), _MADV_DONTNEED):
            total += length
    return total


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of each run of rows that follow each other."""
    start = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place] != rows[place - 1] + 1:
            yield rows[start], place - start
            start = place
