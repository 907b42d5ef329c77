"""`npc-runtime train`, `evaluate` and `bench`: what makes a model and what measures one."""

# No `from __future__ import annotations`: Typer reads the annotations.

import json
import os
import sys
from dataclasses import replace
from functools import partial
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from npc_runtime.errors import BackendUnavailable, ConfigError, install_hint, reason
from npc_runtime.options import BackendOption, BundleArgument, JsonOption, with_limits

if TYPE_CHECKING:
    from npc_runtime.evaluation.report import Exam

_RECIPES = Path(__file__).parent / "training" / "recipes"


def train(
    data: Annotated[Path, typer.Option(help="Folder of packed material; with --from, of your `.talk` scenes.")],
    out: Annotated[Path, typer.Option(help="Folder of checkpoints, found again to go on, and of the Bundle.")],
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or the name of a shipped one.")] = "default",
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Fine-tune this Bundle on your own scenes.", show_default="none"),
    ] = None,
    warm_start: Annotated[
        str | None, typer.Option(help="Begin the recipe from this Bundle's weights.", show_default="fresh weights")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Corpus folder to pack into --data first.", show_default="packed already")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Stop and keep a checkpoint after so long.", show_default="when done")
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 120.0,
    workers: Annotated[int, typer.Option(help="Processes that make batches, for each GPU.")] = 0,
) -> None:
    """Trains a model by a recipe; status 3 when time ran out and the run can go on. Needs `pip install '.[train]'`.

    Example: `npc-runtime train --corpus my_corpus --data packed --out run`

    Example: `npc-runtime train --from default --data my_scenes --out run`
    """
    if from_ is not None and warm_start is not None:
        raise ConfigError("--from and --warm-start each name the Bundle to begin with", "Give one of them")
    if util.find_spec("torch") is None:
        raise BackendUnavailable("training needs torch, which is not installed", install_hint("train"))
    try:  # before anything takes time
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"`--out` {out} cannot be a folder: {reason(error)}") from error
    if from_ is not None:
        raise typer.Exit(_finetune(from_, data, out, float("inf") if seconds is None else seconds, workers))
    path = _recipe(recipe)
    from npc_runtime.bundle import find_bundle
    from npc_runtime.training.__main__ import main as run
    from npc_runtime.training.prepare import prepare

    if corpus is not None:
        for line in prepare(corpus, data):
            print(line, file=sys.stderr, flush=True)
    limit = [] if seconds is None else ["--seconds", str(seconds)]
    often = ["--every", str(every), "--workers", str(workers)]
    begin = [] if warm_start is None else ["--warm-start", str(find_bundle(warm_start))]
    raise typer.Exit(run([str(path), "--data", str(data), "--out", str(out), *limit, *often, *begin]))


def _finetune(bundle: str, data: Path, out: Path, seconds: float, workers: int) -> int:
    """The status that `train` ends with."""
    from npc_runtime.bundle import Bundle, find_bundle
    from npc_runtime.finetune import finetune
    from npc_runtime.training.__main__ import workplace

    tuned = finetune(Bundle.load(find_bundle(bundle)), data, out, workplace(workers), seconds=seconds)
    if tuned is None:
        print("time ran out; run again to go on", file=sys.stderr)
        return 3
    print(f"{tuned}\n{tuned.bundle.path}")
    return 0


def _recipe(name: str) -> Path:
    for path in (Path(name), _RECIPES / f"{name}.toml"):
        if os.path.isfile(path):
            return path
    shipped = ", ".join(sorted(path.stem for path in _RECIPES.glob("*.toml")))
    raise ConfigError(f"there is no recipe `{name:.120}`: neither a file nor a shipped one ({shipped})")


