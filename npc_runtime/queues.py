"""Queues: Turns that wait, in order for each Timeline, and who of all Timelines may begin next."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from npc_runtime.pool import Timeline
    from npc_runtime.turn import Turn


class Queues:
    """One queue a Timeline, whose first Turn is under way or may begin; the player's lane goes before the rest.

    A Turn stays in its queue until it `leave`s, whether it has begun or not.
    """

    def __init__(self) -> None:
        self._queues: dict[Timeline[Any], deque[Turn]] = {}
        self._ready: list[tuple[int, int, Turn]] = []
        self._deadlines: list[tuple[float, int, Turn]] = []
        self._order = 0

    def __contains__(self, timeline: object) -> bool:
        return timeline in self._queues

    def add(self, turn: Turn) -> None:
        """Puts a Turn behind the others of its Timeline, and numbers it."""
        self._order += 1
        turn.order = self._order
        queue = self._queues.setdefault(turn.timeline, deque())
        queue.append(turn)
        if turn.deadline is not None:
            heapq.heappush(self._deadlines, (turn.deadline, turn.order, turn))
        if len(queue) == 1:
            self._make_ready(turn)

    def leave(self, turn: Turn) -> None:
        """Takes a Turn out and makes the next of its Timeline ready."""
        queue = self._queues[turn.timeline]
        was_first = queue[0] is turn
        queue.remove(turn)
        if not queue:
            del self._queues[turn.timeline]
        elif was_first:
            self._make_ready(queue[0])

    def of(self, timeline: Timeline[Any]) -> list[Turn]:
        """The Turns of a Timeline, in their order."""
        return list(self._queues.get(timeline, ()))

    def first(self) -> Turn | None:
        """The Turn that may begin before all others; stays ready until it is taken."""
        while self._ready:
            turn = self._ready[0][2]
            if self._waits(turn):
                return turn
            heapq.heappop(self._ready)  # failed or cancelled while it waited
        return None

    def take(self) -> Turn:
        """The first Turn, which is ready no longer."""
        return heapq.heappop(self._ready)[2]

    @property
    def any_ready(self) -> bool:
        """Whether to look for a first one: it may have been cancelled since."""
        return bool(self._ready)

    def expired(self, now: float) -> Iterator[Turn]:
        """The Turns that have not begun by their deadlines, each told once."""
        while self._deadlines and self._deadlines[0][0] <= now:
            turn = heapq.heappop(self._deadlines)[2]
            if self._waits(turn):
                yield turn

    @property
    def next_deadline(self) -> float | None:
        """When the next deadline passes, in monotonic seconds; None when there is none."""
        return self._deadlines[0][0] if self._deadlines else None

    def _waits(self, turn: Turn) -> bool:
        return turn.slot == -1 and turn in self._queues.get(turn.timeline, ())

    def _make_ready(self, turn: Turn) -> None:
        heapq.heappush(self._ready, (turn.lane, turn.order, turn))
