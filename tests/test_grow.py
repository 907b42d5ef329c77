"""Deeper models: they begin by computing what the shallower one did, and learn from there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from npc_runtime.model.config import ModelConfig
from npc_runtime.model.mamba import Mamba
from npc_runtime.training.grow import deepened

SMALL = ModelConfig(d_model=32, n_layer=3, vocab_size=50)
TOKENS = torch.arange(24).reshape(2, 12)


def grown_model(layers: int) -> tuple[Mamba, Mamba]:
    torch.manual_seed(1)
    small, large = Mamba(SMALL).eval(), Mamba(replace(SMALL, n_layer=layers)).eval()
    large.load_state_dict(deepened(small.state_dict(), SMALL.n_layer, layers))
    return small, large


@pytest.mark.parametrize("layers", [3, 4, 5, 7, 12])
def test_a_deeper_model_begins_where_the_shallower_one_stood(layers: int) -> None:
    small, large = grown_model(layers)
    with torch.no_grad():
        assert torch.equal(small(TOKENS)[0], large(TOKENS)[0])


def test_new_blocks_stand_between_the_old_ones_and_can_learn() -> None:
    small, large = grown_model(5)
    kept = [not layer.mixer.out_proj.weight.any() for layer in large.layers]
    assert kept == [False, True, False, True, False]
    for old, index in enumerate((0, 2, 4)):
        ours, theirs = small.layers[old].state_dict(), large.layers[index].state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    large(TOKENS)[0].square().mean().backward()
    assert all(layer.mixer.out_proj.weight.grad.abs().max() > 0 for layer in large.layers)