@with_limits
def evaluate(
    limits: dict[str, Any],
    corpus: Annotated[Path, typer.Option(help="Corpus folder that holds `scenes` and `cards`, packed or not.")],
    bundle: BundleArgument = None,
    backend: BackendOption = "auto",
    probes: Annotated[int, typer.Option(help="Questions asked for each figure.", min=1)] = 40,
    gap: Annotated[
        list[int] | None,
        typer.Option(help="Exchanges between a fact and its question; may be repeated.", show_default="1, 5, 20"),
    ] = None,
    conversations: Annotated[int, typer.Option(help="Conversations simulated.", min=0)] = 0,
    trigram: Annotated[bool, typer.Option(help="Hold the perplexity against a trigram of the Bundle's size.")] = False,
    beside: Annotated[
        str | None, typer.Option(help="Another Bundle, whose perplexity is told too.", show_default="none")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which questions are drawn.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Asks a Bundle what it was told, who it is and what it was never told; figures and sample conversations.

    Example: `npc-runtime evaluate --corpus my_corpus --probes 100`
    """
    from npc_runtime.backends import choose
    from npc_runtime.bundle import Bundle, default_bundle_path, find_bundle
    from npc_runtime.config import load_config
    from npc_runtime.evaluation.perplexity import perplexity
    from npc_runtime.evaluation.report import Sheet, Size
    from npc_runtime.evaluation.report import evaluate as ask
    from npc_runtime.evaluation.rows import BackendRows
    from npc_runtime.evaluation.trigram import read_trigram

    found = Bundle.load(default_bundle_path() if bundle is None else find_bundle(bundle))
    gaps = tuple(gap or (1, 5, 20))
    size = Size(probes=probes, gaps=gaps, scenes=probes, conversations=conversations, sampling=found.sampling)
    exam, sheet = _exam(corpus), Sheet()
    if trigram:
        exam = replace(exam, trigram=read_trigram(corpus, found.tokenizer, found.weights_path.stat().st_size))
    computing, reason = choose(backend, found, load_config(None, **limits))
    print(f"{found.name} {found.version}, {reason}", file=sys.stderr)
    for line in ask(BackendRows(computing), found.tokenizer, exam, size, sheet, seed):
        print(line, file=sys.stderr, flush=True)
    if beside is not None:
        other = Bundle.load(find_bundle(beside))
        rows = BackendRows(choose(backend, other, load_config(None, **limits))[0])
        name = f"held-out scenes, {other.name} {other.version}"
        print(sheet.measure(name, perplexity(rows, other.tokenizer, exam.scenes[: size.scenes])), file=sys.stderr)
    if as_json:
        print(json.dumps({"bundle": found.name, "hash": found.hash, "figures": sheet.figures}))
    else:
        print(f"{sheet.text()}\n\n{sheet.samples}")


def _exam(corpus: Path) -> "Exam":
    from npc_runtime.evaluation.report import Exam
    from npc_runtime.training.corpus import read_scenes, split_scenes
    from npc_runtime.training.templates import read_deck

    for part in ("scenes", "cards"):
        if not os.path.isdir(corpus / part):
            raise ConfigError(f"`{corpus}` is no corpus: it lacks the folder `{part}`")
    seen, unseen = read_deck(corpus / "cards").split()
    return Exam(split_scenes(read_scenes(corpus / "scenes"))[1], seen, unseen)


def bench(
    bundle: Annotated[
        str | None,
        typer.Argument(help="A folder, or the name of a shipped Bundle.", show_default="24.5M random weights"),
    ] = None,
    bits: Annotated[
        list[int] | None, typer.Option(help="Weight bits to measure; may be repeated.", show_default="4, 8")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Fresh processes per engine, in turn.", min=1)] = 5,
    llama_python: Annotated[
        str | None,
        typer.Option(
            help="A Python that has llama_cpp, to compare with.", envvar="NPC_RUNTIME_LLAMA_PYTHON", show_default="none"
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="What to measure: `onnx` or `cuda`.")] = "onnx",
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="For cuda: `decode`, `130m`, `read`, `crowd` or `drift`; may be repeated.", show_default="all"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measures the CPU backend: ms per token, reading, 8 Npcs at once, cold start, memory; beside llama.cpp.

    Or the GPU backend: decode by batch, reading, up to 8192 Npcs that talk, bf16 States.

    Example: `npc-runtime bench --bits 4 --rounds 3`
    """
    if backend not in ("onnx", "cuda"):
        raise ConfigError(f"`--backend` must be `onnx` or `cuda`, got {backend!r:.40}")
    if backend == "cuda":
        _bench_cuda(bundle, part, as_json)
        return
    from npc_runtime.bench import bench as measure
    from npc_runtime.bundle import find_bundle

    path = None if bundle is None else find_bundle(bundle)
    say = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    found = measure(path, tuple(bits or (4, 8)), rounds, llama_python, say)
    if as_json:
        print(json.dumps(found))


def _bench_cuda(bundle: str | None, parts: list[str] | None, as_json: bool) -> None:
    from npc_runtime.backends import gpu_missing

    if missing := gpu_missing():
        raise BackendUnavailable(f"the cuda backend cannot run here: {missing}")
    from npc_runtime.bench_cuda import PARTS
    from npc_runtime.bench_cuda import bench_cuda as measure
    from npc_runtime.bundle import find_bundle

    if unknown := set(parts or ()) - set(PARTS):
        raise ConfigError(f"`--part` must be one of {', '.join(PARTS)}, got {min(unknown)!r:.40}")
    say = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    found = measure(None if bundle is None else find_bundle(bundle), parts or PARTS, say=say)
    if as_json:
        print(json.dumps(found))
