"""The command `npc-runtime`, and `python -m npc_runtime`: a short way into `serve`, and the command line for the rest.

A game waits while its daemon starts, and the libraries that parse and print the command line take a
quarter of that time. So `serve` with nothing but plain options goes straight to the server.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_VARIABLES = ("BUNDLE", "BACKEND", "CONFIG", "KEY", "CURVE_SECRET", "CURVE_CLIENTS")
"""NPC_RUNTIME_* variables that stand for an option, which the command line proper reads."""


def main() -> None:
    """Runs a command and ends the process with its status."""
    from npc_runtime.errors import NpcError

    options = plain_serve(sys.argv[1:], os.environ)
    if options is not None:
        from npc_runtime.server import serve

        with suppress(NpcError):  # told of below, by the one place that tells of errors
            sys.exit(serve(**options))
    from npc_runtime.cli import main as command_line

    command_line()


def plain_serve(words: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What `server.serve` is to be called with, or None when this is more than `serve` and plain options."""
    from dataclasses import fields
    from pathlib import Path

    from npc_runtime.config import PREFIX, Config, load_config
    from npc_runtime.errors import ConfigError

    kinds: dict[str, Callable[[str], object]] = {"bundle": str, "backend": str, "host": str, "port": int, "parent": int}
    limits = {field.name for field in fields(Config)} - {"keep_npcs"}
    if words[:1] != ["serve"] or len(words) % 2 == 0 or any(PREFIX + name in environ for name in _VARIABLES):
        return None
    options: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    try:
        for word, value in zip(words[1::2], words[2::2], strict=True):
            name = word[2:].replace("-", "_")
            if not word.startswith("--") or value.startswith("--"):
                return None
            if name == "personas":
                options.setdefault(name, []).append(Path(value))
            elif name in kinds:
                options[name] = kinds[name](value)
            elif name in limits:
                flags[name] = value
            else:
                return None
        return {**options, "config": load_config(environ=environ, **flags)}
    except (ValueError, ConfigError):
        return None


if __name__ == "__main__":
    main()
