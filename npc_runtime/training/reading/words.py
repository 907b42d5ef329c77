"""Words: verbs, nouns and people, as a corpus itself shows them, and closed classes."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.training.values import read_deck_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TABLE = read_deck_table("reading.toml")


def listed(name: str) -> frozenset[str]:
    """A list of decks/reading.toml."""
    return frozenset(_TABLE[name].split())


PREPOSITIONS, DETERMINERS, CLOSED = listed("prepositions"), listed("determiners"), listed("closed")
NUMBERS, OF_TIME, CALENDAR, TITLES = listed("numbers"), listed("of_time"), listed("calendar"), listed("titles")
POSSESSIVES = frozenset({"his", "her", "their"})
_NOT_BARE, _LIKE_PARTICIPLES, _LY_NOUNS = listed("not_bare"), listed("like_participles"), listed("ly_nouns")
_IRREGULAR = [tuple(forms.split()) for forms in _TABLE["irregular"].split("|")]
PLAINER = {
    verb: plain.strip()
    for plain, verbs in (line.split(":") for line in _TABLE["plainer"].split("|"))
    for verb in verbs.split()
}
"""A plainer verb for each of some."""

_WORD = re.compile(r"[A-Za-z']+|[.,;!?:\"“”—-]")
_ARTICLES = frozenset({"the", "a", "an", *POSSESSIVES})
_AFTER_NOUN = listed("after_noun")
_SPEAKS = re.compile(
    r"\b(?:said|asked|cried|replied|answered|whispered) the ([a-z]+)\b"
    r"|\bthe ([a-z]+) (?:said|asked|answered|replied|smiled|laughed|nodded|whispered|shouted)\b"
    r"|\b(?:a|the) ([a-z]+),? who\b"
)
_NAME = re.compile(r"[A-Z][a-z'-]{2,}")
SPEAKERS, VERBS, NOUNS = 8, 8, 6
"""How often a word must be seen as one that speaks, after "to", and after an article, to count as such."""


@dataclass(frozen=True)
class Lexicon:
    """What the words of a corpus are: how often each stands there, after "to", as a noun, and with a capital."""

    count: Counter[str]
    after_to: Counter[str]
    as_noun: Counter[str]
    capital: Counter[str]
    speakers: frozenset[str]
    past: Mapping[str, str]
    """A past form's verb."""
    participles: Mapping[str, str]
    past_of: Mapping[str, str]
    """A verb's most frequent past form."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Lexicon:
        """Counts the words of some texts."""
        count, after_to, as_noun, capital, speakers = (Counter[str]() for _ in range(5))
        for text in texts:
            words = _WORD.findall(text)
            low = [word.lower() for word in words]
            count.update(low)
            capital.update(word.lower() for word in words if word[0].isupper())
            after_to.update(second for first, second in itertools.pairwise(low) if first == "to")
            triples = zip(low, low[1:], low[2:], strict=False)
            as_noun.update(second for first, second, third in triples if first in _ARTICLES and third in _AFTER_NOUN)
            speakers.update(found[found.lastindex or 0] for found in _SPEAKS.finditer(text))
        people = frozenset(word for word, seen in speakers.items() if seen >= SPEAKERS and seen > 0.02 * count[word])
        past, participles = _verbs(count, after_to)
        past_of: dict[str, str] = {}
        for form, verb in past.items():
            if verb not in past_of or count[form] > count[past_of[verb]]:
                past_of[verb] = form
        return cls(count, after_to, as_noun, capital, people, past, participles, past_of)

    def is_verb(self, word: str) -> bool:
        """Whether a word is a verb as it stands after "to"."""
        return word in self.past_of and word != "be"

    def present(self, word: str) -> str:
        """The verb of which a word is a form of the present: keep, keeps; "" for other words."""
        stems = (word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y")
        return next((stem for stem in stems if self.is_verb(stem)), "")

    def is_noun(self, word: str) -> bool:
        """Whether a word stands often enough where nouns do."""
        return self.as_noun[word] >= min(40, 0.12 * self.count[word])

    def bare_noun(self, word: str) -> bool:
        """Whether a noun may stand without an article: bread, friends."""
        seen = self.as_noun[word]
        often = word.endswith("s") or (seen >= VERBS and seen >= 0.1 * self.count[word])
        return word not in _NOT_BARE and word not in self.past and word not in self.participles and often

    def is_name(self, word: str) -> bool:
        """Whether a word is written with a capital wherever it stands."""
        low = word.lower()
        always = self.capital[low] >= 0.8 * max(1, self.count[low])
        return bool(_NAME.fullmatch(word)) and word not in CALENDAR and (always or word in TITLES)

    def is_adverb(self, word: str) -> bool:
        """Whether a word is one in -ly."""
        return word.endswith("ly") and word not in _LY_NOUNS

    def is_progressive(self, word: str) -> bool:
        """Whether a word is a verb's form in -ing: walking, hiding, and no king."""
        stem = word.removesuffix("ing")
        bases = (stem, f"{stem}e", stem[:-1] if stem[-1:] == stem[-2:-1] else stem)
        return stem != word and any(self.after_to[base] >= VERBS for base in bases)

    def may_describe(self, word: str) -> bool:
        """Whether a word may stand within a noun phrase."""
        if word in PREPOSITIONS or word in CLOSED or word in DETERMINERS or word in NUMBERS or self.is_adverb(word):
            return False
        if self.is_progressive(word) and self.as_noun[word] < 0.25 * self.count[word]:
            return False
        return word in _LIKE_PARTICIPLES or (word not in self.past and word not in self.participles)


def _verbs(count: Counter[str], after_to: Counter[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(past forms, participles), each with its verb: the irregular ones, and those in -ed that stand after "to"."""
    past: dict[str, str] = {}
    participles: dict[str, str] = {}
    for verb, form, participle in _IRREGULAR:
        past.setdefault(form, verb)
        participles.setdefault(participle, verb)
    for word, seen in count.items():
        if len(word) > 4 and seen >= 20 and word.endswith("ed") and not word.endswith("eed"):
            verb = max(_bases(word), key=lambda base: after_to[base])
            if after_to[verb] >= VERBS:
                past.setdefault(word, verb)
                participles.setdefault(word, verb)
    return past, participles


def _bases(word: str) -> list[str]:
    """What verb a form in -ed may be of: lived, walked, stopped, carried."""
    found = [word[:-1], word[:-2]]
    if word[-3] == word[-4]:
        found.append(word[:-3])
    return [*found, f"{word[:-3]}y"] if word[-3] == "i" else found
