"""Events told, corrected and asked for: a grammar of facts whose answer must be found by who did what to what.

"I bought a copper kettle from Aldo in Tenil", and beside it "I bought a lamp from Bess": see `draw`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from npc_runtime.training.grammar import phrases, wording
from npc_runtime.training.grammar.events import (
    SUBJECT,
    THING,
    Event,
    Words,
    drawn_subject,
    kin_subject,
    other_subject,
    own_subject,
)
from npc_runtime.training.grammar.lexicon import ADJECTIVES, BY_CLASS, KIN, ORDER, VERBS, WH, Filler
from npc_runtime.training.threads import Told

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from npc_runtime.training.grammar.events import Subject
    from npc_runtime.training.grammar.lexicon import Role, Thing, Verb
    from npc_runtime.training.threads import Fact, Step

CHOICE = 0.06
"""Share of questions that offer the answer beside a wrong one, or a wrong one alone."""
WHOLE, PAIR = 0.05, 0.12
"""Shares of questions for all that was told of a thing and, above that, for two roles at once."""
_COUNTS = (1, 2, 2, 3)
"""How many roles are told."""


class Frame:
    """An event through a conversation (see `threads.Fact`)."""

    def __init__(self, event: Event, filler: Filler, group: Sequence[Event] = ()) -> None:
        """`group`: the events drawn with it, of which nothing may be called never told."""
        self.event, self._filler, self._rng = event, filler, filler.rng
        self._group = group or (event,)
        self._asked, self._fresh = self._part(), True
        self._near = _other_thing(event, filler)

    @property
    def kin(self) -> set[str]:
        """What it is about: its thing and the one like it, who did it, what was done."""
        things = [self.event.thing, self._near.thing if self._near else None]
        nouns = [thing.noun for thing in things if thing and thing.kind != "NAME"]
        words = [part.rpartition(" ")[2] for noun in nouns for part in noun.split(" of ")]
        words += [word for form in self.event.verb.forms for word in (form.base, form.past)]
        return {f"about {word}" for word in (*words, self.event.subject.fact.rpartition(" ")[2]) if word}

    @property
    def fits(self) -> bool:
        """An event always answers what is asked of it."""
        return True

    def told(self) -> Told:
        """The value of the part that was asked last or, before any question, that will be asked first."""
        return Told(f"frame_{self.event.verb.group}", (self.event.fact(self._asked),))

    def tell(self, before: str = "", after: str = "") -> Step:
        """The player tells it, perhaps between two other remarks."""
        event = self.event
        back = Words(event, event.subject.answered, self._rng)
        named = [role.phrase for role in event.roles.values()] + ([back["o"]] if event.thing else [])
        text = self._typed(phrases.telling(event, event.subject.told, self._rng))
        return wording.telling(text, wording.ack(named, self._rng), self._rng, before, after)

    def volunteer(self) -> Step | None:
        """The character speaks of it unasked."""
        code = self._rng.choice(list(self.event.roles))
        return wording.unasked(phrases.volunteered(self.event, code, self._rng), self._rng)

    def correct(self) -> Step | None:
        """The player puts another value for one of the roles, which the next question asks for."""
        code = self._rng.choice(list(self.event.roles))
        new = self._filler.role(code)
        text, reply = phrases.correction(self.event, self.event.roles[code], new, self._rng)
        self.event = replace(self.event, roles={**self.event.roles, code: new})
        self._asked, self._fresh = code, True
        return wording.correcting(text, reply, self._rng)

    def ask(self) -> Step:
        """The player asks for a part of it, mostly another one than last time."""
        if not self._fresh:
            self._asked = self._part()
        self._fresh = False
        code, event, rng = self._asked, self.event, self._rng
        kind = rng.random()
        second = self._second(code)
        if kind < WHOLE and self._single():
            asked, answer = phrases.whole(event, rng)
        elif kind < PAIR and second:
            asked, answer = phrases.pair(event, code, second, rng)
        elif code in event.roles and kind > 1 - CHOICE:
            asked, answer = phrases.offered(event, self._filler.role(code), rng)
        else:
            asked, answer = phrases.exchange(event, code, rng)
        return wording.asking(self._typed(asked), answer, rng)

    def beside(self) -> Step | None:
        """The player asks for a role not told, or the same of another thing, verb or subject."""
        ways = [self._missing, self._thing, self._verb, self._subject]
        self._rng.shuffle(ways)
        for way in ways:
            pair = way()
            if pair:
                return wording.denying(self._typed(pair[0]), pair[1], self._rng)
        return None

    def _second(self, code: str) -> str:
        """Another role to ask for with the first, told or not; "" where there is none."""
        others = [*self.event.roles, *self.event.missing()] if code in self.event.roles else []
        return self._rng.choice([other for other in others if other != code] or [""])

    def _single(self) -> bool:
        """Whether all that was told of the thing is this event, and all its parts stand in the telling."""
        return self.event.thing is not None and not self.event.shared and self._asked in self.event.roles

    def _part(self) -> str:
        """The part to ask for next: mostly a role."""
        roles = list(self.event.roles)
        return self._rng.choice(roles if self._rng.random() < 0.7 else self.event.parts())

    def _role(self) -> str:
        return self._rng.choice(list(self.event.roles))

    def _missing(self) -> tuple[str, str] | None:
        codes = self.event.missing()
        return phrases.missing(self.event, self._rng.choice(codes), self._rng) if codes else None

    def _thing(self) -> tuple[str, str] | None:
        near = self._near
        return phrases.never(self.event, near, self._role(), THING, self._rng) if near else None

    def _verb(self) -> tuple[str, str] | None:
        """Another thing to do to the same: "who did I sell the kettle to", where it was bought."""
        groups = {event.verb.group for event in self._group}
        verb = _other_verb(self.event, groups, self._rng)
        if verb is None:
            return None
        code = self._rng.choice(verb.roles)
        return phrases.never(self.event, replace(self.event, verb=verb, roles={}), code, "verb", self._rng)

    def _subject(self) -> tuple[str, str] | None:
        """The same done by somebody of whom nothing was told."""
        names = {event.subject.told.name for event in self._group}
        subject = other_subject(self._filler)
        if subject.told.name in names:
            return None
        other = replace(self.event, subject=subject)
        return phrases.never(self.event, other, self._role(), SUBJECT, self._rng)

    def _typed(self, text: str) -> str:
        event = self.event
        keep = [role.phrase for role in event.roles.values()]
        keep += [thing.words for thing in (event.thing, self._near.thing if self._near else None) if thing]
        return wording.typed(text, (*keep, event.subject.told.name), self._rng)


def draw(rng: random.Random, unseen: bool = False) -> list[Fact]:
    """One to three events, told apart by their things, verbs or subjects alone; every value differs.

    `unseen`: with names of the held-out set only, else with none of it.
    """
    filler = Filler(rng, unseen)
    first = drawn(filler)
    count = rng.choice((1, 1, 2, 2, 3))
    group = rng.choice(_RELATED)(first, count - 1, filler) if count > 1 else [first]
    return [Frame(event, filler, group) for event in group]


def drawn(filler: Filler) -> Event:
    """An event of any kind."""
    verb = filler.rng.choice(VERBS)
    return Event(drawn_subject(filler), verb, filler.thing(verb), _roles(verb, filler))


def _roles(verb: Verb, filler: Filler, codes: Sequence[str] = ()) -> dict[str, Role]:
    """Roles filled: those given, or some of the verb's; no two that the same word asks for as "where"."""
    chosen = list(codes) or _chosen(verb, filler.rng)
    return {code: filler.role(code) for code in ORDER if code in chosen}


