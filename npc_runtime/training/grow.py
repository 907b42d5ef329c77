"""A deeper model that computes what a shallower one does: training goes on with more room, and forgets nothing first.

Block expansion (LLaMA Pro, arXiv 2401.02415, section 3.2): between the blocks stand copies whose last product is zero,
so that they add nothing to the stream until they have learned to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from npc_runtime.errors import ConfigError
from npc_runtime.training.export import torch_weights
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from npc_runtime.bundle import Bundle
    from npc_runtime.model.config import ModelConfig

_LAST = "mixer.out_proj.weight"


def grown(bundle: Bundle, config: ModelConfig) -> dict[str, torch.Tensor]:
    """The weights of a Bundle for a model of its shape or a deeper one; ConfigError for any other."""
    had = bundle.config
    if had.n_layer > config.n_layer or replace(had, n_layer=config.n_layer) != config:
        raise ConfigError(
            f"Bundle `{bundle.name}` is {had}, which does not go into {config}",
            "Take a recipe whose [model] is the Bundle's, or has more layers",
        )
    weights = torch_weights({name: bundle.dense(name) for name in dense_shapes(had)})
    return deepened(weights, had.n_layer, config.n_layer)


def deepened(weights: Mapping[str, torch.Tensor], layers: int, wanted: int) -> dict[str, torch.Tensor]:
    """The weights of a model of `wanted` layers that gives what one of `layers` does: its new blocks, spread evenly,
    are each a copy of the one before with a zero output projection.
    """
    found = {name: weight.clone() for name, weight in weights.items() if not name.startswith("layers.")}
    places = [index * layers // wanted for index in range(wanted)]
    for index, source in enumerate(places):
        new = index > 0 and places[index - 1] == source
        for name, weight in weights.items():
            part = name.removeprefix(f"layers.{source}.")
            if part != name:
                found[f"layers.{index}.{part}"] = torch.zeros_like(weight) if new and part == _LAST else weight.clone()
    return found
