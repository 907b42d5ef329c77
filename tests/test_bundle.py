"""The Bundle: what is written is what is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sentencepiece
from safetensors import safe_open

from npc_runtime import bundle as bundle_module
from npc_runtime.bundle import Bundle, bundle_names, default_bundle_path, find_bundle, write_bundle
from npc_runtime.errors import BundleError
from npc_runtime.importer import import_checkpoint
from npc_runtime.model.config import ModelConfig
from npc_runtime.sampling import Sampling
from npc_runtime.state import StateSpec
from npc_runtime.tokenizer import CONTROL
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = ModelConfig(d_model=48, n_layer=2, vocab_size=300)


def weights(config: ModelConfig, tied: bool = True, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in dense_shapes(config, tied).items()}


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["the smith keeps the gate key", "who goes there at night"] * 20),
        model_prefix=str(prefix),
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        control_symbols=list(CONTROL),
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


@pytest.fixture
def make(tmp_path: Path, tokenizer_path: Path) -> Any:
    def made(bits: int = 8, tied: bool = True, **more: Any) -> Bundle:
        values = {"path": tmp_path / "small", "name": "small", "config": CONFIG, "bits": bits}
        values |= {"tensors": weights(CONFIG, tied), "tokenizer_path": tokenizer_path, "layout": "control-1"}
        return write_bundle(**values | {"license": "MIT", "card": "# Small\n", "version": "3"} | more)

    return made


def describe(folder: Path, change: Any, files: tuple[str, ...] = ()) -> None:
    """Edits bundle.json, and fits the claims on `files` to what lies there."""
    path = folder / "bundle.json"
    values = json.loads(path.read_text("utf-8"))
    change(values)
    for name in files:
        data = (folder / name).read_bytes()
        values["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(values), "utf-8")


def rewrite_header(folder: Path, change: Any, tail: bytes = b"") -> None:
    """Edits the header of weights.safetensors and makes bundle.json agree with the result."""
    path = folder / "weights.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :] + tail)
    describe(folder, lambda _: None, ("weights.safetensors",))


def test_reads_back_what_was_written(make: Any, tmp_path: Path) -> None:
    bundle = make(sampling=Sampling(temperature=0.5))
    assert (bundle.name, bundle.version, bundle.license, bundle.layout) == ("small", "3", "MIT", "control-1")
    assert (bundle.bits, bundle.block, bundle.config) == (8, 32, CONFIG)
    assert bundle.sampling == Sampling(temperature=0.5)
    assert bundle.spec == StateSpec(n_layer=2, d_inner=96, d_state=16, d_conv=4)
    assert bundle.path == tmp_path / "small"
    assert bundle.tokenizer.control("<npc>") is not None
    described = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":"))
    assert bundle.hash == hashlib.sha256(canonical.encode()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_32_bits_keep_every_bit(make: Any, tied: bool) -> None:
    bundle, source = make(bits=32, tied=tied), weights(CONFIG, tied)
    assert bundle.tied is tied
    for name, values in source.items():
        assert bundle.dense(name).tobytes() == values.tobytes()
    assert np.array_equal(bundle.dense("head"), source["embedding" if tied else "head"])


@pytest.mark.parametrize(("bits", "bound"), [(16, 2**-8), (8, 1 / 128), (4, 1 / 8)])
def test_fewer_bits_stay_within_half_a_step_of_the_largest_value(make: Any, bits: int, bound: float) -> None:
    bundle, source = make(bits=bits), weights(CONFIG)
    for name, values in source.items():
        dense = bundle.dense(name)
        assert dense.dtype == np.float32
        assert dense.shape == values.shape
        if name.rpartition(".")[2] in ("in_proj", "x_proj", "out_proj", "embedding"):
            assert np.abs(dense - values).max() <= bound * np.abs(values).max()
        else:
            assert np.array_equal(dense, values)


def test_4_bits_keep_the_embedding_at_8_and_store_an_output_matrix(make: Any) -> None:
    entries = make(bits=4).offsets()
    assert entries["embedding"][2:] == ("U8", (300, 2, 32))
    assert entries["head"][2:] == ("U8", (300, 2, 16))
    assert entries["head.scale"][2:] == ("F32", (300, 2))
    assert entries["layers.0.dt_proj"][2:] == ("F32", (96, 3))


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_offsets_point_at_the_bytes_and_are_aligned(make: Any, bits: int) -> None:
    bundle = make(bits=bits)
    data = bundle.weights_path.read_bytes()
    with safe_open(bundle.weights_path, "np") as library:  # the format's own library agrees with our reader
        assert set(library.keys()) == set(bundle.offsets())
        for name, (offset, nbytes, dtype, shape) in bundle.offsets().items():
            assert data[offset : offset + nbytes] == bundle.tensor(name).tobytes()
            assert tuple(library.get_slice(name).get_shape()) == shape
            assert library.get_slice(name).get_dtype() == dtype
            assert offset % 4 == 0
            assert offset % 64 == 0 or nbytes % 64 != 0


def test_tensors_are_views_that_cannot_be_written(make: Any) -> None:
    raw = make(bits=32).tensor("norm_f")
    assert not raw.flags.writeable
    assert not raw.flags.owndata


def test_tensors_can_be_read_after_their_pages_were_let_go(make: Any) -> None:
    bundle = make()
    before = bundle.tensor("layers.0.in_proj").tobytes()
    bundle.let_go()
    assert bundle.tensor("layers.0.in_proj").tobytes() == before
    assert isinstance(bundle._data.obj, mmap.mmap)  # or else nothing was let go


def test_same_input_gives_the_same_hash(make: Any, tmp_path: Path) -> None:
    assert make().hash == make(path=tmp_path / "again").hash
    assert make().hash != make(version="4").hash


def test_a_changed_byte_anywhere_in_a_file_is_found(make: Any) -> None:
    bundle = make()
    for name in ("weights.safetensors", "tokenizer.model", "CARD.md"):
        path = bundle.path / name
        good = path.read_bytes()
        for at in {0, len(good) // 2, len(good) - 1}:
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            with pytest.raises(BundleError, match=rf"{name}` was changed"):
                Bundle.load(bundle.path)
        path.write_bytes(good[:-1])
        with pytest.raises(BundleError, match=rf"{name}` is truncated"):
            Bundle.load(bundle.path, verify=False)
        path.unlink()
        with pytest.raises(BundleError, match=rf"{name}` is missing"):
            Bundle.load(bundle.path, verify=False)
        path.write_bytes(good)
    assert Bundle.load(bundle.path).hash == bundle.hash


def test_a_folder_without_description_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a Bundle: bundle\.json"):
        Bundle.load(tmp_path)
    with pytest.raises(BundleError, match="is not a Bundle"):
        Bundle.load(tmp_path / "nowhere")


DESCRIPTION_FAULTS: dict[str, tuple[Any, str]] = {
    "format of the future": (lambda v: v.update(format=2), "must have `format` 1, got 2"),
    "no format": (lambda v: v.pop("format"), "must have `format` 1, got None"),
    "layout": (lambda v: v.update(layout="control-9"), "`layout` .* must be one of control-1, plain"),
    "bits": (lambda v: v["weights"].update(bits=5), "`bits` .* must be one of 4, 8, 16, 32"),
    "bits as truth": (lambda v: v["weights"].update(bits=True), "`bits`"),
    "block": (lambda v: v["weights"].update(block=0), "`block`"),
    "no model": (lambda v: v.pop("model"), "model` must be a table"),
    "huge model": (lambda v: v["model"].update(d_model=10**400), "`d_model` .* whole number from 1 to"),
    "negative": (lambda v: v["model"].update(n_layer=-1), "`n_layer`"),
    "fraction": (lambda v: v["model"].update(d_state=1.5), "`d_state`"),
    "no convolution": (lambda v: v["model"].update(d_conv=1), "`d_conv`"),
    "eps": (lambda v: v["model"].update(norm_eps=0), "`norm_eps`"),
    "new size": (lambda v: v["model"].update(d_heads=3), "`d_heads` .* is unknown"),
    "sampling": (lambda v: v.update(sampling={"temperature": "hot"}), "`temperature`"),
    "sampling key": (lambda v: v.update(sampling={"heat": 1}), "`heat` .* is unknown"),
    "name": (lambda v: v.update(name="../up"), "`name`"),
    "licence": (lambda v: v.update(license=""), "`license`"),
    "tokenizer": (lambda v: v.update(tokenizer="../../secrets"), "`tokenizer`"),
    "file up": (lambda v: v["files"].update({"../x": {}}), "names '../x', which is not a plain name"),
    "file absolute": (lambda v: v["files"].update({"/x": {}}), "names '/x'"),
    "file drive": (lambda v: v["files"].update({"C:x": {}}), "names 'C:x'"),
    "file itself": (lambda v: v["files"].update({"bundle.json": {}}), "names 'bundle.json'"),
    "no weights": (lambda v: v["files"].pop("weights.safetensors"), "must name `weights.safetensors`"),
    "no hash": (lambda v: v["files"]["CARD.md"].pop("sha256"), "`sha256`"),
    "size": (lambda v: v["files"]["CARD.md"].update(bytes="3"), "`bytes`"),
}


@pytest.mark.parametrize(("change", "text"), DESCRIPTION_FAULTS.values(), ids=DESCRIPTION_FAULTS.keys())
def test_a_wrong_description_is_refused_by_field(make: Any, change: Any, text: str) -> None:
    folder = make().path
    describe(folder, change)
    with pytest.raises(BundleError, match=text):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "JSON object was expected"),
        (b'{"format": 1, "format": 1}', "a key is repeated"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b" " * 70_000, "may hold 65536 bytes"),
    ],
    ids=["empty", "not text", "list", "repeated", "nan", "deep", "long"],
)
def test_a_description_that_is_not_json_is_refused(make: Any, text: bytes, wanted: str) -> None:
    folder = make().path
    (folder / "bundle.json").write_bytes(text)
    with pytest.raises(BundleError, match=wanted):
        Bundle.load(folder)


def change_entry(**values: Any) -> Any:
    return lambda header: header["norm_f"].update(values)


HEADER_FAULTS: dict[str, tuple[Any, str]] = {
    "other tensor": (lambda h: {**{k: v for k, v in h.items() if k != "norm_f"}, "norm_g": h["norm_f"]}, "`norm_f`"),
    "dtype": (change_entry(dtype="I32"), r"`norm_f` .* must be F32 \(48,\), got I32"),
    "unknown dtype": (change_entry(dtype="F7"), "unknown dtype 'F7'"),
    "shape": (change_entry(shape=[6, 8]), r"must be F32 \(48,\), got F32 \(6, 8\)"),
    "more bytes": (change_entry(shape=[49]), "needs 196 bytes"),
    "negative": (change_entry(shape=[-48]), "whole numbers"),
    "fraction": (change_entry(shape=[48.0]), "whole numbers"),
    "truth": (change_entry(shape=[True]), "whole numbers"),
    "dimensions": (change_entry(shape=[1] * 9), "whole numbers"),
    "elsewhere": (change_entry(data_offsets=[0, 192]), "must begin at byte"),
    "far": (change_entry(data_offsets=[2**40, 2**40 + 192]), "must begin at byte"),
    "farther": (change_entry(data_offsets=[2**70, 2**70 + 192]), "needs whole numbers"),
    "no dtype": (lambda h: h["norm_f"].pop("dtype") and None, "must have dtype"),
    "not a table": (lambda h: h.update(norm_f=3), "must have dtype"),
    "metadata": (lambda h: h.update(__metadata__={"a": 1}), "must map text to text"),
}


@pytest.mark.parametrize(("change", "text"), HEADER_FAULTS.values(), ids=HEADER_FAULTS.keys())
def test_weights_other_than_the_model_needs_are_refused(make: Any, change: Any, text: str) -> None:
    folder = make().path
    rewrite_header(folder, change)
    with pytest.raises(BundleError, match=text):
        Bundle.load(folder, verify=False)


def test_weights_of_other_length_are_refused(make: Any) -> None:
    folder = make().path
    rewrite_header(folder, lambda _: None, tail=b"\0" * 64)
    with pytest.raises(BundleError, match="the tensors end at byte"):
        Bundle.load(folder)


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_no_container_are_refused(make: Any, data: bytes) -> None:
    folder = make().path
    (folder / "weights.safetensors").write_bytes(data)
    describe(folder, lambda _: None, ("weights.safetensors",))
    with pytest.raises(BundleError, match=r"weights\.safetensors` (is not a safetensors file|cannot be read)"):
        Bundle.load(folder)


@pytest.mark.parametrize(("bits", "name"), [(32, "embedding"), (16, "embedding"), (4, "head.scale"), (8, "norm_f")])
@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=["nan", "inf"])
def test_values_that_are_not_finite_are_refused(make: Any, bits: int, name: str, bad: float) -> None:
    bundle = make(bits=bits)
    entry = bundle.offsets()[name]
    data = bytearray(bundle.weights_path.read_bytes())
    item = np.float32(bad).tobytes()[2 if entry.dtype == "BF16" else 0 :]
    data[entry.offset : entry.offset + len(item)] = item
    bundle.weights_path.unlink()  # the old file stays mapped
    bundle.weights_path.write_bytes(bytes(data))
    describe(bundle.path, lambda _: None, ("weights.safetensors",))
    with pytest.raises(BundleError, match=rf"`{name}` .* holds NaN or infinity"):
        Bundle.load(bundle.path)


def test_a_vocabulary_larger_than_the_model_is_refused(make: Any) -> None:
    config = ModelConfig(d_model=48, n_layer=1, vocab_size=8)
    bundle = make(config=config, tensors=weights(config))
    with pytest.raises(BundleError, match="the model only 8"):
        _ = bundle.tokenizer


def test_padding_rows_are_never_spoken(make: Any) -> None:
    config = ModelConfig(d_model=16, n_layer=1, vocab_size=310)
    tokenizer = make(config=config, tensors=weights(config)).tokenizer
    assert tokenizer.vocab_size <= 300
    assert set(range(tokenizer.vocab_size, 310)) < tokenizer.special


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "nan", "bits"])
def test_wrong_weights_are_not_written(make: Any, tmp_path: Path, fault: str) -> None:
    make()
    before = {path: path.read_bytes() for path in (tmp_path / "small").iterdir()}
    tensors, bits = weights(CONFIG), 8
    if fault == "missing":
        del tensors["norm_f"]
    elif fault == "extra":
        tensors["bias"] = tensors["norm_f"]
    elif fault == "shape":
        tensors["norm_f"] = tensors["norm_f"][:-1]
    elif fault == "nan":
        tensors["layers.1.out_proj"][3, 5] = np.nan
    else:
        bits = 3
    with pytest.raises(BundleError):
        make(tensors=tensors, bits=bits)
    assert {path: path.read_bytes() for path in (tmp_path / "small").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_bundle_is_replaced_and_another_folder_is_not(make: Any, tmp_path: Path) -> None:
    make(version="1")
    assert make(version="2").version == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    (tmp_path / "novel").mkdir()
    (tmp_path / "novel" / "chapter.txt").write_text("once", "utf-8")
    with pytest.raises(BundleError, match="exists and is not a Bundle"):
        make(path=tmp_path / "novel")
    assert (tmp_path / "novel" / "chapter.txt").read_text("utf-8") == "once"


def test_a_failed_rename_leaves_the_older_bundle(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = make(version="1").hash
    rename = bundle_module.Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target.name == "small" and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(bundle_module.Path, "rename", failing)
    with pytest.raises(BundleError, match="No space left"):
        make(version="2")
    assert Bundle.load(tmp_path / "small").hash == older
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_bundles_are_found_by_path_name_and_environment(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path=tmp_path / "shipped" / "default")
    make(path=tmp_path / "shipped" / "bard")
    monkeypatch.setattr(bundle_module, "_shipped", lambda: tmp_path / "shipped")
    monkeypatch.delenv("NPC_RUNTIME_BUNDLE", raising=False)
    assert bundle_names() == ["bard", "default"]
    assert default_bundle_path() == tmp_path / "shipped" / "default"
    assert find_bundle("bard") == tmp_path / "shipped" / "bard"
    assert find_bundle(str(tmp_path / "shipped" / "bard")) == tmp_path / "shipped" / "bard"
    monkeypatch.setenv("NPC_RUNTIME_BUNDLE", "bard")
    assert default_bundle_path() == tmp_path / "shipped" / "bard"
    with pytest.raises(BundleError, match=r"no Bundle `ghost`.*shipped: bard, default"):
        find_bundle("ghost")
    with pytest.raises(BundleError, match=r"no Bundle `gh\\0st`"):  # a terminal would show the character as a space
        find_bundle("gh\0st")
    with pytest.raises(BundleError, match="embedded null byte"):
        Bundle.load("gh\0st")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name in ("bundle.json", "config.json"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(BundleError, match="must be a plain file"):
        Bundle.load(tmp_path)
    with pytest.raises(BundleError, match="must be a plain file"):
        import_checkpoint(tmp_path, tmp_path / "made")
