"""Single facts of a header, each with spots that hold one of several values, and what players ask to hear one.

A block of `known-*.txt` is a fact and, for each spot that is asked for, a line of questions and one of answers:

    {their} oven is called [Hilda|the widow|{person}] and has burned for [nine years|{number} years]
    1 What's your oven called? | does the oven have a name
    = {1}. | The oven? {1}.
    2 How long has it burned? | when was the fire lit
    = For {2}. | {2}, without a break.

The header tells a fact in the third person; what a spot holds the character says in the first ("{their}" is "my").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from npc_runtime.training.corpus import CorpusError
from npc_runtime.training.values import ASKING, slots

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Mapping

    from npc_runtime.training.values import Values

Texts = tuple[str, ...]

_SPOT = re.compile(r"\[([^\[\]]*)\]")
_HELD = re.compile(r"\{(\d)\}")
_PRONOUN = re.compile(r"\{(?:they|them|their)\}")
FIRST = {"{they} were": "I was", "{they} are": "I am", "{they}": "I", "{them}": "me", "{their}": "my"}
SECOND = {"{they}": "you", "{them}": "you", "{their}": "your"}
"""How one speaks of oneself, and of somebody to his face."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a fact: what may stand there, and questions and answers for it (none where nobody asks)."""

    values: Texts
    ask: Texts = ()
    answer: Texts = ()


@dataclass(frozen=True)
class Known:
    """A fact with its spots as {1}, {2}, ..."""

    fact: str
    spots: tuple[Spot, ...]

    @property
    def key(self) -> str:
        """What the split goes by."""
        return self.fact

    @cached_property
    def topic(self) -> frozenset[str]:
        """Words that tell what it is about, whatever its spots hold."""
        return frozenset(re.findall("[a-z]{3,}", re.sub(r"\{\w+\}", "", self.fact))) - ASKING

    @cached_property
    def own(self) -> bool:
        """Whether it speaks of the character: what does not, anybody may tell."""
        return any(_PRONOUN.search(text) for text in (self.fact, *(value for s in self.spots for value in s.values)))


class Telling:
    """A fact with something in each of its spots."""

    def __init__(self, card: Known, values: Values, rng: random.Random) -> None:
        self._values, self.card = values, card
        self._held = [rng.choice(spot.values) for spot in card.spots]

    @property
    def fact(self) -> str:
        """As the header tells it."""
        return self._values.fill(_HELD.sub(lambda found: self._held[int(found[1]) - 1], self.card.fact))

    def spoken(self, text: str, person: Mapping[str, str] = FIRST) -> str:
        """What a character says, or another `person`: with a capital where what a spot holds opens a sentence."""

        def value(found: re.Match[str]) -> str:
            held = self._held[int(found[1]) - 1]
            for pronoun, word in person.items():
                held = held.replace(pronoun, word)
            opens = text[: found.start()].rstrip()[-1:] in ("", ".", "!", "?")
            return held[:1].upper() + held[1:] if opens else held

        return self._values.fill(_HELD.sub(value, text))

    def asked(self, text: str) -> str:
        """A question to the character."""
        return self.spoken(text, SECOND)

    def value(self, spot: Spot, person: Mapping[str, str] = FIRST) -> str:
        """What a spot holds."""
        return self.spoken(f", {{{self.card.spots.index(spot) + 1}}}", person)[2:]

    def change(self, at: int, rng: random.Random) -> bool:
        """Puts something else into the spot of that index; False where nothing else may stand there."""
        others = [value for value in self.card.spots[at].values if value != self._held[at]]
        if others:
            self._held[at] = rng.choice(others)
        return bool(others)


def apart(drawn: Iterable[Known], count: int) -> Iterator[Known]:
    """At most `count` facts of those drawn, about different things.

    "What is your horse called?" must not be asked of either of two.
    """
    told: set[str] = set()
    for card in drawn:
        if count and not card.topic & told:
            told |= card.topic
            count -= 1
            yield card


def read_known(text: str, name: str) -> tuple[Known, ...]:
    """The blocks of a deck, parted by empty lines; CorpusError with file, line and what was expected."""
    found: list[Known] = []
    first, block = 1, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            block.append(line.strip())
        elif block:
            try:
                found.append(_block(block))
            except ValueError as error:
                raise CorpusError(f"`{name}` line {first}: {error}") from error
            block = []
        if not block:
            first = number + 1
    return tuple(found)


def _block(lines: list[str]) -> Known:
    values = [_options(options) for options in _SPOT.findall(lines[0])]
    numbers = iter(range(1, len(values) + 1))
    fact = _SPOT.sub(lambda _: f"{{{next(numbers)}}}", lines[0])
    spots = [Spot(options) for options in values]
    for asked, answers in zip(lines[1::2], lines[2::2], strict=False):
        found = re.fullmatch(r"([1-9]) (.*)", asked)
        if not found or int(found[1]) > len(spots) or not answers.startswith("= "):
            raise ValueError(f"expected `NUMBER question | question`, then `= answer | answer`, got `{asked:.60}`")
        number = int(found[1])
        spots[number - 1] = Spot(values[number - 1], _options(found[2]), _options(answers[2:]))
    if len(lines) % 2 == 0 or not any(spot.ask for spot in spots):
        raise ValueError(
            "expected a fact with [values] and, for one of them or more, a line of questions and one of answers"
        )
    _check(fact, spots)
    return Known(fact, tuple(spots))


def _options(text: str) -> Texts:
    options = tuple(option.strip() for option in text.split("|"))
    if not all(options):
        raise ValueError(f"expected texts parted by `|`, got `{text:.60}`")
    return options


def _check(fact: str, spots: list[Spot]) -> None:
    """ValueError unless every answer holds what is asked for, and no question does."""
    every = {str(number) for number in range(1, len(spots) + 1)}
    told = slots(fact).union(*(slots(value) for spot in spots for value in spot.values))
    for number, spot in enumerate(spots, 1):
        own = f"{{{number}}}"
        wrong = [text for text in spot.ask if own in text] + [text for text in spot.answer if own not in text]
        if wrong:
            raise ValueError(
                f"expected {own} in each of its answers and in none of its questions, got `{wrong[0]:.60}`"
            )
        for text in (*spot.ask, *spot.answer):
            if set(re.findall(r"\{(\d)\}", text)) - every or slots(text) - told:
                raise ValueError(f"`{text:.60}` holds a slot that the fact does not")
