"""Attributes of owners as facts: what my sister fears, told among what others fear, and asked for word by word.

Data: decks/attributes.toml. Whose it is and what it is must both be matched; what stands beside was never told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from npc_runtime.training.grammar import wording
from npc_runtime.training.grammar.attribute_deck import ATTRIBUTES, OF, WORDING
from npc_runtime.training.grammar.breath import Breath
from npc_runtime.training.grammar.owners import ME, Owner, can_link, draw_owner, forms, linked
from npc_runtime.training.grammar.supply import Supply
from npc_runtime.training.threads import Told

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from npc_runtime.training.grammar.attribute_deck import Attribute, Text
    from npc_runtime.training.grammar.owners import Forms
    from npc_runtime.training.threads import Fact, Step


OWN_UNKNOWN = 0.25
"""Share of the character's facts beside which it is asked something that it does not know."""


@dataclass(slots=True)
class Circle:
    """What one draw tells, so that what stands beside is something else. `voices`: who asks, who answers."""

    rng: random.Random
    supply: Supply
    voices: tuple[str, str] = ("I", "you")
    told: list[AttributeFact] = field(default_factory=list)

    def add(self, owner: Owner, attribute: Attribute) -> AttributeFact:
        """A fact of this owner, told from here on."""
        self.supply.avoid(owner.words)
        fact = AttributeFact(self, owner, attribute, self.value(attribute))
        self.told.append(fact)
        return fact

    def value(self, attribute: Attribute) -> str:
        """A value that nothing told has."""
        return self.supply.draw(attribute.value, [fact.value for fact in self.told])

    def owner(self, attribute: Attribute) -> Owner:
        """An owner whom the attribute suits."""
        while True:
            owner = draw_owner(self.rng.choice(attribute.on), self.supply, attribute.chain)
            if not (owner.named and attribute.group == "name"):
                return owner

    def other_owner(self, attribute: Attribute, like: Owner) -> Owner | None:
        """An owner of whom the attribute was not told; often the same thing of somebody else."""
        if attribute.chain and can_link(like) and self.rng.random() < 0.5:
            other = linked(like, self.supply)
            return other if all(fact.owner != other for fact in self.told) else None
        known = set[str]().union(*(fact.owner.words for fact in self.told))
        for _ in range(10):
            kind = like.kind if self.rng.random() < 0.5 else self.rng.choice(attribute.on)
            other = draw_owner(kind, self.supply, attribute.chain)
            if other.named and attribute.group == "name":
                continue
            if not other.words & known and all(fact.owner != other for fact in self.told):
                return other
        return None

    def other_attribute(self, owner: Owner, own: bool = False) -> Attribute | None:
        """An attribute of the owner that nothing told of it comes near."""
        near = {fact.attribute.group for fact in self.told if fact.owner == owner} | {"dead"}
        near |= {"name"} if owner.named else set()
        fit = [attribute for attribute in OF[owner.kind] if attribute.group not in near and (attribute.own or not own)]
        if owner.rest:
            fit = [attribute for attribute in fit if attribute.chain]
        return self.rng.choice(fit) if fit else None


