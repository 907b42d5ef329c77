"""A tiny untrained Bundle with the shipped tokenizer: it speaks at once, and nonsense."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npc_runtime.bundle import Bundle, find_bundle, write_bundle
from npc_runtime.model.config import ModelConfig
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def tiny_bundle(path: Path, bits: int = 32) -> Bundle:
    """Writes the Bundle `path`: two layers, drawn as a training run would begin."""
    shipped = Bundle.load(find_bundle("default"), verify=False)
    config = ModelConfig(d_model=64, n_layer=2, vocab_size=shipped.config.vocab_size)
    return write_bundle(
        path,
        name="tiny",
        config=config,
        tensors=_fresh(config),
        bits=bits,
        tokenizer_path=shipped.tokenizer_path,
        layout="control-1",
        license="MIT",
        card="# Tiny\n\nUntrained, for tests.\n",
    )


def _fresh(config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """Weights of a new model: unit norms, decays 1 to N, time steps from 0.001 to 0.1."""
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in dense_shapes(config, tied=True).items():
        kind = name.rpartition(".")[2]
        if kind in ("norm", "norm_f", "D"):
            value = np.ones(shape)
        elif kind == "A_log":
            value = np.log(np.tile(np.arange(1.0, shape[1] + 1), (shape[0], 1)))
        elif kind == "dt_bias":
            value = np.log(np.expm1(np.exp(rng.uniform(np.log(1e-3), np.log(0.1), shape))))
        elif kind == "conv_bias":
            value = np.zeros(shape)
        else:
            value = rng.standard_normal(shape) * (1.0 if kind == "embedding" else shape[-1] ** -0.5)
        made[name] = value.astype(np.float32)
    return made
