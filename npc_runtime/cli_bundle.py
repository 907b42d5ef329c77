"""`npc-runtime bundle`: model folders looked into, verified, and made from checkpoints."""

# No `from __future__ import annotations`: Typer reads the annotations.

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from npc_runtime.options import BundleArgument, JsonOption

if TYPE_CHECKING:
    from npc_runtime.bundle import Bundle

app = typer.Typer(help="Bundles, the model folders: look into, verify, import.", no_args_is_help=True)


@app.command("info")
def bundle_info(bundle: BundleArgument = None, as_json: JsonOption = False) -> None:
    """Tells what a Bundle is: name, licence, sizes, hash.

    Example: `npc-runtime bundle info default --json`
    """
    facts = _facts(_bundle(bundle, verify=False))
    print(json.dumps(facts) if as_json else "\n".join(f"{name:<11} {value}" for name, value in facts.items()))


@app.command("verify")
def bundle_verify(bundle: BundleArgument = None) -> None:
    """Checks every file of a Bundle against its hash, and every value for being finite.

    Example: `npc-runtime bundle verify my_bundle`
    """
    found = _bundle(bundle, verify=True)
    print(f"ok {found.path}: {found.name} {found.version}, {found.hash}")


@app.command("import")
def bundle_import(
    source: Annotated[Path, typer.Argument(help="Folder of a Mamba-1 checkpoint, state-spaces or Hugging Face.")],
    target: Annotated[Path, typer.Argument(help="Folder of the Bundle to write.")],
    bits: Annotated[int, typer.Option(help="Weight bits: 4, 8, 16 or 32.")] = 8,
    name: Annotated[str | None, typer.Option(help="Name of the Bundle.", show_default="the folder's")] = None,
    license: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer file, where the folder holds none.", show_default="the folder's"),
    ] = None,
) -> None:
    """Makes a Bundle from a checkpoint; torch is not needed.

    Example: `npc-runtime bundle import mamba-130m-hf my_bundle --bits 4`
    """
    from npc_runtime.importer import import_checkpoint

    print(f"reading {source}, writing {bits}-bit weights", file=sys.stderr)
    made = import_checkpoint(source, target, bits=bits, name=name, license=license, tokenizer=tokenizer)
    print(f"ok {made.path}: {made.name}, {made.config.parameters:,} parameters, {made.hash}")


def _bundle(name: str | None, verify: bool) -> "Bundle":
    from npc_runtime.bundle import Bundle, default_bundle_path, find_bundle

    return Bundle.load(default_bundle_path() if name is None else find_bundle(name), verify=verify)


def _facts(bundle: "Bundle") -> dict[str, Any]:
    files = sum(path.stat().st_size for path in bundle.path.iterdir() if path.is_file())
    config = bundle.config
    return {
        "name": bundle.name,
        "version": bundle.version,
        "license": bundle.license,
        "path": str(bundle.path),
        "hash": bundle.hash,
        "parameters": config.parameters,
        "layers": config.n_layer,
        "d_model": config.d_model,
        "vocabulary": config.vocab_size,
        "bits": bundle.bits,
        "layout": bundle.layout,
        "bytes": files,
        "state_bytes": bundle.spec.nbytes,
    }
