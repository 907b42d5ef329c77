"""DrawTables: what rows on a device point into while they draw: allowed ids, tries, sets of banned ids.

A trie's nodes and a set are written once and found again by identity or value; a full table starts over, which is
safe between uploads, because every upload names its rows' entries anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from npc_kernels import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from npc_runtime.constraint import Trie

NODES, WIDTH, SETS = 16384, 64, 64
"""Nodes of tries, ids a node can allow, sets of banned ids: more are drawn for on the host."""


class Full(Exception):
    """A table has no place left: start over and upload every row again."""


class DrawTables:
    """Tables of one vocabulary on one device."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self.device = Tables(
            torch.full((NODES, WIDTH), -1, dtype=torch.int64, device=device),
            torch.full((NODES, WIDTH), -1, dtype=torch.int64, device=device),
            torch.zeros(SETS, vocab_size, dtype=torch.bool, device=device),
            torch.zeros(vocab_size, dtype=torch.bool, device=device),
        )
        self._blank: frozenset[int] = frozenset()
        self.start_over()

    def start_over(self) -> None:
        """Forgets every entry but the empty set."""
        self._nodes: dict[Any, int] = {}
        self._sets: dict[frozenset[int], int] = {frozenset(): 0}
        self._count = 0

    def banned(self, ids: frozenset[int]) -> int:
        """The entry of a set of ids. Raises Full."""
        place = self._sets.get(ids)
        if place is None:
            if len(self._sets) >= SETS:
                raise Full
            place = self._sets[ids] = len(self._sets)
            self.device.banned[place] = _mask(ids, self._vocab_size)
        return place

    def blank(self, ids: frozenset[int]) -> None:
        """Sets which ids leave it open whether there is a text yet."""
        if ids != self._blank:
            self._blank = ids
            self.device.blank.copy_(_mask(ids, self._vocab_size))

    def allowed(self, ids: tuple[int, ...]) -> int | None:
        """The entry that allows just these ids, None when they are too many. Raises Full."""
        place = self._nodes.get(ids)
        if place is None and len(ids) <= WIDTH:
            place = self._write(ids, [(ids, ())])
        return place

    def trie(self, trie: Trie[Any]) -> int | None:
        """The entry of a trie's place, the places behind it written too; None when one is too wide. Raises Full."""
        place = self._nodes.get(trie)
        if place is None:
            nodes = _breadth_first(trie)
            if max(len(node.allowed) for node in nodes) > WIDTH:
                return None
            numbers = {id(node): number for number, node in enumerate(nodes)}
            children = [[numbers.get(id(node.child(i)), -1) for i in node.allowed] for node in nodes]
            place = self._write(trie, [(node.allowed, c) for node, c in zip(nodes, children, strict=True)])
            for number, node in enumerate(nodes):
                self._nodes[node] = place + number
        return place

    def _write(self, key: object, entries: list[tuple[tuple[int, ...], Iterable[int]]]) -> int:
        """Writes entries side by side; children are counted from the first of them. The place of the first."""
        first = self._count
        if first + len(entries) > NODES:
            raise Full
        allowed: NDArray[np.int64] = np.full((len(entries), WIDTH), -1, np.int64)
        follow = allowed.copy()
        for row, (ids, children) in enumerate(entries):
            allowed[row, : len(ids)] = ids
            behind = [first + child if child >= 0 else -1 for child in children]
            follow[row, : len(behind)] = behind
        self.device.allowed[first : first + len(entries)] = torch.from_numpy(allowed)
        self.device.follow[first : first + len(entries)] = torch.from_numpy(follow)
        self._nodes[key] = first
        self._count += len(entries)
        return first


def _mask(ids: Iterable[int], size: int) -> torch.Tensor:
    mask = np.zeros(size, bool)
    mask[[i for i in ids if 0 <= i < size]] = True
    return torch.from_numpy(mask)


def _breadth_first(trie: Trie[Any]) -> list[Trie[Any]]:
    """Every place of a trie at which something may follow."""
    nodes = [trie]
    for node in nodes:
        nodes += [child for child in map(node.child, node.allowed) if child.allowed]
    return nodes
