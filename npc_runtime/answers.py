"""Answers: what the Turns of each verb tell the game while they run and when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime import wire
from npc_runtime.prompt import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from npc_runtime.errors import NpcError
    from npc_runtime.npc import Mark, Npc
    from npc_runtime.prompt import Piece
    from npc_runtime.turn import Outcome, Speech


class Listening:
    """Common to all Turns of a Session: `settle` gives back its place in the queue when it ends."""

    def __init__(self, settle: Callable[[], None], npc: Npc, heard: Sequence[tuple[str, str]]) -> None:
        self.settle, self.npc, self.heard = settle, npc, heard

    def begin(self) -> None:
        """Most Turns depend on nothing but the State."""

    def piece(self, piece: Piece) -> None:
        """Most Turns speak nothing on the way."""

    def commit(self, outcome: Outcome) -> Mark:
        """The mark after this Turn."""
        return self.npc.mark.after(self.heard, outcome.read, outcome)


class Saying(Listening):
    """A `say`: mood, act and deltas on the way, then `done`."""

    def __init__(
        self,
        settle: Callable[[], None],
        npc: Npc,
        request: wire.Say,
        emit: Callable[[wire.Event], None],
        speech: Speech,
        heard: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__(settle, npc, heard)
        self.request, self.emit, self.speech = request, emit, speech

    def begin(self) -> None:
        """What depends on the Turns before this one is settled only when it begins."""
        self.speech.number, self.speech.recent = self.npc.mark.turns, self.npc.mark.recent

    def piece(self, piece: Piece) -> None:
        """Sends a part of the Reply to whoever streams it."""
        if not self.request.stream:
            return
        if piece.head is not None:
            self.emit(wire.Event(self.request.id, "mood", {"mood": piece.head.mood}))
            if piece.head.action:
                self.emit(wire.Event(self.request.id, "act", {"action": piece.head.action}))
        if piece.text:
            self.emit(wire.Event(self.request.id, "delta", {"text": piece.text}))

    def done(self, outcome: Outcome) -> None:
        """Sends the whole Reply."""
        self.settle()
        head = outcome.head or Head("neutral")
        reply = wire.Reply(
            npc=self.npc.id,
            mood=head.mood,
            action=head.action,
            text=outcome.text,
            finish=outcome.finish,
            turn=self.speech.number,
            seed=self.speech.seed,
            tokens={"read": outcome.read, "spoken": len(outcome.spoken), "reread": 0},
            ms={"queued": _ms(outcome.queued_ms), "first": _ms(outcome.first_ms), "total": _ms(outcome.total_ms)},
        )
        self.emit(wire.Event(self.request.id, "done", wire.reply_fields(reply)))

    def fail(self, error: NpcError) -> None:
        """Answers with the error."""
        self.settle()
        self.emit(wire.error_event(self.request.id, error))


class Choosing(Listening):
    """A `choose`: one answer with the line, its index and all scores."""

    def __init__(
        self,
        settle: Callable[[], None],
        npc: Npc,
        request: wire.Choose,
        emit: Callable[[wire.Event], None],
        heard: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__(settle, npc, heard)
        self.request, self.emit = request, emit

    def done(self, outcome: Outcome) -> None:
        """Sends the choice; scores are mean log-probabilities per token."""
        self.settle()
        mood = outcome.head.mood if outcome.head else "neutral"
        body = {"npc": self.npc.id, "index": outcome.choice, "text": outcome.text, "mood": mood}
        self.emit(wire.Event(self.request.id, "ok", {**body, "scores": list(outcome.scores)}))

    def fail(self, error: NpcError) -> None:
        """Answers with the error."""
        self.settle()
        self.emit(wire.error_event(self.request.id, error))


class Crowd:
    """Answers an `observe` once every Npc has perceived the event or failed to."""

    def __init__(self, id: int, emit: Callable[[wire.Event], None], size: int, tokens: int) -> None:
        self.id, self.emit, self.left, self.tokens = id, emit, size, tokens
        self.perceived: list[str] = []
        self.failed: dict[str, str] = {}

    def settle(self, name: str, error: NpcError | None) -> None:
        """Notes one Npc; the last one brings the answer."""
        self.left -= 1
        if error is None:
            self.perceived.append(name)
        else:
            self.failed[name] = error.code
        if not self.left and error is not None and not self.perceived:
            self.emit(wire.error_event(self.id, error))
        elif not self.left:
            body = {"npcs": self.perceived, "failed": self.failed, "tokens": {"read": self.tokens}}
            self.emit(wire.Event(self.id, "ok", body))


class Observing(Listening):
    """One Npc's part of an `observe`."""

    def __init__(self, settle: Callable[[], None], npc: Npc, crowd: Crowd, text: str) -> None:
        super().__init__(settle, npc, [("event", text)])
        self.crowd = crowd

    def done(self, outcome: Outcome) -> None:
        """This Npc has perceived the event."""
        self.settle()
        self.crowd.settle(self.npc.id, None)

    def fail(self, error: NpcError) -> None:
        """This Npc has not."""
        self.settle()
        self.crowd.settle(self.npc.id, error)


def _ms(value: float) -> float:
    return round(value, 3)
