"""`python -m npc_runtime.training RECIPE --data DIR --out DIR`: trains, looks in on itself, and gives results away."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from npc_runtime.bundle import Bundle
from npc_runtime.errors import NpcError
from npc_runtime.evaluation.perplexity import perplexity
from npc_runtime.evaluation.report import Exam, Sheet, Size, evaluate
from npc_runtime.evaluation.torch_rows import TorchRows
from npc_runtime.training.batches import read_material
from npc_runtime.training.checkpoint import bundle_weights
from npc_runtime.training.export import export
from npc_runtime.training.give import give_weights, split
from npc_runtime.training.memory import check_memory
from npc_runtime.training.prepare import TOKENIZER
from npc_runtime.training.recipe import read_recipe
from npc_runtime.training.train import Run, Workplace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.training.batches import Material

GLANCE = Size(probes=40, gaps=(1, 20), scenes=24, conversations=0, turns=0)
BRIEF = Size(probes=200, gaps=(20,), scenes=132, conversations=0, turns=0)
FULL = Size(probes=200, gaps=(5, 20, 50, 100, 300), scenes=132, conversations=0, turns=0)


class Watch:
    """Looks in on a run: the loss of scenes it never reads, and between its phases a few figures and conversations.

    Also gives the weights away, each time.
    """

    def __init__(self, material: Material, give: Path | None, exams: bool = True) -> None:
        self._exam = Exam(material.unseen_scenes, material.cards, material.unseen_cards)
        self._tokenizer, self._give = material.tokenizer, give
        self.exams, self._seen = exams, -1

    def __call__(self, run: Run) -> None:
        """The perplexity each time; the figures when a phase has ended."""
        if self._give is not None:
            give_weights(run.model.state_dict(), self._give)
        found = perplexity(TorchRows(run.model), self._tokenizer, self._exam.scenes)
        told = {"phase": run.phase.name, "step": run.place.step, "held_out_perplexity": round(found.per_token, 2)}
        print(json.dumps(told), flush=True)
        if self.exams and run.place.phase != self._seen and run.place.step == 0:
            self._seen = run.place.phase
            started = time.monotonic()
            sheet = self.examine(run, GLANCE)
            print(f"after phase {run.place.phase}, looked in for {time.monotonic() - started:.1f} s", flush=True)
            print(sheet.samples, flush=True)

    def examine(self, run: Run, size: Size) -> Sheet:
        """The sheet of the model as it stands."""
        sheet = Sheet()
        for line in evaluate(TorchRows(run.model), self._tokenizer, self._exam, size, sheet):
            print(line, flush=True)
        if self._give is not None:
            bits = run.model.quantization[0] if run.model.quantization else 16
            (self._give / f"sheet-{bits}.json").write_text(
                json.dumps({"figures": sheet.figures, "examples": sheet.examples}, indent=1), "utf-8"
            )
            (self._give / "samples.txt").write_text(sheet.samples, "utf-8")
        return sheet


def finish(run: Run, watch: Watch, data: Path, give: Path | None) -> None:
    """The 4-bit Bundle first, so that nothing that happens later can lose it; then the sheets at 4, 8 and 16 bits."""
    weights, config = run.model.state_dict(), run.recipe.model
    bundle = export(weights, config, data / TOKENIZER, run.out / "bundle", bits=4, card="See the project.\n")
    if give is not None:
        split(bundle.weights_path.read_bytes(), give, "weights.safetensors")
    for bits, size in ((4, FULL), (8, BRIEF), (None, BRIEF)) if watch.exams else ():
        run.model.quantize_weights(bits)
        print(f"weights at {bits or 16} bits", flush=True)
        print(watch.examine(run, size).text(), flush=True)


def workplace(workers: int) -> Workplace:
    """The device of this process, and its place among those that torchrun started."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if not torch.cuda.is_available():
        if world > 1:
            torch.distributed.init_process_group("gloo")
        return Workplace(torch.device("cpu"), rank, world, workers)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = True
    if world > 1:
        torch.distributed.init_process_group("nccl", device_id=device)
    return Workplace(device, rank, world, workers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when the recipe is finished, 3 when time ran out and the run can be resumed."""
    parser = argparse.ArgumentParser(prog="python -m npc_runtime.training", description="Train a model by a recipe")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a folder packed by npc_runtime.training.prepare")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoints are kept and found again")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop and save after so long")
    parser.add_argument("--every", type=float, default=120.0, help="seconds between checkpoints")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches, for each GPU")
    parser.add_argument("--warm-start", type=Path, help="the Bundle to begin from, as deep or shallower")
    parser.add_argument("--no-exams", action="store_true", help="train and export only; examine elsewhere")
    parser.add_argument("--give", type=Path, help="a folder for weights in parts, figures and samples")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        recipe = read_recipe(options.recipe)
        material = read_material(options.data, recipe)
        at = workplace(options.workers)
        check_memory(recipe, at.world, at.device)
        tokenizer = options.data / TOKENIZER
        start = options.warm_start and bundle_weights(Bundle.load(options.warm_start), recipe, tokenizer)
        run = Run(recipe, material, options.out, at, lambda text: print(text, flush=True), start)
        watch = Watch(material, options.give, not options.no_exams)
        print(f"ready after {time.monotonic() - started:.1f} s", flush=True)
        done = run.go(options.seconds - (time.monotonic() - started), options.every, watch)
        if done and at.rank == 0:
            run.model.eval()
            finish(run, watch, options.data, options.give)
    except NpcError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    if at.world > 1:
        torch.distributed.destroy_process_group()
    return 0 if done else 3


if __name__ == "__main__":
    sys.exit(main())
