"""Batches: rows packed with documents, made by worker processes, the same for the same recipe and step."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime.errors import ConfigError
from npc_runtime.tokenizer import SentencePieceTokenizer
from npc_runtime.training.corpus import own_scenes, read_scenes, split_scenes
from npc_runtime.training.drills import Drills, Shape
from npc_runtime.training.grammar import attributes, folk, frames, shop
from npc_runtime.training.prepare import TOKENIZER
from npc_runtime.training.render import Document, Renderer
from npc_runtime.training.shards import SUFFIX, read_shard
from npc_runtime.training.templates import read_deck

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.context import BaseContext
    from pathlib import Path

    from numpy.typing import NDArray

    from npc_runtime.training.cards import Cards
    from npc_runtime.training.corpus import Scene
    from npc_runtime.training.recipe import Phase, Recipe
    from npc_runtime.training.shards import Shard

GRAMMARS = (attributes, attributes, frames)
"""Drawn from with equal chances: what things are is told more often than what happened."""

LORE = (folk.lore, shop.lore)
"""Makers of what a character of a game knows: people and places, goods and prices."""

SHORTEST = 24
"""Tokens below which the rest of a row is padded and no further document is begun."""

_TRIES = 3
_TOKENS_PER_STEP, _LEAST_ROOM = 36, 200
"""Tokens of an exchange, headers included, and of a row's rest below which no drill would fit."""
_WAIT_S = 1.0
_PATIENCE = 180
"""Waits for a batch before its worker counts as stuck: one that hangs must not spend a machine's time."""


@dataclass(frozen=True, slots=True)
class Batch:
    """tokens (B, L + 1) int64; weights (B, L + 1) float32, of each token as a target; seq_idx (B, L + 1) int32."""

    tokens: NDArray[np.int64]
    weights: NDArray[np.float32]
    seq_idx: NDArray[np.int32]


