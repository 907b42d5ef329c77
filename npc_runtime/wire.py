"""Protocol 1: message structs, encode and decode, caps. bindings/PROTOCOL.md is this page in prose.

One frame is one msgpack map. A request carries `id` and `op`; every answer carries the same `id`
and `ev`. Unknown optional fields are ignored; unknown ops are answered with an error.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_type_hints

import msgpack

from npc_runtime import errors
from npc_runtime.checks import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = 1
MAX_ID = 2**53 - 1
"""Largest request id: what a double holds exactly, for engines whose numbers are doubles."""
MAX_NAME = 128
"""Characters of an Npc id, Session name or path component."""
MAX_PLAIN_BYTES = 1 << 20
"""Bytes of a message or field that may be anything; a longer one must be text or binary: lists unfold to sixtyfold."""
ENDED = ("ok", "done", "error")
"""Events that end a request; `mood`, `act` and `delta` come before `done`."""


_LONG = b"\xc6\xdb"
"""First bytes of a binary field and of a text of more than 65535 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Base of all requests; `id` is chosen by the client and unique among its open requests."""

    op: ClassVar[str] = ""
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Request):
    """First message: the protocol versions the client speaks and the Session it wants."""

    op: ClassVar[str] = "hello"
    protocol: list[int]
    client: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn(Request):
    """Brings a Persona alive under an id. `persona` is a name, a path or a table of its fields."""

    op: ClassVar[str] = "spawn"
    npc: str
    persona: str | dict[str, Any]
    seed: int | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Say(Request):
    """A Turn that asks for a Reply. `kind` is who speaks: `player`, or `event` for something perceived.

    `moods` and `actions` are what this Turn allows, in place of the persona's own (null); `lane` is `player` or
    `background`; `pace` is tokens per second (0: unpaced); the rest override the persona's sampling.
    """

    op: ClassVar[str] = "say"
    npc: str
    text: str
    kind: str = "player"
    moods: list[str] | None = None
    actions: list[str] | None = None
    lane: str = "player"
    deadline_ms: int | None = None
    pace: float | None = None
    stream: bool = True
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observe(Request):
    """One event that every named Npc perceives; no Reply."""

    op: ClassVar[str] = "observe"
    npcs: list[str]
    text: str
    lane: str = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose(Request):
    """Ranks given lines by likelihood after `text` (may be empty) and remembers the best as said."""

    op: ClassVar[str] = "choose"
    npc: str
    lines: list[str]
    text: str = ""
    moods: list[str] | None = None
    lane: str = "player"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Request):
    """Cuts an Npc's running Turn and empties its queue. `heard` is how many characters the player saw."""

    op: ClassVar[str] = "cancel"
    npc: str
    heard: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Request):
    """The Npc as bytes, a Save of one."""

    op: ClassVar[str] = "snapshot"
    npc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore(Request):
    """Brings back a snapshot under an id."""

    op: ClassVar[str] = "restore"
    npc: str
    data: bytes
    replace: bool = False
    rebuild: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(Request):
    """A second Npc with the same State, free to differ from now on."""

    op: ClassVar[str] = "fork"
    npc: str
    to: str
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind(Request):
    """Takes back the last Turns; nothing is read again."""

    op: ClassVar[str] = "rewind"
    npc: str
    turns: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Save(Request):
    """Writes Npcs (all when None) to a file beside and renamed over."""

    op: ClassVar[str] = "save"
    path: str
    npcs: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Request):
    """Reads Npcs (all when None) from a file: every one or none."""

    op: ClassVar[str] = "load"
    path: str
    npcs: list[str] | None = None
    replace: bool = False
    rebuild: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Request):
    """Forgets an Npc and frees its Slots."""

    op: ClassVar[str] = "drop"
    npc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class List(Request):
    """Names the Session's Npcs."""

    op: ClassVar[str] = "list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Request):
    """Counters of the daemon."""

    op: ClassVar[str] = "stats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(Request):
    """Asks whether the daemon lives."""

    op: ClassVar[str] = "ping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye(Request):
    """Leaves: cuts what is under way. `keep` says whether the Npcs stay; None leaves it to the daemon."""

    op: ClassVar[str] = "bye"
    keep: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown(Request):
    """Ends the daemon as SIGTERM does; refused where others may be connected (any address but loopback)."""

    op: ClassVar[str] = "shutdown"


