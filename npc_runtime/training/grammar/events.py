"""Events: who did what to what, and in which roles; how they are told, and what asks for each part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.training.grammar.lexicon import KIN, ORDER, PERSONS, WH, Form
from npc_runtime.training.grammar.wording import cap

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from npc_runtime.training.grammar.lexicon import Filler, Role, Thing, Verb

THING, COUNT, SUBJECT = "thing", "count", "subject"
"""Parts of an event that are no role and can be asked for all the same."""
NARROWED = 0.15


@dataclass(frozen=True, slots=True)
class Voice:
    """How a subject is called by somebody: "I", "me", "my", and the pronoun for it."""

    name: str
    object: str
    possessive: str
    pronoun: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Who did it, as it is told, asked for and answered."""

    told: Voice
    asked: Voice
    answered: Voice
    fact: str = ""
    """What a right answer to "who" holds; "" where nobody would ask."""

    @property
    def third(self) -> bool:
        """Whether it is somebody apart from the two who talk."""
        return bool(self.fact)


YOU, ME = Voice("you", "you", "your", "you"), Voice("I", "me", "my", "I")
I = Subject(ME, ME, YOU)  # noqa: E741
WE = Subject(Voice("we", "us", "our", "we"), Voice("we", "us", "our", "we"), YOU)
_POSSESSIVE = {"he": "his", "she": "her", "they": "their"}


def drawn_subject(filler: Filler) -> Subject:
    """Who did it: mostly the player, else kin or somebody by name."""
    kind = filler.rng.random()
    if kind < 0.6:
        return I
    return WE if kind < 0.66 else other_subject(filler)


def other_subject(filler: Filler) -> Subject:
    """Somebody of the player's, or somebody by name."""
    if filler.rng.random() < 0.3:
        return _named(filler.value("person"), filler.rng.choice(("he", "she")))
    noun, pronoun = filler.one_of(KIN)
    return kin_subject(noun, pronoun, "my", "my", "your")


def kin_subject(noun: str, pronoun: str, told: str, asked: str, answered: str) -> Subject:
    """ "my brother", with the possessives that tell, ask and answer."""
    possessive = _POSSESSIVE[pronoun]
    tells, asks, answers = (
        Voice(f"{of} {noun}", f"{of} {noun}", possessive, pronoun) for of in (told, asked, answered)
    )
    return Subject(tells, asks, answers, noun)


def _named(name: str, pronoun: str) -> Subject:
    voice = Voice(name, name, _POSSESSIVE[pronoun], pronoun)
    return Subject(voice, voice, voice, name)


def own_subject(pronoun: Mapping[str, str]) -> Subject:
    """The character itself: told of in the third person, asked as "you", answering as "I"."""
    they, them, their = (pronoun[key] for key in ("they", "them", "their"))
    return Subject(Voice(they, them, their, they), YOU, ME)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done.

    `full`: its thing is told from others only by its adjective; `shared`: other events are about the same thing.
    """

    subject: Subject
    verb: Verb
    thing: Thing | None
    roles: Mapping[str, Role]
    full: bool = False
    shared: bool = False

    def fact(self, code: str) -> str:
        """What a right answer to a part holds."""
        if code == SUBJECT:
            return self.subject.fact
        if code in (THING, COUNT) and self.thing:
            return self.thing.count if code == COUNT else self.thing.words
        return self.roles[code].fact

    def parts(self) -> list[str]:
        """Every part that was told and can be asked for."""
        parts = list(self.roles)
        if self.thing:
            parts.append(COUNT if self.thing.count else THING)
        return [*parts, SUBJECT] if self.subject.third else parts

    def missing(self) -> list[str]:
        """Roles that the verb has and nobody told; places are all asked for with "where"."""
        placed = any(WH[code][0] == "where" for code in self.roles)
        return [code for code in self.verb.roles if code not in self.roles and not (placed and WH[code][0] == "where")]

    def conversed(self, code: str) -> str:
        """What the role's person did, its parts still open ("sold {me} {o}"); "" where there is no such word."""
        return dict(self.verb.converse).get(code, "")


