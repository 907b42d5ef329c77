"""Folk: people and places of a character's header, asked for by name, by kinship, by deed, by where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.training.grammar.wording import lines, parted
from npc_runtime.training.threads import ANSWER, HONEST, heard, said
from npc_runtime.training.values import TITLES, Values, read_deck_table

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from npc_runtime.training.threads import Step

_DECK = read_deck_table("folk.toml")

_PEOPLE = {gender: parted(text, ",") for gender, text in _DECK["people"].items()}
_KIN = frozenset(_DECK["kin"]["words"].split())
_DEEDS, _HOURS, _NEWS = ([parted(line) for line in lines(_DECK[name]["list"])] for name in ("deeds", "hours", "news"))
_WORDS = {name.removesuffix("s"): parted(text, ",") for name, text in _DECK["words"].items()}
_WORDS["spot"] = parted(_DECK["places"]["spots"], ",")
_WHERES = parted(_DECK["places"]["wheres"], ",")
_HEADER, _ASK, _ANSWER = (
    {name: lines(text) for name, text in _DECK[part].items()} for part in ("header", "ask", "answer")
)
_NEWS_ASK, _NEWS_ANSWER = (lines(_DECK["news"][name]) for name in ("ask", "answer"))
_HE = {"he": "he", "him": "him", "his": "his"}
_SHE = {"he": "she", "him": "her", "his": "her"}
_MOODS = ("neutral",)

Lore = tuple[list[str], list[list["Step"]]]


class _Words(dict[str, str]):
    """Words for a text's slots, drawn when first asked for; a capital opens a sentence."""

    def __init__(self, values: Values, rng: random.Random, words: dict[str, str]) -> None:
        super().__init__(words)
        self._values, self.rng = values, rng

    def __missing__(self, name: str) -> str:
        low = name[0].lower() + name[1:]
        if low not in self:
            self[low] = self.rng.choice(_WORDS[low]) if low in _WORDS else self._values[low]
        return self[low] if low == name else self[low][:1].upper() + self[low][1:]

    def fill(self, text: str) -> str:
        """The text with its slots filled, and "an" before vowels."""
        return self._values.fill(text.format_map(self))


class Known:
    """Somebody a character knows, and one thing about them."""

    def __init__(self, rng: random.Random, pronoun: dict[str, str], name: str, unseen: bool = False) -> None:
        self._rng, self.name = rng, name
        gender = rng.choice(sorted(_PEOPLE))
        he = _HE if gender == "he" or (gender == "any" and rng.random() < 0.5) else _SHE
        self.rel = rng.choice(_PEOPLE[gender])
        self.deed, self._spoken, self._asks, self._answers = rng.choice(_DEEDS)
        self._header = {**he, **pronoun, "rel": self.rel, "name": name}
        self._speech = {**he, "me": "me", "my": "my", "rel": self.rel, "name": name}
        self._drawn = _Words(Values(rng, unseen), rng, self._header)
        self.fact = self._say(rng.choice(_HEADER["person"]), self.deed, self._header)

    def _say(self, text: str, deed: str, words: dict[str, str]) -> str:
        """The text with the deed in it. What the deed was drawn to hold stays the same in header and speech."""
        self._drawn.update(words)
        return self._drawn.fill(text.replace("{deed}", deed))

    def asked(self, kind: str) -> Step:
        """One question and its answer."""
        rng = self._rng
        if kind == "deed":
            who = self.name if rng.random() < 0.4 else f"your {self.rel}"
            asked, answer = (rng.choice(texts.split(" ; ")).strip() for texts in (self._asks, self._answers))
            asked = asked.replace("{who}", who)
        else:
            asked, answer = rng.choice(_ASK[kind]), rng.choice(_ANSWER[kind])
        question = self._say(asked, self._spoken, self._speech)
        return heard(question, rng), said(self._say(answer, self._spoken, self._speech), rng, ANSWER, _MOODS)

    @property
    def kinds(self) -> list[str]:
        """What may be asked."""
        family = ["kin"] if self.rel.split()[-1] in _KIN else []
        return ["name", "by_name", "by_rel", "deed", "deed", "deed", *family]


