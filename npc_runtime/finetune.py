"""Fine-tuning: a Bundle learns the tone of a studio's own scenes, and goes on practising what its memory must do."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from npc_runtime.errors import ConfigError
from npc_runtime.evaluation.perplexity import Perplexity, perplexity
from npc_runtime.evaluation.recall import Share, recall
from npc_runtime.evaluation.talk import Talker
from npc_runtime.evaluation.torch_rows import TorchRows
from npc_runtime.model.mamba import Mamba
from npc_runtime.tokenizer import SentencePieceTokenizer
from npc_runtime.training.batches import GRAMMARS, LORE, Material
from npc_runtime.training.corpus import own_scenes, read_scenes
from npc_runtime.training.drills import Drills
from npc_runtime.training.export import export, torch_weights
from npc_runtime.training.memory import check_memory
from npc_runtime.training.recipe import Phase, Recipe
from npc_runtime.training.render import Renderer
from npc_runtime.training.shards import make_shard
from npc_runtime.training.templates import own_deck
from npc_runtime.training.train import Run
from npc_runtime.training.vary import Renamer
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from npc_runtime.bundle import Bundle
    from npc_runtime.training.corpus import Scene
    from npc_runtime.training.train import Workplace

HELD_OUT = 6
"""One scene in so many is not learned but measured with."""
MIX = {"scenes": 0.5, "drills": 0.35, "dialogues": 0.15}
"""Half the studio's scenes; the rest keeps memory and talk at large alive."""
PASSES = 6
"""Times that each scene is read, its names changed."""
LENGTH, ROWS = 512, 2
RATE = (1.2e-4, 1e-5)
"""Small steps and many of them: 24 of 8 rows of 1024 at 4e-4 took 16 % from a script's perplexity, 120 of these 20 %.
At 4e-4 as many as these made a script whose kind the model knew 13 % worse."""
LEAST_STEPS = 24
PROBES, GAP = 60, 5
CPU_PROBES, CPU_UNSEEN = 20, 12
"""Questions and held-out scenes to measure with on a CPU, where all of them would take minutes."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A Bundle before and after: held-out scenes of the studio, and told facts given back after GAP exchanges."""

    bundle: Bundle
    before: Perplexity
    recall_before: Share
    after: Perplexity
    recall_after: Share

    def __str__(self) -> str:
        was, now = self.before.per_token, self.after.per_token
        return (
            f"Held-out scenes: perplexity {was:.1f} before, {now:.1f} after ({100 * (now / was - 1):+.0f} %). "
            f"Told facts after {GAP} exchanges: {self.recall_before.percent:.0f} % before, "
            f"{self.recall_after.percent:.0f} % after."
        )


def finetune(
    bundle: Bundle,
    folder: Path,
    out: Path,
    at: Workplace,
    say: Callable[[str], None] = print,
    seconds: float = math.inf,
) -> Tuned | None:
    """Writes `out/NAME-tuned` from the `.talk` scenes of `folder`; None when `seconds` ran out (a later call goes on).

    Measuring before the first step counts as well.
    Raises CorpusError naming file and line where a scene is malformed, ConfigError where this Bundle cannot learn.
    """
    begun = time.monotonic()
    scenes, unseen = split_script(read_scenes(folder))
    if on_cpu := at.device.type == "cpu":
        unseen = unseen[:CPU_UNSEEN]
    probes = min(PROBES, CPU_PROBES) if on_cpu else PROBES
    tokenizer = _tokenizer(bundle)
    recipe = make_recipe(bundle, scenes, tokenizer)
    check_memory(recipe, at.world, at.device)
    material = _material(tokenizer, scenes, unseen, recipe)
    say(f"{len(scenes)} scenes to learn, {len(unseen)} to measure with, {recipe.phases[0].steps} steps")
    untuned = _model(bundle, at)
    run = Run(recipe, material, out, at, say, untuned.state_dict())
    say("measuring the Bundle as it is ...")
    before = _measured(untuned, material, probes)
    say(f"measured, after {time.monotonic() - begun:.0f} s")
    if not run.go(seconds - (time.monotonic() - begun)):
        return None
    say("measuring what was learned ...")
    after = _measured(run.model.eval(), material, probes)
    tuned = Tuned(bundle, *before, *after)
    card = f"# {bundle.name}, fine-tuned\n\n{len(scenes)} scenes of a studio's own. {tuned}\n"
    weights = run.model.state_dict()
    place = out / f"{bundle.name}-tuned"
    made = export(weights, bundle.config, bundle.tokenizer_path, place, bits=bundle.bits, card=card)
    return replace(tuned, bundle=made)


