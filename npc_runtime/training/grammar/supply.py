"""Values of the attributes of owners: drawn from lists and made-up names, no two alike in one conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.training.grammar.wording import parted
from npc_runtime.training.values import Values, read_deck_table

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable

NAMED = frozenset({"person", "place", "item", "animal", "job"})
"""Kinds that `Values` makes."""

_TRIES = 60
_SPANS = {"years": (14, 96), "small": (2, 9), "few": (2, 20), "many": (21, 400), "sum": (2, 300)}


DECK = read_deck_table("attributes.toml")
"""The tables of decks/attributes.toml."""
_ONES, _TENS = parted(DECK["numerals"]["ones"]), parted(DECK["numerals"]["tens"])
_LISTS = {name: parted(text) for name, text in DECK["values"].items()}

_DIGITS = {word: str(number) for number, word in enumerate(_ONES)} | {
    ten + (f"-{_ONES[one]}" if one else ""): str(10 * at + one) for at, ten in enumerate(_TENS, 2) for one in range(10)
}


def numeral(number: int, rng: random.Random) -> str:
    """The number in digits or, below a hundred, half of the time in words."""
    return str(number) if number > 99 or rng.random() < 0.5 else in_words(number)


def in_words(number: int) -> str:
    """A number below a hundred in words."""
    ones = _ONES[number % 10]
    return _ONES[number] if number < 20 else _TENS[number // 10 - 2] + (f"-{ones}" if number % 10 else "")


def _in_digits(text: str) -> str:
    """The text in lower case, its number in digits."""
    first, _, rest = text.lower().partition(" ")
    return f"{_DIGITS[first]} {rest}".rstrip() if first in _DIGITS else text.lower()


class Supply:
    """Values for one conversation. Names are held-out ones if `unseen`, else never."""

    def __init__(self, rng: random.Random, unseen: bool = False) -> None:
        self.rng, self._values, self._count = rng, Values(rng, unseen), 0
        self._drawn: list[str] = []

    def draw(self, kind: str, taken: Collection[str] = ()) -> str:
        """A value of a list or of a kind of `NAMED`, apart from all drawn before; short of those, from `taken`.

        Short of those, too, any: a list may hold nothing that is apart ("the ..." from somebody called The).
        """
        value = ""
        for others in (self._drawn, list(map(_in_digits, taken))):
            for _ in range(_TRIES):
                value = self._made(kind)
                if self._apart(value, others):
                    self._drawn.append(_in_digits(value))
                    return value
        self._drawn.append(_in_digits(value))
        return value

    def avoid(self, words: Iterable[str]) -> None:
        """Draw no value that holds one of the words or is part of one."""
        self._drawn += words

    @staticmethod
    def _apart(value: str, others: Iterable[str]) -> bool:
        """Whether the value is part of none and holds none, numbers taken as digits."""
        low = _in_digits(value)
        return not any(low in other or other in low for other in others)

    def name(self, kind: str) -> str:
        """A person's name or a place's, never the same twice."""
        self._count += 1
        return self._values[f"{kind}{self._count}"]

    def filled(self, text: str) -> str:
        """The text with a value in each of its slots."""
        return text.format_map(_Slots(self)) if "{" in text else text

    def slot(self, name: str) -> str:
        """A value for a slot: a number of a span, a word of a list, or a name."""
        kind = name.rstrip("0123456789")
        if kind in _SPANS:
            low, high = _SPANS[kind]
            number = self.rng.randint(low, high if self.rng.random() < 0.4 else min(high, low + 25))
            return numeral(number, self.rng)
        return self.name(kind) if kind in NAMED else self.rng.choice(_LISTS[f"{kind}s"])

    def _made(self, kind: str) -> str:
        return self.name(kind) if kind in NAMED else self.filled(self.rng.choice(_LISTS[kind]))


class _Slots(dict[str, str]):
    def __init__(self, supply: Supply) -> None:
        super().__init__()
        self._supply = supply

    def __missing__(self, name: str) -> str:
        return self._supply.slot(name)
