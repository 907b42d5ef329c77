"""Training: phases of a recipe over packed rows, on one GPU, several, or a CPU; stops and resumes."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from npc_runtime.errors import NpcError
from npc_runtime.model.mamba import Mamba
from npc_runtime.training.batches import Batches
from npc_runtime.training.checkpoint import NAME, Place, read_checkpoint, write_checkpoint
from npc_runtime.training.loss import character_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

    from npc_runtime.training.batches import Batch, Material
    from npc_runtime.training.recipe import Phase, Recipe

LOG_STEPS = 20
"""Steps between looks at the loss (each look waits for the GPU), the clock and lines of progress."""

BETAS = (0.9, 0.95)


class TrainingStopped(NpcError):
    """Training cannot go on; the last good checkpoint stands."""

    code = "training_stopped"
    hint = "Resume from the last checkpoint with a lower learning rate, or with other data"


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a run computes: this process's device, its number among `world` processes, and data workers."""

    device: torch.device
    rank: int = 0
    world: int = 1
    workers: int = 0


def make_optimizer(model: torch.nn.Module, decay: float, device: torch.device) -> torch.optim.AdamW:
    """AdamW that decays the projections and the embedding: A_log, D, norms, biases and convolutions are left alone."""
    decayed: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, weight in model.named_parameters():
        matrix = name.endswith(("in_proj.weight", "x_proj.weight", "out_proj.weight", "embedding.weight"))
        (decayed if matrix else rest).append(weight)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=device.type == "cuda")


def rate_at(phase: Phase, share: float, step: int) -> float:
    """The learning rate after a `share` of the phase: a cosine from its first to its second value, after warm-up."""
    first, last = phase.rate
    rate = last + (first - last) * (1 + math.cos(math.pi * min(1.0, share))) / 2
    return rate * min(1.0, (step + 1) / phase.warmup) if phase.warmup else rate


class Run:
    """One training run in a folder: takes up where its last checkpoint left off, else begins at `start`."""

    def __init__(
        self,
        recipe: Recipe,
        material: Material,
        out: Path,
        at: Workplace,
        say: Callable[[str], None] = print,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.recipe, self.material, self.out, self.at, self._say = recipe, material, out, at, say
        torch.manual_seed(recipe.seed)
        self.model = Mamba(recipe.model).to(at.device)
        self.optimizer = make_optimizer(self.model, recipe.weight_decay, at.device)
        self.place = Place()
        if start is not None:
            self.model.load_state_dict(start)
            while self.phase.fresh and self.place.phase < len(recipe.phases):
                self.place.phase += 1
        if os.path.exists(out / NAME):
            self.place = read_checkpoint(out, recipe, self.model, self.optimizer)
            self._tell(
                f"resumed in phase {self.place.phase} at step {self.place.step}, {self.place.tokens} tokens read"
            )

    @property
    def phase(self) -> Phase:
        """The phase under way; the last one when the recipe is finished."""
        return self.recipe.phases[min(self.place.phase, len(self.recipe.phases) - 1)]

    def go(
        self,
        seconds: float = math.inf,
        every: float = 120.0,
        between: Callable[[Run], None] | None = None,
    ) -> bool:
        """Trains for at most `seconds`; True when the recipe is finished.

        Saves every `every` seconds and at the end, then calls `between` (on the first process only).
        Raises TrainingStopped on a loss that is not finite; the last checkpoint stands.
        """
        self._deadline, self._every, self._between = time.monotonic() + seconds, every, between
        while self.place.phase < len(self.recipe.phases):
            if not self._train_phase():
                self._save()
                return False
            self.place = Place(self.place.phase + 1, 0, 0.0, self.place.tokens)
            self._save()
        return True

    def _train_phase(self) -> bool:
        """Trains the phase under way to its end (True) or to the deadline (False)."""
        phase, at = self.phase, self.at
        self.model.quantize_weights(phase.bits or None)
        self.model.dropout = phase.dropout
        made = Batches(
            self.material,
            phase,
            self.recipe.seed,
            start=self.place.step,
            rank=at.rank,
            world=at.world,
            workers=at.workers,
        )
        with closing(made) as batches:
            return self._train(phase, iter(batches))

    def _train(self, phase: Phase, batches: Iterable[Batch]) -> bool:
        losses: list[Tensor] = []
        self._tick = self._saved = time.monotonic()
        over = phase.steps and self.place.step >= phase.steps
        while not over:
            batch = next(batches)  # type: ignore[call-overload]  # an iterator that never ends
            losses.append(self._step(phase, batch))
            self.place.step += 1
            self.place.tokens += batch.tokens[:, 1:].size * self.at.world
            over = phase.steps and self.place.step >= phase.steps
            if over or self.place.step % LOG_STEPS == 0:
                self._look(phase, losses, batch.tokens[:, 1:].size * len(losses) * self.at.world)
                losses.clear()
                over = over or self._share(phase) >= 1
                if not over and self._late:
                    return False
                if not over and self._due:
                    self._save()
        return True

    def _share(self, phase: Phase) -> float:
        return self.place.step / phase.steps if phase.steps else self.place.seconds / (60 * phase.minutes)

    def _step(self, phase: Phase, batch: Batch) -> Tensor:
        rate = rate_at(phase, self._share(phase), self.place.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if phase.dropout:  # what is dropped depends on the step alone, so that a resumed run drops the same
            torch.manual_seed(hash((self.recipe.seed, self.place.phase, self.place.step, self.at.rank)))
        self.optimizer.zero_grad(set_to_none=True)
        loss = character_loss(self.model, batch, self.at.device)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.at.world > 1:
            _average_gradients(self.model, self.at.world)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        return loss.detach()

    def _look(self, phase: Phase, losses: list[Tensor], tokens: int) -> None:
        """Waits for the GPU, refuses a loss that is not finite, and tells of progress."""
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise TrainingStopped(f"the loss of phase `{phase.name}` is {loss} at step {self.place.step}")
        now = time.monotonic()
        taken, self._tick = now - self._tick, now
        clock = (self.place.seconds + taken, float(now > self._deadline), float(now - self._saved > self._every))
        self.place.seconds, self._late, self._due = self._agreed(clock)
        record = {
            "phase": phase.name,
            "step": self.place.step,
            "loss": round(loss, 4),
            "tokens": self.place.tokens,
            "tokens_per_s": round(tokens / max(taken, 1e-9)),
            "rate": float(f"{self.optimizer.param_groups[0]['lr']:.3g}"),
            "seconds": round(self.place.seconds, 1),
        }
        if self.at.device.type == "cuda":
            record["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        self._tell(json.dumps(record))

    def _agreed(self, clock: tuple[float, float, float]) -> tuple[float, float, float]:
        """The first process's clock, so that all save and end a phase at the same step."""
        if self.at.world == 1:
            return clock
        told = torch.tensor(clock, dtype=torch.float64, device=self.at.device)
        torch.distributed.broadcast(told, 0)
        seconds, late, due = told.tolist()
        return seconds, late, due

    def _save(self) -> None:
        if self.at.rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            write_checkpoint(self.out, self.recipe, self.model, self.optimizer, self.place)
            if self._between is not None:
                self.model.eval()
                self._between(self)
                self.model.train()
        if self.at.world > 1:
            torch.distributed.barrier()
        self._tick = self._saved = time.monotonic()  # saving is not training: the phase's clock stands still

    def _tell(self, text: str) -> None:
        if self.at.rank == 0:
            self._say(text)


def _average_gradients(model: torch.nn.Module, world: int) -> None:
    """One message for all gradients: NCCL's cost is in the number of messages."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()
