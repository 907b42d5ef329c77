"""Pool: who holds which Slot. Integers only; the backend moves the memory.

A Slot may be held by several owners (an Npc that has not spoken since its persona was read, a
rewind point, a fork): it is copied only when somebody writes (copy on write).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from npc_runtime.errors import BudgetExceeded, NothingToRewind

Mark = TypeVar("Mark")


class Pool:
    """Reference counts of `capacity` Slots; a Slot that nobody holds is free."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._holders = [0] * capacity
        self._free = list(range(capacity - 1, -1, -1))

    @property
    def free(self) -> int:
        """Slots nobody holds."""
        return len(self._free)

    @property
    def unused(self) -> tuple[int, ...]:
        """The Slots nobody holds."""
        return tuple(self._free)

    def take(self) -> int:
        """A free Slot, now held once. Raises BudgetExceeded when there is none."""
        if not self._free:
            raise BudgetExceeded(f"all {self.capacity} Slots of the state budget are held")
        slot = self._free.pop()
        self._holders[slot] = 1
        return slot

    def hold(self, slot: int) -> int:
        """One more holder of a held Slot."""
        if self._holders[slot] < 1:
            raise ValueError(f"Slot {slot} is free and cannot be shared")
        self._holders[slot] += 1
        return slot

    def drop(self, slot: int) -> None:
        """One holder less; the last one frees the Slot."""
        if self._holders[slot] < 1:
            raise ValueError(f"Slot {slot} is free already")
        self._holders[slot] -= 1
        if self._holders[slot] == 0:
            self._free.append(slot)


@dataclass(frozen=True, slots=True)
class Point(Generic[Mark]):
    """A State at rest: its Slot and what its owner notes about that moment."""

    slot: int
    mark: Mark


@dataclass(slots=True, eq=False)
class Timeline(Generic[Mark]):
    """The States of one Npc: where it is, and the points it can go back to, oldest first."""

    current: Point[Mark] | None = None
    past: deque[Point[Mark]] = field(default_factory=deque)

    def advance(self, pool: Pool, point: Point[Mark], keep: int) -> None:
        """Moves on to a new point and keeps at most `keep` rewind points."""
        if self.current is not None:
            self.past.append(self.current)
        self.current = point
        while len(self.past) > keep:
            self.forget_oldest(pool)

    def forget_oldest(self, pool: Pool) -> None:
        """Gives up the oldest rewind point."""
        pool.drop(self.past.popleft().slot)

    def rewind(self, pool: Pool, turns: int) -> None:
        """Goes back `turns` points. Raises NothingToRewind, changing nothing, when fewer are kept."""
        if turns > len(self.past) or self.current is None:
            raise NothingToRewind(f"turns to go back: {turns} asked for, {len(self.past)} kept")
        for _ in range(turns):
            pool.drop(self.current.slot)
            self.current = self.past.pop()

    def fork(self, pool: Pool) -> Timeline[Mark]:
        """A second Timeline that shares every Slot until one of them writes."""
        points = [Point(pool.hold(point.slot), point.mark) for point in self.past]
        current = Point(pool.hold(self.current.slot), self.current.mark) if self.current else None
        return Timeline(current, deque(points))

    def clear(self, pool: Pool) -> None:
        """Gives up every Slot."""
        while self.past:
            self.forget_oldest(pool)
        if self.current is not None:
            pool.drop(self.current.slot)
            self.current = None
