"""The mean of checkpoints of one run: less noise, and less of what only the last of them learned by heart.

`python -m npc_runtime.training.average RECIPE OUT --tokenizer FILE --of DIR SHARE --of DIR SHARE` takes folders of
weights in parts (see give.py) and Bundles, and writes a Bundle. `--where PATTERN SHARE,SHARE` gives tensors whose names
begin with what PATTERN matches shares of their own. Means of checkpoints: arXiv 1803.05407.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from npc_runtime.bundle import Bundle
from npc_runtime.errors import ConfigError, NpcError
from npc_runtime.model.mamba import Mamba
from npc_runtime.training.export import dense_tensors, write_dense
from npc_runtime.training.give import take_weights
from npc_runtime.training.grow import grown
from npc_runtime.training.recipe import read_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from npc_runtime.model.config import ModelConfig

Tensors = dict[str, "NDArray[np.float32]"]


Shares = tuple[float, ...]


def mean(
    models: Sequence[Mapping[str, NDArray[np.float32]]], shares: Shares, where: Sequence[tuple[str, Shares]] = ()
) -> Tensors:
    """The weighted mean of models of one shape; shares are made to sum to 1.

    A tensor has the shares of the first pattern in `where` that matches its name from the beginning, else `shares`.
    """
    for each in (shares, *(own for _, own in where)):
        if len(each) != len(models) or not sum(each) > 0 or any(share < 0 for share in each):
            raise ConfigError(f"expected {len(models)} shares, none negative and not all 0, got {list(each)}")

    def of(name: str) -> NDArray[np.float32]:
        own = next((own for pattern, own in where if re.match(pattern, name)), shares)
        parts = zip(own, models, strict=True)
        return np.asarray(sum(share / sum(own) * model[name] for share, model in parts if share), np.float32)

    return {name: of(name) for name in models[0]}


def read_weights(folder: Path, config: ModelConfig) -> Tensors:
    """Dense weights of a Bundle, grown if need be, or of a folder that `give_weights` wrote."""
    if os.path.isfile(folder / "bundle.json"):
        return dense_tensors(grown(Bundle.load(folder), config), config)
    with torch.device("meta"):
        like = Mamba(config).state_dict()
    return dense_tensors(take_weights(folder, like), config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when the Bundle stands."""
    parser = argparse.ArgumentParser(prog="python -m npc_runtime.training.average", description="Average checkpoints")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--of", nargs=2, action="append", required=True, metavar=("DIR", "SHARE"))
    parser.add_argument("--where", nargs=2, action="append", default=[], metavar=("PATTERN", "SHARES"))
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--card", type=Path, help="the CARD.md of the Bundle")
    options = parser.parse_args(arguments)
    try:
        config = read_recipe(options.recipe).model
        models = [read_weights(Path(folder), config) for folder, _ in options.of]
        where = [(pattern, tuple(map(float, shares.split(",")))) for pattern, shares in options.where]
        tensors = mean(models, tuple(float(share) for _, share in options.of), where)
        card = options.card.read_text("utf-8") if options.card else "A mean of checkpoints.\n"
        bundle = write_dense(tensors, config, options.tokenizer, options.out, bits=options.bits, card=card)
    except (NpcError, OSError, ValueError, re.error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{bundle.path}: {bundle.bits} bits, {bundle.hash}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
