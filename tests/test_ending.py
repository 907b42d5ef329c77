"""Shorter replies: one row of weights learns that a sentence has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from npc_runtime.bundle import Bundle
from npc_runtime.errors import ConfigError
from npc_runtime.model.config import ModelConfig
from npc_runtime.model.mamba import Mamba
from npc_runtime.tokenizer import SentencePieceTokenizer
from npc_runtime.training.batches import Batch
from npc_runtime.training.ending import row_change, spoken, stops, with_more_ends
from npc_runtime.training.export import export
from npc_runtime.training.grow import grown
from npc_runtime.training.tokenizer import train_tokenizer
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from pathlib import Path

WORDS = "The miller sells flour. Who has bread? The miller! Nobody knows the road to the mill.\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("ending")
    train_tokenizer([WORDS] * 50, folder / "tokenizer.model", 290)
    torch.manual_seed(3)
    config = ModelConfig(d_model=64, n_layer=2, vocab_size=290)
    return export(Mamba(config).state_dict(), config, folder / "tokenizer.model", folder / "b", bits=16, card="x")


def test_stops_end_sentences_and_speech_is_what_the_character_says(bundle: Bundle) -> None:
    tokenizer = bundle.tokenizer
    stop = stops(tokenizer)
    assert stop[tokenizer.encode("flour.")[-1]]
    assert stop[tokenizer.encode("bread?")[-1]]
    assert not stop[tokenizer.encode("The")].any()
    say, end = 7, 8
    tokens = np.array([[1, say, 4, 5, end, 6, say, 4], [4, 4, say, 5, end, say, end, 4]])
    assert np.flatnonzero(spoken(tokens, say, end)[0]).tolist() == [2, 3, 7]
    assert np.flatnonzero(spoken(tokens, say, end)[1]).tolist() == [3]


def test_the_change_is_felt_after_stops_alone() -> None:
    rng = np.random.default_rng(1)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        stop = rng.random(400) < 0.2
        return (rng.normal(size=(400, 16)) + 4 * stop[:, None]).astype(np.float32), stop

    change, (gained, spread) = row_change(iter([sample() for _ in range(5)]), 3.0)
    assert change.shape == (16,)
    assert abs(gained - 3.0) < 0.3
    assert spread < 0.6
    still = [(np.ones((5, 16), np.float32), np.zeros(5, bool))] * 2
    with pytest.raises(ConfigError, match="expected speech with stops"):
        row_change(iter(still), 3.0)


def test_a_bundle_changes_in_one_row_alone(bundle: Bundle, tmp_path: Path) -> None:
    tokenizer = bundle.tokenizer
    say, end = tokenizer.control("<say>"), tokenizer.control("<end>")
    assert say is not None
    assert end is not None
    line = [say, *tokenizer.encode("The miller sells flour. Nobody knows the road."), end]
    tokens = np.array([(line * 40)[:161]] * 2)
    batch = Batch(tokens, np.ones(tokens.shape, np.float32), np.zeros(tokens.shape, np.int32))
    gained, _ = with_more_ends(bundle, [batch] * 3, 2.0, tmp_path / "out", "A card.\n")
    changed = Bundle.load(tmp_path / "out")
    assert changed.bits == bundle.bits
    for name in dense_shapes(bundle.config):
        rows = np.flatnonzero((changed.dense(name) != bundle.dense(name)).reshape(len(bundle.dense(name)), -1).any(1))
        assert rows.tolist() == ([end] if name == "embedding" else [])
    before, after = (_end_logits(each, tokens[:1, :-1], end) for each in (bundle, changed))
    heard = tokens[0, :-1]
    first = int(np.flatnonzero(stops(tokenizer)[heard])[0])
    assert 1.0 < (after - before)[first] < 3.0
    assert abs(gained - 2.0) < 1.0
    assert abs((after - before)[first - 2]) < 1.0


def _end_logits(bundle: Bundle, tokens: np.ndarray, end: int) -> np.ndarray:
    model = Mamba(bundle.config).eval()
    model.load_state_dict(grown(bundle, bundle.config))
    with torch.no_grad():
        return model(torch.from_numpy(tokens))[0][0, :, end].numpy()


def test_a_bundle_without_control_symbols_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    class Plain(SentencePieceTokenizer):
        def control(self, symbol: str) -> int | None:
            return None

    bundle = Bundle.load(bundle.path)
    bundle.__dict__["tokenizer"] = Plain(bundle.tokenizer_path)
    with pytest.raises(ConfigError, match="has no `<say>` and `<end>`"):
        with_more_ends(bundle, [], 2.0, tmp_path / "out", "A card.\n")
