"""Journal: the States of all Npcs on disk, current to the last Turn that was acknowledged.

A folder of numbered segments. Each is a safetensors file whose tensors are snapshots (Saves of one Npc, with
their own digests) and whose metadata says which snapshots of which segments count from now on. So the newest
segment alone tells the whole: a batch of Npcs is there or is not, an Npc that was dropped is in no list, and a
segment of which nothing counts any more is deleted. A segment is written beside, flushed and renamed, so a
damaged one is never the trace of a crash.

Chosen by measurement over SQLite in WAL mode with `synchronous=FULL`: `python -m npc_runtime.bench_journal default
FOLDER`, States of 0.93 MB, 2 virtual cores of an AMD EPYC beside other work, ext4, medians of 3 alternating runs, ms
until a batch is on the disk (and of processor time). In every run the segments cost the least processor time.

| Npcs in a batch | segments | SQLite, 4 KiB pages | SQLite, 64 KiB pages |
| --- | --- | --- | --- |
| 1 | 2.5 (1.9) | 5.1 (5.5) | 4.3 (4.0) |
| 8 | 17.9 (15.5) | 59.7 (50.0) | 28.8 (26.1) |
| 32 | 81.0 (77.8) | 243.1 (210.0) | 108.2 (100.6) |

A Turn of 77 ms is acknowledged 7.5 ms later with a journal. SQLite writes every State twice (log, then pages), and
takes a damaged end of its log for a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from npc_runtime import container, save
from npc_runtime.errors import JournalError, JournalFailed, SaveError, SaveFailed, SaveMismatch, reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from npc_runtime.save import NpcRecord
    from npc_runtime.state import StateSpec

BATCH = 32
"""Most Npcs written at once: a bound on memory and on how long the first of them waits."""
MAX_RECORDS = 256
MAX_HEADER_BYTES = 4 * 2**20
MAX_RECORD_BYTES = 2 * 2**20
"""What a snapshot may hold beside its State."""
VERSION = "1"
_NAME = re.compile(r"([0-9]{12})\.segment")
_NUMBER = re.compile(r"[0-9]{1,12}")
_METADATA = {"version", "bundle", "bundle_hash", "content", "digest"}

Key = tuple[str, str]
"""Names an Npc of a daemon: its Session's name and its id."""


class _Place(NamedTuple):
    """Where the newest snapshot of an Npc lies."""

    segment: int
    position: int