class Words(dict[str, str]):
    """The words of an event in one voice, for shapes to be filled with; made when asked for. See decks/frames.toml."""

    def __init__(self, event: Event, voice: Voice, rng: random.Random) -> None:
        super().__init__()
        self.event, self.voice, self.rng = event, voice, rng
        forms = event.verb.forms
        self.form: Form = forms[0] if len(forms) == 1 or rng.random() < 0.5 else rng.choice(forms)
        self.full = event.full or rng.random() < 0.2

    def __missing__(self, key: str) -> str:
        low = key[0].lower() + key[1:]
        self[key] = value = cap(self[low]) if low != key else _WORDS[key](self)
        return value

    def fill(self, texts: Sequence[str]) -> str:
        """One of the texts, filled."""
        return self.rng.choice(texts).format_map(self)

    def first(self, word: str) -> str:
        """A form of the verb with its thing as it is brought up."""
        return self.form.with_object(word, self["o"])

    def known(self, word: str) -> str:
        """A form of the verb with its thing as it is known."""
        return self.form.with_object(word, self["d"])

    def referred(self, word: str) -> str:
        """A form of the verb with a pronoun, or the name of a person."""
        return self.form.with_object(word, self["i"], pronoun=self["i"] in ("it", "them"))

    def roles(self, lead: str = "") -> None:
        """Puts the role phrases in an order, `lead` first if it is given."""
        roles = self.event.roles
        order = [code for code in ORDER if code in roles and code != lead]
        if self.rng.random() < 0.15:
            self.rng.shuffle(order)
        order = [lead, *order] if lead else order
        phrases = [roles[code].phrase for code in order]
        self["r"], self["r1"] = " ".join(phrases), phrases[0]
        self["rest"] = "".join(f" {phrase}" for phrase in phrases[1:])
        self["x1"], self["st1"] = roles[order[0]].value, WH[order[0]][1]

    def other(self, code: str) -> str:
        """The phrase of a told role that is not the one asked for, after a space; "" where there is none."""
        others = [role for role in self.event.roles.values() if role.code != code]
        return f" {self.rng.choice(others).phrase}" if others else ""

    def question(self, code: str, narrowed: float = NARROWED) -> None:
        """Makes the direct and the embedded question for a part; see `shapes` in the table.

        `narrowed`: share of questions for a role that name another one ("who from, in Tenil").
        """
        other = self["other"] = self.other(code)
        if code == SUBJECT:
            self["q"] = self["w"] = f"who {self['vd']}{other}"
        elif code in (THING, COUNT):
            thing = self.event.thing
            head = f"how many {thing.words}" if thing and code == COUNT else "who" if thing and thing.person else "what"
            self["q"], self["w"] = (
                f"{head} did {self['s']} {self['b']}{other}",
                f"{head} {self['s']} {self['v']}{other}",
            )
        else:
            self._role_question(code, other if self.rng.random() < narrowed else "")

    def _role_question(self, code: str, other: str) -> None:
        head, left = WH[code]
        other = "" if left and other.startswith(f"{left} ") else other
        end, s = left + other, self["s"]
        self["q"], self["w"] = f"{head} did {s} {self['bd']}{end}", f"{head} {s} {self['vd']}{end}"
        self["qi"], self["wi"] = f"{head} did {s} {self['bi']}{left}", f"{head} {s} {self['vi']}{left}"
        self["short"], self["st"], self["prep"] = head + left, left, left.strip()
        self["place"] = f"{left} {'what' if code == 'tool' else head}"

    def answer(self, code: str) -> None:
        """Puts the value of a role, and what may be told with it."""
        role = self.event.roles[code]
        self["x"], self["p"], self["st"] = role.value, role.phrase, WH[code][1]
        more = self.other(code)
        self["and_more"] = f",{more}" if more else ""


_WORDS: dict[str, Callable[[Words], str]] = {
    "s": lambda words: words.voice.name,
    "me": lambda words: words.voice.object,
    "my": lambda words: words.voice.possessive,
    "pron": lambda words: words.voice.pronoun,
    "was": lambda words: "were" if words.voice.name in ("we", "you", "they") else "was",
    "o": lambda words: words.event.thing.first(words.voice.possessive) if words.event.thing else "",
    "d": lambda words: words.event.thing.known(words.voice.possessive, words.full) if words.event.thing else "",
    "i": lambda words: _pronoun(words),
    "wo": lambda words: "were" if words.event.thing and words.event.thing.count else "was",
    "noun": lambda words: words.event.thing.words if words.event.thing else "",
    "is": lambda words: "are" if words.event.thing and words.event.thing.count else "is",
    "n": lambda words: words.event.thing.count if words.event.thing else "",
    "v": lambda words: words.form.past + words.form.after,
    "b": lambda words: words.form.base + words.form.after,
    "pp": lambda words: words.form.part + words.form.after,
    "vo": lambda words: words.first(words.form.past),
    "vd": lambda words: words.known(words.form.past),
    "vi": lambda words: words.referred(words.form.past),
    "bo": lambda words: words.first(words.form.base),
    "bd": lambda words: words.known(words.form.base),
    "bi": lambda words: words.referred(words.form.base),
}


def _pronoun(words: Words) -> str:
    thing = words.event.thing
    if thing is None or thing.person:
        return words["d"]
    return "them" if thing.count else "it"


def persons(event: Event) -> list[str]:
    """The roles told that persons fill."""
    return [code for code in event.roles if code in PERSONS]