class AttributeFact:
    """What an owner's attribute is: told, perhaps corrected, and asked again."""

    def __init__(self, circle: Circle, owner: Owner, attribute: Attribute, value: str) -> None:
        self.circle, self.owner, self.attribute, self.value = circle, owner, attribute, value
        self._rng = circle.rng
        self._words: dict[tuple[str, bool], Forms] = {}
        self._beside: tuple[Owner | None, Attribute | None] | None = None

    @property
    def kin(self) -> set[str]:
        """Head nouns of the owner and of whom `beside` may ask; kinds of cards where the speaker is the owner."""
        owner, attribute = self._neighbours()
        return (
            _kin(self.owner, self.attribute)
            | (_kin(owner, self.attribute) if owner else set())
            | (_kin(self.owner, attribute) if attribute else set())
        )

    @property
    def fits(self) -> bool:
        """Always: every telling holds the value that is asked for."""
        return True

    def told(self) -> Told:
        """The value that the answer must hold, as it is now."""
        return Told(f"attribute_{self.attribute.key}", (self.value,))

    def tell(self, before: str = "", after: str = "") -> Step:
        """The player tells it, in one of many shapes."""
        text = self._typed(self._told())
        return wording.telling(text, self._ack(), self._rng, before, after)

    def volunteer(self) -> Step | None:
        """The character speaks of it unasked."""
        return wording.unasked(self._worded("volunteer", self.circle.voices[1]), self._rng)

    def correct(self) -> Step | None:
        """The player puts another value in its place."""
        rng, attribute = self._rng, self.attribute
        old, self.value = attribute.phrase(self.value), self.circle.value(attribute)
        new, asker = attribute.phrase(self.value), self.circle.voices[0]
        if rng.random() < 0.5 and not new.startswith("to "):
            text = wording.corrected(new, old, self.fill(attribute.embedded, asker), rng)
        else:
            text = self._worded("correct", asker, old=old, new=new)
        ack = wording.correct_ack(new, old, rng) if rng.random() < 0.7 else self._ack()
        return wording.correcting(text, ack, rng)

    def ask(self) -> Step:
        """The player asks, by its words, its noun, with a gap, with a choice, or whose it is."""
        rng = self._rng
        if self.attribute.who and self.owner.kind in ("person", ME) and rng.random() < 0.08:
            question = wording.cap(self.fill(self.attribute.who, self.circle.voices[0])) + "?"
            return wording.asking(question, self._worded("answer_owner", self.circle.voices[1]), rng)
        return wording.asking(self._typed(self._question()), self._answer(), rng)

    def beside(self) -> Step | None:
        """The same of another owner, or something else of the same owner: never told."""
        owner, attribute = self._neighbours()
        if owner is None and attribute is None:
            return None
        if attribute is None or (owner is not None and self._rng.random() < 0.5):
            return self.of_another()
        other = AttributeFact(self.circle, self.owner, attribute, self.value)
        return wording.denying(other.plain_question(), self._unknown(other), self._rng)

    def of_another(self) -> Step | None:
        """The same of another owner, which was never told; None where there is no other."""
        owner = self._neighbours()[0]
        if owner is None or (owner.kind == ME and self.circle.voices[1] == "I"):
            return None
        other = AttributeFact(self.circle, owner, self.attribute, self.value)
        return wording.denying(other.plain_question(), self._unknown(other), self._rng)

    def clause(self, voice: str, by_pronoun: bool = False) -> str:
        """What is told, in the words of `voice`."""
        return self.fill(self.attribute.tell, voice, by_pronoun)

    def fill(self, texts: Sequence[Text], voice: str, by_pronoun: bool = False) -> str:
        """One of the texts in the words of `voice`."""
        words = self.words(voice, by_pronoun)
        one, many = self._rng.choice(texts)
        a = "an" if self.attribute.article == "a" and wording.a(self.value).startswith("an ") else "a"
        value = self.value
        text = (one if words["number"] else many).format(**words, v=value, V=wording.cap(value), a=a, A=a.capitalize())
        return _contracted(text) if texts is not self.attribute.embedded and self._rng.random() < 0.3 else text

    def words(self, voice: str, by_pronoun: bool) -> Forms:
        """The words for the owner; see `owners.forms`."""
        if (voice, by_pronoun) not in self._words:
            self._words[voice, by_pronoun] = forms(self.owner, voice, by_pronoun)
        return self._words[voice, by_pronoun]

    def plain_question(self) -> str:
        """The question without gaps or choices, which would give values away."""
        if self.circle.voices[0] == "I" and self._rng.random() < 0.2:
            return self._worded("ask_noun", self.circle.voices[0])
        return self._asked()

    def _neighbours(self) -> tuple[Owner | None, Attribute | None]:
        if self._beside is None:
            circle = self.circle
            self._beside = circle.other_owner(self.attribute, self.owner), circle.other_attribute(self.owner)
        return self._beside

    def _typed(self, text: str) -> str:
        """The text with typing noise that leaves the value and the owner alone."""
        words, value = self.words(self.circle.voices[0], False), self.value.lower()
        typed = wording.typed(text, {self.value, words["o"], words["os"], self.attribute.noun[0]}, self._rng)
        return typed if value in typed.lower() or value not in text.lower() else text

    def _told(self) -> str:
        kind, asker = self._rng.random(), self.circle.voices[0]
        if kind < 0.6:
            return wording.told(self.clause(asker), self._rng)
        return self._worded("topic" if kind < 0.8 else "noun" if kind < 0.9 else "rhetoric", asker)

    def _ack(self) -> str:
        if self.attribute.ack and self._rng.random() < 0.45:
            return wording.cap(self.fill(self.attribute.ack, self.circle.voices[1]))
        return wording.ack((self.attribute.phrase(self.value),), self._rng)

    def _asked(self) -> str:
        asker = self.circle.voices[0]
        if asker != "I":
            return self._worded("own_ask", asker)
        direct, embedded = self.fill(self.attribute.ask, asker), self.fill(self.attribute.embedded, asker)
        return wording.asked(direct, embedded, self._rng)

    def _question(self) -> str:
        kind, asker = self._rng.random(), self.circle.voices[0]
        if kind < 0.66 or asker != "I":
            return self._asked()
        if kind < 0.76:
            return self._worded("ask_topic", asker)
        if kind < 0.87:
            return self._worded("ask_noun", asker)
        return self._worded("ask_cloze", asker) if kind < 0.94 and self.attribute.cloze else self._choice(asker)

    def _choice(self, asker: str) -> str:
        values = [self.value, self.circle.value(self.attribute)]
        self._rng.shuffle(values)
        x, y = map(self.attribute.phrase, values)
        return self._worded("ask_choice", asker, x=x, y=y)

    def _answer(self) -> str:
        kind, voice = self._rng.random(), self.circle.voices[1]
        if kind < 0.3:
            return wording.cap(self.fill(self.attribute.answer, voice))
        return self._worded("answer_told" if kind < 0.5 and voice == "you" else "answer", voice)

    def _unknown(self, other: AttributeFact) -> str:
        voice, swap = self.circle.voices[1], other.owner != self.owner
        if voice == "you" and self._rng.random() < 0.5:
            about = other.words(voice, False)["oo"] if swap and other.owner.kind != ME else ""
            return wording.unknown(other.fill(other.attribute.embedded, voice), about, self._rng)
        known = _Words(self, voice, not swap and self._rng.random() < 0.5, {"o": self._named(voice)})
        words = _Words(other, voice, not swap and self._rng.random() < 0.5, known=known)
        if swap:
            words["oo"] = other._named(voice)
            words["Oo"] = wording.cap(words["oo"])
        return words.fill("own_unknown" if voice == "I" else "other_owner" if swap else "other_attribute")

    def _named(self, voice: str) -> str:
        """The owner as an object, "yourself" where that is the one spoken to."""
        words = self.words(voice, False)
        return words["himself" if self.owner.kind == ME else "oo"]

    def piece(self, key: str, voice: str, by_pronoun: bool) -> str:
        """What stands for a slot of a wording: the clause, a question, the noun, the value, the clause cut short."""
        attribute = self.attribute
        if key in ("c", "p", "c2", "p2"):
            return self.clause(voice, by_pronoun or key[0] == "p")
        if key == "w":
            return self.fill(attribute.embedded, voice, by_pronoun)
        if key in ("q", "r"):
            return self.fill(attribute.ask, voice, key == "r")
        if key == "n":
            return attribute.noun[0].format(**self.words(voice, by_pronoun))
        if key == "k":
            words = self.words(voice, False)
            one, many = self._rng.choice(attribute.cloze)
            return (one if words["number"] else many).removesuffix("{v}").format(**words, a="a").rstrip()
        return attribute.phrase(self.value)

    def _worded(self, key: str, voice: str, **more: str) -> str:
        """A wording of the list, filled."""
        return _Words(self, voice, more=more).fill(key)


