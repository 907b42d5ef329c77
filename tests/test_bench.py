"""The benchmark measures what it says, and says nothing before the engines agree."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bundles import CONFIG, ODD, tiny_bundle

from npc_runtime import bench
from npc_runtime.errors import BackendError, BackendUnavailable, BundleError, ConfigError
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from pathlib import Path

    from npc_runtime.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bench"), 8)


def test_a_run_prints_a_table_and_ends_with_json(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(bench.LLAMA_PYTHON, raising=False)
    said: list[str] = []
    found = bench.bench(bundle.path, bits=(4,), rounds=1, say=said.append)
    assert json.loads(said[-1], parse_constant=pytest.fail) == found
    medians = found["4"]["medians"]["onnx"]
    assert set(bench.WORDS) <= set(medians)
    assert all(value > 0 for name, value in medians.items() if not name.startswith("rss"))
    assert medians["prefill_512"] > medians["prefill_128"] > medians["decode"]
    assert any(line.startswith("decode, ms per token") and "0.6" in line for line in said)
    assert found["4"]["logits_error"]["onnx"] < bench.AGREE
    assert not any("nan" in line for line in said)
    assert any(line.split()[-3:-1] == ["-", "-"] for line in said if line.startswith("decode, ms per token"))
    assert any(line.startswith("llama.cpp was not measured: neither `--llama-python` nor") for line in said)


def test_what_a_system_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resident memory, where there is no /proc, made the line of JSON hold NaN, which is not JSON."""
    monkeypatch.setattr(bench, "_resident_mb", lambda pid: None)
    engine = "import sys; print('ready', flush=True); input(); print('{\"decode\": 2.0}', flush=True); input()"
    said: list[str] = []
    found = bench._run([sys.executable, "-c", engine.replace("input()", "sys.stdin.readline()")])
    assert found.keys() == {"ready", "decode"}
    bench._print_table({"onnx": found, "llama": {**found, "rss": 2.0}}, {"onnx": [found]}, 4, said.append)
    rows = {line[:36].strip(): line[36:].split() for line in said}
    assert rows["decode, ms per token"] == ["2.00", "[2.00..2.00]", "-", "1.00", "0.6"]
    assert rows["resident when ready, MB"] == ["-", "-", "-"]


def fake_engine(folder: Path, body: str) -> str:
    """A program that answers as a Python with llama_cpp would be asked."""
    path = folder / "python"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nif sys.argv[1] == '-c':\n    print('0.0')\n    sys.exit()\n{body}\n"
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(os.name == "nt", reason="a script with a shebang stands for the other Python")
def test_an_engine_with_other_logits_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the `gguf` package, of the bench extra, is not installed")
    shape = (bench.CHECKED, CONFIG.vocab_size)
    body = "import numpy\nprint('ready', flush=True)\ninput()\n"
    body += f"numpy.save(sys.argv[3], numpy.zeros({shape}))\nprint('{{}}')"
    with pytest.raises(BackendError, match=r"`llama` is 1\.0.. from the definition"):
        bench.bench(bundle.path, bits=(8,), rounds=1, llama_python=fake_engine(tmp_path, body), say=lambda _: None)


@pytest.mark.skipif(os.name == "nt", reason="a script with a shebang stands for the other Python")
def test_an_engine_that_does_not_start_is_told_of(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the `gguf` package, of the bench extra, is not installed")
    with pytest.raises(BackendError, match="did not start"):
        bench.bench(bundle.path, bits=(8,), rounds=1, llama_python=fake_engine(tmp_path, ""), say=lambda _: None)


def test_a_python_without_llama_cpp_is_told_of(bundle: Bundle) -> None:
    if "llama_cpp" in sys.modules:
        pytest.skip("this Python has llama_cpp")
    with pytest.raises(BackendUnavailable, match="has no llama_cpp"):
        bench.bench(bundle.path, llama_python=sys.executable, say=lambda _: None)


def test_a_python_that_is_not_there_is_told_of() -> None:
    with pytest.raises(ConfigError, match="`/nonexistent` cannot be run"):
        bench.machine("/nonexistent")


def test_without_gguf_it_is_told_what_to_install(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from npc_runtime.gguf_export import export_gguf

    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BackendUnavailable, match="needs the package `gguf`") as caught:
        export_gguf(bundle, tmp_path / "model.gguf", 8)
    assert caught.value.hint.startswith("pip install '.[bench]'")


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_gguf_holds_the_bundles_weights(tmp_path: Path, bits: int, tied: bool) -> None:
    gguf = pytest.importorskip("gguf", reason="the `gguf` package, of the bench extra, is not installed")
    from npc_runtime.gguf_export import GGUF_NAMES, export_gguf

    bundle = tiny_bundle(tmp_path, bits, tied=tied)
    path = tmp_path / "model.gguf"
    export_gguf(bundle, path, bits)
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    names = {"token_embd.weight": "embedding", "output_norm.weight": "norm_f", "output.weight": "head"}
    for i in range(CONFIG.n_layer):
        names |= {f"blk.{i}.{theirs}": f"layers.{i}.{ours}" for ours, theirs in GGUF_NAMES.items()}
    assert found.keys() == names.keys()
    assert {name.rpartition(".")[0] + "." for name in names.values()} == {
        name.rpartition(".")[0] + "." for name in dense_shapes(CONFIG, tied=False)
    }
    for theirs, ours in names.items():
        wanted = bundle.dense(ours)
        wanted = -np.exp(wanted) if ours.endswith("A_log") else wanted
        scale_error = 0 if bits == 32 else 2**-10  # GGUF keeps scales in fp16
        np.testing.assert_allclose(found[theirs].reshape(wanted.shape), wanted, rtol=scale_error, atol=1e-7)


def test_gguf_wants_blocks_of_32(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the `gguf` package, of the bench extra, is not installed")
    from npc_runtime.gguf_export import export_gguf

    class Wide:
        block = 64

    with pytest.raises(BundleError, match="blocks of 32"):
        export_gguf(Wide(), tmp_path / "model.gguf", 4)  # type: ignore[arg-type]


def test_random_weights_have_the_size_asked_for(tmp_path: Path) -> None:
    made = bench.random_bundle(tmp_path / "random", ODD.__class__(d_model=64, n_layer=1, vocab_size=8192))
    assert made.bits == 4
    assert all(np.isfinite(made.dense(name)).all() for name in dense_shapes(made.config))