def split_script(scenes: Sequence[Scene]) -> tuple[list[Scene], list[Scene]]:
    """(to learn, to measure with): every HELD_OUT-th scene is held out; ConfigError when they are too few."""
    if len(scenes) < HELD_OUT:
        raise ConfigError(f"fine-tuning needs at least {HELD_OUT} scenes, got {len(scenes)}", "Write some more scenes")
    held = range(HELD_OUT - 1, len(scenes), HELD_OUT)
    return [scene for at, scene in enumerate(scenes) if at not in held], [scenes[at] for at in held]


def make_recipe(bundle: Bundle, scenes: Sequence[Scene], tokenizer: SentencePieceTokenizer) -> Recipe:
    """One phase, as long as it takes to read each scene PASSES times."""
    renderer = Renderer(tokenizer)
    tokens = sum(len(renderer.scene(scene)) for scene in scenes)
    steps = max(LEAST_STEPS, math.ceil(tokens * PASSES / (MIX["scenes"] * LENGTH * ROWS)))
    bits = bundle.bits if bundle.bits in (4, 8) else 0
    phase = Phase("script", LENGTH, ROWS, MIX, RATE, steps, warmup=8, facts=3, filler=16, bits=bits, dropout=0.1)
    return Recipe(f"{bundle.name} fine-tuned", bundle.config, (phase,), {}, weight_decay=0.01)


def _tokenizer(bundle: Bundle) -> SentencePieceTokenizer:
    if bundle.layout != "control-1" or bundle.tokenizer_path.suffix != ".model":
        text = f"Bundle `{bundle.name}` has layout `{bundle.layout}` and `{bundle.tokenizer_path.name}`"
        raise ConfigError(f"{text}; fine-tuning needs `control-1` and a SentencePiece model", "Use a Bundle of our own")
    return SentencePieceTokenizer(bundle.tokenizer_path)


def _material(
    tokenizer: SentencePieceTokenizer, scenes: Sequence[Scene], unseen: Sequence[Scene], recipe: Recipe
) -> Material:
    own = own_scenes()
    talk = make_shard("dialogues-own", map(Renderer(tokenizer).scene, own))
    material = Material(tokenizer, (scenes, unseen), own_deck().split(), [talk], recipe)
    world = Renamer([*scenes, *own]).shared(scenes)  # a studio's towns and people stay what they are called
    material.drills = Drills(material.cards, [*scenes, *own], grammars=GRAMMARS, lore=LORE, kept=world)
    return material


def _model(bundle: Bundle, at: Workplace) -> Mamba:
    """The Bundle's weights in the torch model, computing with them rounded as it stores them."""
    model = Mamba(bundle.config).to(at.device)
    model.load_state_dict(torch_weights({name: bundle.dense(name) for name in dense_shapes(bundle.config)}))
    model.quantize_weights(bundle.bits if bundle.bits in (4, 8) else None)
    return model.eval()


def _measured(model: Mamba, material: Material, probes: int) -> tuple[Perplexity, Share]:
    rows = TorchRows(model)
    drills = Drills(material.cards, own_scenes(), unseen=True)
    given, _ = recall(Talker(rows, material.tokenizer), drills, material.cards.player, GAP, probes)
    return perplexity(rows, material.tokenizer, material.unseen_scenes), given
