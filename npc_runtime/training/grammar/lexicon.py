"""The lexicon of events: verbs, the things they are done to, and the values of roles (from whom, where, when)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from npc_runtime.training.grammar.wording import a, lines, parted
from npc_runtime.training.values import Values, read_deck_table

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Hashable, Sequence

Texts = tuple[str, ...]

Entry = TypeVar("Entry", bound="Hashable")

PERSONS = {code: code for code in ("from", "to", "with", "for", "against", "alongside", "about", "at", "under")}
"""Roles that a person fills, each named by its preposition."""
PLACES = frozenset({"in", "spot", "toward", "off"})
"""Roles that "where" asks for."""
ORDER = (*PERSONS, "spot", "off", "toward", "in", "tool", "price", "when", "why")
"""How roles follow each other where nothing else is wanted."""
WH = {
    **{code: ("who", f" {code}") for code in PERSONS},
    "in": ("where", ""),
    "spot": ("where", ""),
    "toward": ("where", " to"),
    "off": ("where", " from"),
    "price": ("how much", " for"),
    "when": ("when", ""),
    "why": ("why", ""),
    "tool": ("what", " with"),
}
"""What asks for a role: the word at the head and what is left behind at the end."""

_ON = frozenset({"the upper deck", "the salt road", "the old bridge", "the ferry"})
_INSIDE = frozenset({"the canyon", "the ruins", "the market square", "the barracks", "the orchard"})


@dataclass(frozen=True, slots=True)
class Form:
    """A verb's forms; `after` is a particle with its space (" up"), which a pronoun may stand before if `parted`."""

    base: str
    past: str
    part: str
    after: str = ""
    parted: bool = False

    def with_object(self, word: str, thing: str, pronoun: bool = False) -> str:
        """`word` (one of the forms) with its object ("" for none)."""
        if not thing:
            return word + self.after
        return f"{word} {thing}{self.after}" if pronoun and self.parted else f"{word}{self.after} {thing}"


@dataclass(frozen=True, slots=True)
class Verb:
    """What may be done: the forms that mean the same, what it is done to, and the roles it has."""

    forms: tuple[Form, ...]
    classes: Texts
    roles: Texts
    group: str
    """Verbs of one group are never told apart by a question."""
    converse: tuple[tuple[str, str], ...]
    """Role, and what its person did: ("from", "sold {me} {o}")."""
    counted: bool
    owned: bool


@dataclass(frozen=True, slots=True)
class Thing:
    """What it is done to. `determiner`: "a", "the", "my", "count", or "name" for a person by name."""

    kind: str
    noun: str
    adjective: str = ""
    determiner: str = "a"
    count: str = ""

    @property
    def person(self) -> bool:
        """Whether "who" asks for it."""
        return self.kind in ("folk", "NAME")

    @property
    def words(self) -> str:
        """The noun with its adjective, in the plural where there are several."""
        noun = plural(self.noun) if self.count else self.noun
        return f"{self.adjective} {noun}" if self.adjective else noun

    def first(self, possessive: str) -> str:
        """As it is brought up: "a copper kettle"."""
        if self.determiner == "name":
            return self.noun
        if self.count:
            return f"{self.count} {self.words}"
        if self.determiner == "a":
            return a(self.words)
        return f"{possessive if self.determiner == 'my' else 'the'} {self.words}"

    def known(self, possessive: str, full: bool) -> str:
        """As it is spoken of again: "the kettle", with its adjective if `full`."""
        if self.determiner == "name":
            return self.noun
        noun = self.words if full else plural(self.noun) if self.count else self.noun
        return f"{possessive if self.determiner == 'my' else 'the'} {noun}"


@dataclass(frozen=True, slots=True)
class Role:
    """A role filled: its value ("Aldo"), the phrase that tells it ("from Aldo"), and what a right answer holds."""

    code: str
    value: str
    phrase: str
    fact: str


