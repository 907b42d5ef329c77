"""Invented values for the slots of cards: names by syllables, so that copying is learned and not a list."""

from __future__ import annotations

import re
import sys
from importlib import resources
from typing import TYPE_CHECKING, Any

from npc_runtime.training.corpus import held_out

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import random
    from collections.abc import Callable


def read_deck_table(name: str) -> dict[str, Any]:
    """A TOML file of our own decks."""
    table: dict[str, Any] = tomllib.loads((resources.files("npc_runtime.training") / "decks" / name).read_text("utf-8"))
    return table


def _words(name: str) -> tuple[str, ...]:
    """A list of decks/words.toml."""
    text: str = _DECK[name]
    return tuple(part.strip() for part in text.replace("\n", "").split("|")) if "|" in text else tuple(text.split())


_DECK = read_deck_table("words.toml")
_ONSETS, _VOWELS, _ENDINGS = _words("onsets"), _words("vowels"), _words("endings")
_CODAS = ("",) * 9 + _words("codas")
_PLACE_ENDINGS, _PLACE_WORDS, _PLAIN_PLACES = _words("place_endings"), _words("place_words"), _words("plain_places")
_PLACE_TAILS = _words("place_tails")
TITLES, _WORD_NAMES, _REAL_NAMES = _words("titles"), _words("word_names"), _words("real_names")
ITEMS, _QUALITIES, FOODS, ANIMALS = _words("items"), _words("qualities"), _words("foods"), _words("animals")
JOBS, COLORS, TIMES = _words("jobs"), _words("colors"), _words("times")
IGNORANCE, UNKNOWN_NAME, UNKNOWN_PLACE = _words("ignorance"), _words("unknown_name"), _words("unknown_place")
UNWRITTEN = _words("unwritten")
"""What is said to a question about oneself that nothing in the header answers."""
GUARDED = _words("guarded")
"""What is said to keep a secret."""
NEWS, CONFIDED, AMENDED = _words("news"), _words("confided"), _words("amended")
"""How a player tells a fact ({x}, or {y} within a sentence) or an event shows it; one of himself; and a correction."""
NOTED, UNTOLD = _words("noted"), _words("untold")
"""What is said to that, and to a question about the player that he never told the answer of."""
LEADS, LEAD_ACKS, LED_NAMES = _words("leads"), _words("lead_acks"), _words("led_names")
LED = {"her": frozenset(_words("led_her")), "his": frozenset(_words("led_his")), "its": frozenset(_words("led_its"))}
"""Nouns whose name is told in a line of its own, and how it speaks of them."""
NOT_NAMES = frozenset(_words("not_names"))
DULL = frozenset(_words("dull"))
"""Words of a kind's name that say nothing of what the fact is about."""
ASKING = frozenset(_words("asking"))
"""Words of questions that tell nothing of what is asked."""
BEFORE_SUBJECTS = _words("before_subjects")
"""Words after which "you" is who does something, and not to whom it is done."""
_UNITS, _TENS = _words("units"), _words("tens")
_NUMBERS = (*_UNITS, "eighteen", "nineteen")

PRONOUNS = (
    {"they": "he", "them": "him", "their": "his"},
    {"they": "she", "them": "her", "their": "her"},
    {"they": "they", "them": "them", "their": "their"},
)

PRONOUN_SLOTS = frozenset({"they", "them", "their"})

SAME_FOR_ALL = frozenset(_words("same_for_all"))
"""Verbs that are the same after "they", "she" and "I"."""
ADVERBS = frozenset(_words("adverbs"))
STATEMENT_HEADS = frozenset(_words("statement_heads"))
"""Words other than slots that begin a fact with a subject of its own."""
_IRREGULAR = {"have": "has", "haven't": "hasn't", "are": "is", "aren't": "isn't", "do": "does", "don't": "doesn't"}
_IRREGULAR |= {"were": "was", "weren't": "wasn't"}
_VERB = re.compile(r"\{they\}((?: (?:" + "|".join(sorted(ADVERBS)) + r"))*) ([a-z']+)")

_BEFORE_TIMES = frozenset(_words("before_times"))

_SLOT = re.compile(r"\{([a-z]+)(\d?)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!one\b|uni|use|eu)")


def coined(rng: random.Random) -> str:
    """An invented personal name of one to four syllables, no word that questions are made of."""
    syllables = rng.choice((1, 2, 2, 2, 3))
    parts = [rng.choice(_ONSETS) if rng.random() < 0.85 else ""]
    for index in range(syllables):
        last = index == syllables - 1
        ending = last and syllables > 1 and rng.random() < 0.7
        parts.append(rng.choice(_ENDINGS) if ending else rng.choice(_VOWELS) + rng.choice(_CODAS))
        if not last and rng.random() < 0.7:
            parts.append(rng.choice(_ONSETS))
    name = "".join(parts).capitalize()
    return name if 2 < len(name) < 13 and name.lower() not in ASKING else coined(rng)


