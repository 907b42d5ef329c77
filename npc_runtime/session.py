"""Session: one game, its Npcs and the verbs. Requests come in, events go out; nothing here waits."""

from __future__ import annotations

import secrets
import time
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from npc_runtime import wire
from npc_runtime.answers import Choosing, Crowd, Observing, Saying
from npc_runtime.checks import Mismatch
from npc_runtime.errors import (
    BadInput,
    Cancelled,
    NpcBusy,
    NpcError,
    NpcExists,
    QueueFull,
    TooLarge,
    UnknownNpc,
    UnknownOp,
)
from npc_runtime.npc import Mark, Npc
from npc_runtime.persona import FIELDS
from npc_runtime.pool import Point, Timeline
from npc_runtime.prompt import Head, ReplyReader, clean
from npc_runtime.sampling import Sampling
from npc_runtime.turn import BACKGROUND, PLAYER, Choice, Speech, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from npc_runtime.cast import Cast, Role
    from npc_runtime.persona import Persona
    from npc_runtime.scheduler import Scheduler

    Emit = Callable[[wire.Event], None]

_LANES = {"player": PLAYER, "background": BACKGROUND}


class Session:
    """The verbs of protocol 1 for one game. `handle` never raises NpcError: it emits `error`."""

    def __init__(self, name: str, cast: Cast, scheduler: Scheduler) -> None:
        self.name, self.cast, self.scheduler, self.config = name, cast, scheduler, scheduler.config
        self.npcs: dict[str, Npc] = {}
        self.queued = 0
        self.ended = False
        self.changed: Callable[[str], None] = lambda name: None
        """Told of the id of every Npc that came, went, or has lived through a Turn, before that is answered."""
        self.gate: Callable[[wire.Request, Emit], Emit] = lambda request, emit: emit
        """Where the events of a request go; may refuse the request by an NpcError."""
        self._coming: set[str] = set()
        self._verbs: dict[type[wire.Request], Callable[[Any, Any], None]] = {
            wire.Spawn: self._spawn,
            wire.Say: self._say,
            wire.Observe: self._observe,
            wire.Choose: self._choose,
            wire.Cancel: self._cancel,
            wire.Fork: self._fork,
            wire.Rewind: self._rewind,
            wire.Drop: self._drop,
            wire.List: self._list,
        }

    def handle(self, request: wire.Request, emit: Callable[[wire.Event], None]) -> None:
        """Carries out one request; answers now or from a later tick."""
        verb = self._verbs.get(type(request))
        try:
            if verb is None:
                raise UnknownOp(f"`{request.op}` is not an operation of a Session")
            verb(request, self.gate(request, emit))
        except NpcError as error:
            emit(wire.error_event(request.id, error))

    def add_verb(self, request: type[wire.Request], verb: Callable[[Any, Any], None]) -> None:
        """Lets another part of the daemon answer one kind of request in this Session."""
        self._verbs[request] = verb

    def cancel_all(self) -> None:
        """Cuts what is being said and empties every queue."""
        for npc in list(self.npcs.values()):
            self.scheduler.cancel(npc.timeline)

    def close(self, keep: bool) -> None:
        """The game has gone: its Turns end; its Npcs stay for its return, or go."""
        self.cancel_all()
        if not keep:
            self.ended = True
            for name in list(self.npcs):
                self.remove(name)

    # ---- Npcs

    def npc(self, name: str) -> Npc:
        """The Npc of an id. Raises UnknownNpc."""
        if name not in self.npcs:
            raise UnknownNpc(f"no Npc lives under `{name:.80}`")
        return self.npcs[name]

    def at_rest(self, name: str) -> Npc:
        """The Npc of an id with no Turn waiting or under way. Raises NpcBusy."""
        npc = self.npc(name)
        if self.scheduler.busy(npc.timeline):
            raise NpcBusy(f"`{name}` has Turns under way")
        return npc

    def check_free(self, name: str, replacing: bool) -> None:
        """Checks that a new Npc may live under `name`, and that there is room for it."""
        self._check_open()
        if not name.strip() or len(name) > wire.MAX_NAME or not name.isprintable():
            raise BadInput(f"an Npc id is 1 to {wire.MAX_NAME} printable characters, got `{name:.80}`")
        if name in self._coming:
            raise NpcBusy(f"`{name}` is being spawned")
        if name in self.npcs:
            if not replacing:
                raise NpcExists(f"`{name}` lives already")
            self.at_rest(name)
        elif len(self.npcs) + len(self._coming) >= self.config.max_npcs:
            raise QueueFull(f"a Session may hold {self.config.max_npcs} Npcs", "Drop some Npcs first")

    def _check_open(self) -> None:
        """Refuses Npcs that come, from a persona being read or a save, when the game has gone for good."""
        if self.ended:
            raise Cancelled("the Session has ended")

    def add(self, npc: Npc) -> None:
        """Takes in an Npc, replacing one of the same id. Raises BudgetExceeded, changing nothing."""
        self._check_open()
        old = self.npcs.get(npc.id)
        if old is not None:
            self.remove(npc.id)
        self.scheduler.register(npc.timeline)
        self.npcs[npc.id] = npc
        self.changed(npc.id)

    def remove(self, name: str) -> None:
        """Forgets an Npc and frees its Slots."""
        self.scheduler.unregister(self.npcs.pop(name).timeline)
        self.changed(name)

    def line(self, text: str, what: str) -> str:
        """A checked line of text."""
        if len(text) > self.config.max_text_chars:
            raise TooLarge(f"`{what}` may hold {self.config.max_text_chars} characters, got {len(text)}")
        try:
            text.encode()  # in process nothing else refuses half a character, which no frame can hold
        except UnicodeEncodeError as error:
            half = f"U+{ord(text[error.start]):04X}"
            raise BadInput(f"`{what}` must not hold half a character (a lone surrogate), got {half}") from None
        cleaned = clean(text)
        if not cleaned:
            raise BadInput(f"`{what}` must hold some visible text")
        return cleaned

    def bounded(self, tokens: tuple[int, ...], what: str) -> tuple[int, ...]:
        """The tokens of a line, if they are not too many: a few thousand signs no one writes drown a memory."""
        if len(tokens) > self.config.max_text_tokens:
            raise TooLarge(f"`{what}` may hold {self.config.max_text_tokens} tokens, got {len(tokens)}")
        return tokens

    def submit(self, turn: Turn) -> None:
        """Queues a Turn within the Session's bound."""
        self._check_room()
        self.queued += 1
        self.scheduler.submit(turn)

    def _check_room(self) -> None:
        """Refuses what finds the queue full; asked before a line is read, for a flood would have each one read."""
        if self.queued >= self.config.max_queued:
            raise QueueFull(f"{self.queued} Turns wait already")

    def _settle(self, npc: Npc) -> None:
        """A Turn has ended."""
        self.queued -= 1
        self.changed(npc.id)

    # ---- verbs

    def _spawn(self, request: wire.Spawn, emit: Callable[[wire.Event], None]) -> None:
        self.check_free(request.npc, request.replace)
        persona = self.cast.find(request.persona)
        if self.scheduler.room <= len(self._coming):
            self.scheduler.register(Timeline())  # raises with the figures
        seed = secrets.randbits(53) if request.seed is None else _seed(request.seed)
        self._coming.add(request.npc)
        cached = False

        def ready(role: Role) -> None:
            self._coming.discard(request.npc)
            npc = self._born(request.npc, persona, seed, role)
            try:
                self.add(npc)
            except NpcError as error:
                npc.timeline.clear(self.scheduler.pool)
                emit(wire.error_event(request.id, error))
                return
            read = {"read": 0 if cached else role.tokens}
            opening = {"text": clean(persona.opening), "mood": persona.opening_mood} if persona.opening else None
            body = {"npc": npc.id, "name": persona.name, "role": persona.role, "seed": seed, "cached": cached}
            emit(wire.Event(request.id, "ok", {**body, "opening": opening, "tokens": read}))

        def failed(error: NpcError) -> None:
            self._coming.discard(request.npc)
            emit(wire.error_event(request.id, error))

        cached = self.cast.is_ready(persona)
        try:
            self.cast.play(persona, ready, failed)
        except BaseException:
            self._coming.discard(request.npc)
            raise

    def _born(self, name: str, persona: Persona, seed: int, role: Role) -> Npc:
        npc = Npc(name, persona, seed)
        if role.timeline.current is not None:
            slot = self.scheduler.pool.hold(role.timeline.current.slot)
            log = (("npc " + persona.opening_mood, clean(persona.opening)),) if persona.opening else ()
            npc.timeline.current = Point(slot, Mark(tokens=role.tokens, log=log))
        return npc

    def _say(self, request: wire.Say, emit: Callable[[wire.Event], None]) -> None:
        npc = self.npc(request.npc)
        if request.kind not in ("player", "event"):
            raise BadInput(f"`kind` must be `player` or `event`, got `{request.kind:.40}`")
        self._check_room()
        text = self.line(request.text, "text")
        layout = self.cast.layout
        tokens = self.bounded(layout.player(text) if request.kind == "player" else layout.event(text), "text")
        sampling = _sampling(self._base_sampling(npc.persona), request)
        heads = self.cast.heads(*_words(npc.persona, request.moods, request.actions))
        reader = ReplyReader(layout, self.cast.tokenizer, heads, sampling.max_tokens)
        seed = npc.seed if request.seed is None else _seed(request.seed)
        speech = Speech(layout.cue(npc.persona), reader, sampling, seed, 0)
        listener = Saying(partial(self._settle, npc), npc, request, emit, speech, [(request.kind, text)])
        turn = Turn(npc.timeline, tokens, listener, speech, _lane(request.lane), _deadline(request.deadline_ms))
        if request.stream:
            turn.pace = (
                self.config.pace_tokens_per_s if request.pace is None else _in_range("pace", request.pace, 0, 10_000)
            )
        self.submit(turn)

    def _base_sampling(self, persona: Persona) -> Sampling:
        """The persona's way of speaking; what it leaves at the default is the Bundle's."""
        own = {field.name: getattr(persona.sampling, field.name) for field in fields(Sampling)}
        return replace(self.cast.bundle.sampling, **{k: v for k, v in own.items() if v != getattr(Sampling(), k)})

    def _observe(self, request: wire.Observe, emit: Callable[[wire.Event], None]) -> None:
        if not request.npcs or len(set(request.npcs)) < len(request.npcs):
            raise BadInput(f"`npcs` must name at least one Npc, each once, got {len(request.npcs)} names")
        npcs = [self.npc(name) for name in request.npcs]
        text = self.line(request.text, "text")
        if self.queued + len(npcs) > max(self.config.max_queued, len(npcs)):
            raise QueueFull(f"{self.queued} Turns wait already")
        tokens = self.bounded(self.cast.layout.event(text), "text")
        group = Crowd(request.id, emit, len(npcs), len(tokens))
        lane = _lane(request.lane)
        for npc in npcs:
            self.queued += 1
            turn = Turn(npc.timeline, tokens, Observing(partial(self._settle, npc), npc, group, text), lane=lane)
            self.scheduler.submit(turn)

    def _choose(self, request: wire.Choose, emit: Callable[[wire.Event], None]) -> None:
        npc = self.npc(request.npc)
        if not 1 <= len(request.lines) <= self.config.max_lines:
            raise BadInput(f"`lines` must hold 1 to {self.config.max_lines} lines, got {len(request.lines)}")
        self._check_room()
        lines = [self.line(line, "lines") for line in request.lines]
        heard = [("player", self.line(request.text, "text"))] if request.text.strip() else []
        layout = self.cast.layout
        tokens = self.bounded(layout.player(heard[0][1]), "text") if heard else ()
        spoken = [(line, self.bounded(layout.speech(line), "lines")) for line in lines]
        moods, _ = _words(npc.persona, request.moods, ())
        heads = [(Head(mood), layout.head(Head(mood))) for mood in moods]
        choice = Choice(layout.cue(npc.persona), heads, spoken, layout.end)
        listener = Choosing(partial(self._settle, npc), npc, request, emit, heard)
        self.submit(Turn(npc.timeline, tokens, listener, choice, _lane(request.lane)))

    def _cancel(self, request: wire.Cancel, emit: Callable[[wire.Event], None]) -> None:
        if request.heard is not None and request.heard < 0:
            raise BadInput(f"`heard` counts characters and must not be negative, got {request.heard}")
        count = self.scheduler.cancel(self.npc(request.npc).timeline, request.heard)
        emit(wire.Event(request.id, "ok", {"npc": request.npc, "cancelled": count}))

    def _fork(self, request: wire.Fork, emit: Callable[[wire.Event], None]) -> None:
        npc = self.at_rest(request.npc)
        if request.to == request.npc:
            raise BadInput(f"`to` must be another id than `{request.npc}`")
        self.check_free(request.to, request.replace)
        twin = Npc(request.to, npc.persona, npc.seed, npc.timeline.fork(self.scheduler.pool))
        try:
            self.add(twin)
        except NpcError:
            twin.timeline.clear(self.scheduler.pool)
            raise
        emit(wire.Event(request.id, "ok", self.describe(twin)))

    def _rewind(self, request: wire.Rewind, emit: Callable[[wire.Event], None]) -> None:
        if request.turns < 1:
            raise BadInput(f"`turns` must be at least 1, got {request.turns}")
        npc = self.at_rest(request.npc)
        npc.timeline.rewind(self.scheduler.pool, request.turns)
        self.changed(npc.id)
        emit(wire.Event(request.id, "ok", self.describe(npc)))

    def _drop(self, request: wire.Drop, emit: Callable[[wire.Event], None]) -> None:
        self.npc(request.npc)
        self.remove(request.npc)
        emit(wire.Event(request.id, "ok", {"npc": request.npc}))

    def _list(self, request: wire.List, emit: Callable[[wire.Event], None]) -> None:
        emit(wire.Event(request.id, "ok", {"npcs": [self.describe(npc) for npc in self.npcs.values()]}))

    def describe(self, npc: Npc) -> dict[str, Any]:
        """An Npc in figures: turns lived, tokens in its State, turns it can go back."""
        busy = self.scheduler.busy(npc.timeline)
        body = {"npc": npc.id, "name": npc.persona.name, "turns": npc.mark.turns, "tokens": npc.mark.tokens}
        return {**body, "rewind": len(npc.timeline.past), "seed": npc.seed, "busy": busy}