def _chosen(verb: Verb, rng: random.Random) -> list[str]:
    codes = rng.sample(verb.roles, min(rng.choice(_COUNTS), len(verb.roles)))
    kept: list[str] = []
    for code in codes:
        clash = WH[code][0] == "where" and any(WH[other][0] == "where" for other in kept)
        if not clash and not (code == "off" and "from" in kept) and not (code == "from" and "off" in kept):
            kept.append(code)
    return kept


def _same_verb(first: Event, count: int, filler: Filler) -> list[Event]:
    """The event, and the same done to other things."""
    if first.thing is None:
        return _same_done(first, count, filler)
    if first.thing.adjective and not first.thing.count and filler.rng.random() < 0.35:
        return _same_noun(first, count, filler)
    codes = list(first.roles) if filler.rng.random() < 0.6 else []
    kind = first.thing.kind
    others = [
        Event(first.subject, first.verb, filler.thing(first.verb, kind), _roles(first.verb, filler, codes))
        for _ in range(count)
    ]
    return [first, *others]


def _same_noun(first: Event, count: int, filler: Filler) -> list[Event]:
    """The event, and the same done to things that only an adjective tells apart."""
    thing, verb = cast("Thing", first.thing), first.verb
    others = [text for text in ADJECTIVES[thing.kind] if text != thing.adjective]
    things = [thing, *(replace(thing, adjective=text) for text in filler.rng.sample(others, count))]
    roles = [first.roles, *(_roles(verb, filler, list(first.roles)) for _ in range(count))]
    return [Event(first.subject, verb, thing, role, full=True) for thing, role in zip(things, roles, strict=True)]


