"""Headers: what stands in the description of a drill's character beside what the talk is about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from npc_runtime.persona import Persona
from npc_runtime.training.cards import TEMPERAMENTS
from npc_runtime.training.threads import persona_fact
from npc_runtime.training.values import ASKING, PRONOUNS, person

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from npc_runtime.training.cards import PersonaCard

BESIDES = (0, 0, 0, 1, 2, 3, 5)
"""Facts of the header that nobody asks for: the characters of games have six to ten."""
MARKED = 0.12
"""Share of them that are marked as secrets."""
MOST = 12
"""Facts of a header up to which a talk may add its own."""

_WORDS = {
    "gruff": "gruff blunt rough hard tired grumpy stubborn stern bitter short hostile harsh cold",
    "kind": "kind gentle warm patient soft caring generous motherly loyal friendly",
    "nervous": "nervous anxious shy jumpy timid worried fearful afraid frightened",
    "proud": "proud vain haughty arrogant grand boastful noble ambitious pompous",
    "sly": "sly shrewd cunning clever sharp crafty greedy lying charming smooth quick",
    "solemn": "solemn grave calm wise quiet sad honest stoic serious devout dry",
    "cheerful": "cheerful merry jolly loud playful funny bright eager curious talkative",
    "simple": "simple slow childish innocent plain honest-hearted dim naive literal young",
}


def pronoun(known: Iterable[str], rng: random.Random) -> dict[str, str]:
    """The pronouns that the facts speak of the character with; any where they do not tell."""
    text = f" {'; '.join(known)} "
    guess = 0 if " his " in text else 1 if " her " in text else rng.randrange(3)
    return dict(PRONOUNS[guess])


def invented(like: Persona, other: Persona, rng: random.Random, keep: float) -> Persona:
    """A made-up character with one's role, perhaps another's traits, and a name of its own."""
    return Persona(
        name=person(rng),
        role=like.role,
        traits=other.traits if rng.random() < keep else (),
        voice=other.voice if rng.random() < keep / 2 else "",
        setting=like.setting if rng.random() < keep else "",
    )


def besides(
    deck: Sequence[PersonaCard],
    rng: random.Random,
    pronouns: dict[str, str],
    known: Sequence[str],
    unseen: bool = False,
) -> list[str]:
    """Facts that nobody asks for, about nothing that the header is about already."""
    found: list[str] = []
    for _ in range(rng.choice(BESIDES) if deck else 0):
        fact, _ = persona_fact(rng.choice(deck), rng, pronouns, unseen, rng.random() < MARKED)
        if not alike([fact], [*known, *found]):
            found.append(fact)
    return found


def alike(facts: Iterable[str], known: Sequence[str], words: int = 2) -> bool:
    """Whether any of some facts has that many words in common with anything known."""
    return any(len(_content(fact) & _content(other)) >= words for fact in facts for other in known)


def _content(fact: str) -> set[str]:
    """Words of a fact that tell what it is about."""
    return set(re.findall("[a-z]{4,}", fact)) - ASKING


def has_role(role: str, names: Iterable[str]) -> bool:
    """Whether a role is one of some trades: "old master baker" is a baker."""
    words = f" {' '.join(re.findall('[a-z]+', role.lower()))} "
    return any(f" {name} " in words for name in names)


def temperament(persona: Persona) -> str:
    """The temperament whose words fit the traits best; else one that the name decides."""
    traits = set(" ".join((*persona.traits, persona.voice)).lower().replace(",", " ").split())
    scores = {name: len(traits & set(words.split())) for name, words in _WORDS.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] else TEMPERAMENTS[sum(persona.name.encode()) % len(TEMPERAMENTS)]
