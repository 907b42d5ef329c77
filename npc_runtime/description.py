"""Description: what bundle.json says of a Bundle, read strictly."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from npc_runtime.container import ContainerFault, read_json
from npc_runtime.errors import BundleError, reason
from npc_runtime.model.config import ModelConfig
from npc_runtime.sampling import Sampling
from npc_runtime.weights import BITS

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
LAYOUTS = ("control-1", "plain")
DESCRIPTION, WEIGHTS, CARD = "bundle.json", "weights.safetensors", "CARD.md"
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
BLOCKS = (16, 32, 64, 128, 256)
MAX_BYTES = 64 * 1024
MAX_SIZES = {
    "d_model": 16384,
    "n_layer": 512,
    "vocab_size": 1 << 20,
    "d_state": 256,
    "d_conv": 16,
    "expand": 8,
    "dt_rank": 4096,
}
"""Sizes no Mamba-1 model comes near; a file that claims more is broken or hostile."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SAMPLING = {"temperature": (0, 10), "top_p": (0, 1), "repetition": (0, 100), "max_tokens": (1, 4096)}


@dataclass(frozen=True, slots=True)
class Claim:
    """What bundle.json says of a file."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Description:
    """The fields of bundle.json; `hash` is the SHA-256 of its canonical JSON."""

    name: str
    version: str
    license: str
    config: ModelConfig
    layout: str
    bits: int
    block: int
    tokenizer: str
    sampling: Sampling
    files: dict[str, Claim]
    hash: str


def read_description(folder: Path) -> Description:
    """The description in a Bundle's folder. Raises BundleError naming the field."""
    path = folder / DESCRIPTION
    values = _read(path)
    if type(values.get("format")) is not int or values["format"] != FORMAT:
        raise BundleError(
            f"`{path}` must have `format` {FORMAT}, got {values.get('format')!r:.40}",
            "Use the npc-runtime version that this Bundle was made for",
        )
    table = _Table(values, str(path))
    weights = _Table(table.table("weights"), f"{path}: weights")
    return Description(
        name=table.text("name", _NAME),
        version=table.text("version"),
        license=table.text("license"),
        config=model_config(values.get("model"), f"{path}: model"),
        layout=table.choice("layout", LAYOUTS),
        bits=weights.choice("bits", BITS),
        block=weights.choice("block", BLOCKS),
        tokenizer=table.choice("tokenizer", TOKENIZERS),
        sampling=_sampling(_Table(values.get("sampling", {}), f"{path}: sampling")),
        files=_files(table.table("files"), values["tokenizer"], path),
        hash=hash_description(values),
    )


def hash_description(values: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class _Table:
    """Typed access to a JSON table, with errors that name the file and the field."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise BundleError(f"`{where}` must be a table, got {values!r:.80}")
        self.values: dict[str, Any] = values
        self.where = where

    def wrong(self, key: str, wanted: str) -> BundleError:
        return BundleError(f"`{key:.80}` in `{self.where}` must be {wanted}, got {self.values.get(key)!r:.80}")

    def only(self, known: set[str]) -> None:
        if unknown := self.values.keys() - known:
            raise BundleError(
                f"`{min(unknown):.80}` in `{self.where}` is unknown; known are {', '.join(sorted(known))}"
            )

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= 256 or (pattern and not pattern.fullmatch(value)):
            raise self.wrong(key, f"text like {pattern.pattern}" if pattern else "text of 1 to 256 characters")
        return value

    def table(self, key: str) -> dict[str, Any]:
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "a table")
        return value

    def choice(self, key: str, allowed: tuple[Any, ...]) -> Any:
        value = self.values.get(key)
        if type(value) is not type(allowed[0]) or value not in allowed:
            raise self.wrong(key, f"one of {', '.join(map(str, allowed))}")
        return value

    def number(self, key: str, low: float, high: float, whole: bool) -> Any:
        value: Any = self.values.get(key)
        kinds = (int,) if whole else (int, float)
        if type(value) not in kinds or not low <= value <= high:
            raise self.wrong(key, f"a {'whole ' if whole else ''}number from {low} to {high}")
        return value


def _read(path: Path) -> dict[str, Any]:
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for a writer
            raise BundleError(f"`{path}` must be a plain file")
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise BundleError(f"`{path.parent}` is not a Bundle: {path.name} cannot be read ({reason(error)})") from error
    if len(text) > MAX_BYTES:
        raise BundleError(f"`{path}` may hold {MAX_BYTES} bytes and holds more")
    try:
        return read_json(text)
    except ContainerFault as fault:
        raise BundleError(f"`{path}` cannot be read: {fault}") from fault


def model_config(values: object, where: str) -> ModelConfig:
    """A ModelConfig from JSON, every size within MAX_SIZES. Raises BundleError naming `where` and the field."""
    table = _Table(values, where)
    table.only({item.name for item in fields(ModelConfig)})
    for name, limit in MAX_SIZES.items():
        table.number(name, 2 if name == "d_conv" else 1, limit, whole=True)
    table.number("norm_eps", 1e-12, 1e-1, whole=False)
    return ModelConfig(**table.values)


def _sampling(table: _Table) -> Sampling:
    table.only(set(_SAMPLING))
    for name in table.values:
        low, high = _SAMPLING[name]
        table.number(name, low, high, whole=name == "max_tokens")
    return Sampling(**table.values)


def _files(values: dict[str, Any], tokenizer: str, path: Path) -> dict[str, Claim]:
    if missing := {WEIGHTS, tokenizer} - values.keys():
        raise BundleError(f"`files` in `{path}` must name `{min(missing)}` with its sha256 and bytes")
    claims: dict[str, Claim] = {}
    for name in values:
        # A name is joined to the folder: a separator, drive or `..` in it would lead out of the Bundle.
        if not _FILE_NAME.fullmatch(name) or name == DESCRIPTION:
            raise BundleError(f"`files` in `{path}` names {name!r:.80}, which is not a plain name of another file")
        table = _Table(values[name], f"{path}: files: {name}")
        claims[name] = Claim(table.text("sha256", _SHA256), table.number("bytes", 0, 1 << 40, whole=True))
    return claims
