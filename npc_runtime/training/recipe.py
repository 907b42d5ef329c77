"""Recipe: a TOML file that says which model is trained, on what mix, in which phases."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from npc_runtime.errors import ConfigError, reason
from npc_runtime.model.config import ModelConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("drills", "scenes", "dialogues", "prose")


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training, bounded by `steps` or by `minutes`, whichever is given."""

    name: str
    length: int
    """Tokens of a row."""
    rows: int
    """Rows of a step, over all GPUs."""
    mix: dict[str, float]
    """Share of the rows that each kind fills; see KINDS."""
    rate: tuple[float, float]
    """Learning rate at the phase's beginning and end, a cosine between."""
    steps: int = 0
    minutes: float = 0.0
    warmup: int = 0
    """Steps at the beginning over which the rate rises from zero."""
    facts: int = 3
    filler: int = 20
    plain: bool = False
    """See drills.Shape."""
    bits: int = 0
    """4 or 8: weights are rounded as the Bundle will store them; 0: not."""
    fresh: bool = False
    """Only for a model that begins at nothing: left out where a run begins at a Bundle's weights."""
    dropout: float = 0.0
    """Share of each layer's output that is dropped: what keeps a small corpus, read many times, from being learned
    by heart."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on besides its data."""

    name: str
    model: ModelConfig
    phases: tuple[Phase, ...]
    sources: dict[str, float]
    """Weight of each shard, or file of scenes, among those of its kind; 1 where none is given, 0 leaves it out."""
    seed: int = 1
    weight_decay: float = 0.1
    clip: float = 1.0
    prose_weight: float = 0.5
    """Loss weight of a token of prose against one that a character says."""


Table = TypeVar("Table")


def read_recipe(path: Path) -> Recipe:
    """A recipe file; ConfigError naming the key that is wrong."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not TOML, numbers too long, lists too deep
        raise ConfigError(f"recipe `{path}` cannot be read as TOML: {reason(error)}") from error
    if "model" not in data or "phase" not in data:
        raise ConfigError(f"recipe `{path}` needs a [model] table and at least one [[phase]]")
    try:
        model = ModelConfig(**data.pop("model"))
        phases = tuple(_phase(entry, path) for entry in data.pop("phase"))
        return _table(Recipe, {**data, "model": model, "phases": phases, "sources": data.pop("sources", {})}, path)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"recipe `{path}`: {error}") from error


def _phase(entry: dict[str, Any], path: Path) -> Phase:
    phase = _table(Phase, {**entry, "rate": tuple(entry.get("rate", ()))}, path)
    if len(phase.rate) != 2 or min(phase.rate) < 0:
        raise ConfigError(
            f"recipe `{path}`: `rate` of phase `{phase.name}` must be two numbers, got {list(phase.rate)}"
        )
    if bool(phase.steps) == bool(phase.minutes):
        raise ConfigError(f"recipe `{path}`: phase `{phase.name}` needs `steps` or `minutes`, one of them")
    unknown = set(phase.mix) - set(KINDS)
    if unknown or not sum(phase.mix.values()) > 0:
        raise ConfigError(
            f"recipe `{path}`: `mix` of phase `{phase.name}` must share out {', '.join(KINDS)}, got {phase.mix}"
        )
    in_range = phase.bits in (0, 4, 8) and phase.length >= 16 and phase.rows >= 1 and 0 <= phase.dropout < 1
    if not in_range:
        text = f"recipe `{path}`: `bits`, `length`, `rows` or `dropout` of phase `{phase.name}` is out of range"
        raise ConfigError(text)
    return phase


def _table(kind: type[Table], values: dict[str, Any], path: Path) -> Table:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    unknown = set(values) - known
    if unknown:
        raise ConfigError(f"recipe `{path}`: `{sorted(unknown)[0]}` is not a key; known are {', '.join(sorted(known))}")
    return kind(**values)
