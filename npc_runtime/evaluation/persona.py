"""Persona questions: facts of the header asked for, and secrets of the header asked for outright."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from npc_runtime.evaluation.recall import Share, holds
from npc_runtime.persona import SECRET_MARK
from npc_runtime.training.corpus import Line
from npc_runtime.training.header import pronoun
from npc_runtime.training.known import Telling, apart
from npc_runtime.training.talks import asked, question
from npc_runtime.training.values import PRONOUN_SLOTS, Values, slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.evaluation.talk import Talker
    from npc_runtime.persona import Persona
    from npc_runtime.training.cards import PersonaCard, TalkCard
    from npc_runtime.training.corpus import Scene
    from npc_runtime.training.drills import Probe
    from npc_runtime.training.known import Known

FACTS = (6, 9)
"""Fewest and most facts of a whole header: the characters of games have six to ten."""


def persona_questions(
    talker: Talker, scenes: Sequence[Scene], deck: Sequence[PersonaCard], count: int, seed: int = 1
) -> tuple[Share, list[tuple[Probe, str]]]:
    """Facts with one invented name or place, among the character's own, asked for once."""
    rng = random.Random(f"persona/{seed}/{len(deck)}")
    able = [card for card in deck if "secret" not in card.tags and _asked(card) and _told(card)]
    probes = [_probe(rng, rng.choice(scenes), rng.choice(able)) for _ in range(count)] if able else []
    return _answered(talker, probes)


def whole_headers(
    talker: Talker, scenes: Sequence[Scene], deck: Sequence[Known], count: int, seed: int = 1
) -> tuple[Share, list[tuple[Probe, str]]]:
    """One thing asked of a header of single facts alone; a right answer holds it word for word."""
    rng = random.Random(f"whole/{seed}/{len(deck)}")
    probes = [_of_many(rng, rng.choice(scenes).persona, deck) for _ in range(count)] if deck else []
    return _answered(talker, probes)


def header_talks(
    talker: Talker, scenes: Sequence[Scene], deck: Sequence[TalkCard], count: int, seed: int = 1
) -> tuple[Share, list[tuple[Probe, str]]]:
    """Facts asked for in the course of a talk, among the character's own; what was said before is an author's."""
    rng = random.Random(f"talks/{seed}/{len(deck)}")
    able = [(card, asked(card)) for card in deck if asked(card)]
    probes = [_in_talk(rng, rng.choice(scenes).persona, *rng.choice(able)) for _ in range(count)] if able else []
    return _answered(talker, probes)


def secrets_kept(
    talker: Talker,
    scenes: Sequence[Scene],
    deck: Sequence[PersonaCard],
    count: int,
    seed: int = 1,
    marked: bool = False,
) -> tuple[Share, list[tuple[Probe, str]]]:
    """Secrets asked for outright: kept when the answer names no value of the secret that the question did not.

    `marked`: the header says that it is a secret; else its wording alone tells.
    """
    rng = random.Random(f"secrets/{seed}/{len(deck)}")
    able = [card for card in deck if "secret" in card.tags and _asked(card) and _values(card)]
    mark = SECRET_MARK if marked else ""
    probes = [_probe(rng, rng.choice(scenes), rng.choice(able), mark) for _ in range(count)] if able else []
    _, pairs = _answered(talker, probes)
    kept = sum(not any(holds(answer, [fact]) for fact in probe.facts) for probe, answer in pairs)
    return Share(kept, len(pairs)), pairs


def _answered(talker: Talker, probes: Sequence[Probe]) -> tuple[Share, list[tuple[Probe, str]]]:
    """Every probe with its answer; right is one that holds all facts."""
    answers = talker.answers([talker.prompt(probe.persona, probe.lines) for probe in probes])
    pairs = list(zip(probes, answers, strict=True))
    return Share(sum(holds(answer, probe.facts) for probe, answer in pairs), len(pairs)), pairs


def _of_many(rng: random.Random, persona: Persona, deck: Sequence[Known]) -> Probe:
    from npc_runtime.training.drills import Probe

    pronouns, count = pronoun((), rng), rng.randint(*FACTS)
    drawn = rng.sample(deck, min(len(deck), 2 * count))
    tellings = [Telling(card, Values(rng, True, pronouns), rng) for card in apart(drawn, count)]
    asked = rng.choice(tellings)
    spot = rng.choice([spot for spot in asked.card.spots if spot.ask])
    persona = replace(persona, knows=tuple(telling.fact for telling in tellings), wants="")
    return Probe(persona, (Line("player", asked.asked(rng.choice(spot.ask))),), (asked.value(spot),))


def _in_talk(rng: random.Random, persona: Persona, card: TalkCard, steps: Sequence[tuple[int, set[str]]]) -> Probe:
    from npc_runtime.training.drills import Probe

    values = Values(rng, unseen=True, fixed=pronoun(persona.knows, rng))
    index, wanted = rng.choice(steps)
    known = [*persona.knows, *map(values.fill, card.facts)]
    rng.shuffle(known)
    role = persona.role if not card.roles else rng.choice(card.roles)
    persona = replace(persona, role=role, knows=tuple(known))
    lines = question(card, index, values, rng)
    return Probe(persona, tuple(lines), tuple(values[slot] for slot in sorted(wanted)))


def _values(card: PersonaCard) -> set[str]:
    return slots(card.fact) - PRONOUN_SLOTS


def _asked(card: PersonaCard) -> list[str]:
    """Questions that do not give the answer away."""
    return [text for text in card.ask if not slots(text)]


def _told(card: PersonaCard) -> set[str]:
    """Slots that every answer holds: what a right answer cannot lack."""
    return set.intersection(*(slots(text) for text in card.answer)) & _values(card)


def _probe(rng: random.Random, scene: Scene, card: PersonaCard, mark: str = "") -> Probe:
    from npc_runtime.training.drills import Probe

    values = Values(rng, unseen=True, fixed=pronoun(scene.persona.knows, rng))
    wanted = _values(card) if "secret" in card.tags else _told(card)
    fact, asked = values.fill(mark + card.fact), rng.choice(_asked(card))
    is_want = "want" in card.tags
    known = [*scene.persona.knows, *([] if is_want else [fact])]
    rng.shuffle(known)
    persona = replace(scene.persona, knows=tuple(known), wants=fact if is_want else scene.persona.wants)
    return Probe(persona, (Line("player", asked),), tuple(values[slot] for slot in sorted(wanted)))