def _name(values: Values, number: int) -> str:
    """A name without a title: an uncle may be anybody's brother."""
    first, _, last = values[f"person{number}"].partition(" ")
    return last if first in TITLES else first


def _step(words: _Words, question: str, answer: str, weight: float = ANSWER) -> Step:
    return _drawn(words, _ASK[question], _ANSWER[answer], weight)


def _drawn(words: _Words, questions: Sequence[str], answers: Sequence[str], weight: float = ANSWER) -> Step:
    rng = words.rng
    asked, answered = words.fill(rng.choice(questions)), words.fill(rng.choice(answers))
    return (heard(asked, rng), said(answered, rng, weight, _MOODS))


def _people(rng: random.Random, pronoun: dict[str, str], values: Values) -> Lore:
    known: list[Known] = []
    for number in range(rng.choice((1, 1, 2, 3))):
        person = Known(rng, pronoun, _name(values, number), values.unseen)
        kinship = set(person.rel.split())
        if not any(kinship & set(other.rel.split()) or other.deed == person.deed for other in known):
            known.append(person)
    alone = sum("kin" in person.kinds for person in known) == 1
    threads: list[list[Step]] = []
    for person in known:
        kinds = [kind for kind in person.kinds if kind != "kin" or alone]
        threads.append([person.asked(kind) for kind in rng.sample(kinds, rng.randint(1, 3))])
    if rng.random() < 0.25:
        words = _Words(values, rng, {"other": _name(values, len(known))})
        threads.append([_step(words, "stranger", "stranger", HONEST)])
    return [person.fact for person in known], threads


def _places(rng: random.Random, values: Values) -> Lore:
    facts: list[str] = []
    threads: list[list[Step]] = []
    missing, *spots = rng.sample(_WORDS["spot"], rng.randint(2, 4))
    for number, (spot, where) in enumerate(zip(spots, rng.sample(_WHERES, len(spots)), strict=True)):
        about = {**rng.choice((_HE, _SHE)), "spot": spot, "where": where, "name": _name(values, number + 5)}
        words, text = _Words(values, rng, about), rng.choice(_HEADER["place"])
        facts.append(words.fill(text))
        kinds = ["where", "where", *(("keeper", "keeper_name") if "{name}" in text else ())]
        steps = [_step(words, kind, kind) for kind in rng.sample(kinds, rng.randint(1, 2))]
        if rng.random() < 0.2:
            lost = _Words(values, rng, {**about, "spot": missing, "known": spot})
            steps.append(_step(lost, "where", "no_spot", HONEST))
        threads.append(steps)
    return facts, threads


def _facts(rng: random.Random, values: Values) -> Lore:
    """Hours, ways and distances; and one piece of news, which is also told when news is asked for."""
    facts: list[str] = []
    threads: list[list[Step]] = []
    news = rng.random() < 0.5
    chosen = [*rng.sample(_HOURS, rng.randint(0 if news else 1, 2)), *([rng.choice(_NEWS)] if news else [])]
    for number, (fact, asks, answers) in enumerate(chosen):
        words = _Words(Values(rng, values.unseen), rng, {"name": _name(values, number + 10)})
        filled = words.fill(fact)
        words["fact"] = filled
        kinds = [(parted(asks, " ; "), parted(answers, " ; "))]
        if news and number == len(chosen) - 1:
            kinds.append((_NEWS_ASK, _NEWS_ANSWER))
        facts.append(filled)
        threads.append([_drawn(words, *kind) for kind in rng.sample(kinds, rng.randint(1, len(kinds)))])
    return facts, threads


def lore(rng: random.Random, pronoun: dict[str, str], role: str = "", unseen: bool = False) -> Lore:
    """(facts for the header, threads that ask for them)."""
    values = Values(rng, unseen)
    made: list[Lore] = []
    if rng.random() < 0.6:
        made.append(_people(rng, pronoun, values))
    if rng.random() < 0.4:
        made.append(_places(rng, values))
    if rng.random() < 0.5 or not made:
        made.append(_facts(rng, values))
    return [fact for facts, _ in made for fact in facts], [steps for _, threads in made for steps in threads]
