"""Save: a file holding many Npcs, exact to the bit. SAVE_FORMAT.md tells it to people without Python.

A save is hostile until its digest, header, names, shapes, sizes and values agree; it is read as
data only, and every bound is checked before anything is built from it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_runtime import container
from npc_runtime.errors import SaveError, SaveFailed, SaveMismatch, reason
from npc_runtime.precision import PRECISIONS, from_disk, round_trip, stored_shapes, to_disk
from npc_runtime.state import State, StateSpec
from npc_runtime.wire import MAX_ID, MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NpcRecord", "SaveFile", "decode", "encode", "read", "round_trip", "write_atomic"]

VERSION = "1"
MAX_NPCS = 16384
MAX_HEADER_BYTES = 32 * 2**20
MAX_PERSONA_BYTES = 256 * 1024
MAX_LOG_ENTRIES = 256
MAX_LOG_BYTES = 256 * 1024
ALL_LOGS_BYTES = 12 * 2**20
"""Shared equally by the logs of a save: with very many Npcs the texts of older turns are left out."""
MAX_RECENT = 1024
MAX_TOKEN = 2**20
_OPENING = b'{"__metadata__":{"digest":"'
_DIGEST = slice(8 + len(_OPENING), 8 + len(_OPENING) + 64)
_BLANK = "0" * 64
_HASH = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"player|event|npc [^ ]{1,64}(?: [^ ]{1,64})?")
_METADATA = {"digest", "version", "bundle", "bundle_hash", "precision", "spec", "personas", "npcs"}
_NPC = ["id", "persona", "persona_digest", "seed", "turns", "tokens", "recent", "log"]
_SPEC = {"n_layer": 512, "d_inner": 2**17, "d_state": 256, "d_conv": 16}


@dataclass(frozen=True, slots=True)
class NpcRecord:
    """One Npc as a save holds it: all that a continuation depends on, and its last turns as text.

    `state` is None only when a save of a Bundle of other sizes was read for rebuilding.
    """

    id: str
    persona: dict[str, Any]
    """The Persona's source fields."""
    persona_digest: str
    seed: int
    turns: int
    tokens: int
    recent: tuple[int, ...]
    """Window of spoken tokens for repetition control."""
    log: tuple[tuple[str, str], ...]
    """(kind, text) of the last turns: `player`, `event`, `npc MOOD` or `npc MOOD ACTION`."""
    state: State | None


@dataclass(frozen=True, slots=True)
class SaveFile:
    """What a save holds; `spec` is None when it holds no Npc."""

    records: tuple[NpcRecord, ...]
    bundle_name: str
    bundle_hash: str
    precision: str
    spec: StateSpec | None


def encode(records: Sequence[NpcRecord], bundle_name: str, bundle_hash: str, precision: str = "fp32") -> bytes:
    """The bytes of a save; the same records give the same bytes, and `decode` accepts whatever this gives.

    Raises SaveFailed when a State is not finite or does not fit the precision, or a bound is passed.
    """
    try:
        return _encode(records, bundle_name, bundle_hash, precision)
    except ValueError as error:
        raise SaveFailed(f"the save cannot be made: {error}", "Correct what is named; nothing was written") from error


def decode(data: bytes, spec: StateSpec, bundle_hash: str | None, bundle_name: str = "this one") -> SaveFile:
    """What a save holds, for the Bundle of that `bundle_hash`, whose name serves the error text.

    With a hash of None a save of any Bundle is read, and the States are left out where their sizes
    are not those of `spec`. Raises SaveError, or SaveMismatch when another Bundle made the save.
    """
    try:
        view = memoryview(data)
        _check_digest(view)
        header = container.read_header(view, MAX_HEADER_BYTES)
        saved = _parse_metadata(header.metadata)
        if bundle_hash is not None and saved.bundle_hash != bundle_hash:
            raise SaveMismatch(
                f"the save was made with the Bundle `{saved.bundle_name}` ({saved.bundle_hash[:12]}), "
                f"and `{bundle_name}` ({bundle_hash[:12]}) is running"
            )
        _check_tensors(header.entries, saved)
        if saved.spec == spec:
            return replace(saved, records=tuple(_with_states(view, header.entries, saved, spec)))
        if bundle_hash is not None and saved.spec is not None:
            raise ValueError(f"its States are of {saved.spec}, the Bundle's of {spec}")
    except ValueError as fault:  # ContainerFault is one
        raise SaveError(f"the save is damaged or none: {fault}") from fault
    return saved


def _encode(records: Sequence[NpcRecord], bundle_name: str, bundle_hash: str, precision: str) -> bytes:
    spec = _common_spec(records)
    metadata = {"digest": _BLANK, "version": VERSION, "bundle": bundle_name, "bundle_hash": bundle_hash}
    metadata |= {"precision": precision, "spec": _json(None if spec is None else asdict(spec)), **_people(records)}
    _parse_metadata(metadata)  # so that nothing is written that would not be read
    shapes = {} if spec is None else stored_shapes(spec, precision)
    listed = [(f"npc.{i}.{part}", *shapes[part]) for i in range(len(records)) for part in shapes]
    head = bytearray(container.write_header(listed, metadata))
    if len(head) > MAX_HEADER_BYTES:
        raise ValueError(f"its header would be {len(head)} bytes of {MAX_HEADER_BYTES}; save fewer Npcs in one file")
    pieces: list[bytes | memoryview] = []
    for record in records:
        pieces += _pieces(record, precision)
    digest = hashlib.sha256(head)
    for piece in pieces:
        digest.update(piece)
    head[_DIGEST] = digest.hexdigest().encode()
    return b"".join([head, *pieces])


