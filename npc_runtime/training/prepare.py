"""Packing a corpus folder for training: shards of dialogues and prose, copies of scenes, cards and tokenizer, and the
facts that plain sentences of the prose tell (see reading)."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from npc_runtime.tokenizer import SentencePieceTokenizer
from npc_runtime.training.corpus import LEFT_OUT, CorpusError, read_dialogues, read_prose, read_scenes
from npc_runtime.training.reading.deck import write_prose_facts
from npc_runtime.training.render import Renderer
from npc_runtime.training.shards import make_shard, write_shard
from npc_runtime.training.tokenizer import sample_lines, train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOKENIZER = "tokenizer.model"


def prepare(corpus: Path, out: Path, left_out: Sequence[str] = LEFT_OUT) -> Iterator[str]:
    """Packs a corpus folder into `out`; yields a line about each file as it is done.

    A tokenizer already in `out` is used, else one is trained. CorpusError where the corpus lacks scenes or cards,
    or a file is malformed, of which nothing is written.
    """
    read_scenes(corpus / "scenes")
    if not os.path.isdir(corpus / "cards"):
        raise CorpusError(f"`{corpus / 'cards'}` is not a folder of cards")
    if not os.path.exists(out / TOKENIZER):
        train_tokenizer(sample_lines(corpus), out / TOKENIZER)
        yield f"{TOKENIZER} trained"
    for part in ("scenes", "cards"):
        (out / part).mkdir(parents=True, exist_ok=True)
        for path in sorted((corpus / part).iterdir()):
            shutil.copyfile(path, out / part / path.name)  # without its mode: a corpus may be read-only
    prose = [path for path in sorted(corpus.glob("prose-*")) if not _left_out(path, left_out)]
    if prose:
        yield f"{write_prose_facts(prose, out / 'cards')} facts read out of prose"
    renderer = Renderer(SentencePieceTokenizer(out / TOKENIZER))
    for path in sorted(corpus.glob("dialogues-*")) + sorted(corpus.glob("prose-*")):
        name = path.name.split(".")[0]
        if _left_out(path, left_out):
            yield f"{name} left out"
            continue
        if name.startswith("dialogues-"):
            shard = make_shard(name, (renderer.scene(scene) for scene in read_dialogues(path)))
        else:
            shard = make_shard(name, (renderer.prose(text) for text in read_prose(path)))
        size = write_shard(shard, out).stat().st_size
        yield f"{name}: {len(shard)} documents, {len(shard.tokens)} tokens, {size} bytes"


def _left_out(path: Path, sources: Sequence[str]) -> bool:
    return any(path.name.split(".")[0].endswith(f"-{source}") for source in sources)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m npc_runtime.training.prepare CORPUS OUT`."""
    parser = argparse.ArgumentParser(description="Pack a corpus folder for training")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    for line in prepare(options.corpus, options.out):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
