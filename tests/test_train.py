"""Training on a CPU: the loss falls, a resumed run gives the same loss, a NaN stops it, batches are pure functions."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from npc_runtime.bundle import Bundle
from npc_runtime.errors import ConfigError, FileError
from npc_runtime.model.config import ModelConfig
from npc_runtime.model.mamba import Mamba
from npc_runtime.training import average, memory, train
from npc_runtime.training.batches import Batches, make_batch, read_material
from npc_runtime.training.checkpoint import NAME, bundle_weights
from npc_runtime.training.export import dense_tensors, export
from npc_runtime.training.give import give_weights, take_weights
from npc_runtime.training.loss import character_loss
from npc_runtime.training.recipe import Phase, Recipe, read_recipe
from npc_runtime.training.render import Renderer
from npc_runtime.training.shards import make_shard, write_shard
from npc_runtime.training.tokenizer import train_tokenizer
from npc_runtime.training.train import Run, TrainingStopped, Workplace, rate_at

torch.set_num_threads(1)  # tiny products: threads would only wait for each other
CPU = Workplace(torch.device("cpu"))
RECIPES = Path(train.__file__).parent / "recipes"
CARD = {"tags": ["t"], "tell": ["I'm {person}."], "ack": ["Hm."], "ask": ["Who am I?"], "answer": ["{person}."]}
FACT = {"fact": "has {person}", "tags": ["t"], "ask": ["Who?"], "answer": ["{person}."]}
TALK = {"say": ["hello"], "mood": ["happy"], "reply": {"gruff": ["Hm."]}}
MIX = {"drills": 0.5, "scenes": 0.2, "dialogues": 0.2, "prose": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    rng = random.Random(1)
    words = ["".join(rng.choice("abcdefghiklmnoprstuw") for _ in range(rng.randint(2, 7))) for _ in range(300)]
    tokenizer = train_tokenizer(
        [" ".join(rng.choices(words, k=8)) for _ in range(300)], folder / "tokenizer.model", 400, 1
    )
    renderer = Renderer(tokenizer)
    for name in ("prose-a", "dialogues-a"):
        write_shard(make_shard(name, (renderer.prose(" ".join(rng.choices(words, k=40))) for _ in range(20))), folder)
    (folder / "scenes").mkdir()
    (folder / "cards").mkdir()
    scenes = [f"## s{i}\nname: N{i} Who\nrole: cook\n---\nP: {words[i]}\nN[wary]: {words[i + 1]}\n" for i in range(40)]
    (folder / "scenes" / "a.talk").write_text("\n".join(scenes), "utf-8")
    for kind, card in (("player-x", {**CARD, "kind": "name"}), ("persona-facts", FACT), ("smalltalk", TALK)):
        (folder / "cards" / f"{kind}.jsonl").write_text(json.dumps(card), "utf-8")
    (folder / "cards" / "persona-identity.jsonl").write_text(json.dumps({**FACT, "fact": "name: {name}"}), "utf-8")
    return folder


def recipe(*phases: Phase) -> Recipe:
    return Recipe("test", ModelConfig(d_model=32, n_layer=1, vocab_size=400), phases, {})


def phase(steps: int, bits: int = 0, name: str = "a") -> Phase:
    return Phase(
        name, length=64, rows=2, mix=MIX, rate=(1e-2, 1e-3), steps=steps, warmup=2, filler=2, bits=bits, dropout=0.1
    )


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "LOG_STEPS", 5)


def losses(lines: list[str]) -> list[float]:
    return [json.loads(line)["loss"] for line in lines if line.startswith("{")]


def test_the_loss_falls_through_the_phases_and_a_bundle_comes_out(folder: Path, tmp_path: Path) -> None:
    told: list[str] = []
    mine = recipe(phase(30), phase(10, bits=4, name="b"))
    run = Run(mine, read_material(folder, mine), tmp_path, CPU, told.append)
    assert run.go()
    fallen = losses(told)
    assert fallen[-1] < fallen[0] - 0.5
    assert run.place.tokens == 40 * 2 * 64
    bundle = export(run.model.state_dict(), mine.model, folder / "tokenizer.model", tmp_path / "b", bits=8, card="x")
    assert Bundle.load(bundle.path).bits == 8
    tensors = dense_tensors(run.model.state_dict(), mine.model)
    assert tensors["layers.0.dt_bias"].shape == (64,)
    begun = Run(mine, run.material, tmp_path / "on", CPU, told.append, start(bundle, mine, folder))
    assert torch.equal(begun.model.state_dict()["layers.0.mixer.D"], run.model.state_dict()["layers.0.mixer.D"])
    assert begun.place.phase == 0
    late = replace(mine, phases=(replace(phase(9), fresh=True), phase(9, name="b")))
    assert Run(late, run.material, tmp_path / "late", CPU, told.append).phase.name == "a"
    assert Run(late, run.material, tmp_path / "late", CPU, told.append, start(bundle, mine, folder)).phase.name == "b"
    deep = replace(mine, model=replace(mine.model, n_layer=mine.model.n_layer + 1))
    assert Run(deep, run.material, tmp_path / "deep", CPU, told.append, start(bundle, deep, folder)).phase.name == "a"
    with pytest.raises(ConfigError, match="does not go into ModelConfig"):
        start(bundle, replace(mine, model=ModelConfig(d_model=64, n_layer=1, vocab_size=400)), folder)
    (tmp_path / "tokenizer.model").write_bytes(b"other pieces")
    with pytest.raises(ConfigError, match="reads other pieces"):
        start(bundle, mine, tmp_path)


def start(bundle: Bundle, recipe: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    return bundle_weights(bundle, recipe, folder / "tokenizer.model")


def test_a_resumed_run_goes_on_as_if_never_stopped(folder: Path, tmp_path: Path) -> None:
    mine = recipe(phase(20))
    material = read_material(folder, mine)
    whole: list[str] = []
    Run(mine, material, tmp_path / "whole", CPU, whole.append).go()
    parts: list[str] = []
    assert not Run(mine, material, tmp_path / "parts", CPU, parts.append).go(seconds=-1)
    assert len(losses(parts)) == 1
    resumed = Run(mine, material, tmp_path / "parts", CPU, parts.append)
    assert resumed.place.step == 5
    assert resumed.go()
    assert losses(parts) == losses(whole)


def _work(rank: int, folder: Path, out: Path, meeting: str) -> None:
    """One of two processes that train together."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    phase = Phase("one", 64, 4, MIX, (1e-2, 1e-2), steps=6, dropout=0.1)
    at = Workplace(torch.device("cpu"), rank, 2)
    run = Run(recipe(phase), read_material(folder, recipe(phase)), out, at, lambda text: None)
    assert run.go()
    torch.save(run.model.state_dict(), out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_train_one_model(folder: Path, tmp_path: Path) -> None:
    """Each reads other rows and drops other features; their weights stay the same, bit for bit."""
    meeting = f"file://{tmp_path / 'meeting'}"
    torch.multiprocessing.spawn(_work, (folder, tmp_path, meeting), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    phase = Phase("one", 64, 4, MIX, (1e-2, 1e-2), steps=6, dropout=0.1)
    alone = Run(recipe(phase), read_material(folder, recipe(phase)), tmp_path / "alone", CPU, lambda text: None)
    alone.go()
    assert not torch.equal(one["embedding.weight"], alone.model.state_dict()["embedding.weight"])


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = recipe(phase(20))
    run = Run(mine, read_material(folder, mine), tmp_path, CPU, lambda _: None)
    run.go(seconds=-1)
    good = (tmp_path / NAME).read_bytes()
    monkeypatch.setattr(train, "character_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingStopped, match="loss of phase `a` is nan at step 10"):
        run.go()
    assert (tmp_path / NAME).read_bytes() == good


def test_a_foreign_or_damaged_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    mine = recipe(phase(5))
    material = read_material(folder, mine)
    Run(mine, material, tmp_path, CPU, lambda _: None).go()
    with pytest.raises(FileError, match="belongs to recipe `test`, not `other`"):
        Run(replace(mine, name="other"), material, tmp_path, CPU, lambda _: None)
    (tmp_path / NAME).write_bytes(b"junk")
    with pytest.raises(FileError, match="is not a checkpoint"):
        Run(mine, material, tmp_path, CPU, lambda _: None)


def test_batches_are_a_function_of_seed_and_step_with_or_without_workers(folder: Path) -> None:
    mine = recipe(phase(5))
    material = read_material(folder, mine)
    here = Batches(material, mine.phases[0], 1, start=3)
    there = Batches(material, mine.phases[0], 1, start=3, workers=2)
    try:
        for one, other, _ in zip(here, there, range(4), strict=False):
            assert np.array_equal(one.tokens, other.tokens)
            assert np.array_equal(one.weights, other.weights)
            assert np.array_equal(one.seq_idx, other.seq_idx)
    finally:
        there.close()


def test_packed_documents_do_not_see_each_other(folder: Path) -> None:
    mine = recipe(phase(5))
    batch = make_batch(read_material(folder, mine), replace(mine.phases[0], length=512), 1, 0, 4)
    starts = batch.seq_idx[:, 1:] != batch.seq_idx[:, :-1]
    assert starts.any()
    assert not batch.weights[:, 1:][starts].any()
    torch.manual_seed(1)
    model = Mamba(mine.model)
    before = character_loss(model, batch, CPU.device)
    row, at = np.argwhere(starts)[0]
    changed = batch.tokens.copy()
    changed[row, 0] = (changed[row, 0] + 1) % 400
    later = np.zeros_like(batch.weights)
    later[row, at + 2 :] = batch.weights[row, at + 2 :]
    same = character_loss(model, replace(batch, weights=later), CPU.device)
    other = character_loss(model, replace(batch, weights=later, tokens=changed), CPU.device)
    assert torch.equal(same, other)
    assert not torch.equal(before, same)


def test_a_mean_of_checkpoints_is_a_bundle(folder: Path, tmp_path: Path) -> None:
    mine = recipe(phase(5))
    (tmp_path / "r.toml").write_text(
        'name = "test"\n[model]\nd_model = 32\nn_layer = 1\nvocab_size = 400\n'
        '[[phase]]\nname = "a"\nsteps = 1\nlength = 64\nrows = 1\nrate = [0.1, 0.1]\nmix = { drills = 1.0 }\n',
        "utf-8",
    )
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(Mamba(mine.model).state_dict())
    give_weights(models[0], tmp_path / "a")
    whole = export(models[1], mine.model, folder / "tokenizer.model", tmp_path / "b", bits=32, card="x")
    of = ["--of", str(tmp_path / "a"), "1", "--of", str(whole.path), "3"]
    rest = ["--tokenizer", str(folder / "tokenizer.model"), "--bits", "32"]
    assert average.main([str(tmp_path / "r.toml"), str(tmp_path / "out"), *of, *rest]) == 0
    found = Bundle.load(tmp_path / "out").dense("layers.0.in_proj")
    one, other = (model["layers.0.mixer.in_proj.weight"].numpy() for model in models)
    assert np.allclose(found, one / 4 + other * 3 / 4, atol=1e-3)
    where = ["--where", "embedding|norm", "1,0", "--where", r"layers\.[01]", "1,1"]
    assert average.main([str(tmp_path / "r.toml"), str(tmp_path / "parts"), *of, *where, *rest]) == 0
    parts = Bundle.load(tmp_path / "parts")
    assert np.allclose(parts.dense("layers.0.in_proj"), (one + other) / 2, atol=1e-3)
    assert np.allclose(parts.dense("embedding"), models[0]["embedding.weight"].numpy(), atol=1e-3)
    for wrong in (["--where", "embedding", "1"], ["--where", "embedding", "0,0"], ["--where", "(", "1,0"]):
        assert average.main([str(tmp_path / "r.toml"), str(tmp_path / "other"), *of, *wrong, *rest]) == 1
    of[2] = "-1"
    assert average.main([str(tmp_path / "r.toml"), str(tmp_path / "other"), *of, *rest]) == 1


def test_rates_warm_up_and_follow_a_cosine() -> None:
    mine = phase(100)
    assert rate_at(mine, 0.0, 0) == pytest.approx(5e-3)
    assert rate_at(mine, 0.0, 50) == pytest.approx(1e-2)
    assert rate_at(mine, 0.5, 50) == pytest.approx(5.5e-3)
    assert rate_at(mine, 1.0, 99) == pytest.approx(1e-3)


def test_given_weights_come_back(tmp_path: Path) -> None:
    weights = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2)}
    give_weights(weights, tmp_path)
    back = take_weights(tmp_path, weights)
    assert torch.equal(back["b"], weights["b"])
    with pytest.raises(FileError, match="the model another number"):
        take_weights(tmp_path, {"a": torch.ones(3)})


def test_shipped_recipes_read_and_bad_ones_name_the_key(tmp_path: Path) -> None:
    assert {read_recipe(path).model.vocab_size for path in RECIPES.glob("*.toml")} == {8192}
    text = (RECIPES / "default.toml").read_text("utf-8")
    bad = tmp_path / "bad.toml"
    for old, new, expected in (
        ("seed = ", "speed = ", "`speed` is not a key"),
        ("minutes = 1.5", "", "needs `steps` or `minutes`"),
        ("drills = 1.0", "drill = 1.0", "`mix` of phase `copying`"),
        ("[model]", "[modell]", r"needs a \[model\] table"),
    ):
        bad.write_text(text.replace(old, new, 1), "utf-8")
        with pytest.raises(ConfigError, match=expected):
            read_recipe(bad)
    bad.write_text("seed = " + "[" * 20_000, "utf-8")  # deeper than Python's stack
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        read_recipe(bad)


def test_a_recipe_that_does_not_fit_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = recipe(replace(phase(5), name="huge", rows=64, length=4096))
    model = Mamba(mine.model)
    assert memory.parameters(mine.model) == sum(weight.numel() for weight in model.parameters())
    memory.check_memory(mine, 1, torch.device("cpu"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1 << 30)
    with pytest.raises(ConfigError, match=r"`huge` .* needs about \d+\.\d GB .* has 1\.0 GB") as caught:
        memory.check_memory(mine, 1, torch.device("cpu"))
    fits = int(caught.value.hint.split()[4])
    memory.check_memory(replace(mine, phases=(replace(mine.phases[0], rows=fits),)), 1, torch.device("cpu"))