class Journal:
    """An open journal folder, locked for this process. One thread at a time calls it."""

    def __init__(self, folder: Path | str, bundle_name: str, bundle_hash: str, spec: StateSpec) -> None:
        """Makes the folder when there is none. Raises JournalError when it is in use, damaged or another Bundle's."""
        self.folder = Path(folder)
        self.bundle_name, self.bundle_hash, self.spec = bundle_name, bundle_hash, spec
        self._lock = _lock(self.folder)
        self._places: dict[Key, _Place] = {}
        self._sizes: dict[int, int] = {}
        """Snapshots in each segment that still counts, dead ones included."""
        self.newest = 0
        self.bytes_written = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Gives up the lock."""
        self._lock.close()

    # ---- in

    def _open(self) -> None:
        """Finds what counts, by the newest segment; touches nothing before all of it is known to be there."""
        try:
            found = {int(match[1]): name for name in os.listdir(self.folder) if (match := _NAME.fullmatch(name))}
        except OSError as error:
            raise JournalError(f"the journal `{self.folder}` cannot be read: {reason(error)}") from error
        if not found:
            return
        self.newest = max(found)
        _, fields = self._segment(self.newest)
        for number, positions in fields["live"].items():
            self._count(int(number), positions)
        self._sweep()

    def _count(self, number: int, positions: list[int]) -> None:
        _, fields = self._segment(number)
        names = fields["npcs"]
        self._sizes[number] = len(names)
        for position in positions:
            if position >= len(names) or names[position] in self._places:
                raise self._damaged(
                    self.newest, f"snapshot {position} of segment {number} is none, or its Npc's second"
                )
            self._places[names[position]] = _Place(number, position)

    def read(self) -> Iterator[tuple[str, NpcRecord]]:
        """Session and record of every Npc, segment by segment. Raises JournalError when one is damaged."""
        for number in sorted(self._sizes):
            view, fields = self._segment(number)
            names: list[Key] = fields["npcs"]
            for index, key in enumerate(names):
                if self._places.get(key) == _Place(number, index):
                    yield key[0], self._record(view, fields["entries"][str(index)], number, key)

    def _record(self, view: memoryview, entry: container.Entry, number: int, key: Key) -> NpcRecord:
        data = bytes(view[entry.offset : entry.offset + entry.nbytes])
        try:
            records = save.decode(data, self.spec, self.bundle_hash, self.bundle_name).records
        except (SaveError, SaveMismatch) as error:
            raise self._damaged(number, f"the snapshot of `{key[1]}`: {error}") from error
        if [record.id for record in records] != [key[1]]:
            raise self._damaged(number, f"the snapshot of `{key[1]}` is another Npc's")
        return records[0]

    def _segment(self, number: int) -> tuple[memoryview, dict[str, Any]]:
        """The bytes of a segment and the fields of its metadata, checked; `entries` are its tensors."""
        path = self._path(number)
        if not path.exists():
            raise self._damaged(number, "it is missing")
        try:
            view = memoryview(save.read(path, MAX_RECORDS * (self.spec.nbytes + MAX_RECORD_BYTES)))
            header = container.read_header(view, MAX_HEADER_BYTES)
            fields = _parse(header.metadata, number)
            if list(header.entries) != [str(index) for index in range(len(fields["npcs"]))]:
                raise ValueError("its tensors are not its snapshots")
        except (ValueError, SaveError) as error:
            raise self._damaged(number, str(error)) from error
        if fields["bundle_hash"] != self.bundle_hash:
            raise JournalError(
                f"the journal `{self.folder}` is of the Bundle `{fields['bundle']}` ({fields['bundle_hash'][:12]}), "
                f"and `{self.bundle_name}` ({self.bundle_hash[:12]}) is running",
                "Start the daemon with that Bundle, or give another folder; save and load can rebuild",
            )
        return view, {**fields, "entries": header.entries}

    def _damaged(self, number: int, why: str) -> JournalError:
        return JournalError(f"the journal is damaged, `{self._path(number)}`: {why}")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012}.segment"

    # ---- out

    def write(self, records: Mapping[Key, NpcRecord | None]) -> None:
        """Puts Npcs on the disk, None for one that is no more: all of them or, when JournalFailed is raised, none."""
        number = self.newest + 1
        kept = {key: record for key, record in records.items() if record is not None}
        places = {key: place for key, place in self._places.items() if key not in records}
        places |= {key: _Place(number, index) for index, key in enumerate(kept)}
        try:
            snapshots = [save.encode([record], self.bundle_name, self.bundle_hash) for record in kept.values()]
            data = b"".join((self._header(number, list(kept), snapshots, places), *snapshots))
            save.write_atomic(self._path(number), data)
        except SaveFailed as error:
            raise JournalFailed(f"the journal could not be written: {error}") from error
        self.newest = number
        self.bytes_written += len(data)
        self._places = places
        used = {place.segment for place in places.values()} | {number}
        self._sizes = {**self._sizes, number: len(kept)}
        self._sizes = {segment: size for segment, size in self._sizes.items() if segment in used}
        self._sweep()

    def _header(self, number: int, keys: list[Key], snapshots: list[bytes], places: Mapping[Key, _Place]) -> bytes:
        live: dict[str, list[int]] = {}
        for segment, position in sorted(places.values()):
            live.setdefault(str(segment), []).append(position)
        content = _json({"number": number, "npcs": keys, "live": live})
        metadata = {
            "version": VERSION,
            "bundle": self.bundle_name,
            "bundle_hash": self.bundle_hash,
            "content": content,
        }
        listed = [(str(index), "U8", (len(data),)) for index, data in enumerate(snapshots)]
        return container.write_header(listed, {**metadata, "digest": _digest(metadata)})

    def _sweep(self) -> None:
        """Deletes segments of which nothing counts, and parts that a crash left. What cannot go now goes later."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder):
                match = _NAME.fullmatch(name)
                dead = match is not None and int(match[1]) not in self._sizes and int(match[1]) != self.newest
                if dead or (name.startswith(".") and name.endswith(".part")):
                    (self.folder / name).unlink()

    def sparse(self) -> list[Key]:
        """The Npcs of the emptiest segment, once more snapshots are dead than alive: written anew, they free it."""
        if sum(self._sizes.values()) <= 2 * len(self._places) + BATCH:
            return []
        alive: dict[int, list[Key]] = {}
        for key, place in self._places.items():
            alive.setdefault(place.segment, []).append(key)
        return min((keys for number, keys in alive.items() if len(keys) < self._sizes[number]), key=len, default=[])

    @property
    def segments(self) -> int:
        """Files in the folder that count."""
        return len(self._sizes)


def _parse(metadata: Mapping[str, str], number: int) -> dict[str, Any]:
    """The fields of a segment's metadata. Raises ValueError naming what is wrong."""
    if metadata.get("version") != VERSION:
        raise ValueError(f"`version` must be {VERSION}, got {metadata.get('version')!r:.40}")
    if metadata.keys() != _METADATA or metadata["digest"] != _digest(metadata):
        raise ValueError("its metadata does not fit its digest")
    content = container.read_json(metadata["content"].encode())
    npcs, live = content.get("npcs"), content.get("live")
    if content.keys() != {"number", "npcs", "live"} or content["number"] != number:
        raise ValueError(f"it is not segment {number}")
    if not isinstance(npcs, list) or len(npcs) > MAX_RECORDS or not all(map(_is_key, npcs)):
        raise ValueError(f"`npcs` must be at most {MAX_RECORDS} pairs of Session and id")
    if not isinstance(live, dict) or not all(_NUMBER.fullmatch(key) and _is_positions(live[key]) for key in live):
        raise ValueError("`live` must name segments and snapshots in them")
    return {**metadata, "npcs": [(session, id) for session, id in npcs], "live": live}


def _is_key(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _is_positions(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < MAX_RECORDS for item in value)


def _digest(metadata: Mapping[str, str]) -> str:
    rest = {name: value for name, value in sorted(metadata.items()) if name != "digest"}
    return hashlib.sha256(_json(rest).encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _lock(folder: Path) -> BinaryIO:
    """The folder's lock file, held by this process until it is closed or the process ends, however that happens."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "a+b")  # noqa: SIM115  # held for as long as the journal is
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise JournalError(f"the journal `{folder}` cannot be opened: {reason(error)}") from error
    try:
        _hold(file)
    except OSError as error:
        file.seek(0)
        owner = file.read(20).decode("ascii", "replace").strip()
        file.close()
        raise JournalError(
            f"the journal `{folder}` is in use by process {owner or 'unknown'}",
            "Stop that daemon first, or give this one another folder",
        ) from error
    try:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
    except OSError as error:
        file.close()
        raise JournalError(f"the journal `{folder}` cannot be written: {reason(error)}") from error
    return file


def _hold(file: BinaryIO) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(2**20)  # bytes that are locked cannot be read there, and the owner's number should be
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
