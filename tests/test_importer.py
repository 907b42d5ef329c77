"""Imported checkpoints compute what transformers computes, and other models are refused."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from npc_runtime.backends.reference import ReferenceModel
from npc_runtime.container import write_header
from npc_runtime.errors import BundleError
from npc_runtime.importer import import_checkpoint
from npc_runtime.tokenizer import CONTROL
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from npc_runtime.bundle import Bundle

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SIZES: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank": {"time_step_rank": 5},
    "narrow state": {"state_size": 8, "conv_kernel": 3},
    "expand 1, no conv bias": {"expand": 1, "use_conv_bias": False},
    "odd width": {"hidden_size": 50, "layer_norm_epsilon": 1e-3},
    "untied": {"tie_word_embeddings": False},
}
PROMPT, STEPS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 97, 0], 64


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """transformers logs that its GPU kernels are missing; here nothing but the CPU is meant."""
    level = logging.getLogger("transformers").level
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(level)


def model(**sizes: Any) -> Any:
    torch.manual_seed(7)
    values = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 98, "initializer_range": 0.3} | sizes
    made = transformers.MambaForCausalLM(transformers.MambaConfig(**values)).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():  # what starts as zeros or ones would hide a mix-up
            if name.endswith((".bias", "norm.weight", "norm_f.weight", ".D")):
                parameter += 0.3 * torch.randn_like(parameter)
    return made


def save_tokenizer(folder: Path, words: int = 50, special: tuple[str, ...] = ()) -> Path:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    made.add_special_tokens(list(special))
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def save_hugging_face(folder: Path, made: Any, **how: Any) -> Path:
    made.save_pretrained(folder, **how)
    save_tokenizer(folder)
    return folder


def save_state_spaces(folder: Path, made: Any, vocabulary: int = 93, **more: Any) -> Path:
    """The same weights as state-spaces' own code would save them; the vocabulary is padded to the matrix."""
    c = made.config
    folder.mkdir()
    ssm = {"d_state": c.state_size, "d_conv": c.conv_kernel, "expand": c.expand, "dt_rank": c.time_step_rank}
    values = {"d_model": c.hidden_size, "n_layer": c.num_hidden_layers, "vocab_size": vocabulary}
    values |= {"ssm_cfg": ssm | {"conv_bias": c.use_conv_bias}, "rms_norm": True, "residual_in_fp32": True}
    values |= {"norm_epsilon": c.layer_norm_epsilon, "tie_embeddings": c.tie_word_embeddings}
    values |= {"pad_vocab_size_multiple": 8}
    (folder / "config.json").write_text(json.dumps(values | more), "utf-8")
    state = {name.replace("embeddings", "embedding"): value for name, value in made.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")
    save_tokenizer(folder)
    return folder


def assert_same_logits(bundle: Bundle, made: Any) -> None:
    """Prompt at once and 64 greedy steps, each from the State before, against transformers with its own cache."""
    names = dense_shapes(bundle.config, bundle.tied)
    ours = ReferenceModel({name: bundle.dense(name) for name in names}, bundle.config)
    logits, memory = ours.parallel(PROMPT, ours.empty())
    with torch.no_grad():
        theirs = made(torch.tensor([PROMPT]), use_cache=True)
        assert np.abs(theirs.logits[0].numpy() - logits).max() < 1e-4
        token = int(logits[-1].argmax())
        for _ in range(STEPS):
            row, memory = ours.recurrent(token, memory)
            theirs = made(torch.tensor([[token]]), cache_params=theirs.cache_params, use_cache=True)
            assert np.abs(theirs.logits[0, -1].numpy() - row).max() < 1e-4
            token = int(row.argmax())
    assert np.abs(logits).max() > 0.1  # 1e-4 means something


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_hugging_face_layout_computes_the_same(tmp_path: Path, sizes: dict[str, Any]) -> None:
    made = model(**sizes)
    bundle = import_checkpoint(save_hugging_face(tmp_path / "hf", made), tmp_path / "bundle", bits=32)
    assert bundle.tied is sizes.get("tie_word_embeddings", True)
    assert bundle.layout == "plain"
    assert bundle.name == "hf"
    assert_same_logits(bundle, made)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_state_spaces_layout_computes_the_same(tmp_path: Path, sizes: dict[str, Any]) -> None:
    made = model(**sizes)
    bundle = import_checkpoint(save_state_spaces(tmp_path / "mamba-9m", made), tmp_path / "bundle", bits=32)
    assert bundle.config.vocab_size == 98
    assert_same_logits(bundle, made)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_other_float_types_are_read_exactly(tmp_path: Path, dtype: str, kind: str) -> None:
    made = model().to(getattr(torch, dtype))
    if kind == "bin":
        source = save_state_spaces(tmp_path / "source", made)
    else:
        source = save_hugging_face(tmp_path / "source", made)
    bundle = import_checkpoint(source, tmp_path / "bundle", bits=32)
    expected = made.state_dict()["backbone.layers.1.mixer.in_proj.weight"].float().numpy()
    assert np.array_equal(bundle.dense("layers.1.in_proj"), expected)


def test_shards_give_the_same_bundle_as_one_file(tmp_path: Path) -> None:
    made = model()
    whole = save_hugging_face(tmp_path / "whole", made)
    shards = save_hugging_face(tmp_path / "shards", made, max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    one = import_checkpoint(whole, tmp_path / "one", bits=8, name="same")
    many = import_checkpoint(shards, tmp_path / "many", bits=8, name="same")
    assert one.hash == many.hash


def test_both_layouts_and_file_kinds_give_the_same_bundle(tmp_path: Path) -> None:
    made = model()
    one = import_checkpoint(save_hugging_face(tmp_path / "hf", made), tmp_path / "one", bits=4)
    two = import_checkpoint(save_state_spaces(tmp_path / "ss", made), tmp_path / "two", bits=4)
    assert one.weights_path.read_bytes() == two.weights_path.read_bytes()


def test_control_symbols_choose_the_layout(tmp_path: Path) -> None:
    source = save_hugging_face(tmp_path / "hf", model())
    save_tokenizer(source, 20, CONTROL)
    bundle = import_checkpoint(source, tmp_path / "bundle", license="Apache-2.0", name="bard")
    assert (bundle.layout, bundle.license, bundle.name, bundle.bits) == ("control-1", "Apache-2.0", "bard", 8)
    assert "Apache-2.0" in (bundle.path / "CARD.md").read_text("utf-8")


def test_a_tokenizer_is_needed_and_must_fit(tmp_path: Path) -> None:
    source = save_hugging_face(tmp_path / "hf", model())
    (source / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match="no tokenizer"):
        import_checkpoint(source, tmp_path / "bundle")
    other = tmp_path / "other"
    other.mkdir()
    assert import_checkpoint(source, tmp_path / "bundle", tokenizer=save_tokenizer(other)).tokenizer.vocab_size == 50
    with pytest.raises(BundleError, match="has 99 tokens, the model only 98"):
        import_checkpoint(source, tmp_path / "bundle", tokenizer=save_tokenizer(other, 99))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model_type": "mamba2"}, "model_type 'mamba2'"),
        ({"model_type": "falcon_mamba"}, "model_type 'falcon_mamba'"),
        ({"model_type": ["mamba"]}, "model_type"),
        ({"use_bias": True}, "`use_bias` True is not supported"),
        ({"hidden_act": "gelu"}, "`hidden_act` 'gelu'"),
        ({"intermediate_size": 48}, "`intermediate_size` 48"),
        ({"expand": "2"}, "`expand`"),
        ({"hidden_size": 10**12, "intermediate_size": None}, "`d_model`"),
        ({"num_hidden_layers": 10**12}, "`n_layer`"),
        ({"num_hidden_layers": 1}, "tensors that Mamba-1 does not have"),
        ({"num_hidden_layers": 3}, r"hold no `backbone\.layers\.2"),
        ({"state_size": 4}, "must have shape"),
        ({"time_step_rank": "some"}, "`dt_rank`"),
        ({"vocab_size": 99}, "98 rows for the 99 tokens"),
        ({"tie_word_embeddings": False}, r"no `lm_head\.weight`"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_other_models_are_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    source = save_hugging_face(tmp_path / "hf", model())
    edit_config(source, **changes)
    with pytest.raises(BundleError, match=text):
        import_checkpoint(source, tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ssm_cfg": {"layer": "Mamba2"}}, r"`ssm_cfg\.layer` 'Mamba2'"),
        ({"ssm_cfg": {"bias": True}}, r"`ssm_cfg\.bias`"),
        ({"ssm_cfg": 3}, "must be a table"),
        ({"rms_norm": False}, "`rms_norm`"),
        ({"attn_layer_idx": [1]}, "`attn_layer_idx`"),
        ({"d_intermediate": 64}, "`d_intermediate`"),
        ({"n_layer": None}, "`n_layer`"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_other_state_spaces_models_are_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    source = save_state_spaces(tmp_path / "ss", model(), **changes)
    with pytest.raises(BundleError, match=text):
        import_checkpoint(source, tmp_path / "bundle")


def test_a_real_mamba_2_is_refused(tmp_path: Path) -> None:
    config = transformers.Mamba2Config(
        hidden_size=32, num_hidden_layers=1, vocab_size=98, num_heads=8, head_dim=8, state_size=8, n_groups=1
    )
    save_hugging_face(tmp_path / "two", transformers.Mamba2ForCausalLM(config))
    with pytest.raises(BundleError, match="only Mamba-1"):
        import_checkpoint(tmp_path / "two", tmp_path / "bundle")


@pytest.mark.parametrize("config", [None, "", "[]", "{}", '{"d_model": 3}', "[" * 100_000], ids=range(6))
def test_a_folder_without_a_model_is_refused(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config, "utf-8")
    with pytest.raises(BundleError):
        import_checkpoint(tmp_path, tmp_path / "bundle")


def test_weights_must_be_there_finite_and_where_the_index_says(tmp_path: Path) -> None:
    made = model()
    source = save_hugging_face(tmp_path / "hf", made)
    (source / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"neither model\.safetensors nor"):
        import_checkpoint(source, tmp_path / "bundle")
    (source / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="not a safetensors file"):
        import_checkpoint(source, tmp_path / "bundle")
    (source / "model.safetensors").unlink()
    (source / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../elsewhere"}}', "utf-8")
    with pytest.raises(BundleError, match="plain file names"):
        import_checkpoint(source, tmp_path / "bundle")
    with torch.no_grad():
        made.backbone.norm_f.weight[3] = float("nan")
    with pytest.raises(BundleError, match="NaN"):
        import_checkpoint(save_hugging_face(tmp_path / "nan", made), tmp_path / "bundle", bits=32)


@pytest.mark.parametrize("kind", ["state-spaces", "mamba"])
def test_sizes_of_thousands_of_digits_are_refused(tmp_path: Path, kind: str) -> None:
    """They overflowed a float, or made a product too long to be shown."""
    size = 10**4000
    sizes = {"d_model": size, "n_layer": 1, "vocab_size": 5}
    if kind == "mamba":
        sizes = {"model_type": "mamba", "hidden_size": size, "expand": size, "intermediate_size": 5}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    (tmp_path / "model.safetensors").write_bytes(write_header([("a", "F32", (1,))], {}) + bytes(4))
    with pytest.raises(BundleError):
        import_checkpoint(tmp_path, tmp_path / "made")
