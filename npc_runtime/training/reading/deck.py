"""The deck that a corpus' prose gives: written beside its cards, for training alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from npc_runtime.training.corpus import read_prose
from npc_runtime.training.reading.clauses import Clauses, plain_sentences
from npc_runtime.training.reading.questions import Questions
from npc_runtime.training.reading.words import POSSESSIVES, Lexicon

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from npc_runtime.training.reading.clauses import Clause, NounPhrase

NAME = "read-prose.txt"
OF_A_VERB = 500
"""Most clauses of one verb: novels look, turn and go without end."""


def prose_facts(files: Sequence[Path], seed: int = 5) -> Iterator[str]:
    """Blocks of a deck (see known), in no order, the same for the same files and seed."""
    words = Lexicon.of(text for path in files for text in read_prose(path))
    rng = random.Random(seed)
    clauses = _kept(_clauses(files, words), rng)
    clauses += [replace(clause, subject=None) for clause in clauses if clause.subject and _one_person(clause.subject)]
    rng.shuffle(clauses)
    questions = Questions(clauses, words, rng)
    yield from filter(None, map(questions.block, clauses))


def write_prose_facts(files: Sequence[Path], folder: Path) -> int:
    """Writes the deck of some files of prose into a folder of cards; how many facts it holds."""
    blocks = list(prose_facts(files))
    (folder / NAME).write_text("\n\n".join(blocks) + "\n", "utf-8")
    return len(blocks)


def _clauses(files: Sequence[Path], words: Lexicon) -> list[Clause]:
    parser, seen = Clauses(words), dict[str, None]()
    for path in files:
        for text in read_prose(path):
            seen.update(dict.fromkeys(plain_sentences(text)))
    return [clause for clause in map(parser.clause, seen) if clause]


def _one_person(subject: NounPhrase) -> bool:
    """Whether what a subject does the character may do as well."""
    return subject.person and not subject.plural and not subject.number and subject.determiner not in POSSESSIVES


def _kept(clauses: list[Clause], rng: random.Random) -> list[Clause]:
    """At most `OF_A_VERB` of each verb."""
    rng.shuffle(clauses)
    met: Counter[str] = Counter()
    kept = []
    for clause in clauses:
        met[clause.verb] += 1
        if met[clause.verb] <= OF_A_VERB:
            kept.append(clause)
    return kept
