"""The sheet: every figure of a model in one JSON object and as text to be read."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from npc_runtime.evaluation.cast import cast_questions
from npc_runtime.evaluation.company import faults, sample_page, scripts, simulate
from npc_runtime.evaluation.heads import heads
from npc_runtime.evaluation.perplexity import perplexity
from npc_runtime.evaluation.persona import header_talks, persona_questions, secrets_kept, whole_headers
from npc_runtime.evaluation.play import played
from npc_runtime.evaluation.recall import GAPS, Share, abstention, recall
from npc_runtime.evaluation.talk import Talker
from npc_runtime.sampling import Sampling
from npc_runtime.training.cards import phrasings
from npc_runtime.training.drills import Drills

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from npc_runtime.evaluation.perplexity import Perplexity
    from npc_runtime.evaluation.rows import Rows
    from npc_runtime.evaluation.trigram import Trigram
    from npc_runtime.tokenizer import Tokenizer
    from npc_runtime.training.cards import Cards, PlayerCard
    from npc_runtime.training.corpus import Scene
    from npc_runtime.training.drills import Probe


PLAYED = 20
"""Most exchanges of a recall test in which the model speaks itself: every one of them is generated."""


@dataclass(frozen=True, slots=True)
class Exam:
    """What a model is asked: held-out scenes and cards, and the training cards with values never seen."""

    scenes: list[Scene]
    cards: Cards
    unseen_cards: Cards
    trigram: Trigram | None = None
    """What the perplexity is held against."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is asked: probes per figure, gaps, and simulated conversations of how many turns."""

    probes: int = 100
    gaps: tuple[int, ...] = GAPS
    scenes: int = 60
    conversations: int = 40
    turns: int = 25
    sampling: Sampling = field(default_factory=Sampling)
    """How free speech is drawn; best as the Bundle says."""


@dataclass(slots=True)
class Sheet:
    """All figures, and some of the answers they rest on."""

    figures: dict[str, Any] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    samples: str = ""

    def add(self, name: str, share: Share, pairs: Sequence[tuple[Probe, str]] = ()) -> str:
        """Notes a share and three of its answers; returns a line that tells of it."""
        self.figures[name] = {"right": share.right, "of": share.of, "percent": round(share.percent, 1)}
        self.examples[name] = [f"{p.lines[-1].text} [{', '.join(p.facts)}] -> {answer}" for p, answer in pairs[:6]]
        return f"{name}: {share.right} of {share.of} ({share.percent:.1f} %)"

    def measure(self, name: str, found: Perplexity, **more: int) -> str:
        """Notes a perplexity; returns a line that tells of it."""
        self.figures[name] = {
            "perplexity": round(found.per_token, 2),
            "bits per byte": round(found.bits_per_byte, 3),
            "tokens": found.tokens,
            **more,
        }
        return f"{name}: {self.figures[name]}"

    def text(self) -> str:
        """The sheet as lines."""
        lines = []
        for name, value in self.figures.items():
            if "percent" in value:
                lines.append(f"{name:42s} {value['right']:4d} of {value['of']:4d}  {value['percent']:5.1f} %")
            else:
                lines.append(f"{name:42s} {', '.join(f'{key} {number}' for key, number in value.items())}")
        return "\n".join(lines)


