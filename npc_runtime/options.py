"""Options: what the commands ask for, with the words of `--help`; one for every limit of Config."""

from __future__ import annotations

import functools
import inspect
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from npc_runtime.config import PREFIX, Config

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = {
    "state_budget_mb": "Memory for States: Npcs, rewind points, personas; 0: 512, on a GPU 3/4 of what is free. MB",
    "max_batch": "Most Npcs that speak in one Tick; 0: 8, on a GPU up to 8192",
    "prefill_chunk": "Most tokens read for one Npc before others get their Tick",
    "burst": "Tokens made per Npc before the daemon looks at its sockets again",
    "pace_tokens_per_s": "How fast streamed speech is let out; 0: as fast as it is made. Tokens/s",
    "rewind_turns": "Turns an Npc can go back without reading anything again",
    "max_npcs": "Most Npcs per Session",
    "max_sessions": "Most Sessions, connected or kept",
    "max_queued": "Most Turns that may wait per Session",
    "max_text_chars": "Longest line, event or offered choice. Characters",
    "max_text_tokens": "Longest line, event or offered choice. Tokens",
    "max_frame_bytes": "Longest message; snapshots are the long ones. Bytes",
    "max_lines": "Most lines offered to one `choose`",
    "heartbeat_s": "Silence after which a peer is pinged; three times as long and it is gone. Seconds",
    "shutdown_grace_s": "Time that running Turns get to end when the daemon is asked to stop. Seconds",
    "threads": "CPU threads of the onnx backend",
    "bits": "Weight bits of the onnx backend: 4, 8 or 32; 0: as the Bundle stores them",
    "keep_npcs": "Whether the Npcs of a client that vanished stay for its return",
    "save_dir": "Folder that saves are bound to; without one any absolute path",
    "journal": "Folder in which every Npc is kept current, to be there after a crash",
}
"""What each limit of Config means, its unit last."""

_LIMITS_PANEL = "Limits"

BundleOption = Annotated[
    str | None,
    typer.Option(
        "--bundle",
        help="Bundle: a folder, or the name of a shipped one.",
        envvar=f"{PREFIX}BUNDLE",
        show_default="default",
    ),
]
BundleArgument = Annotated[
    str | None, typer.Argument(help="A folder, or the name of a shipped Bundle.", show_default="default")
]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend", help="Where to compute: `auto`, `onnx`, `cuda` or `reference`.", envvar=f"{PREFIX}BACKEND"
    ),
]
PersonasOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--personas",
        help="Folder of persona files, searched before the shipped ones; may be repeated.",
        show_default="none",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file of limits; environment variables and options override it.",
        envvar=f"{PREFIX}CONFIG",
        show_default="none",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.", show_default="no")]


def with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command an option per limit of Config; it receives those that were set as `limits`."""
    names = [field.name for field in fields(Config)]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        limits = {name: given.pop(name) for name in names}
        command(**given, limits={name: value for name, value in limits.items() if value is not None})

    own = [item for item in inspect.signature(command, eval_str=True).parameters.values() if item.name != "limits"]
    parameters = [*own, *(_limit(name, getattr(Config(), name)) for name in names)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
    call.__annotations__ = {item.name: item.annotation for item in parameters}
    return call


def _limit(name: str, default: Any) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    names = [f"{flag}/--no-{flag[2:]}"] if isinstance(default, bool) else [flag]
    shown = "none" if default == "" else str(default).lower() if isinstance(default, bool) else str(default)
    option = typer.Option(
        *names, help=LIMITS[name] + ".", envvar=PREFIX + name.upper(), show_default=shown, rich_help_panel=_LIMITS_PANEL
    )
    kind: Any = type(default) | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])