def person(rng: random.Random) -> str:
    """A personal name: mostly coined, sometimes a word or a known name, a title or a surname now and then."""
    kind = rng.random()
    pool = _WORD_NAMES if kind < 0.15 else _REAL_NAMES
    name = coined(rng) if kind > 0.4 else rng.choice(pool)
    if rng.random() < 0.06:
        name = f"{name} {coined(rng)}"
    if rng.random() < 0.05:
        name = f"{rng.choice(TITLES)} {name}"
    return name


def place(rng: random.Random) -> str:
    """A place: a coined town, a town with a word before or behind it, or a plain landmark."""
    kind = rng.random()
    if kind < 0.12:
        return rng.choice(_PLAIN_PLACES)
    stem = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
    town = coined(rng) if kind < 0.4 else (stem + rng.choice(_PLACE_ENDINGS)).capitalize()
    kind = rng.random()
    if kind < 0.12:
        return f"{rng.choice(_PLACE_WORDS)} {town}"
    return f"{town} {rng.choice(_PLACE_TAILS)}" if kind < 0.26 else town


def number(rng: random.Random) -> str:
    """A number of at least 2, in digits or in words."""
    if rng.random() < 0.5:
        return str(rng.choice((rng.randint(2, 30), rng.randint(2, 99), rng.randint(20, 999), 10 * rng.randint(2, 60))))
    if rng.random() < 0.6:
        return rng.choice(_NUMBERS)
    return rng.choice(_TENS) + (f"-{rng.choice(_UNITS[:8])}" if rng.random() < 0.6 else "")


def item(rng: random.Random) -> str:
    """A thing, often with a quality."""
    thing = rng.choice(ITEMS)
    return f"{rng.choice(_QUALITIES)} {thing}" if rng.random() < 0.5 else thing


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "person": person,
    "place": place,
    "number": number,
    "item": item,
    "food": lambda rng: rng.choice(FOODS),
    "animal": lambda rng: rng.choice(ANIMALS),
    "job": lambda rng: rng.choice(JOBS),
    "color": lambda rng: rng.choice(COLORS),
    "time": lambda rng: rng.choice(TIMES),
}


class Values:
    """The values of one card's slots, drawn when first asked for and the same ever after.

    Drawn from names outside the held-out set, or only from that set when `unseen`.
    """

    def __init__(self, rng: random.Random, unseen: bool = False, fixed: dict[str, str] | None = None) -> None:
        self._rng, self.unseen = rng, unseen
        self._values: dict[str, str] = {**rng.choice(PRONOUNS), **(fixed or {})}

    def __getitem__(self, slot: str) -> str:
        if slot not in self._values:
            self._values[slot] = self._draw(slot.rstrip("0123456789"))
        return self._values[slot]

    def _draw(self, kind: str) -> str:
        if kind not in _MAKERS:
            raise KeyError(f"slot `{kind}` is none of {', '.join(_MAKERS)}")
        while True:
            value = _MAKERS[kind](self._rng)
            wanted = kind not in ("person", "place") or held_out(value) == self.unseen
            if wanted and value not in self._values.values():
                return value

    def fill(self, text: str) -> str:
        """The text with its slots filled, capitals at the head of sentences, and "an" before vowels."""
        text = text.replace("{they_are}", "{they} are")
        if self["they"] != "they":
            text = _VERB.sub(lambda found: f"{{they}}{found[1]} {third_person(found[2])}", text)
        return _ARTICLE.sub(r"\1n ", _SLOT.sub(lambda slot: self._slot(slot, text), text))

    def _slot(self, slot: re.Match[str], text: str) -> str:
        value = self[slot.group(1) + slot.group(2)]
        before = text[: slot.start()].rstrip(" \"'")
        if slot.group(1) == "time" and before.rpartition(" ")[2].lower() not in _BEFORE_TIMES:
            value = f"at {value}"
        opens = before[-1:] in (".", "!", "?") or (not before and text.rstrip()[-1:] in (".", "!", "?"))
        return value[:1].upper() + value[1:] if opens else value


def third_person(verb: str) -> str:
    """What "they keep" is for one: keeps. What is past, or goes with "they" and "he" alike, stays."""
    past = verb in SAME_FOR_ALL or (verb.endswith("ed") and not verb.endswith("eed"))
    if past or verb in _IRREGULAR:
        return _IRREGULAR.get(verb, verb)
    if verb.endswith("y") and verb[-2:-1] not in "aeou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else f"{verb}s"


def slots(text: str) -> set[str]:
    """The slot names a text holds."""
    return {name + digit for name, digit in _SLOT.findall(text)}
