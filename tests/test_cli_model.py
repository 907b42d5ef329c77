"""train, evaluate and bench hand on what they were asked and print where they should."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from bundles import tiny_bundle

from npc_runtime import cli, cli_model
from npc_runtime.evaluation import report
from npc_runtime.evaluation.recall import Share

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["npc-runtime", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    monkeypatch.delenv("NPC_RUNTIME_LLAMA_PYTHON", raising=False)
    return called


def test_bench_prints_as_it_measures_and_in_json_only_the_object(run, monkeypatch):
    asked: list[Any] = []

    def bench(path: Any, bits: Any, rounds: Any, llama_python: Any, say: Any) -> dict[str, Any]:
        asked.append((path, bits, rounds, llama_python))
        say("a table")
        return {"found": 1}

    monkeypatch.setattr("npc_runtime.bench.bench", bench)
    assert run("bench") == (0, "a table\n", "")
    assert run("bench", "default", "--bits", 8, "--rounds", 2, "--llama-python", "p", "--json") == (
        0,
        '{"found": 1}\n',
        "a table\n",
    )
    assert asked[0] == (None, (4, 8), 5, None)
    assert (asked[1][0].name, *asked[1][1:]) == ("default", (8,), 2, "p")


def test_bench_of_the_gpu(run, monkeypatch):
    pytest.importorskip("torch")
    asked: list[Any] = []

    def bench(path: Any, parts: Any, say: Any) -> dict[str, Any]:
        asked.append((path, tuple(parts)))
        say("a table")
        return {"found": 1}

    monkeypatch.setattr("npc_runtime.backends.gpu_missing", lambda: "no NVIDIA GPU")
    status, out, err = run("bench", "--backend", "cuda")
    assert (status, out) == (1, "")
    assert err.startswith("error: the cuda backend cannot run here: no NVIDIA GPU")
    monkeypatch.setattr("npc_runtime.backends.gpu_missing", lambda: "")
    monkeypatch.setattr("npc_runtime.bench_cuda.bench_cuda", bench)
    assert run("bench", "--backend", "cuda", "--part", "read", "--json") == (0, '{"found": 1}\n', "a table\n")
    assert asked == [(None, ("read",))]
    for flags in (("--backend", "onxn"), ("--backend", "cuda", "--part", "raed")):
        status, _, err = run("bench", *flags)
        assert (status, "must be" in err) == (1, True)


def test_evaluate_asks_the_bundle_and_prints_its_sheet(run, monkeypatch, tmp_path):
    bundle = tiny_bundle(tmp_path, bits=8)
    asked: list[Any] = []

    def evaluate(rows: Any, tokenizer: Any, exam: Any, size: Any, sheet: Any, seed: int) -> Iterator[str]:
        rows.start([tokenizer.encode("Good evening.")])
        asked.append((exam, size, seed))
        yield sheet.add("told facts", Share(3, 4))
        sheet.samples = "a conversation"

    monkeypatch.setattr(report, "evaluate", evaluate)
    monkeypatch.setattr(cli_model, "_exam", lambda corpus: corpus.name)
    status, out, err = run("evaluate", bundle.path, "--corpus", "c", "--probes", 7, "--gap", 2, "--gap", 9, "--seed", 5)
    assert status == 0
    assert asked == [("c", report.Size(probes=7, gaps=(2, 9), scenes=7, conversations=0), 5)]
    assert "told facts: 3 of 4 (75.0 %)" in err
    assert "75.0 %" in out
    assert out.endswith("\n\na conversation\n")
    told = json.loads(run("evaluate", bundle.path, "--corpus", "c", "--json")[1])
    assert told["hash"] == bundle.hash
    assert told["figures"] == {"told facts": {"right": 3, "of": 4, "percent": 75.0}}


def test_evaluate_names_what_a_corpus_lacks(run, tmp_path):
    bundle = tiny_bundle(tmp_path, bits=8)
    (tmp_path / "scenes").mkdir()
    status, _, err = run("evaluate", bundle.path, "--corpus", tmp_path)
    assert status == 1
    assert err.startswith(f"error: `{tmp_path}` is no corpus: it lacks the folder `cards`\n")


def test_train_refuses_a_recipe_that_is_none_and_names_the_shipped_ones(run, tmp_path):
    status, _, err = run("train", "nope", "--data", tmp_path, "--out", tmp_path)
    assert status == 1
    assert err.startswith("error: there is no recipe `nope`: neither a file nor a shipped one (")
    assert "default" in err


def test_train_without_torch_says_what_to_install(run, monkeypatch, tmp_path):
    monkeypatch.setattr(cli_model.util, "find_spec", lambda name: None)
    status, _, err = run("train", "--data", tmp_path, "--out", tmp_path)
    assert status == 1
    assert "hint: pip install '.[train]' in the folder of npc-runtime's source" in err


def test_train_begins_with_one_bundle_only(run, tmp_path):
    status, _, err = run("train", "--from", "default", "--warm-start", "default", "--data", tmp_path, "--out", tmp_path)
    assert status == 1
    assert err.startswith("error: --from and --warm-start each name the Bundle to begin with\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "default", "--data", "{long}", "--out", "{here}"),
        ("--corpus", "{long}", "--data", "{here}", "--out", "{here}"),
        ("--data", "{long}", "--out", "{here}"),
        ("--from", "default", "--data", "{here}", "--out", "{long}"),
    ],
)
def test_a_folder_that_cannot_be_is_refused_before_any_work(run, tmp_path, arguments):
    pytest.importorskip("torch")
    status, _, err = run("train", *(text.format(long="x" * 300, here=tmp_path) for text in arguments))
    assert status == 1
    assert "x" * 300 in err
    assert "defect" not in err


def test_train_packs_the_corpus_and_hands_on_its_options(run, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    trained = pytest.importorskip("npc_runtime.training.__main__")
    asked: list[Any] = []

    def prepare(corpus: Any, data: Any) -> Iterator[str]:
        yield f"packed {corpus.name} into {data.name}"

    def main(arguments: list[str]) -> int:
        asked.append(arguments)
        return 3

    monkeypatch.setattr("npc_runtime.training.prepare.prepare", prepare)
    monkeypatch.setattr(trained, "main", main)
    out = tmp_path / "out"
    call = [
        "train",
        "--corpus",
        "texts",
        "--data",
        tmp_path / "packed",
        "--out",
        out,
        "--seconds",
        "9",
        "--workers",
        "2",
    ]
    assert run(*call) == (3, "", "packed texts into packed\n")
    [arguments] = asked
    assert arguments[0].endswith("default.toml")
    assert arguments[1:] == [
        "--data", str(tmp_path / "packed"), "--out", str(out), "--seconds", "9.0", "--every", "120.0", "--workers", "2",
    ]  # fmt: skip