def plural(noun: str) -> str:
    """The plural of a noun; of "bale of hay" its head's."""
    head, of, rest = noun.partition(" of ")
    before, _, last = head.rpartition(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last.endswith("man"):
        last = f"{last[:-2]}en"
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last += "s"
    return f"{before} {last}{of}{rest}" if before else f"{last}{of}{rest}"


_SAME = ("sheep", "deer", "trout", "salmon", "pike")
_PLURALS = {word: word for word in _SAME} | {
    "wolf": "wolves", "calf": "calves", "loaf": "loaves", "knife": "knives", "scarf": "scarves", "shelf": "shelves",
    "thief": "thieves", "midwife": "midwives", "ox": "oxen", "goose": "geese", "tooth": "teeth", "foot": "feet",
}  # fmt: skip


class Filler:
    """Draws what fills roles, no value twice; names are held-out ones or none of them, as `unseen` says."""

    def __init__(self, rng: random.Random, unseen: bool) -> None:
        self.rng = rng
        self._values, self._slots = Values(rng, unseen), 0
        self._drawn: set[Hashable] = set()

    def value(self, kind: str) -> str:
        """A new value of a slot's kind (see `values`)."""
        self._slots += 1
        return self._values[f"{kind}{self._slots}"]

    def one_of(self, words: Sequence[Entry]) -> Entry:
        """A word not drawn before."""
        word = self.rng.choice(words)
        if word in self._drawn:
            word = self.rng.choice([free for free in words if free not in self._drawn])
        self._drawn.add(word)
        return word

    def role(self, code: str) -> Role:
        """A role filled anew."""
        if code in PERSONS:
            name = self.value("person")
            return Role(code, name, f"{code} {name}", name)
        return _MAKERS[code](self)

    def thing(self, verb: Verb, kind: str = "") -> Thing | None:
        """Something for the verb to be done to; None where it takes nothing."""
        rng, kind = self.rng, kind or self.rng.choice(verb.classes)
        if kind == "-":
            return None
        if kind == "NAME":
            return Thing(kind, self.value("person"), determiner="name")
        noun = self.one_of(NOUNS[kind])
        adjective = rng.choice(ADJECTIVES[kind]) if kind in ADJECTIVES and rng.random() < 0.5 else ""
        if kind in DEFINITE:
            return Thing(kind, noun, determiner="the")
        if verb.counted and rng.random() < 0.15:
            return Thing(kind, noun, adjective, "count", self.one_of(COUNTS))
        own = verb.owned and kind != "folk" and rng.random() < 0.5
        return Thing(kind, noun, adjective, "my" if own else "a")


def _place(filler: Filler) -> Role:
    place = filler.value("place")
    before = "on" if place in _ON else "in" if place in _INSIDE or not place.startswith("the ") else "at"
    return Role("in", place, f"{before} {place}", place)


def _way(code: str, before: str) -> Callable[[Filler], Role]:
    def role(filler: Filler) -> Role:
        place = filler.value("place")
        return Role(code, place, f"{before} {place}", place)

    return role


def _price(filler: Filler) -> Role:
    price = f"{filler.value('number')} {filler.rng.choice(UNITS)}"
    return Role("price", price, f"for {price}", price)


def _tool(filler: Filler) -> Role:
    tool = filler.one_of(TOOLS)
    return Role("tool", a(tool), f"with {a(tool)}", tool)


def _listed(code: str, words: Texts) -> Callable[[Filler], Role]:
    def role(filler: Filler) -> Role:
        phrase = filler.one_of(words)
        return Role(code, phrase, phrase, phrase)

    return role


def _form(base: str, past: str, part: str) -> Form:
    """Forms as the table writes them: `pick_up` may be parted by a pronoun, `look~for` may not."""
    parted = "_" in base
    heads = [word.replace("~", "_").partition("_")[0] for word in (base, past, part)]
    after = base[len(heads[0]) :].replace("_", " ").replace("~", " ")
    return Form(heads[0], heads[1], heads[2], after, parted)


def _verb(line: str, own: frozenset[str]) -> Verb:
    columns = [column.strip() for column in line.split(";")]
    forms, classes, roles, group, synonyms, converse = (*columns, "", "")[:6]
    base, past, part = forms.split()
    more = tuple(_form(*(word.strip().split("/"))) for word in synonyms.split(",") if word.strip())
    codes = tuple(roles.split())
    pairs = tuple(tuple(pair.split("=", 1)) for pair in converse.split(",") if pair)
    return Verb(
        (_form(base, past, part), *more),
        tuple(classes.split()),
        tuple(code for code in codes if code != "#"),
        group,
        pairs,  # type: ignore[arg-type]  # split at the one sign each holds
        "#" in codes,
        group in own,
    )


def _also(text: str) -> dict[tuple[str, str], list[tuple[str, str]]]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for line in lines(text):
        key, _, questions = line.partition(":")
        direct, _, embedded = questions.partition("|")
        group, code = key.split()
        found.setdefault((group, code), []).append((direct.strip(), embedded.strip()))
    return found


DATA = read_deck_table("frames.toml")
"""The table as read, once."""
NOUNS: dict[str, Texts] = {kind: parted(text, ",") for kind, text in DATA["nouns"].items()}
ADJECTIVES: dict[str, Texts] = {kind: parted(text, ",") for kind, text in DATA["adjectives"].items()}
DEFINITE = frozenset(DATA["definite"].split())
KIN = tuple((entry.rpartition(" ")[0], entry.rpartition(" ")[2]) for entry in parted(DATA["words"]["kin"], ","))
UNITS, COUNTS, TOOLS = (parted(DATA["words"][key], ",") for key in ("units", "counts", "tools"))
TIMES, REASONS, SPOTS = (parted(DATA["words"][key], ",") for key in ("times", "reasons", "spots"))
VERBS = tuple(_verb(line, frozenset(DATA["own"].split())) for line in lines(DATA["verbs"]))
BY_CLASS: dict[str, tuple[Verb, ...]] = {
    kind: tuple(verb for verb in VERBS if kind in verb.classes) for kind in (*NOUNS, "NAME", "-")
}
ALSO = _also(DATA["also"])
"""Other questions, direct and embedded, for a role of a group of verbs."""
SHAPES: dict[str, Texts] = {key: lines(text) for key, text in DATA.get("shapes", {}).items()}
"""Shapes of sentences, by what they do."""

_MAKERS: dict[str, Callable[[Filler], Role]] = {
    "in": _place,
    "toward": _way("toward", "to"),
    "off": _way("off", "from"),
    "price": _price,
    "tool": _tool,
    "when": _listed("when", TIMES),
    "why": _listed("why", REASONS),
    "spot": _listed("spot", SPOTS),
}
