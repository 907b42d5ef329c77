"""A tiny Bundle of random weights, made in milliseconds, and its SentencePiece model, trained once."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import sentencepiece

from npc_runtime.bundle import Bundle, write_bundle
from npc_runtime.model.config import ModelConfig
from npc_runtime.tokenizer import CONTROL
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SENTENCES = (
    "The smith keeps the gate key under the anvil.",
    "Who goes there at night, and what do you want?",
    "My name is Tolliver. From Maresk, I said, by the sea.",
    "Come in, sit down by the fire and tell me of the road.",
)
CONFIG = ModelConfig(d_model=64, n_layer=3, vocab_size=320)
ODD = ModelConfig(d_model=48, n_layer=2, vocab_size=321, d_state=8, d_conv=3, dt_rank=5)
"""Sizes that divide by nothing convenient."""


@lru_cache
def tokenizer_bytes() -> bytes:
    """A SentencePiece model of at most 300 pieces: bytes, the control symbols, and a little English."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        control_symbols=list(CONTROL),
        minloglevel=2,
    )
    return model.getvalue()


def random_weights(config: ModelConfig, tied: bool = True, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights in which every tensor matters, scaled so that logits are of order one."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in dense_shapes(config, tied).items():
        kind = name.rpartition(".")[2]
        value = rng.standard_normal(shape)
        if kind in ("norm", "norm_f", "D"):
            value = 1 + 0.1 * value
        elif kind == "A_log":
            value = np.log(np.arange(1.0, shape[1] + 1)) + 0.1 * value
        elif kind == "dt_bias":
            value = np.log(np.expm1(np.exp(rng.uniform(np.log(1e-3), np.log(0.5), shape))))
        elif kind in ("embedding", "head"):
            value *= 2 * config.d_model**-0.5
        else:
            value *= shape[-1] ** -0.5
        made[name] = value.astype(np.float32)
    return made


def tiny_bundle(
    folder: Path,
    bits: int = 4,
    config: ModelConfig = CONFIG,
    tied: bool = True,
    layout: str = "control-1",
    name: str = "tiny",
    seed: int = 0,
) -> Bundle:
    """Writes `folder/<name>-<bits>` and returns it loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer.model"
    tokenizer.write_bytes(tokenizer_bytes())
    return write_bundle(
        folder / f"{name}-{bits}",
        name=name,
        config=config,
        tensors=random_weights(config, tied, seed),
        bits=bits,
        tokenizer_path=tokenizer,
        layout=layout,
        license="MIT",
        card="# Tiny\n\nRandom weights, for tests.\n",
    )
