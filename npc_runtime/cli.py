"""The command line: parses and prints. The work is done elsewhere and imported when a command needs it."""

# No `from __future__ import annotations`: Typer reads the annotations.

import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from npc_runtime import __version__, cli_bundle, cli_model, cli_persona
from npc_runtime.errors import ConfigError, NpcError
from npc_runtime.options import BackendOption, BundleOption, ConfigOption, JsonOption, PersonasOption, with_limits

DEBUG = "NPC_RUNTIME_DEBUG"

app = typer.Typer(
    name="npc-runtime",
    help="Characters for games whose memory is the fixed-size state of a small language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(cli_persona.app, name="persona")
app.add_typer(cli_bundle.app, name="bundle")


def main() -> None:
    """The entry point: an NpcError is one line and a hint on stderr and status 1; wrong usage is status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter shows `?`, and the talk goes on
    try:
        app(prog_name="npc-runtime")
    except NpcError as error:
        _fail(error, error.text, error.hint)
    except Exception as error:  # a defect: people get a line, not a traceback
        _fail(error, f"a defect of npc-runtime: {error!r:.300}", f"Set {DEBUG}=1 to see where, and please report it")


def _fail(error: Exception, text: str, hint: str) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    print(f"error: {text}\nhint: {hint}", file=sys.stderr)
    sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        print(f"npc-runtime {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True, show_default=False)
    ] = False,
) -> None:
    """Holds what stands before every command."""


@app.command()
@with_limits
def serve(
    limits: dict[str, Any],
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    personas: PersonasOption = None,
    config: ConfigOption = None,
    host: Annotated[str, typer.Option(help="IP address to listen on; any but loopback demands CURVE.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", show_default="a free one", min=0, max=65535)] = 0,
    key: Annotated[
        str | None,
        typer.Option(
            help="Key that clients must know on loopback.", envvar="NPC_RUNTIME_KEY", show_default="a fresh one"
        ),
    ] = None,
    curve_secret: Annotated[
        Path | None,
        typer.Option(help="File of the daemon's CURVE secret key.", envvar="NPC_RUNTIME_CURVE_SECRET"),
    ] = None,
    curve_clients: Annotated[
        Path | None,
        typer.Option(help="Folder of the public keys that may connect.", envvar="NPC_RUNTIME_CURVE_CLIENTS"),
    ] = None,
    parent: Annotated[
        int | None,
        typer.Option(help="Process id; the daemon ends when that process does.", show_default="none"),
    ] = None,
) -> None:
    """Runs the daemon until it is stopped.

    Prints one line of JSON when it is ready: endpoint, key, pid, bundle, backend.

    Example: `npc-runtime serve --threads 2 --state-budget-mb 1024`
    """
    from npc_runtime.config import load_config
    from npc_runtime.server import serve as run

    status = run(
        bundle,
        load_config(config, **limits),
        backend=backend,
        personas=personas or (),
        host=host,
        port=port,
        key=key,
        parent=parent,
        curve_secret=curve_secret,
        curve_clients=curve_clients,
    )
    raise typer.Exit(status)


@app.command()
def talk(
    context: typer.Context,
    persona: Annotated[str, typer.Argument(help="A persona's name or file.")] = "marta",
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    personas: PersonasOption = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Makes the talk repeatable.", min=0, show_default="drawn"),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option(help="Endpoint of a running daemon to talk through.", show_default="none"),
    ] = None,
    key: Annotated[str, typer.Option(help="That daemon's key.", envvar="NPC_RUNTIME_KEY", show_default="none")] = "",
    session: Annotated[str, typer.Option(help="Name of the Session on that daemon; one talk at a time.")] = "talk",
) -> None:
    """Talks to a character; reads lines from a pipe too.

    Example: `npc-runtime talk bram`
    """
    from npc_runtime.screen import Screen
    from npc_runtime.talk import Talk

    for name in ("key", "session"):  # NPC_RUNTIME_KEY may be set for other commands
        source = context.get_parameter_source(name)
        if connect is None and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"`--{name}` is of no use without `--connect`", "Name the daemon's endpoint too")
    with _verbs(bundle, backend, personas or [], connect, key, session) as verbs:
        raise typer.Exit(Talk(verbs, Screen(), personas or (), seed).run(persona))


def _verbs(bundle: str | None, backend: str, personas: list[Path], connect: str | None, key: str, session: str) -> Any:
    """A Client of the daemon at `connect`, else a Runtime in this process; both are context managers."""
    if connect is None:
        from npc_runtime.runtime import Runtime

        return Runtime(bundle, backend, personas=personas)
    if bundle or backend != "auto":
        raise ConfigError(
            "`--bundle` and `--backend` are of no use with `--connect`", "Give them to the daemon's `serve`"
        )
    from npc_runtime.client import Client

    return Client.connect(connect, key, session)


@app.command()
def demo(bundle: BundleOption = None, backend: BackendOption = "auto", as_json: JsonOption = False) -> None:
    """Shows that a told name survives save, kill, restart and load; status 0 only if every claim held.

    Example: `npc-runtime demo`
    """
    from npc_runtime.demo import Demo
    from npc_runtime.screen import Screen

    play = Demo(Screen(), bundle, backend)
    play.run()
    if as_json:
        print(json.dumps(play.to_mapping()))
    raise typer.Exit(0 if play.passed else 1)


@app.command()
@with_limits
def doctor(
    limits: dict[str, Any],
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    config: ConfigOption = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Name of a check to run; may be repeated.", show_default="all")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Proves the runtime's promises on this machine, with figures; status 0 only if all hold.

    Example: `npc-runtime doctor --only save-and-load`
    """
    from npc_runtime.bundle import Bundle, find_bundle
    from npc_runtime.config import load_config
    from npc_runtime.doctor import open_patient
    from npc_runtime.doctor.page import examine_on

    found = Bundle.load(find_bundle(bundle or "default"))
    patient = open_patient(found, load_config(config, **limits), backend)
    report = examine_on(patient, only or (), shown=not as_json)
    if as_json:
        print(json.dumps(report))
    raise typer.Exit(0 if report["passed"] else 1)


app.command()(cli_model.bench)
app.command()(cli_model.evaluate)
app.command()(cli_model.train)


def help_texts(width: int = 100) -> dict[str, str]:
    """The plain help of every command by its words, as `npc-runtime serve`; for the README and its test."""
    found: dict[str, str] = {}

    def walk(command: Any, parent: Any, name: str) -> None:
        command.rich_markup_mode = None
        place = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=width)
        place.info_name = name
        found[place.command_path] = command.get_help(place).strip()
        for child in getattr(command, "commands", {}).items():
            walk(child[1], place, child[0])

    walk(typer.main.get_command(app), None, "npc-runtime")
    return found
