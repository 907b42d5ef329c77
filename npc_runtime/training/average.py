"""The mean of checkpoints of one run: less noise, and less of what only the last of them learned by heart.

`python -m npc_runtime.training.average RECIPE OUT --tokenizer FILE --of DIR SHARE --of DIR SHARE` takes folders of
weights in parts (see give.py) and Bundles, and writes a Bundle. Means of checkpoints: arXiv 1803.05407.
"""

from __future__ import annotations

import argparse
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


def mean(parts: Sequence[tuple[Mapping[str, NDArray[np.float32]], float]]) -> Tensors:
    """The weighted mean of models of one shape; shares are made to sum to 1."""
    total = sum(share for _, share in parts)
    if not parts or not total > 0 or any(share < 0 for _, share in parts):
        raise ConfigError(f"shares must be positive, got {[share for _, share in parts]}")
    return {
        name: np.asarray(sum(share / total * weights[name] for weights, share in parts), np.float32)
        for name in parts[0][0]
    }


def read_weights(folder: Path, config: ModelConfig) -> Tensors:
    """Dense weights of a Bundle, grown if need be, or of a folder that `give_weights` wrote."""
    if (folder / "bundle.json").is_file():
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
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--card", type=Path, help="the CARD.md of the Bundle")
    options = parser.parse_args(arguments)
    try:
        config = read_recipe(options.recipe).model
        tensors = mean([(read_weights(Path(folder), config), float(share)) for folder, share in options.of])
        card = options.card.read_text("utf-8") if options.card else "A mean of checkpoints.\n"
        bundle = write_dense(tensors, config, options.tokenizer, options.out, bits=options.bits, card=card)
    except (NpcError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{bundle.path}: {bundle.bits} bits, {bundle.hash}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
