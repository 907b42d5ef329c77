"""Huge pages are a hint: what lies in the heap stays as it was."""

from __future__ import annotations

import ctypes
import sys

import pytest

from npc_runtime.backends.huge_pages import LEAST, SIZE, collapse_heap, heap_end

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells where the heap lies")
BLOCK = 64 * 1024
"""Bytes that malloc takes from the heap, not from a mapping of their own."""


def test_nothing_is_asked_for_a_small_or_unknown_heap() -> None:
    assert collapse_heap(0) == 0
    assert collapse_heap(heap_end()) == 0
    assert collapse_heap(max(heap_end() - LEAST, 0)) == 0


@linux
def test_contents_stay_as_they_were() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    begin = heap_end()
    blocks = []
    while heap_end() < begin + LEAST + 2 * SIZE and len(blocks) < 4000:
        blocks.append(libc.malloc(BLOCK))
        ctypes.memset(blocks[-1], len(blocks) % 251, BLOCK)
    agreed = collapse_heap(begin)
    kept = [ctypes.string_at(block, BLOCK) == bytes([n % 251]) * BLOCK for n, block in enumerate(blocks, 1)]
    for block in blocks:
        libc.free(block)
    assert all(kept)
    assert agreed == 0 or agreed >= LEAST
    assert agreed % SIZE == 0