class _Words(dict[str, str]):
    """What the slots of a wording hold, made when asked for; `known`: what {kc} and the like are taken from."""

    def __init__(
        self,
        fact: AttributeFact,
        voice: str,
        by_pronoun: bool = False,
        more: dict[str, str] | None = None,
        known: _Words | None = None,
    ) -> None:
        super().__init__(fact.words(voice, False))
        self.update(more or {})
        self._fact, self._voice, self._by_pronoun, self._known = fact, voice, by_pronoun, known

    def __missing__(self, key: str) -> str:
        low = key[:1].lower() + key[1:]
        if low != key:
            text = wording.cap(self[low])
        elif self._known is not None and key[0] == "k":
            text = self._known[key[1:]]
        else:
            text = self._fact.piece(key, self._voice, self._by_pronoun)
        self[key] = text
        return text

    def fill(self, key: str) -> str:
        """A wording of the list with its slots filled."""
        text = self._fact.circle.rng.choice(WORDING[key]).format_map(self)
        return text if text[:1].isupper() or text[-1:] not in ".!?" else wording.cap(text)


def _kin(owner: Owner, attribute: Attribute) -> set[str]:
    if owner.kind == ME:
        return {f"my {attribute.key}", *attribute.kin}
    return {f"about {word}" for word in owner.words}


