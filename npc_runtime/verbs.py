"""The verbs, once for every way to reach a Stage: over ZeroMQ (`Client`) and in process (`Runtime`).

`Verbs` begins each verb and gives a `Pending`, which can be awaited, waited for, or, for speech, iterated.
`Blocking` has the same verbs and waits. Results are frozen; errors are the classes of npc_runtime.errors.
"""

from __future__ import annotations

import functools
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from npc_runtime import wire
from npc_runtime.errors import BadInput, WireError
from npc_runtime.pending import Pending, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opening:
    """What a Persona says first; the Npc remembers having said it."""

    text: str
    mood: str


@dataclass(frozen=True, slots=True)
class Spawned:
    """A new Npc. `cached` tells that its persona had been read before, so that this one read nothing."""

    npc: str
    name: str
    role: str
    seed: int
    cached: bool
    opening: Opening | None
    tokens: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NpcInfo:
    """An Npc in figures. tokens: in its State; rewind: Turns it can go back; rebuilt: re-read from stored text."""

    npc: str
    name: str
    turns: int
    tokens: int
    rewind: int
    seed: int
    busy: bool
    rebuilt: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """Who perceived an event, who did not (with the error's code), and the tokens each has read."""

    npcs: tuple[str, ...]
    failed: Mapping[str, str]
    tokens: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The line an Npc took. scores: mean log-probability per token of every line offered."""

    npc: str
    index: int
    text: str
    mood: str
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A save as written."""

    path: str
    npcs: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Npcs brought back from a save; `rebuilt` names those re-read from text because the Bundle is another."""

    npcs: tuple[NpcInfo, ...]
    rebuilt: tuple[str, ...]


class Verbs(ABC):
    """Begins verbs without waiting; every result is a Pending. May be called from any thread."""

    relative_paths = False
    """Whether saves are named from the Stage's `save_dir` rather than from our working folder."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    @abstractmethod
    def _send(self, request: wire.Request, pending: Pending[Any]) -> None:
        """Hands a request over; its events are fed to `pending`, which is failed when it cannot be sent."""

    def _path(self, path: str | PathLike[str]) -> Any:
        """The path as the Stage understands it: it may stand in another folder than we do."""
        if not isinstance(path, (str, os.PathLike)):
            return path  # for the check of the request to refuse
        return os.fspath(path) if self.relative_paths else os.path.abspath(path)

    def _ask(self, request: wire.Request, read: Callable[[Mapping[str, Any]], T]) -> Pending[T]:
        pending = Pending(request.op, read)
        self._begin(request, pending)
        return pending

    def _begin(self, request: wire.Request, pending: Pending[Any]) -> None:
        """Sends a request whose fields have the right types; any other fails here, naming the field."""
        try:
            request = wire.checked(request)
        except BadInput as error:
            pending.fail(error)
        else:
            self._send(request, pending)

    def spawn(
        self,
        npc: str,
        persona: str | PathLike[str] | Mapping[str, Any],
        *,
        seed: int | None = None,
        replace: bool = False,
    ) -> Pending[Spawned]:
        """Brings a persona (a name, a path or a table of its fields) alive under the id `npc`.

        seed: makes its replies repeatable; drawn at random when None. replace: an Npc of that id makes way.
        """
        found: Any = os.fspath(persona) if isinstance(persona, os.PathLike) else persona
        found = dict(found) if isinstance(found, Mapping) else found
        request = wire.Spawn(id=next(self._ids), npc=npc, persona=found, seed=seed, replace=replace)
        return self._ask(request, _spawned)

    def say(
        self,
        npc: str,
        text: str,
        *,
        kind: str = "player",
        moods: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
        lane: str = "player",
        deadline_ms: int | None = None,
        pace: float | None = None,
        stream: bool = False,
        seed: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        repetition: float | None = None,
        max_tokens: int | None = None,
    ) -> Stream:
        """Says a line to an Npc and asks for its Reply.

        kind: `player`, or `event` for something perceived that calls for an answer. moods, actions: what this
        Reply may use, in place of the persona's own and not only from among them. lane: `player` goes before
        `background`. deadline_ms: give up when not begun by then.
        stream: send the Reply in Pieces, at `pace` tokens per second (None: the daemon's; 0: as fast as made).
        The rest overrides the persona's sampling.
        """
        request = wire.Say(
            id=next(self._ids),
            npc=npc,
            text=text,
            kind=kind,
            moods=_listed(moods),
            actions=_listed(actions),
            lane=lane,
            deadline_ms=deadline_ms,
            pace=pace,
            stream=stream,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            repetition=repetition,
            max_tokens=max_tokens,
        )
        pending = Stream(request.op, wire.decode_reply)
        self._begin(request, pending)
        return pending

    def observe(self, npcs: str | Sequence[str], text: str, *, lane: str = "background") -> Pending[Observed]:
        """Lets one or many Npcs perceive an event; none of them answers."""
        names = [npcs] if isinstance(npcs, str) else _listed(npcs)
        return self._ask(wire.Observe(id=next(self._ids), npcs=names, text=text, lane=lane), _reader(Observed))

    def choose(
        self,
        npc: str,
        lines: Sequence[str],
        text: str = "",
        *,
        moods: Sequence[str] | None = None,
        lane: str = "player",
    ) -> Pending[Chosen]:
        """Lets an Npc answer `text` with the likeliest of given lines, which it then remembers as said."""
        request = wire.Choose(
            id=next(self._ids), npc=npc, lines=_listed(lines), text=text, moods=_listed(moods), lane=lane
        )
        return self._ask(request, _reader(Chosen))

    def cancel(self, npc: str, heard: int | None = None) -> Pending[int]:
        """Cuts what an Npc is saying and empties its queue; how many Turns were touched.

        heard: characters of the running Reply that the player saw; what came after was never said.
        """
        request = wire.Cancel(id=next(self._ids), npc=npc, heard=heard)
        return self._ask(request, lambda body: int(_field(body, "cancelled")))

    def snapshot(self, npc: str) -> Pending[bytes]:
        """An Npc as bytes: a save of one."""
        return self._ask(wire.Snapshot(id=next(self._ids), npc=npc), lambda body: bytes(_field(body, "data")))

    def restore(self, npc: str, data: bytes, *, replace: bool = False, rebuild: bool = False) -> Pending[NpcInfo]:
        """Brings a snapshot back under an id. rebuild: re-read the stored turns if it is of another Bundle."""
        request = wire.Restore(id=next(self._ids), npc=npc, data=data, replace=replace, rebuild=rebuild)
        return self._ask(request, _reader(NpcInfo))

    def fork(self, npc: str, to: str, *, replace: bool = False) -> Pending[NpcInfo]:
        """A second Npc `to` with the same State, free to differ from now on."""
        return self._ask(wire.Fork(id=next(self._ids), npc=npc, to=to, replace=replace), _reader(NpcInfo))

    def rewind(self, npc: str, turns: int = 1) -> Pending[NpcInfo]:
        """Takes back an Npc's last Turns; nothing is read again."""
        return self._ask(wire.Rewind(id=next(self._ids), npc=npc, turns=turns), _reader(NpcInfo))

    def save(self, path: str | PathLike[str], npcs: Sequence[str] | None = None) -> Pending[Saved]:
        """Writes Npcs (None: all) to a file; an older file of that name stays whole until the new one is."""
        return self._ask(wire.Save(id=next(self._ids), path=self._path(path), npcs=_listed(npcs)), _reader(Saved))

    def load(
        self,
        path: str | PathLike[str],
        npcs: Sequence[str] | None = None,
        *,
        replace: bool = False,
        rebuild: bool = False,
    ) -> Pending[Loaded]:
        """Reads Npcs (None: all) from a file: every one of them or none."""
        request = wire.Load(
            id=next(self._ids), path=self._path(path), npcs=_listed(npcs), replace=replace, rebuild=rebuild
        )
        return self._ask(request, _loaded)

    def drop(self, npc: str) -> Pending[None]:
        """Forgets an Npc."""
        return self._ask(wire.Drop(id=next(self._ids), npc=npc), lambda body: None)

    def list(self) -> Pending[tuple[NpcInfo, ...]]:
        """The Session's Npcs."""
        return self._ask(wire.List(id=next(self._ids)), lambda body: _infos(_field(body, "npcs")))

    def stats(self) -> Pending[dict[str, Any]]:
        """Counters of the daemon or Runtime."""
        return self._ask(wire.Stats(id=next(self._ids)), dict)

    def stream(self, npc: str, text: str, **options: Any) -> Stream:
        """As `say` with the same options, in Pieces: iterate it (or `async for`), then take its `reply`."""
        return self.say(npc, text, **{"stream": True, **options})


