"""Persona: who someone is. A TOML file or a table of the same fields, immutable once read.

personas/README.md shows every field by example. Nothing is kept between two reads, so a persona
edited on disk is a new one at its next spawn: its `digest` says whether anything changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_runtime.checks import MOST_FAULTS, Check, Count, Items, Mismatch, Number, Table, Text, Word, near, shown
from npc_runtime.errors import ConfigError, PersonaError, UnknownPersona, reason
from npc_runtime.sampling import Sampling

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOODS = ("neutral", "happy", "amused", "fond", "sad", "angry", "afraid", "surprised", "wary", "proud")
ACTIONS = ("trade", "give", "take", "quest", "follow", "attack", "flee", "leave", "point")
SECRET_MARK = "secret: "
"""How a fact of `knows` says that it is to be kept (personas/README.md)."""

MAX_FILE_BYTES = 64 * 1024
"""Bytes of a persona file; a larger one is not parsed."""
MAX_READ_BYTES = 8192
"""UTF-8 bytes of all that the model reads of a persona, and so about the most tokens it can cost."""

_MAX_DOTS = 512
"""Dots on one line of a file: a key of 32,000 dotted parts costs the TOML parser 20 s."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A line of the player and how this character answers it; `action` is empty where there is none."""

    player: str
    npc: str
    mood: str = "neutral"
    action: str = ""


