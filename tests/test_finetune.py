"""Fine-tuning on a studio's own scenes: the script is learned, what is held out is not, and it resumes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import torch

from npc_runtime import finetune
from npc_runtime.bundle import Bundle
from npc_runtime.errors import ConfigError
from npc_runtime.model.config import ModelConfig
from npc_runtime.model.mamba import Mamba
from npc_runtime.training.corpus import CorpusError, read_scenes
from npc_runtime.training.export import dense_tensors, export, torch_weights
from npc_runtime.training.tokenizer import train_tokenizer
from npc_runtime.training.train import Workplace

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(1)  # tiny products: threads would only wait for each other
CPU = Workplace(torch.device("cpu"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    rng = random.Random(1)
    lines = [" ".join("".join(rng.choices("abcdefghiklmnoprstuw", k=4)) for _ in range(6)) for _ in range(300)]
    train_tokenizer(lines, folder / "tokenizer.model", 400, 1)
    torch.manual_seed(1)
    model = Mamba(ModelConfig(d_model=32, n_layer=1, vocab_size=400))
    weights, file = model.state_dict(), folder / "tokenizer.model"
    return export(weights, model.config, file, folder / "tiny", bits=4, card="A test.")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    folder = tmp_path / "script"
    folder.mkdir()
    scenes = [f"## s{i}\nname: Odo\nrole: cook\n---\nP: any stew\nN[wary]: the stew is all gone" for i in range(12)]
    (folder / "a.talk").write_text("\n\n".join(scenes), "utf-8")
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LENGTH", 64), ("LEAST_STEPS", 40), ("PASSES", 1), ("PROBES", 4)):
        monkeypatch.setattr(finetune, name, value)
    monkeypatch.setattr(finetune, "RATE", (1e-2, 1e-3))


def test_a_script_is_learned_and_a_bundle_comes_out(bundle: Bundle, script: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert finetune.finetune(bundle, script, tmp_path / "run", CPU, said.append, seconds=-1) is None
    tuned = finetune.finetune(bundle, script, tmp_path / "run", CPU, said.append)
    assert tuned is not None
    assert any("resumed in phase" in line for line in said)
    assert said[1] == "measuring the Bundle as it is ..."
    assert tuned.after.per_token < 0.8 * tuned.before.per_token
    assert (tuned.recall_before.of, tuned.recall_after.of) == (4, 4)
    again = Bundle.load(tuned.bundle.path)
    assert (again.bits, again.config, again.name) == (4, bundle.config, "tiny-tuned")
    assert "perplexity" in (again.path / "CARD.md").read_text("utf-8")


def test_weights_go_to_torch_and_back(bundle: Bundle) -> None:
    model = Mamba(bundle.config)
    tensors = dense_tensors(model.state_dict(), bundle.config)
    again = torch_weights(tensors)
    assert all(torch.equal(weight, again[name]) for name, weight in model.state_dict().items())


def test_what_is_held_out_is_not_learned(script: Path) -> None:
    scenes = read_scenes(script)
    learned, held = finetune.split_script(scenes)
    assert (len(learned), len(held)) == (10, 2)
    assert not {id(scene) for scene in learned} & {id(scene) for scene in held}
    with pytest.raises(ConfigError, match="at least 6 scenes, got 3"):
        finetune.split_script(scenes[:3])


def test_a_malformed_scene_is_told_by_file_and_line(bundle: Bundle, script: Path, tmp_path: Path) -> None:
    (script / "b.talk").write_text("## s\nname: Odo\nrole: cook\n---\nP: hm\nN[grumpy]: no\n", "utf-8")
    with pytest.raises(CorpusError, match=r"b.talk` line 6: mood must be one of"):
        finetune.finetune(bundle, script, tmp_path / "run", CPU, print)