def _waits(verb: Callable[Concatenate[Verbs, P], Pending[T]]) -> Callable[Concatenate[Blocking, P], T]:
    """The verb that waits for its result, at most `timeout_s`; raises the typed error, or TimeoutError."""

    @functools.wraps(verb)
    def wait(self: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return verb(self.aio, *args, **kwargs).result(self.timeout_s)

    return wait


class Blocking:
    """The verbs that wait. `aio` has the same verbs to await; `timeout_s` bounds each wait (None: unbounded)."""

    aio: Verbs
    timeout_s: float | None = None

    spawn = _waits(Verbs.spawn)
    say = _waits(Verbs.say)
    observe = _waits(Verbs.observe)
    choose = _waits(Verbs.choose)
    cancel = _waits(Verbs.cancel)
    snapshot = _waits(Verbs.snapshot)
    restore = _waits(Verbs.restore)
    fork = _waits(Verbs.fork)
    rewind = _waits(Verbs.rewind)
    save = _waits(Verbs.save)
    load = _waits(Verbs.load)
    drop = _waits(Verbs.drop)
    list = _waits(Verbs.list)
    stats = _waits(Verbs.stats)

    def stream(self, npc: str, text: str, **options: Any) -> Stream:
        """As `say` with the same options, in Pieces: iterate it, then take its `reply`."""
        stream = self.aio.stream(npc, text, **options)
        stream.timeout_s = self.timeout_s
        return stream


def _field(body: Mapping[str, Any], name: str) -> Any:
    if name not in body:
        raise WireError(f"the answer lacks `{name}`, it holds {sorted(body)}")
    return body[name]


def _reader(cls: Callable[..., T]) -> Callable[[Mapping[str, Any]], T]:
    """Reads an answer into a result class: unknown fields are ignored, lists become tuples."""

    def read(body: Mapping[str, Any]) -> T:
        values = {}
        for item in fields(cls):  # type: ignore[arg-type]  # only dataclasses are read
            if item.name in body or item.default is MISSING:
                value = _field(body, item.name)
                values[item.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    return read


def _spawned(body: Mapping[str, Any]) -> Spawned:
    opening = body.get("opening")
    return _reader(Spawned)({**body, "opening": _reader(Opening)(opening) if opening else None})


def _infos(entries: Sequence[Mapping[str, Any]]) -> tuple[NpcInfo, ...]:
    return tuple(map(_reader(NpcInfo), entries))


def _loaded(body: Mapping[str, Any]) -> Loaded:
    return Loaded(_infos(_field(body, "npcs")), tuple(_field(body, "rebuilt")))


def _listed(words: object) -> Any:
    """Any collection as a list; text, which would fall into letters, and all else as it is, to be refused."""
    return list(words) if isinstance(words, Iterable) and not isinstance(words, (str, bytes, bytearray)) else words
