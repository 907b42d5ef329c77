"""`npc-runtime persona`: persona files checked, shown and listed."""

# No `from __future__ import annotations`: Typer reads the annotations.

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npc_runtime.errors import ConfigError, NpcError, PersonaError
from npc_runtime.options import JsonOption, PersonasOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from npc_runtime.persona import Persona

app = typer.Typer(help="Persona files: check, show, list those that can be found.", no_args_is_help=True)


@app.command("check")
def persona_check(
    names: Annotated[list[str], typer.Argument(help="Files, folders or names.", metavar="NAME...")],
    personas: PersonasOption = None,
) -> None:
    """Checks persona files; every fault is told with file, field and what was expected.

    Example: `npc-runtime persona check personas/`
    """
    from npc_runtime.persona import check_folders, find_persona

    check_folders(personas or ())
    faults = 0
    for name in _files_of(names):
        try:
            print(f"ok {name}: {_told(find_persona(name, personas or ()))}")
        except NpcError as error:
            told = error.faults if isinstance(error, PersonaError) else (error.text,)
            faults += len(told)
            hint = PersonaError.hint if len(told) > 1 else error.hint  # the error's own would send people here
            print(*(f"error: {text}" for text in told), f"hint: {hint}", sep="\n", file=sys.stderr)
    raise typer.Exit(1 if faults else 0)


def _told(persona: "Persona") -> str:
    """Name and facts, and how many of them are secret: a mark misspelt shows."""
    from npc_runtime.persona import SECRET_MARK

    facts, secrets = len(persona.knows), sum(fact.startswith(SECRET_MARK) for fact in persona.knows)
    return f"{persona.name}, knows {facts}{f', {secrets} secret' if secrets else ''}"


def _files_of(names: list[str]) -> "Iterator[str]":
    """The names, folders replaced by the persona files in them. Raises ConfigError for a folder without any."""
    for name in names:
        if not os.path.isdir(name):
            yield name
            continue
        files = sorted(Path(name).glob("*.toml"))
        if not files:
            raise ConfigError(f"the folder `{name}` holds no *.toml file", "Name a folder of persona files")
        yield from map(str, files)


@app.command("show")
def persona_show(
    name: Annotated[str, typer.Argument(help="A persona's name or file.")],
    personas: PersonasOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows a persona as the model will read it.

    Example: `npc-runtime persona show marta`
    """
    from npc_runtime.persona import check_folders, find_persona, to_mapping
    from npc_runtime.prompt import persona_lines

    check_folders(personas or ())
    persona = find_persona(name, personas or ())
    if as_json:
        print(json.dumps(to_mapping(persona), ensure_ascii=False))
        return
    lines = persona_lines(persona)
    lines += [f"moods: {', '.join(persona.moods)}", f"actions: {', '.join(persona.actions) or 'none'}"]
    lines += [f"opening ({persona.opening_mood}): {persona.opening}"] if persona.opening else []
    for sample in persona.samples:
        head = f"{sample.mood}, {sample.action}" if sample.action else sample.mood
        lines += ["", f"player: {sample.player}", f"{persona.name} ({head}): {sample.npc}"]
    print("\n".join(lines))


@app.command("list")
def persona_list(personas: PersonasOption = None, as_json: JsonOption = False) -> None:
    """Lists the personas that a name can find.

    Example: `npc-runtime persona list --personas my_characters`
    """
    from npc_runtime.persona import check_folders, list_personas, load_persona

    check_folders(personas or ())
    faults = 0
    rows = []
    for name, path in list_personas(personas or ()).items():
        try:
            persona = load_persona(path)
            rows.append({"id": name, "name": persona.name, "role": persona.role, "path": str(path)})
        except NpcError as error:
            faults += 1
            print(f"error: {error.text}\nhint: {error.hint}", file=sys.stderr)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
    else:
        wide = max((len(row["id"]) for row in rows), default=0)
        print("\n".join(f"{row['id']:<{wide}}  {row['name']}, {row['role']}" for row in rows))
    raise typer.Exit(1 if faults else 0)
