"""Shorter replies: a Bundle that ends its replies more readily where a sentence ends, and is otherwise the same.

`python -m npc_runtime.training.ending BUNDLE OUT --recipe FILE --data PACK --more LOGITS`. A small model answers in its
first sentence and says in the next whatever comes. The logit of `<end>` is a product of its embedding and the model's
last hidden state, so one row of weights can learn to be higher after a sentence's last token: the change of that row is
the ridge regression (Hoerl and Kennard 1970) of LOGITS after such tokens and 0 after all others of speech.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from npc_runtime.bundle import Bundle
from npc_runtime.errors import ConfigError, NpcError
from npc_runtime.model.mamba import Mamba
from npc_runtime.training.batches import make_batch, read_material
from npc_runtime.training.export import write_dense
from npc_runtime.training.grow import grown
from npc_runtime.training.recipe import read_recipe
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from npc_runtime.tokenizer import Tokenizer
    from npc_runtime.training.batches import Batch

BLOCKS, ROWS, LENGTH = 14, 4, 2048
"""Batches that are read, rows of each and tokens of a row: some 46,000 tokens of speech, for as many unknowns as a
hidden state has numbers."""
MIX = {"scenes": 0.6, "drills": 0.4}
RIDGE = 1e-3
"""Times the mean square of a hidden state's numbers."""


def stops(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """(V,) whether a token's text ends a sentence."""
    texts = (tokenizer.decode([token]) for token in range(tokenizer.vocab_size))
    return np.array([text.rstrip("\"'").endswith((".", "!", "?")) for text in texts])


def spoken(tokens: NDArray[np.int64], say: int, end: int) -> NDArray[np.bool_]:
    """(B, L) whether each of the tokens (B, L) is one of speech: after `say` and before `end`."""
    opened, closed = np.cumsum(tokens == say, -1), np.cumsum(tokens == end, -1)
    inside: NDArray[np.bool_] = (opened > closed) & (tokens != say)
    return inside


def row_change(
    samples: Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]], more: float
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """(the change of a row (D,), (its mean effect after stops, its spread after other tokens), in logits).

    `samples` are hidden states (n, D) and whether each stands after a stop (n,); the last of them is kept for the test.
    ConfigError without a stop among them or a token that is none.
    """
    found = list(samples)
    states = np.concatenate([hidden for hidden, _ in found[:-1]]).astype(np.float64)
    at_stop = np.concatenate([stop for _, stop in found[:-1]])
    if not 0 < at_stop.sum() < len(at_stop):
        raise ConfigError("expected speech with stops and other tokens in the data, got only one kind")
    weights = np.where(at_stop, 1 / at_stop.mean(), 1 / (1 - at_stop.mean()))
    squares = (states * weights[:, None]).T @ states / len(states)
    ridge = RIDGE * np.trace(squares) / len(squares) * np.eye(len(squares))
    change = np.linalg.solve(squares + ridge, more * states[at_stop].mean(0))
    effect, stop = found[-1][0] @ change, found[-1][1]
    return change, (float(effect[stop].mean()), float(effect[~stop].std()))


def with_more_ends(bundle: Bundle, batches: Sequence[Batch], more: float, out: Path, card: str) -> tuple[float, float]:
    """Writes the changed Bundle; what `row_change` says of its effect."""
    say, end = bundle.tokenizer.control("<say>"), bundle.tokenizer.control("<end>")
    if say is None or end is None:
        raise ConfigError(f"Bundle `{bundle.name}` has no `<say>` and `<end>`", "Only layout control-1 has them")
    model = Mamba(bundle.config).eval()
    model.load_state_dict(grown(bundle, bundle.config))
    stop = stops(bundle.tokenizer)

    def samples() -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        for batch in batches:
            tokens = batch.tokens[:, :-1]
            with torch.no_grad():
                hidden, _ = model.hidden(torch.from_numpy(tokens), None, torch.from_numpy(batch.seq_idx[:, :-1]))
            speech = spoken(tokens, say, end)
            yield hidden.float().numpy()[speech], stop[tokens[speech]]

    change, effect = row_change(samples(), more)
    tensors = {name: bundle.dense(name).copy() for name in dense_shapes(bundle.config)}
    tensors["embedding"][end] += change.astype(np.float32)
    write_dense(tensors, bundle.config, bundle.tokenizer_path, out, bits=bundle.bits, card=card)
    return effect


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when the Bundle stands."""
    parser = argparse.ArgumentParser(prog="python -m npc_runtime.training.ending", description="Shorter replies")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--recipe", type=Path, required=True, help="whose last phase and sources the texts are drawn by"
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder packed by npc_runtime.training.prepare")
    parser.add_argument("--more", type=float, default=4.0, help="logits that `<end>` gains after a stop")
    parser.add_argument("--card", type=Path, help="the CARD.md of the Bundle")
    options = parser.parse_args(arguments)
    try:
        recipe = read_recipe(options.recipe)
        material = read_material(options.data, recipe)
        phase = replace(recipe.phases[-1], length=LENGTH, rows=ROWS, mix=MIX)
        batches = [make_batch(material, phase, recipe.seed, block, ROWS) for block in range(BLOCKS)]
        card = options.card.read_text("utf-8") if options.card else "A Bundle with shorter replies.\n"
        gained, spread = with_more_ends(Bundle.load(options.bundle), batches, options.more, options.out, card)
    except (NpcError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: `<end>` gains {gained:.2f} logits after a stop, {spread:.2f} either way elsewhere")
    return 0


if __name__ == "__main__":
    sys.exit(main())