class Material:
    """All the data of a run: scenes and cards to learn from and others to be asked with, and shards of other text."""

    def __init__(
        self,
        tokenizer: SentencePieceTokenizer,
        scenes: tuple[Sequence[Scene], Sequence[Scene]],
        cards: tuple[Cards, Cards],
        shards: Sequence[Shard],
        recipe: Recipe,
    ) -> None:
        self.tokenizer, self.renderer = tokenizer, Renderer(tokenizer)
        self.scenes, self.unseen_scenes = map(list, scenes)
        self.cards, self.unseen_cards = cards
        self.drills = Drills(self.cards, self.scenes, grammars=GRAMMARS, lore=LORE)
        self.prose_weight = recipe.prose_weight
        self._scene_weights = list(accumulate(recipe.sources.get(scene.source, 1.0) for scene in self.scenes))
        weighted = [(shard, recipe.sources.get(shard.name, 1.0)) for shard in shards]
        self._shards = {kind: _weigh(kind, weighted) for kind in ("dialogues", "prose")}

    def row(
        self, phase: Phase, rng: random.Random
    ) -> tuple[NDArray[np.uint16], NDArray[np.float32], NDArray[np.int32]]:
        """One row of L + 1 tokens, their weights as targets, and the number of the document each belongs to."""
        kind = rng.choices(list(phase.mix), list(phase.mix.values()))[0]
        room = phase.length + 1
        parts: list[Document] = []
        while room >= SHORTEST:
            document = self._document(kind, phase, rng, room)
            parts.append(document.cut(room))
            room -= len(parts[-1])
        return _packed(parts, phase.length + 1, self.prose_weight if kind == "prose" else 1.0)

    def _document(self, kind: str, phase: Phase, rng: random.Random, room: int) -> Document:
        if kind == "drills":
            return self._drill(phase, rng, room) or self._document("dialogues", phase, rng, room)
        if kind == "scenes":
            [scene] = rng.choices(self.scenes, cum_weights=self._scene_weights)
            return self.renderer.scene(self.drills.vary(scene, rng))
        shards, shares = self._shards[kind]
        if not shards:
            return self._document("scenes", phase, rng, room)
        shard: Shard = rng.choices(shards, shares)[0]
        return shard.document(rng.randrange(len(shard))) if kind == "dialogues" else shard.excerpt(rng, room)

    def _drill(self, phase: Phase, rng: random.Random, room: int) -> Document | None:
        filler = min(phase.filler, room // _TOKENS_PER_STEP)
        for _ in range(_TRIES if room >= _LEAST_ROOM else 0):
            persona, lines = self.drills.conversation(rng, Shape(phase.facts, filler, phase.plain))
            document = self.renderer.conversation(persona, lines, typed=False)
            if len(document) <= room:
                return document
            filler = filler * room // len(document) * 3 // 4
        return None


def read_material(folder: Path, recipe: Recipe) -> Material:
    """The material of a folder that `prepare` packed, and our own decks and scenes; ConfigError when it is none."""
    if not os.path.isfile(folder / TOKENIZER):
        raise ConfigError(f"`{folder}` is no packed corpus: it lacks `{TOKENIZER}`", "Run npc_runtime.training.prepare")
    tokenizer = SentencePieceTokenizer(folder / TOKENIZER)
    if tokenizer.vocab_size != recipe.model.vocab_size:
        text = f"the tokenizer has {tokenizer.vocab_size} pieces, the recipe's model {recipe.model.vocab_size}"
        raise ConfigError(text)
    learned, _ = split_scenes(read_scenes(folder / "scenes") + own_scenes())
    _, unseen = split_scenes(read_scenes(folder / "scenes"))
    shards = [read_shard(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return Material(tokenizer, (learned, unseen), read_deck(folder / "cards").split(), shards, recipe)


def _weigh(kind: str, weighted: Sequence[tuple[Shard, float]]) -> tuple[list[Shard], list[float]]:
    """Shards of a kind and their shares: by documents for dialogues, by tokens for prose, times their weight."""
    mine = [(shard, weight) for shard, weight in weighted if shard.name.startswith(f"{kind}-") and weight > 0]
    sizes = [len(shard) if kind == "dialogues" else len(shard.tokens) for shard, _ in mine]
    return [shard for shard, _ in mine], [size * weight for size, (_, weight) in zip(sizes, mine, strict=True)]


def _packed(
    parts: Sequence[Document], length: int, weight: float
) -> tuple[NDArray[np.uint16], NDArray[np.float32], NDArray[np.int32]]:
    from npc_runtime.training.render import ONE

    tokens, weights = np.zeros(length, np.uint16), np.zeros(length, np.float32)
    seq_idx = np.full(length, len(parts), np.int32)
    at = 0
    for number, part in enumerate(parts):
        end = at + len(part)
        tokens[at:end] = part.tokens
        weights[at + 1 : end] = part.weights[1:] * np.float32(weight / ONE)  # a document's first token has no past
        seq_idx[at:end] = number
        at = end
    return tokens, weights, seq_idx


def make_batch(material: Material, phase: Phase, seed: int, block: int, rows: int) -> Batch:
    """The `block`-th batch of `rows` rows of a phase: a pure function of its arguments."""
    rng = random.Random(f"{seed}/{phase.name}/{block}")
    made = [material.row(phase, rng) for _ in range(rows)]
    return Batch(
        np.stack([tokens for tokens, _, _ in made]).astype(np.int64),
        np.stack([weights for _, weights, _ in made]),
        np.stack([seq_idx for _, _, seq_idx in made]),
    )


class Batches:
    """Batches of one phase in order, made ahead by `workers` processes (0: made here, when asked for)."""

    def __init__(
        self,
        material: Material,
        phase: Phase,
        seed: int,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        self._material, self._phase, self._seed = material, phase, seed
        self._rank, self._world = rank, world
        self._rows = max(1, phase.rows // world)
        self._next = start
        context: BaseContext = multiprocessing.get_context("fork")
        self._queues: list[Any] = [context.Queue(maxsize=4) for _ in range(workers)]
        self._workers = [
            context.Process(target=self._work, args=(number, start), daemon=True)  # type: ignore[attr-defined]
            for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def _make(self, step: int) -> Batch:
        return make_batch(self._material, self._phase, self._seed, step * self._world + self._rank, self._rows)

    def _work(self, number: int, start: int) -> None:
        step = start + number
        while True:
            batch = self._make(step)
            small = (batch.tokens.astype(np.uint16), batch.weights.astype(np.float16), batch.seq_idx.astype(np.int16))
            self._queues[number].put(small)
            step += len(self._queues)

    def __iter__(self) -> Iterator[Batch]:
        start = self._next
        while True:
            step = self._next
            self._next += 1
            if not self._queues:
                yield self._make(step)
                continue
            number = (step - start) % len(self._queues)
            tokens, weights, seq_idx = self._take(number)
            yield Batch(tokens.astype(np.int64), weights.astype(np.float32), seq_idx.astype(np.int32))

    def _take(self, number: int) -> Any:
        for _ in range(_PATIENCE):
            try:
                return self._queues[number].get(timeout=_WAIT_S)
            except queue.Empty:
                if not self._workers[number].is_alive():
                    raise ConfigError(
                        f"data worker {number} ended; see its error above", "Run with workers = 0"
                    ) from None
        raise ConfigError(
            f"data worker {number} made no batch in {_PATIENCE * _WAIT_S:.0f} s", "Run again: it goes on where it saved"
        )

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.kill()
            worker.join()
        for waiting in self._queues:
            waiting.cancel_join_thread()
            waiting.close()