def _contracted(text: str) -> str:
    for long, short in (("I am ", "I'm "), (" is called ", "'s called "), ("he is ", "he's "), ("hey are ", "hey're ")):
        text = text.replace(long, short)
    return text


def draw(rng: random.Random, unseen: bool = False) -> list[Fact]:
    """One to three related facts: one attribute of some owners (perhaps in one breath), or two of one owner."""
    circle = Circle(rng, Supply(rng, unseen))
    attribute = rng.choice(ATTRIBUTES)
    owner = circle.owner(attribute)
    facts = [circle.add(owner, attribute)]
    kind = rng.random()
    if kind < 0.4:
        return list(facts)
    if kind < 0.55 and (other := circle.other_attribute(owner)) and attribute.group != "dead":
        return [*facts, circle.add(owner, other)]
    for _ in range(rng.choice((1, 1, 2))):
        if another := circle.other_owner(attribute, owner):
            facts.append(circle.add(another, attribute))
    return [Breath(facts, rng)] if len(facts) > 1 and rng.random() < 0.5 else list(facts)


def owned(rng: random.Random, pronoun: dict[str, str], unseen: bool = False) -> tuple[str, list[Step]]:
    """(facts about the character or its people for the header, steps that ask for them)."""
    circle = Circle(rng, Supply(rng, unseen), ("you", "I"))
    attribute = rng.choice([attribute for attribute in ATTRIBUTES if attribute.own])
    owner = circle.owner(attribute)
    facts = [circle.add(owner, attribute)]
    if rng.random() < 0.5:
        another = circle.other_owner(attribute, owner) if rng.random() < 0.6 else None
        other = circle.other_attribute(owner, own=True) if attribute.group != "dead" else None
        if another or other:
            facts.append(circle.add(another or owner, attribute if another or other is None else other))
    header = "; ".join(fact.clause(pronoun["they"]) for fact in facts)
    count = rng.choice((1, 1, 2, 3))
    steps: list[Step | None] = [facts[(at + count) % len(facts)].ask() for at in range(count)]
    named = owner.kind == "person" and attribute.group == "name"  # another fact of the header may name the other one
    if owner.kind != ME and not named and rng.random() < OWN_UNKNOWN:
        steps.insert(rng.randrange(count + 1), facts[0].of_another())
    return header, [step for step in steps if step]
