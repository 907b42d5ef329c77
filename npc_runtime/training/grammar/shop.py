"""Shops: goods and prices in the header, and buying talk about them: prices, sums, haggling, what is not sold."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from npc_runtime.training.grammar import wording
from npc_runtime.training.grammar.supply import in_words
from npc_runtime.training.grammar.wording import lines, parted
from npc_runtime.training.threads import ANSWER, heard, said
from npc_runtime.training.values import read_deck_table

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from npc_runtime.training.threads import Step

_DECK = read_deck_table("shop.toml")
_ROLES = {trade: set(words.split()) for trade, words in _DECK["roles"].items()}
_COINS = [coin.split("/") for coin in parted(_DECK["money"]["coins"], ",")]
_HEADER, _ASK, _ANSWER = (
    {name: lines(text) for name, text in _DECK[part].items()} for part in ("header", "ask", "answer")
)
_MOODS = {"less": ("wary", "neutral", "amused"), "pay": ("happy", "neutral"), "short": ("wary", "neutral")}
_ACTIONS = {"stock": ("trade", None), "pay": ("give",), "over": ("give",)}
_LINK = re.compile(r"(.+?)( of | for | by | on | in | against |$)(.*)")
_DEAR = 0.25
"""Share of prices above thirty."""
_HARD = 70
"""Sums above this are not asked for."""


@dataclass(frozen=True, slots=True)
class _Good:
    """Something for sale: `kind` c counts, m is a mass, p has no singular."""

    kind: str
    noun: str
    many: str

    @property
    def a(self) -> str:
        return wording.a(self.noun) if self.kind == "c" else self.noun

    @property
    def some(self) -> str:
        return self.many if self.kind == "c" else self.noun


def _good(text: str) -> _Good:
    kind, _, nouns = text.partition(" ")
    noun, _, many = nouns.partition("/")
    head, link, tail = _LINK.match(noun).groups()  # type: ignore[union-attr]  # "sack of flour": sacks of flour
    return _Good(kind, noun, many or f"{head}s{link}{tail}")


_GOODS = {trade: [_good(text) for text in parted(texts, ",")] for trade, texts in _DECK["goods"].items()}


class Shop:
    """One character's goods and prices. Everything said of them follows from these."""

    def __init__(self, rng: random.Random, role: str = "") -> None:
        words = set(role.lower().split())
        fitting = [trade for trade, names in _ROLES.items() if names & words]
        self._trade = rng.choice(fitting or sorted(_GOODS))
        self._rng, self._digits = rng, rng.random() < 0.5
        self._coin, self._coins = rng.choice(_COINS)
        self.goods = rng.sample(_GOODS[self._trade], rng.randint(1, 5))
        self.prices: list[int] = []
        while len(self.prices) < len(self.goods):
            price = rng.randint(2, 30) if rng.random() > _DEAR else rng.randint(31, 150)
            if price not in self.prices:
                self.prices.append(price)

    def facts(self, pronoun: dict[str, str]) -> list[str]:
        """What the header says of it, one to three goods a fact."""
        facts, at = [], 0
        while at < len(self.goods):
            here = range(at, min(len(self.goods), at + self._rng.choice((1, 2, 2, 3))))
            parts = [
                self._filled(self._rng.choice(_HEADER["first" if i == at else "more"]), i, **pronoun) for i in here
            ]
            facts.append(_listed(parts))
            at = here.stop
        return facts

    def talk(self) -> list[Step]:
        """Some visits to it in a row."""
        visits = [self._stock, self._price, self._price, self._have, self._lack]
        if len(self.goods) > 2:
            visits += [self._cheapest, self._dearest]
        return [step for visit in self._rng.sample(visits, self._rng.randint(1, 3)) for step in visit()]

    def _stock(self) -> list[Step]:
        return [self._step("stock", 0)]

    def _price(self) -> list[Step]:
        rng, at = self._rng, self._rng.randrange(len(self.goods))
        steps = [self._step("price", at)]
        other = (at + 1) % len(self.goods)
        if other != at and rng.random() < 0.4:
            steps.append(self._step("next", other, "price"))
            if rng.random() < 0.4 and self.prices[at] + self.prices[other] <= _HARD:
                return [*steps, self._both(at, other)]
            at = other
        count = rng.randint(2, 5)
        if self.goods[at].kind == "c" and rng.random() < 0.4 and count * self.prices[at] <= _HARD:
            return [*steps, self._step("many", at, q=self._number(count), sum=self._number(count * self.prices[at]))]
        if rng.random() < 0.3:
            steps.append(self._step("less", at, low=self._number(max(1, self.prices[at] - rng.randint(1, 4)))))
        return [*steps, *self._paid(at)] if rng.random() < 0.4 else steps

    def _both(self, at: int, other: int) -> Step:
        total = self._number(self.prices[at] + self.prices[other])
        good = self.goods[other]
        more = {"a2": good.a, "the2": f"the {good.noun}", "n2": self._number(self.prices[other])}
        return self._step("both", at, sum=total, **more)

    def _paid(self, at: int) -> list[Step]:
        rng, price, gap = self._rng, self.prices[at], self._rng.randint(1, 5)
        way = rng.choice(("pay", "pay", "short", "over"))
        if way == "short" and gap < price - 1:
            return [self._step("short", at, low=self._number(price - gap), gap=self._number(gap))]
        if way == "over":
            return [self._step("over", at, high=self._number(price + gap), gap=self._number(gap))]
        return [self._step("pay", at)]

    def _have(self) -> list[Step]:
        return [self._step("have", self._rng.randrange(len(self.goods)))]

    def _lack(self) -> list[Step]:
        trade = self._rng.choice([trade for trade in _GOODS if trade != self._trade])
        return [self._step("lack", 0, x=self._rng.choice(_GOODS[trade]).some)]

    def _cheapest(self) -> list[Step]:
        return [self._step("cheap", self.prices.index(min(self.prices)))]

    def _dearest(self) -> list[Step]:
        return [self._step("dear", self.prices.index(max(self.prices)), "cheap")]

    def _step(self, asks: str, at: int, answers: str = "", **more: str) -> Step:
        rng, answers = self._rng, answers or asks
        asked = self._filled(rng.choice(_ASK[asks]), at, **more)
        answer = self._filled(rng.choice(_ANSWER[answers]), at, **more)
        weight = ANSWER if answers not in ("less", "pay") else ANSWER / 2
        line = said(answer, rng, weight, _MOODS.get(answers, ("neutral",)))
        return (heard(asked, rng), replace(line, action=rng.choice(_ACTIONS.get(answers, (None,)))))

    def _number(self, number: int) -> str:
        return str(number) if self._digits or number > 99 else in_words(number)

    def _filled(self, text: str, at: int, **more: str) -> str:
        """The text about one good; words with a capital open sentences."""
        good = self.goods[at]
        if good.kind == "p":
            text = text.replace("} is {n", "} are {n").replace(" costs {", " cost {")
        words = {
            "g": good.noun,
            "a": good.a,
            "the": f"the {good.noun}",
            "some": good.some,
            "n": self._number(self.prices[at]),
            "coin": self._coin,
            "coins": self._coins,
            "list": _listed([good.some for good in self.goods]),
            **more,
        }
        capital = {name.capitalize(): word[:1].upper() + word[1:] for name, word in words.items()}
        return text.format_map({**words, **capital})


def _listed(parts: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else parts[0]


def lore(
    rng: random.Random, pronoun: dict[str, str], role: str = "", unseen: bool = False
) -> tuple[list[str], list[list[Step]]]:
    """(facts for the header, threads that ask for them)."""
    shop = Shop(rng, role)
    return shop.facts(pronoun), [shop.talk()]