def _pieces(record: NpcRecord, precision: str) -> list[memoryview]:
    if record.state is None:
        raise ValueError(f"`{record.id}` has no State")
    try:
        return [part.reshape(-1).data for part in to_disk(record.state, precision).values()]
    except ValueError as error:
        raise ValueError(f"`{record.id}`: {error}") from error


def _common_spec(records: Sequence[NpcRecord]) -> StateSpec | None:
    specs = {record.state.spec for record in records if record.state is not None}
    if len(specs) > 1:
        raise ValueError("the States are of different models")
    return specs.pop() if specs else None


def _people(records: Sequence[NpcRecord]) -> dict[str, str]:
    """The metadata on Npcs; a persona that many share is written once."""
    personas: dict[str, int] = {}
    npcs: list[dict[str, Any]] = []
    budget = min(MAX_LOG_BYTES, ALL_LOGS_BYTES // max(len(records), 1))
    for record in records:
        values = {key: getattr(record, key) for key in _NPC}
        values["persona"] = personas.setdefault(_json(record.persona), len(personas))
        values["log"] = _newest(record.log, budget)
        npcs.append(values)
    return {"personas": f"[{','.join(personas)}]", "npcs": _json(npcs)}


def _newest(log: Sequence[tuple[str, str]], budget: int) -> list[tuple[str, str]]:
    kept: list[tuple[str, str]] = []
    for entry in reversed(log[-MAX_LOG_ENTRIES:]):
        budget -= len(_json(entry).encode()) + 1
        if budget < 0:
            break
        kept.append(entry)
    return kept[::-1]


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    return text


def _parse_json(text: str, what: str) -> Any:
    """The value of canonical JSON: what `_json` would not write is refused, repeated keys included."""
    try:
        value = json.loads(text)
        if _json(value) == text:
            return value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`{what}` is not JSON: {error}") from error
    raise ValueError(f"`{what}` is not canonical JSON")


def _check_digest(view: memoryview) -> None:
    if len(view) < _DIGEST.stop or view[8 : _DIGEST.start] != _OPENING:
        raise ValueError("it does not begin as a save does")
    digest = hashlib.sha256(view[: _DIGEST.start])
    digest.update(_BLANK.encode())
    digest.update(view[_DIGEST.stop :])
    if bytes(view[_DIGEST]) != digest.hexdigest().encode():
        raise ValueError("its digest does not fit its content")


def _parse_metadata(metadata: Mapping[str, str]) -> SaveFile:
    """A SaveFile whose States are still to come. Raises ValueError naming the field."""
    if metadata.get("version") != VERSION:
        raise ValueError(f"`version` must be {VERSION}, got {metadata.get('version')!r:.40}")
    if metadata.keys() != _METADATA:
        raise ValueError(f"its metadata must be {', '.join(sorted(_METADATA))}")
    precision, name, digest = metadata["precision"], metadata["bundle"], metadata["bundle_hash"]
    _need(precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}", precision)
    _need(0 < len(name) <= MAX_NAME and name.isprintable(), "bundle", f"1 to {MAX_NAME} printable characters", name)
    _need(_HASH.fullmatch(digest) is not None, "bundle_hash", "a SHA-256 in hexadecimal", digest)
    personas = _parse_json(metadata["personas"], "personas")
    npcs = _parse_json(metadata["npcs"], "npcs")
    _need(isinstance(personas, list) and all(_is_persona(item) for item in personas), "personas", "tables", personas)
    _need(isinstance(npcs, list) and len(npcs) <= MAX_NPCS, "npcs", f"at most {MAX_NPCS} tables", npcs)
    _need(len(personas) <= len(npcs), "personas", "no more than there are Npcs", len(personas))
    records = tuple(_parse_npc(values, personas) for values in npcs)
    if len({record.id for record in records}) != len(records):
        raise ValueError("an id occurs twice")
    return SaveFile(records, name, digest, precision, _parse_spec(metadata["spec"], bool(records)))


def _need(good: bool, field: str, wanted: str, value: object) -> None:
    if not good:
        raise ValueError(f"`{field}` must be {wanted}, got {value!r:.60}")


def _is_persona(value: object) -> bool:
    return isinstance(value, dict) and len(_json(value).encode()) <= MAX_PERSONA_BYTES


def _is_whole(value: object, limit: int) -> bool:
    return type(value) is int and 0 <= value <= limit


def _parse_spec(text: str, needed: bool) -> StateSpec | None:
    values = _parse_json(text, "spec")
    if not needed:
        _need(values is None, "spec", "null without Npcs", values)
        return None
    _need(isinstance(values, dict) and list(values) == list(_SPEC), "spec", f"sizes {', '.join(_SPEC)}", values)
    for key, limit in _SPEC.items():
        _need(_is_whole(values[key], limit) and values[key] > 0, f"spec.{key}", f"from 1 to {limit}", values[key])
    return StateSpec(**values)


def _parse_npc(values: object, personas: list[dict[str, Any]]) -> NpcRecord:
    if not isinstance(values, dict) or list(values) != _NPC:
        raise ValueError(f"an Npc must have {', '.join(_NPC)}")
    name, persona, digest = values["id"], values["persona"], values["persona_digest"]
    good = isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()
    _need(good, "id", f"1 to {MAX_NAME} printable characters", name)
    _need(_is_whole(persona, len(personas) - 1), f"{name}: persona", "the number of a persona", persona)
    _need(isinstance(digest, str) and _HASH.fullmatch(digest) is not None, f"{name}: persona_digest", "hex", digest)
    for key in ("seed", "turns", "tokens"):
        _need(_is_whole(values[key], MAX_ID), f"{name}: {key}", "from 0 to 2^53 - 1", values[key])
    recent, log = values["recent"], values["log"]
    good = isinstance(recent, list) and len(recent) <= MAX_RECENT and all(_is_whole(t, MAX_TOKEN) for t in recent)
    _need(good, f"{name}: recent", f"at most {MAX_RECENT} token ids", recent)
    good = isinstance(log, list) and len(log) <= MAX_LOG_ENTRIES and all(map(_is_log_entry, log))
    _need(good and len(_json(log).encode()) <= MAX_LOG_BYTES + 2, f"{name}: log", "pairs of kind and text", log)
    return NpcRecord(
        id=name,
        persona=personas[persona],
        persona_digest=digest,
        seed=values["seed"],
        turns=values["turns"],
        tokens=values["tokens"],
        recent=tuple(recent),
        log=tuple((kind, text) for kind, text in log),
        state=None,
    )


def _is_log_entry(entry: object) -> bool:
    return (
        isinstance(entry, (list, tuple))
        and len(entry) == 2
        and all(isinstance(item, str) for item in entry)
        and _KIND.fullmatch(entry[0]) is not None
    )


def _check_tensors(found: dict[str, container.Entry], saved: SaveFile) -> None:
    shapes = {} if saved.spec is None else stored_shapes(saved.spec, saved.precision)
    expected = [(f"npc.{i}.{part}", *shapes[part]) for i in range(len(saved.records)) for part in shapes]
    if [(name, entry.dtype, entry.shape) for name, entry in found.items()] != expected:
        raise ValueError(f"its tensors must be the {len(expected)} of its Npcs' States, and are others")


def _with_states(
    view: memoryview, entries: dict[str, container.Entry], saved: SaveFile, spec: StateSpec
) -> list[NpcRecord]:
    names = list(stored_shapes(spec, saved.precision))
    records: list[NpcRecord] = []
    for i, record in enumerate(saved.records):
        parts = {part: container.array(view, entries[f"npc.{i}.{part}"]) for part in names}
        try:
            records.append(replace(record, state=from_disk(spec, parts, saved.precision)))
        except ValueError as error:
            raise ValueError(f"`{record.id}`: {error}") from error
    return records


CHECK_PATH = "Check the path of the save"


def read(path: Path | str, max_bytes: int) -> bytes:
    """The bytes of a save of at most `max_bytes`. Raises SaveError naming the file."""
    try:
        # Opening a pipe would wait for a writer, and a device has no size: ask before opening.
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise SaveError(f"`{path}` is not a file", CHECK_PATH)
        with open(path, "rb") as file:
            # `read` takes memory for all it may read, so it may read no more than the file was just said to hold.
            data = file.read(min(found.st_size, max_bytes) + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise SaveError(f"`{path}` cannot be read: {reason(error)}", CHECK_PATH) from error
    if len(data) > max_bytes:
        raise SaveError(f"`{path}` holds more than the {max_bytes} bytes allowed")
    return data


NO_FOLDER = "Make the folder first, or choose another"
_HINTS = {
    errno.EACCES: "Check the permissions of the folder, or choose another",
    errno.EPERM: "Check the permissions of the folder, or choose another",
    errno.EROFS: "Choose a folder that can be written to",
    errno.ENAMETOOLONG: "Choose a shorter name",
}


def write_atomic(path: Path | str, data: bytes) -> None:
    """Writes beside, flushes to the disk, renames over. Raises SaveFailed, and then an older file stands unharmed."""
    try:
        target = Path(os.path.realpath(path))  # a link stays a link
    except ValueError as error:  # a null character in the name, or half of one
        raise SaveFailed(f"`{path}` could not be written: {error}", CHECK_PATH) from error
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        if hint is None and not os.path.isdir(target.parent):
            raise SaveFailed(f"`{path}` could not be written: no folder `{target.parent}`", NO_FOLDER) from error
        if os.path.isdir(target):
            hint = "Choose another name"
        raise SaveFailed(f"`{path}` could not be written: {reason(error)}", hint) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the rename last through a power cut, where the system can (Windows cannot, some network disks refuse)."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
