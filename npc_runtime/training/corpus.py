"""Scenes, dialogues and prose as read from disk; where they go wrong is told by file and line."""

from __future__ import annotations

import io
import json
import os
import zlib
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from npc_runtime.errors import FileError, install_hint, reason
from npc_runtime.persona import ACTIONS, MOODS, Persona

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HEADER_KEYS = ("setting", "name", "role", "traits", "voice", "knows", "wants")
LEFT_OUT = ("crd3", "cdda", "counterfeit-monkey", "sgd", "light-machine")
"""Sources kept from the shipped model: share-alike licences, and text of an unnamed language model."""

MAX_TEXT_BYTES = 1 << 30
"""Most bytes one packed file may unfold to."""


class CorpusError(FileError):
    """A training file is malformed; the text names file, line and what was expected."""

    code = "bad_corpus"
    hint = "Correct the named line and run again"


@dataclass(frozen=True, slots=True)
class Line:
    """One turn: `who` is player, npc or event. `mood` is None where the source does not tell it.

    `head` and `speech` weigh the loss on the mood and action and on what is said; they matter only for npc.
    `typed`: no action means that there is none.
    """

    who: str
    text: str
    mood: str | None = None
    action: str | None = None
    head: float = 1.0
    speech: float = 1.0
    typed: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A conversation with one character. `typed` scenes tell an action wherever there is one."""

    persona: Persona
    lines: tuple[Line, ...]
    source: str
    typed: bool = False


@dataclass(slots=True)
class _Draft:
    fields: dict[str, str]
    lines: list[Line]
    in_turns: bool = False


def read_talk(path: Path) -> list[Scene]:
    """Every scene of a `.talk` file. Raises CorpusError naming file, line and what was expected."""
    scenes: list[Scene] = []
    draft: _Draft | None = None
    number = 0
    for number, raw in enumerate(read_text(path).splitlines(), 1):
        line = raw.strip()
        if line.startswith("## "):
            if draft is not None:
                scenes.append(_finished(draft, path, number))
            draft = _Draft({}, [])
        elif not line:
            if draft is not None and draft.in_turns:
                scenes.append(_finished(draft, path, number))
                draft = None
        elif draft is None:
            raise CorpusError(f"`{path}` line {number}: expected `## scene-name`, got `{line[:60]}`")
        else:
            _take(draft, line, path, number)
    if draft is not None:
        scenes.append(_finished(draft, path, number))
    return scenes


def _take(draft: _Draft, line: str, path: Path, number: int) -> None:
    if line == "---":
        draft.in_turns = True
    elif draft.in_turns:
        draft.lines.append(_turn(line, path, number))
    else:
        key, colon, value = line.partition(":")
        if not colon or key.strip() not in HEADER_KEYS:
            expected = ", ".join(HEADER_KEYS)
            raise CorpusError(
                f"`{path}` line {number}: expected a header line (one of {expected}) or `---`, got `{line[:60]}`"
            )
        draft.fields[key.strip()] = value.strip()


def _turn(line: str, path: Path, number: int) -> Line:
    mark, colon, text = line.partition(":")
    text = text.strip()
    if not colon or not text:
        raise CorpusError(
            f"`{path}` line {number}: expected `P: text`, `N[mood]: text` or `E: text`, got `{line[:60]}`"
        )
    if mark in ("P", "E"):
        return Line("player" if mark == "P" else "event", text)
    if not (mark.startswith("N[") and mark.endswith("]")):
        raise CorpusError(f"`{path}` line {number}: expected `P:`, `N[mood]:` or `E:`, got `{mark[:60]}:`")
    mood, _, action = (part.strip() for part in mark[2:-1].partition(","))
    if mood not in MOODS:
        raise CorpusError(f"`{path}` line {number}: mood must be one of {', '.join(MOODS)}, got `{mood}`")
    if action and action not in ACTIONS:
        raise CorpusError(f"`{path}` line {number}: action must be one of {', '.join(ACTIONS)}, got `{action}`")
    return Line("npc", text, mood, action or None)


def _finished(draft: _Draft, path: Path, number: int) -> Scene:
    missing = [key for key in ("name", "role") if not draft.fields.get(key)]
    if missing or not any(line.who == "npc" for line in draft.lines):
        expected = f"`{'` and `'.join(missing)}`" if missing else "at least one `N[mood]:` turn"
        raise CorpusError(f"`{path}` line {number}: the scene that ends here lacks {expected}")
    fields = draft.fields
    persona = Persona(
        name=fields["name"],
        role=fields["role"],
        traits=_split(fields.get("traits", ""), ","),
        voice=fields.get("voice", ""),
        knows=_split(fields.get("knows", ""), ";"),
        wants=fields.get("wants", ""),
        setting=fields.get("setting", ""),
    )
    return Scene(persona, tuple(draft.lines), path.stem, typed=True)


def _split(text: str, by: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(by) if part.strip())


def read_scenes(folder: Path) -> list[Scene]:
    """Every scene of every `.talk` file of a folder, or of one file; CorpusError when there are none."""
    paths = [folder] if os.path.isfile(folder) else sorted(folder.glob("*.talk")) if os.path.isdir(folder) else []
    scenes = [scene for path in paths for scene in read_talk(path)]
    if not scenes:
        raise CorpusError(f"`{folder}` holds no scenes; expected at least one `*.talk` file")
    return scenes


def own_scenes() -> list[Scene]:
    """Every scene of our own, beside this module."""
    with resources.as_file(resources.files("npc_runtime.training") / "decks" / "scenes") as own:
        return read_scenes(own)


def read_dialogues(path: Path) -> Iterator[Scene]:
    """Conversations of a `.jsonl` or `.jsonl.zst` file, one a line."""
    for number, raw in enumerate(read_text(path).split("\n"), 1):
        if raw.strip():
            yield _conversation(raw, path, number)


def _conversation(raw: str, path: Path, number: int) -> Scene:
    try:
        data = json.loads(raw)
        lines = tuple(_spoken(turn) for turn in data["turns"])
        persona = _persona(data.get("persona", {}))
        source = str(data["source"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        expected = "a conversation with `source`, `persona` and `turns` of `who` and `text`"
        raise CorpusError(f"`{path}` line {number}: expected {expected}, got {error!r:.200}") from error
    return Scene(persona, lines, source)


def _spoken(turn: dict[str, Any]) -> Line:
    if turn["who"] not in ("player", "npc", "event"):
        raise ValueError(f"`who` of {turn['who']!r}")
    mood = turn.get("mood")
    return Line(turn["who"], str(turn["text"]), mood if mood in MOODS else None)


def _persona(data: dict[str, Any]) -> Persona:
    return Persona(
        name=str(data.get("name", "")),
        role=str(data.get("role", "")),
        traits=tuple(map(str, data.get("traits", ()))),
        knows=tuple(map(str, data.get("knows", ()))),
        setting=str(data.get("setting", "")),
    )


def read_prose(path: Path) -> Iterator[str]:
    """Documents of a `.txt` or `.txt.zst` file, parted by lines that hold only a form feed."""
    for document in read_text(path).split("\n\f\n"):
        if document.strip():
            yield document.strip("\f\n ")


def read_text(path: Path) -> str:
    """The text of a file, packed as `.zst` or not. Raises CorpusError naming file and, where it is known, line."""
    try:
        raw = path.read_bytes()
        return decoded(_unpacked(raw) if path.suffix == ".zst" else raw, path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"`{path}` cannot be read as text: {reason(error)}") from error


def decoded(raw: bytes, path: object) -> str:
    """UTF-8 bytes of `path` as text. Raises CorpusError naming file and line."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise CorpusError(f"`{path}` line {line}: expected UTF-8 text, got byte 0x{raw[error.start]:02x}") from None


def _unpacked(raw: bytes) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise CorpusError("a packed corpus needs `zstandard`, which is not installed", install_hint("train")) from error
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(raw)) as reader:
            text = reader.read(MAX_TEXT_BYTES + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"not zstd data: {error}") from error
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError(f"unfolds to more than {MAX_TEXT_BYTES} bytes")
    return text


def held_out(key: str, one_in: int = 20) -> bool:
    """Whether a name or card belongs to the held-out set: a pure function of its text."""
    return zlib.crc32(f"held out {key.strip().lower()}".encode()) % one_in == 0


def split_scenes(scenes: Sequence[Scene], one_in: int = 20) -> tuple[list[Scene], list[Scene]]:
    """(training, held out), parted by the character's name, so that no held-out character was seen."""
    unseen = [scene for scene in scenes if held_out(scene.persona.name, one_in)]
    return [scene for scene in scenes if not held_out(scene.persona.name, one_in)], unseen


def with_facts(persona: Persona, facts: Sequence[str], wants: str = "") -> Persona:
    """The persona with more facts in `knows`, and other `wants` where given."""
    return replace(persona, knows=(*persona.knows, *facts), wants=wants or persona.wants)
