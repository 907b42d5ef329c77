"""Owners: who or what has an attribute ("my sister", "my cousin's horse", "I"), and their words in anybody's mouth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.training.grammar.supply import DECK
from npc_runtime.training.grammar.wording import parted

if TYPE_CHECKING:
    from npc_runtime.training.grammar.supply import Supply

ME = "me"
"""The class of the speaker."""

CHAINED = 0.25
"""Share of things that are somebody else's: "my sister's horse"."""

_CHAINS = frozenset({"beast", "ship", "house", "shop", "blade", "thing", "box"})
_DULL = frozenset({"the", "my", "old", "who", "raised", "of", "best", "order's", "people's"})

_VOICES = {
    "I": ("I", "me", "my", "mine", "myself"),
    "you": ("you", "you", "your", "yours", "yourself"),
    "he": ("he", "him", "his", "his", "himself"),
    "she": ("she", "her", "her", "hers", "herself"),
    "it": ("it", "it", "its", "its", "itself"),
    "they": ("they", "them", "their", "theirs", "themselves"),
}
"""Subject, object, possessive, possessive alone and reflexive by voice: who has "my" things, or is meant."""

_ONE = {"is": "is", "was": "was", "has": "has", "does": "does"}
_MANY = {"is": "are", "was": "were", "has": "have", "does": "do"}
_SELF = {"is": "am", "was": "was", "has": "have", "does": "do"}
_VERBS = {"I": _SELF, "you": _MANY, "they": _MANY, "he": _ONE, "she": _ONE, "it": _ONE}

Forms = dict[str, str]


@dataclass(frozen=True, slots=True)
class Owner:
    """`text` holds {my} and {me}; `gender` is the pronoun; `rest` of a chain is what its first link has."""

    text: str
    gender: str
    kind: str
    rest: str = ""

    @property
    def words(self) -> set[str]:
        """The nouns that tell it from others."""
        words = (word.removesuffix("'s") for word in self.text.split())
        return {word for word in words if word.replace("-", "").isalpha() and word.islower() and word not in _DULL}

    @property
    def named(self) -> bool:
        """Whether it is spoken of by its own name: "my cousin Bela"."""
        return not self.rest and self.text[:1] != "" and not self.text.islower()


SELF = Owner("", "I", ME)


def _entries(kind: str) -> tuple[Owner, ...]:
    table = DECK["owners"][kind]
    return tuple(Owner(text, gender, kind) for gender, texts in table.items() for text in parted(texts))


OWNERS: dict[str, tuple[Owner, ...]] = {kind: _entries(kind) for kind in DECK["owners"]}
_LINKS = parted(DECK["chains"]["of"])


def draw_owner(kind: str, supply: Supply, chains: bool = True) -> Owner:
    """An owner of a class, sometimes one that is somebody else's."""
    if kind == ME:
        return SELF
    rng = supply.rng
    owner = rng.choice(OWNERS[kind])
    if chains and kind in _CHAINS and rng.random() < CHAINED:
        return linked(owner, supply)
    return Owner(_named(owner.text, supply), owner.gender, kind)


def linked(owner: Owner, supply: Supply) -> Owner:
    """The same thing in the hands of somebody else; "my horse" itself now and then."""
    rest = owner.rest or owner.text.removeprefix("{my} ")
    if owner.rest and supply.rng.random() < 0.25:
        return Owner(f"{{my}} {rest}", owner.gender, owner.kind)
    link = _named(supply.rng.choice(_LINKS), supply)
    return Owner(f"{link}'s {rest}", owner.gender, owner.kind, rest)


def can_link(owner: Owner) -> bool:
    """Whether it may be somebody else's."""
    return owner.kind in _CHAINS and (bool(owner.rest) or owner.text.startswith("{my} "))


def _named(text: str, supply: Supply) -> str:
    return text.replace("{person}", supply.name("person")) if "{person}" in text else text


def forms(owner: Owner, voice: str, by_pronoun: bool = False) -> Forms:
    """The words for the owner where `voice` has it, under the slots of attributes.toml; capitals under capital keys."""
    subject, object_, possessive, alone, _ = _VOICES[voice]
    gender = voice if owner.kind == ME else owner.gender
    he, him, his, _, himself = _VOICES[gender]
    words = {"he": he, "him": him, "his": his, "himself": himself, "I": subject, "me": object_, "my": possessive}
    if by_pronoun or owner.kind == ME:
        words.update(o=he, oo=him, os=his)
    else:
        text = owner.text.format(my=possessive, me=object_)
        words.update(o=text, oo=text, os=f"{text}'" if gender == "they" else f"{text}'s")
    for key in ("o", "oo", "os", "he", "his"):
        word = words[key]
        words[key[:1].upper() + key[1:]] = word[:1].upper() + word[1:]
    return {**words, "mine": alone, "number": gender if gender in ("he", "she", "it") else "", **_VERBS[gender]}