@dataclass(frozen=True, slots=True)
class Event:
    """An answer: the request's `id`, `ev`, and the fields that belong to it."""

    id: int
    ev: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> bool:
        """True when nothing more follows for this id."""
        return self.ev in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an Npc answered: the fields of `done`.

    finish: `end`, `length` or `cancelled`. tokens: `read` (of this Turn), `spoken`, `reread` (always 0
    unless a rebuild was asked for). ms: `queued`, `first` (to the first text), `total`.
    """

    npc: str
    mood: str
    action: str | None
    text: str
    finish: str
    turn: int
    seed: int
    tokens: dict[str, int]
    ms: dict[str, float]


REQUESTS: dict[str, type[Request]] = {cls.op: cls for cls in Request.__subclasses__()}
_HINTS = {cls: get_type_hints(cls) for cls in (*REQUESTS.values(), Reply)}
_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    int: ("an integer", (int,)),
    float: ("a number", (float, int)),
    str: ("text", (str,)),
    bool: ("true or false", (bool,)),
    bytes: ("binary data", (bytes,)),
    list[str]: ("a list of texts", (list,)),
    list[int]: ("a list of integers", (list,)),
    str | dict[str, Any]: ("text or a map", (str, dict)),
    dict[str, int]: ("a map", (dict,)),
    dict[str, float]: ("a map", (dict,)),
}
Struct = TypeVar("Struct")


def encode(message: Request | Event) -> bytes:
    """One frame: a msgpack map. Fields at their default are left out."""
    if isinstance(message, Event):
        return bytes(msgpack.packb({"id": message.id, "ev": message.ev, **message.fields}))
    body: dict[str, Any] = {"id": message.id, "op": message.op}
    for item in fields(message):
        value = getattr(message, item.name)
        if item.name != "id" and (item.default is MISSING or value != item.default):
            body[item.name] = value
    return bytes(msgpack.packb(body))


def error_event(id: int, error: errors.NpcError) -> Event:
    """The `error` answer for a typed error."""
    return Event(id, "error", {"code": error.code, "text": error.text, "hint": error.hint, "retry": error.retry})


def decode_map(frame: bytes, max_bytes: int) -> dict[str, Any]:
    """The map in a frame; refuses what is too long, not msgpack, or not a map with text keys."""
    if len(frame) > max_bytes:
        raise errors.TooLarge(f"a message may hold {max_bytes} bytes, got {len(frame)}")
    try:
        if len(frame) > MAX_PLAIN_BYTES:
            _check_shape(frame)
        body = msgpack.unpackb(frame, raw=False, strict_map_key=True)
    except errors.NpcError:
        raise
    except Exception as error:  # msgpack raises ValueError, its own classes and, on bad UTF-8, UnicodeDecodeError
        raise errors.WireError(
            f"a frame must be one msgpack map, got {len(frame)} bytes that are not: {error}"
        ) from error
    if not isinstance(body, dict) or not all(isinstance(key, str) for key in body):
        raise errors.WireError(f"a frame must be one msgpack map with text keys, got {type(body).__name__}")
    return body


def _check_shape(frame: bytes) -> None:
    """Refuses a long frame whose length is not that of plain text or binary fields of a map."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(frame))
    unpacker.feed(frame)
    for _ in range(unpacker.read_map_header()):
        begin = unpacker.tell()
        unpacker.skip()
        start = unpacker.tell()
        unpacker.skip()
        longest = max(start - begin, 0 if frame[start] in _LONG else unpacker.tell() - start)
        if longest > MAX_PLAIN_BYTES:
            raise errors.TooLarge(f"a field that is not text or binary data may hold {MAX_PLAIN_BYTES} bytes")


def salvage_id(frame: bytes) -> int:
    """The id of a request that `decode_map` refused, so that the refusal finds its sender; 0 if it has none."""
    if len(frame) > MAX_PLAIN_BYTES:
        return 0
    try:
        body = msgpack.unpackb(frame, raw=False, unicode_errors="replace", strict_map_key=False)
    except Exception:  # not msgpack at all: there is no id to find
        return 0
    return request_id(body) if isinstance(body, dict) else 0


def request_id(body: Mapping[str, Any]) -> int:
    """The request's id, so that even a refused request can be answered; 0 when it has none."""
    value = body.get("id")
    return value if type(value) is int and 0 <= value <= MAX_ID else 0


def decode_request(body: Mapping[str, Any]) -> Request:
    """The typed request in a map. Raises BadInput naming the field, or UnknownOp."""
    op = body.get("op")
    if not isinstance(op, str) or op not in REQUESTS:
        raise errors.UnknownOp(f"`op` must be one of {', '.join(REQUESTS)}, got {shown(op)}")
    if type(body.get("id")) is not int or not 0 <= body["id"] <= MAX_ID:
        raise errors.BadInput(f"`id` must be an integer from 0 to 2^53 - 1, got {shown(body.get('id'))}")
    return _build(REQUESTS[op], body)


def checked(request: Request) -> Request:
    """The request as it would arrive by wire: raises BadInput naming a field of the wrong type."""
    return _build(type(request), {item.name: getattr(request, item.name) for item in fields(request)})


def decode_event(frame: bytes, max_bytes: int) -> Event:
    """The answer in a frame, for clients."""
    body = decode_map(frame, max_bytes)
    ev = body.pop("ev", None)
    id = request_id(body)
    body.pop("id", None)
    if not isinstance(ev, str):
        raise errors.WireError(f"an answer must carry `ev`, got keys {sorted(body)!r:.200}")
    return Event(id, ev, body)


def decode_reply(body: Mapping[str, Any]) -> Reply:
    """The Reply in the fields of `done`."""
    return _build(Reply, body)


def reply_fields(reply: Reply) -> dict[str, Any]:
    """The fields of `done` for a Reply."""
    return {item.name: getattr(reply, item.name) for item in fields(reply)}


def _build(cls: type[Struct], body: Mapping[str, Any]) -> Struct:
    values: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]  # every caller passes a dataclass
        if item.name in body:
            values[item.name] = _check(item.name, body[item.name], _HINTS[cls][item.name])
        elif item.default is MISSING and item.default_factory is MISSING:
            raise errors.BadInput(f"`{item.name}` is missing from `{getattr(cls, 'op', 'done')}`")
    return cls(**values)


def _check(name: str, value: object, hint: Any) -> object:
    if type(None) in getattr(hint, "__args__", ()):
        if value is None:
            return None
        hint = next(kind for kind in hint.__args__ if kind is not type(None))
    wanted, types = _KINDS[hint]
    good = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if good and isinstance(value, list):
        good = all(type(item) is hint.__args__[0] for item in value)
    if good and isinstance(value, dict):
        good = all(type(key) is str for key in value)
    if good and isinstance(value, float):
        good = math.isfinite(value)
    if not good:
        raise errors.BadInput(f"`{name}` must be {wanted}, got {shown(value)}")
    return float(value) if float in types and isinstance(value, int) else value
