"""Training a tokenizer: SentencePiece with the control symbols of prompt layout 1."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING

from npc_runtime.persona import ACTIONS, MOODS
from npc_runtime.prompt import clean, persona_lines
from npc_runtime.tokenizer import CONTROL, SentencePieceTokenizer
from npc_runtime.training.corpus import LEFT_OUT, CorpusError, read_dialogues, read_prose, read_scenes, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from npc_runtime.training.corpus import Scene

HEAD_COPIES = 3000
"""How often each mood and action word is shown, so that each becomes one piece."""


def train_tokenizer(
    lines: Iterable[str], path: Path, vocab_size: int = 8192, threads: int = 2
) -> SentencePieceTokenizer:
    """Trains on `lines`, writes `path` and returns the tokenizer of exactly `vocab_size` pieces.

    Ids: 0 unknown, then CONTROL in order, the newline, 256 bytes, and the learned pieces. No
    normalisation, so that decoding gives back every text without control characters exactly. Nothing is
    written where `lines` raises, whose own error comes out, nor where they do not suffice (CorpusError).
    """
    import sentencepiece

    given, trained = _Given(lines), io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(given),
            model_writer=trained,
            model_type="unigram",
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=True,
            remove_extra_whitespaces=False,
            split_digits=True,
            control_symbols=list(CONTROL),
            user_defined_symbols=["\n"],
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            character_coverage=0.9999,
            num_threads=threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        if given.failure is not None:
            raise given.failure from None
        hint = "Give more text; a few hundred scenes and a few megabytes of dialogues or prose suffice"
        raise CorpusError(
            f"no tokenizer of {vocab_size} pieces can be made of this text: {error!s:.300}", hint
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(trained.getvalue())
    return SentencePieceTokenizer(path)


class _Given:
    """Lines on their way into SentencePiece, which reports whatever they raise as a RuntimeError of its own."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            yield from self._lines
        except Exception as error:
            self.failure = error
            raise


def scene_lines(scene: Scene) -> Iterator[str]:
    """The texts of a scene as the layout will encode them."""
    yield from persona_lines(scene.persona)
    for line in scene.lines:
        yield clean(line.text)


def sample_lines(corpus: Path, prose_share: float = 0.15, seed: int = 1) -> Iterator[str]:
    """A weighted sample of a corpus folder: scenes thrice, cards, dialogues once, a share of the prose."""
    rng = random.Random(seed)
    for _ in range(HEAD_COPIES):
        yield from (*MOODS, *ACTIONS)
    for scene in read_scenes(corpus / "scenes") * 3:
        yield from scene_lines(scene)
    for path in sorted((corpus / "cards").glob("*.jsonl")):
        yield from (text for text in read_text(path).split('"') if " " in text and "{" not in text)
    for path in sorted(corpus.glob("dialogues-*.jsonl*")):
        if not any(f"-{name}." in path.name for name in LEFT_OUT):
            for scene in read_dialogues(path):
                yield from scene_lines(scene)
    for path in sorted(corpus.glob("prose-*.txt*")):
        if not any(f"-{name}." in path.name for name in LEFT_OUT):
            for document in read_prose(path):
                yield from (text for text in document.split("\n") if text.strip() and rng.random() < prose_share)