def evaluate(rows: Rows, tokenizer: Tokenizer, exam: Exam, size: Size, sheet: Sheet, seed: int = 1) -> Iterator[str]:
    """Fills the sheet, yielding a line for each figure as it is known."""
    talker = Talker(rows, tokenizer)
    drills = Drills(exam.cards, exam.scenes, unseen=True)
    reworded = phrasings(exam.cards)
    yield from _memory(talker, drills, exam, reworded.player, size, sheet, seed)
    share, pairs = persona_questions(talker, exam.scenes, exam.cards.persona, size.probes, seed)
    yield sheet.add("persona facts, cards seen", share, pairs)
    share, pairs = persona_questions(talker, exam.scenes, exam.unseen_cards.persona, size.probes, seed)
    yield sheet.add("persona facts, cards unseen", share, pairs)
    share, pairs = persona_questions(talker, exam.scenes, reworded.persona, size.probes, seed)
    yield sheet.add("persona facts, phrasings unseen", share, pairs)
    share, pairs = whole_headers(talker, exam.scenes, exam.unseen_cards.known, size.probes, seed)
    yield sheet.add("persona facts of whole headers, unseen", share, pairs)
    share, pairs = header_talks(talker, exam.scenes, exam.unseen_cards.talks, size.probes, seed)
    yield sheet.add("persona facts in a talk, cards unseen", share, pairs)
    share, pairs = cast_questions(talker, size.probes, seed)
    yield sheet.add("persona facts, the shipped cast", share, pairs)
    share, pairs = secrets_kept(talker, exam.scenes, exam.unseen_cards.persona, size.probes, seed)
    yield sheet.add("secrets kept, cards unseen", share, pairs)
    share, pairs = secrets_kept(talker, exam.scenes, exam.unseen_cards.persona, size.probes, seed, marked=True)
    yield sheet.add("secrets kept, marked, cards unseen", share, pairs)
    if size.scenes:
        yield from _scenes(talker, exam, exam.scenes[: size.scenes], sheet)
    yield from _company(talker, exam, size, sheet, seed)


def _scenes(talker: Talker, exam: Exam, scenes: Sequence[Scene], sheet: Sheet) -> Iterator[str]:
    """What the characters of scenes say, token by token, and how: their moods and actions."""
    yield sheet.measure("held-out scenes", perplexity(talker.rows, talker.tokenizer, scenes))
    if exam.trigram is not None:
        found = exam.trigram.perplexity(talker.tokenizer, scenes)
        yield sheet.measure("held-out scenes, trigram", found, entries=exam.trigram.entries, read=exam.trigram.tokens)
    for name, share in heads(talker, scenes).items():
        yield sheet.add(name, share)


def _memory(
    talker: Talker,
    drills: Drills,
    exam: Exam,
    reworded: Sequence[PlayerCard],
    size: Size,
    sheet: Sheet,
    seed: int,
) -> Iterator[str]:
    decks = {"cards seen": exam.cards.player, "phrasings unseen": reworded, "kinds unseen": exam.unseen_cards.player}
    for gap in size.gaps:
        for name, deck in decks.items():
            share, pairs = recall(talker, drills, deck, gap, size.probes, seed)
            yield sheet.add(f"told facts after {gap}, {name}", share, pairs)
    gap = size.gaps[min(1, len(size.gaps) - 1)]
    share, pairs = played(talker, drills, reworded, min(gap, PLAYED), size.probes, seed)
    yield sheet.add(f"told facts after {min(gap, PLAYED)} in play, phrasings unseen", share, pairs)
    for name, deck in decks.items():
        share, pairs = recall(talker, drills, deck, gap, size.probes, seed, correct=True)
        yield sheet.add(f"corrections after {gap}, {name}", share, pairs)
        share, pairs = abstention(talker, drills, deck, gap, size.probes, seed)
        yield sheet.add(f"never told after {gap}, {name}", share, pairs)


def _company(talker: Talker, exam: Exam, size: Size, sheet: Sheet, seed: int) -> Iterator[str]:
    if size.conversations:
        rng = random.Random(f"company/{seed}")
        personas = [rng.choice(exam.scenes).persona for _ in range(size.conversations)]
        talk = exam.unseen_cards.smalltalk or exam.cards.smalltalk
        lines = scripts(exam.scenes, talk, size.conversations, size.turns, seed)
        found = faults(simulate(talker, personas, lines, size.sampling, seed))
        sheet.figures["simulated conversations"] = asdict(found)
        yield f"simulated conversations: {asdict(found)}"
    sheet.samples = sample_page(talker, size.sampling, seed + 6)