def _lane(lane: str) -> int:
    if lane not in _LANES:
        raise BadInput(f"`lane` must be `player` or `background`, got `{lane:.40}`")
    return _LANES[lane]


def _deadline(milliseconds: int | None) -> float | None:
    if milliseconds is None:
        return None
    return time.monotonic() + _in_range("deadline_ms", milliseconds, 0, 3_600_000) / 1e3


def _seed(seed: int) -> int:
    return int(_in_range("seed", seed, 0, wire.MAX_ID))


def _in_range(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:  # NaN is in no range
        raise BadInput(f"`{name}` must be from {low} to {high}, got {value}")
    return value


def _sampling(base: Sampling, request: wire.Say) -> Sampling:
    """The persona's sampling with the call's overrides."""
    ranges = {"temperature": (0, 5), "top_p": (0.01, 1), "repetition": (0, 10), "max_tokens": (1, 512)}
    given = {name: getattr(request, name) for name in ranges if getattr(request, name) is not None}
    for name, value in given.items():
        _in_range(name, value, *ranges[name])
    return replace(base, **given)


def _words(
    persona: Persona, moods: Sequence[str] | None, actions: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The moods and actions of this Turn: the persona's, or those the call allows by the rule for a persona's own."""
    try:
        chosen = persona.moods if moods is None else FIELDS["moods"](moods, "`moods`")
        deeds = persona.actions if actions is None else FIELDS["actions"](actions, "`actions`")
    except Mismatch as error:
        raise BadInput(str(error)) from None
    return chosen, deeds