@dataclass(frozen=True, slots=True)
class Persona:
    """A character as written: `name` and `role` are required, the rest gives voice and knowledge.

    Built in Python it is unchecked (training reads texts of any length); see `check_persona`.
    """

    name: str
    role: str
    traits: tuple[str, ...] = ()
    voice: str = ""
    knows: tuple[str, ...] = ()
    wants: str = ""
    setting: str = ""
    moods: tuple[str, ...] = MOODS
    actions: tuple[str, ...] = ACTIONS
    opening: str = ""
    opening_mood: str = "neutral"
    samples: tuple[Sample, ...] = ()
    fallbacks: tuple[str, ...] = ()
    """Lines a game may show when no Reply can be had."""
    sampling: Sampling = field(default_factory=Sampling)

    def digest(self) -> str:
        """SHA-256 of everything that shapes the persona's State and replies."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


SAMPLE_FIELDS: dict[str, Check] = {
    "player": Text(240, 1),
    "npc": Text(400, 1),
    "mood": Word(),
    "action": Text(24),
}
SAMPLING_FIELDS: dict[str, Check] = {
    "temperature": Number(0, 5),
    "top_p": Number(0.01, 1),
    "repetition": Number(0, 10),
    "max_tokens": Count(1, 512),
}
FIELDS: dict[str, Check] = {
    "name": Text(64, 1),
    "role": Text(120, 1),
    "traits": Items(Text(60, 1, without=","), 8),
    "voice": Text(300),
    "knows": Items(Text(240, 1, without=";"), 24),
    "wants": Text(240),
    "setting": Text(240),
    "moods": Items(Word(), 24, 1, unique=True),
    "actions": Items(Word(), 24, unique=True),
    "opening": Text(400),
    "opening_mood": Word(),
    "samples": Items(Table(Sample, SAMPLE_FIELDS, ("player", "npc")), 8),
    "fallbacks": Items(Text(240, 1), 8),
    "sampling": Table(Sampling, SAMPLING_FIELDS),
}
"""Every field and what it must be, in the order in which files are written."""

_PERSONA = Table(Persona, FIELDS, ("name", "role"))


def persona_from(mapping: dict[str, Any], where: str) -> Persona:
    """The Persona of a table (a file's, a request's, a save's); `where` opens the text of every PersonaError."""
    if not isinstance(mapping, dict):
        raise PersonaError(f"{where}: a persona must be a table of its fields, got {shown(mapping)}")
    placed, faults = _in_place(mapping)
    clean, wrong = _PERSONA.read(placed, "")
    faults += [*wrong, *islice(_wrong_words(placed, clean), MOST_FAULTS), *_too_much(clean)]
    if faults:
        texts = tuple(f"{where}: {fault}" for fault in faults)
        raise PersonaError(texts[0], faults=texts)
    return Persona(**clean)


def to_mapping(persona: Persona) -> dict[str, Any]:
    """Plain text, lists and tables of every field, for wire and save; `persona_from` gives the Persona back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(persona).items()}


def check_persona(persona: Persona) -> Persona:
    """A Persona built in Python, checked and cleaned as a file's is; raises PersonaError."""
    return persona_from(to_mapping(persona), f"persona {shown(persona.name)}")


def load_persona(path: Path) -> Persona:
    """The Persona of a TOML file.

    Raises UnknownPersona where there is no such file, PersonaError where it is not a good one.
    """
    where = f"`{path}`"
    try:
        text = _read(path).decode("utf-8-sig")
        if max(line.count(".") for line in text.split("\n")) > _MAX_DOTS:
            raise PersonaError(f"{where} is not a persona: a line holds more than {_MAX_DOTS} dots")
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise UnknownPersona(f"there is no persona file {where}") from None
    except UnicodeDecodeError as error:
        byte = f"0x{error.object[error.start]:02x} at byte {error.start}"
        raise PersonaError(f"{where} must be UTF-8 text, got {byte}") from None
    except OSError as error:
        raise PersonaError(f"{where} cannot be read: {reason(error)}") from error
    except RecursionError:
        raise PersonaError(f"{where} is not a persona: lists or tables are nested too deep") from None
    except ValueError as error:  # a TOMLDecodeError, an integer of too many digits
        raise PersonaError(f"{where} is not TOML: {error}") from None
    try:
        return persona_from(table, where)
    except PersonaError as error:
        if more := len(error.faults) - 1:
            hint = f"{more} more fault{'s' if more > 1 else ''}: `npc-runtime persona check {path}` tells all"
            raise PersonaError(error.text, hint, error.faults) from None
        raise


def is_path(text: str) -> bool:
    """Whether a text asks for a file rather than a name: it holds a separator or ends in `.toml`."""
    return re.search(r"[/\\]|\.toml$", text) is not None


def find_persona(name_or_path: str | Path, folders: Sequence[Path] = ()) -> Persona:
    """The Persona of a name, looked for in `folders` and then among the bundled ones, or of a path.

    A name never leaves its folder.
    """
    if isinstance(name_or_path, Path) or is_path(name_or_path):
        return load_persona(Path(name_or_path))
    if not _NAME.fullmatch(name_or_path):
        expected = "a persona's name must be 1 to 64 letters, digits, `-` or `_`"
        raise UnknownPersona(f"{expected}, got {shown(name_or_path)}")
    known = list_personas(folders)
    if name_or_path not in known:
        places = " or ".join([*(f"`{folder}`" for folder in folders), "the bundled personas"])
        raise UnknownPersona(f"there is no persona `{name_or_path}` in {places}{near(name_or_path, known)}")
    return load_persona(known[name_or_path])


def list_personas(folders: Sequence[Path] = ()) -> dict[str, Path]:
    """File of every persona that a name can find, unread, by name: `folders` win over the bundled ones."""
    found = dict(_files(bundled_folder()))
    for folder in reversed(folders):
        inside = folder.resolve()  # a link that leads out of the folder is no persona of it
        found |= {name: path for name, path in _files(folder) if path.resolve().is_relative_to(inside)}
    return dict(sorted(found.items()))


def check_folders(folders: Sequence[Path]) -> None:
    """ConfigError for what is no folder: it may be misspelt."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise ConfigError(f"persona folder `{folder}` is not a folder")


def bundled_folder() -> Path:
    """Where the shipped personas lie: beside a checkout's pyproject.toml, else in the installed package."""
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file() and (root / "personas").is_dir():
        return root / "personas"
    return Path(str(resources.files("npc_runtime"))) / "personas"


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of each persona of a folder; nothing where the folder is missing."""
    for path in folder.glob("*.toml") if os.path.isdir(folder) else ():
        if _NAME.fullmatch(path.stem) and path.is_file():
            yield path.stem, path


def _read(path: Path) -> bytes:
    """The file's bytes; nothing is read of a folder, device or pipe, nor more than a persona may hold."""
    if os.path.isdir(path):  # opening one fails on Windows with a text about permissions
        raise PersonaError(f"`{path}` must be a file, got a folder")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(path, flags)
    except ValueError as error:  # a null character, or half of one
        raise PersonaError(f"there can be no persona file {shown(str(path))}: {error}") from None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PersonaError(f"`{path}` must be a plain file, got a device or pipe")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise PersonaError(f"`{path}` must be at most {MAX_FILE_BYTES} bytes, got more")
    return data


def _in_place(mapping: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields, those below a [table], to which TOML gives them, put where they were meant; and a fault for each."""
    placed, faults = dict(mapping), list[str]()

    def without(name: str, table: Any) -> Any:
        lost = sorted(FIELDS.keys() & table.keys()) if isinstance(table, dict) and len(faults) < MOST_FAULTS else []
        for key in lost:
            faults.append(f"`{key}` stands below {name} and so belongs to it; write it above the first [table]")
            placed.setdefault(key, table[key])
        return {key: item for key, item in table.items() if key not in lost} if lost else table

    samples = mapping.get("samples")
    if isinstance(samples, list):
        placed["samples"] = [without("[[samples]]", table) for table in samples]
    if "sampling" in mapping:
        placed["sampling"] = without("[sampling]", mapping["sampling"])
    return placed, faults


def _wrong_words(mapping: dict[str, Any], clean: dict[str, Any]) -> Iterator[str]:
    """A fault for each mood and action that the persona itself uses and does not allow."""
    allowed = {"moods": clean.get("moods", MOODS), "actions": clean.get("actions", ACTIONS)}
    faulty = mapping.keys() - clean.keys()  # a list that has faults of its own allows nobody knows what
    for where, kind, word in _used_words(mapping, clean):
        if word and kind not in faulty and word not in allowed[kind]:
            words = ", ".join(allowed[kind]) or "none"
            yield f"{where} must be one of the persona's {kind} ({words}), got `{word}`{near(word, allowed[kind])}"


def _used_words(mapping: dict[str, Any], clean: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(where, `moods` or `actions`, the word) of each; what is no word at all is left out."""
    if clean.get("opening"):
        yield "`opening_mood`", "moods", clean.get("opening_mood", "" if "opening_mood" in mapping else "neutral")
    samples = mapping.get("samples")
    for number, sample in enumerate(samples[:MOST_FAULTS] if isinstance(samples, (list, tuple)) else (), 1):
        for key, default, kind in (("mood", "neutral", "moods"), ("action", "", "actions")):
            with suppress(Mismatch):
                word = SAMPLE_FIELDS[key](sample.get(key, default) if isinstance(sample, dict) else "", "")
                yield f"`samples` item {number}, `{key}`", kind, word


def _too_much(clean: dict[str, Any]) -> Iterator[str]:
    """A fault where all that the model reads does not fit MAX_READ_BYTES."""
    read = ("name", "role", "traits", "voice", "knows", "wants", "setting", "opening", "samples")
    sizes = {name: _size(clean.get(name, "")) for name in read}
    total, longest = sum(sizes.values()), max(read, key=lambda name: sizes[name])
    if total > MAX_READ_BYTES:
        expected = f"all texts together must be at most {MAX_READ_BYTES} bytes of UTF-8"
        yield f"{expected}, got {total}; the longest is `{longest}` with {sizes[longest]}"


def _size(value: object) -> int:
    if isinstance(value, tuple):
        return sum(map(_size, value))
    if isinstance(value, Sample):
        return _size((value.player, value.npc))
    return len(str(value).encode())
