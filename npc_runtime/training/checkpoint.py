"""Where a run begins: a checkpoint (weights, optimiser and place in the recipe), or the weights of a Bundle."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from npc_runtime.errors import ConfigError, FileError
from npc_runtime.training.grow import grown

if TYPE_CHECKING:
    from pathlib import Path

    from npc_runtime.bundle import Bundle
    from npc_runtime.training.recipe import Recipe

NAME = "checkpoint.pt"


@dataclass(slots=True)
class Place:
    """How far a run has come: phase, steps and seconds in it, and tokens read in all."""

    phase: int = 0
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0


def write_checkpoint(
    folder: Path, recipe: Recipe, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, place: Place
) -> None:
    """Writes `checkpoint.pt`; a crash leaves the older one whole."""
    beside = folder / f".{NAME}"
    content = {
        "recipe": recipe.name,
        "model": model.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "place": asdict(place),
    }
    with beside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / NAME)


def read_checkpoint(
    folder: Path, recipe: Recipe, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> Place:
    """Loads `checkpoint.pt` into model and optimiser; FileError when it is damaged or of another recipe."""
    path = folder / NAME
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise FileError(f"`{path}` is not a checkpoint: {error}", "Delete it to start anew") from error
    if content["recipe"] != recipe.name:
        raise FileError(f"`{path}` belongs to recipe `{content['recipe']}`, not `{recipe.name}`", "Use another folder")
    try:
        model.load_state_dict(content["model"])
        if optimizer is not None and content["optimizer"] is not None:
            optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise FileError(f"`{path}` holds another model: {error}", "Use the recipe it was trained with") from error
    return Place(**content["place"])


def bundle_weights(bundle: Bundle, recipe: Recipe, tokenizer: Path) -> dict[str, torch.Tensor]:
    """A Bundle's weights for the recipe's model, which may be deeper (see grow).

    ConfigError when it is of another shape or reads other pieces.
    """
    if bundle.tokenizer_path.read_bytes() != tokenizer.read_bytes():
        raise ConfigError(
            f"Bundle `{bundle.name}` reads other pieces than `{tokenizer}`, which the corpus was packed with",
            "Pack the corpus with the Bundle's tokenizer.model",
        )
    return grown(bundle, recipe.model)