def _same_thing(first: Event, count: int, filler: Filler) -> list[Event]:
    """The event, and other things done to the same."""
    first = replace(first, shared=True)
    group, groups = [first], {first.verb.group}
    for _ in range(count):
        verb = _other_verb(first, groups, filler.rng)
        if verb is not None:
            groups.add(verb.group)
            group.append(
                replace(first, verb=verb, thing=_again(first.thing, verb, filler.rng), roles=_roles(verb, filler))
            )
    return group


def _again(thing: Thing | None, verb: Verb, rng: random.Random) -> Thing | None:
    """The thing as it is told of once more: perhaps "the kettle", not "a kettle"; one's own is bought as "the"."""
    known = thing is not None and (thing.determiner == "a" and rng.random() < 0.6)
    if thing is None or not (known or (thing.determiner == "my" and not verb.owned)):
        return thing
    return replace(thing, determiner="the")


def _same_done(first: Event, count: int, filler: Filler) -> list[Event]:
    """The event, and the same done by others to the same kind of thing."""
    codes = list(first.roles) if filler.rng.random() < 0.6 else []
    first = replace(first, shared=True)
    group, names = [first], {first.subject.told.name}
    for _ in range(count):
        subject = other_subject(filler)
        if subject.told.name not in names:
            names.add(subject.told.name)
            group.append(replace(first, subject=subject, roles=_roles(first.verb, filler, codes)))
    return group


_RELATED = (_same_verb, _same_thing, _same_done)


def _other_thing(event: Event, filler: Filler) -> Event | None:
    """The same done to a thing of the same kind that was never spoken of."""
    if event.thing is None:
        return None
    thing = filler.thing(event.verb, event.thing.kind)
    return replace(event, thing=thing, full=False, shared=False) if thing else None


def _other_verb(event: Event, groups: set[str], rng: random.Random) -> Verb | None:
    kind = event.thing.kind if event.thing else "-"
    verbs = [verb for verb in BY_CLASS[kind] if verb.group not in groups]
    return rng.choice(verbs) if verbs else None


def owned(rng: random.Random, pronoun: Mapping[str, str], unseen: bool = False) -> tuple[str, list[Step]]:
    """(an event of the character's life for the header, one to three questions about it with its answers).

    `pronoun`: they, them, their of the character, as in `threads.persona_fact`.
    """
    filler = Filler(rng, unseen)
    event = replace(drawn(filler), subject=_own(pronoun, filler))
    parts = event.parts()
    codes = rng.sample(parts, min(rng.choice((1, 1, 2, 3)), len(parts)))
    return _header(event, rng), [_own_step(event, code, rng) for code in codes]


def _header(event: Event, rng: random.Random) -> str:
    """The event as the character's header tells it."""
    words = Words(event, event.subject.told, rng)
    words.roles()
    kind = rng.random()
    if kind < 0.2 and not event.subject.third:
        return f"{words['vo']} {words['r']}"
    return f"{words['s']} {'once ' if kind > 0.9 else ''}{words['vo']} {words['r']}"


def _own(pronoun: Mapping[str, str], filler: Filler) -> Subject:
    """The character, or somebody of the character's."""
    if filler.rng.random() < 0.75:
        return own_subject(pronoun)
    noun, he = filler.one_of(KIN)
    return kin_subject(noun, he, pronoun["their"], "your", "my")


def _own_step(event: Event, code: str, rng: random.Random) -> Step:
    asked, answer = phrases.exchange(event, code, rng, own=True)
    keep = [role.phrase for role in event.roles.values()] + ([event.thing.words] if event.thing else [])
    return wording.asking(wording.typed(asked, keep, rng), answer, rng)
