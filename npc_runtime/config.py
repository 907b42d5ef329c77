"""Limits and options with units: defaults < file < NPC_RUNTIME_* < flags."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from npc_runtime.checks import shown
from npc_runtime.errors import ConfigError, reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PREFIX = "NPC_RUNTIME_"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that bounds a daemon or an in-process Runtime. Frozen; `replace` makes another.

    A path of any kind is kept as text.
    """

    state_budget_mb: int = 0
    """Memory for States (Slots): Npcs, their rewind points, cached personas. 0: 512, on a GPU 3/4 of what is free."""
    max_batch: int = 0
    """Most Npcs that speak in one Tick. 0: 8, on a GPU up to 8192."""
    prefill_chunk: int = 128
    """Most tokens read for one Npc before others get their Tick."""
    burst: int = 8
    """Tokens generated per Npc before the daemon looks at its sockets again."""
    pace_tokens_per_s: float = 30.0
    """How fast streamed speech is let out; 0 means as fast as it is made."""
    rewind_turns: int = 8
    """Turns an Npc can go back without reading anything again."""
    max_npcs: int = 4096
    """Npcs per Session."""
    max_sessions: int = 64
    """Sessions per daemon, connected or kept."""
    max_queued: int = 256
    """Turns that may wait per Session."""
    max_text_chars: int = 4096
    """Characters of one line, event or offered choice."""
    max_text_tokens: int = 1024
    """Tokens of one line, event or offered choice: unusual signs take several each."""
    max_frame_bytes: int = 64 * 1024 * 1024
    """Bytes of one message; snapshots are the large ones."""
    max_lines: int = 64
    """Lines offered to one `choose`."""
    heartbeat_s: float = 15.0
    """Silence after which a peer is pinged; three times as long and it is gone."""
    shutdown_grace_s: float = 5.0
    """Time that running Turns get to end when the daemon is asked to stop."""
    threads: int = 1
    """CPU threads of the onnx backend."""
    bits: int = 0
    """Weight bits of the onnx backend: 4, 8 or 32; 0 takes what the Bundle stores."""
    keep_npcs: bool = True
    """Whether a vanished client's Npcs stay for its return under the same Session name."""
    save_dir: str | PathLike[str] = ""
    """When set, saves are read and written only inside this folder."""
    journal: str | PathLike[str] = ""
    """When set, a folder in which the Npcs of named Sessions are kept current; an answer waits until it is there."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value, kind = getattr(self, item.name), type(item.default)
            if kind is str and isinstance(value, PathLike):
                value = os.fspath(value)
                object.__setattr__(self, item.name, value)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ConfigError(f"`{item.name}` must be of type {kind.__name__}, got {shown(value)}")
            if kind is str and "\0" in str(value):
                raise ConfigError(f"`{item.name}` must not hold a null character, got {shown(value)}")
        for name in (
            "prefill_chunk",
            "burst",
            "max_npcs",
            "max_sessions",
            "max_queued",
            "max_text_chars",
            "max_text_tokens",
            "max_frame_bytes",
            "max_lines",
            "threads",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name in (
            "state_budget_mb",
            "max_batch",
            "pace_tokens_per_s",
            "rewind_turns",
            "heartbeat_s",
            "shutdown_grace_s",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"`{name}` must not be negative, got {getattr(self, name)}")
        if self.bits not in (0, 4, 8, 32):
            raise ConfigError(f"`bits` must be 0, 4, 8 or 32, got {self.bits}")


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    **flags: object,
) -> Config:
    """Defaults, then a TOML file, then NPC_RUNTIME_* variables, then flags that are not None.

    Raises ConfigError naming the key and where it came from.
    """
    config = Config()
    if path is not None:
        config = _apply(config, _read(path), f"`{path}`")
    variables = os.environ if environ is None else environ
    known = {field.name for field in fields(Config)}
    named = {key: variables.get(PREFIX + key.upper()) for key in known}
    config = _apply(config, {k: v for k, v in named.items() if v is not None}, "the environment")
    for key, value in flags.items():
        if value == "":  # of a variable that was never set, perhaps: what was asked for would silently not be done
            raise ConfigError(
                f"`{key}` on the command line must name a folder, got ''", "Leave the option out for none"
            )
    return _apply(config, {key: value for key, value in flags.items() if value is not None}, "the command line")


def _read(path: Path) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not TOML, numbers too long, lists too deep
        raise ConfigError(f"`{path}` cannot be read as TOML: {reason(error)}") from error
    return parsed


def _apply(config: Config, values: Mapping[str, object], where: str) -> Config:
    types = {field.name: type(getattr(config, field.name)) for field in fields(Config)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types:
            raise ConfigError(f"`{key}` in {where} is not an option; known are {', '.join(sorted(types))}")
        changes[key] = _convert(key, value, types[key], where)
    return replace(config, **changes)


def _convert(key: str, value: object, kind: type[Any], where: str) -> object:
    if kind is str and isinstance(value, PathLike):
        return os.fspath(value)
    if kind is bool and isinstance(value, str) and value.lower() in ("0", "1", "true", "false"):
        return value.lower() in ("1", "true")
    if type(value) is kind or (kind is float and type(value) is int):
        return kind(value)
    if isinstance(value, str) and kind is not bool:
        try:
            return kind(value)
        except ValueError:
            pass
    raise ConfigError(f"`{key}` in {where} must be of type {kind.__name__}, got {shown(value)}")
