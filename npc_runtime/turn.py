"""Turn: something an Npc perceives and what comes of it; the scheduler's one unit of work."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from npc_runtime.sampling import Course, Draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.errors import NpcError
    from npc_runtime.pool import Timeline
    from npc_runtime.prompt import Head, Piece, ReplyReader
    from npc_runtime.sampling import Sampling

PLAYER, BACKGROUND = 0, 1
"""Lanes: the player's Turns go before everyone else's."""


@dataclass(slots=True)
class Outcome:
    """What came of a Turn. Counts in tokens, times in ms since the Turn was submitted."""

    finish: str = "read"
    """`read` (nothing was asked), `end`, `length`, `cancelled` or `chosen`."""
    head: Head | None = None
    text: str = ""
    spoken: tuple[int, ...] = ()
    """Tokens of head and speech."""
    read: int = 0
    queued_ms: float = 0.0
    first_ms: float = 0.0
    total_ms: float = 0.0
    choice: int = -1
    scores: tuple[float, ...] = ()


class Listener(Protocol):
    """Who asked for the Turn."""

    def begin(self) -> None:
        """The Turns before this one have ended: settle what depends on them."""
        ...

    def piece(self, piece: Piece) -> None:
        """A part of the Reply has become known and its time has come."""
        ...

    def commit(self, outcome: Outcome) -> Any:
        """The Turn has ended: returns the mark of the new point of the Timeline."""
        ...

    def done(self, outcome: Outcome) -> None:
        """The Timeline has advanced."""
        ...

    def fail(self, error: NpcError) -> None:
        """The Turn came to nothing; the State is as before."""
        ...


@dataclass(slots=True)
class Speech:
    """Asks for a Reply: what to feed first, how to read and how to draw it."""

    cue: tuple[int, ...]
    reader: ReplyReader
    sampling: Sampling
    seed: int
    number: int
    """Which Turn of the Npc this is: the RNG's counter."""
    recent: tuple[int, ...] = ()
    """Speech of earlier Turns, for repetition control."""
    drawn: list[int] = field(default_factory=list)
    window: int = 64

    def draw(self, token: int) -> Draw:
        """The row of the next step: feed `token` by the rules of this moment."""
        reader = self.reader
        allowed = reader.allowed
        recent = () if allowed is not None else (*self.recent, *self.drawn)[-self.window :]
        return Draw(
            token=token,
            sampling=self.sampling,
            seed=self.seed,
            turn=self.number,
            position=len(self.drawn),
            allowed=allowed,
            banned=frozenset() if allowed is not None else reader.banned,
            recent=recent,
        )

    def missing(self) -> tuple[int, ...]:
        """What the State still lacks of a finished Reply: its last token, if kept, and its end."""
        return (*self.drawn[len(self.drawn) - 1 : self.reader.kept], *self.reader.closing)

    def course(self, token: int) -> Course | None:
        """As `draw`, and how the row goes on from there; None where every token has to be looked at."""
        reader = self.reader
        blank = reader.blank
        if blank is None:
            return None
        return Course(
            draw=self.draw(token),
            trie=reader.trie,
            early=None if reader.text.strip() else reader.banned,
            banned=reader.settled,
            blank=blank,
            end=reader.end[0],
            left=reader.left,
            recent=(*self.recent, *self.drawn)[-self.window :],
        )


@dataclass(slots=True)
class Choice:
    """Asks which of given lines fits best: heads are ranked first, then lines after the best head."""

    cue: tuple[int, ...]
    heads: Sequence[tuple[Head, tuple[int, ...]]]
    lines: Sequence[tuple[str, tuple[int, ...]]]
    end: tuple[int, ...]
    head_scores: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @property
    def best_head(self) -> tuple[Head, tuple[int, ...]]:
        """The likeliest head; of equal ones the first."""
        return self.heads[self.head_scores.index(max(self.head_scores))]


@dataclass(slots=True)
class Released:
    """A piece waiting for its moment: known after `tokens` drawn tokens."""

    tokens: int
    piece: Piece


@dataclass(slots=True, eq=False)
class Turn:
    """One unit of work on one Timeline. The scheduler owns the fields below the line."""

    timeline: Timeline[Any]
    tokens: tuple[int, ...]
    listener: Listener
    ask: Speech | Choice | None = None
    lane: int = PLAYER
    deadline: float | None = None
    """Monotonic seconds by which reading must have begun."""
    pace: float = 0.0
    """Tokens of speech let out per second; 0 lets out everything at once."""
    # ---
    order: int = 0
    slot: int = -1
    position: int = 0
    """Tokens read so far."""
    pending: int = -1
    """Drawn (or the cue's last) token that is not yet in the State."""
    checkpoints: list[tuple[int, int]] = field(default_factory=list)
    """(tokens drawn by then, Slot) from which a cut can be replayed; the first is before the cue."""
    waiting: deque[Released] = field(default_factory=deque)
    heard: list[Released] = field(default_factory=list)
    due: float = 0.0
    """When the next piece of speech may go out."""
    submitted: float = 0.0
    begun: float = 0.0
    first: float = 0.0

    @property
    def speech(self) -> Speech | None:
        """The Speech asked for, if that is what was asked."""
        return self.ask if isinstance(self.ask, Speech) else None

    @property
    def reading(self) -> bool:
        """True until everything perceived is in the State."""
        return self.position < len(self.tokens)

    @property
    def let_out(self) -> int:
        """Tokens of the Reply whose pieces have gone out."""
        return self.heard[-1].tokens if self.heard else 0

    def rank(self) -> tuple[int, int]:
        """Who goes first: the player's lane, then whoever came first."""
        return (self.lane, self.order)

    def heard_within(self, limit: int | None) -> list[Released]:
        """The pieces let out whose text lies within `limit` characters (None: all)."""
        kept: list[Released] = []
        characters = 0
        for item in self.heard:
            characters += len(item.piece.text)
            if limit is not None and characters > limit:
                break
            kept.append(item)
        return kept
