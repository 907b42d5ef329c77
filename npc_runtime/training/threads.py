"""Threads of a drill: a fact told and asked again, a question about the persona, a secret, something never told.

A thread is a list of steps that must come in order; a step is a few turns that belong together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from npc_runtime.persona import MOODS, SECRET_MARK
from npc_runtime.training.cards import CORE
from npc_runtime.training.corpus import Line
from npc_runtime.training.restate import openings, restated
from npc_runtime.training.values import (
    DULL,
    GUARDED,
    IGNORANCE,
    PRONOUN_SLOTS,
    UNKNOWN_NAME,
    UNKNOWN_PLACE,
    UNWRITTEN,
    Values,
    slots,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from npc_runtime.persona import Persona
    from npc_runtime.training.cards import PersonaCard, PlayerCard, SmalltalkCard

Step = tuple[Line, ...]

ANSWER, HONEST, ACK, CHAT = 2.0, 1.5, 0.5, 0.25
"""Loss weights of what a thread says: recalled facts, honest ignorance, acknowledgements, small talk."""

RESTATED = 0.4
"""Share of answers about the character's own facts that give the fact itself back: what also answers well where nothing
better was learned."""
OPENED = 0.2
"""Share of questions about such a fact, where a noun of it can be named, that only bring up that noun."""
BRIEF = 0.6
"""Share of answers of several sentences that end with the first, where that one answers: what follows is another thing
every time, and a small model that has to say something there says "and he's got a name"."""
REWORDED = 0.4
"""Share of the player's lines that are reworded."""
_FIRST = re.compile(r"(?:[^.!?\s]+ ){0,24}[^.!?\s]+[.!](?= [A-Z{])")
_WHOSE = ("i", "me", "my", "mine", "you", "your", "yours")
"""Words that are never lost: "where did keep the mule" asks of nobody."""
_FILLERS = ("really", "just", "well", "now", "please", "maybe", "actually", "still", "also", "so", "uh", "like", "then")

_ASIDES = [
    "By the way, ",
    "Tell me, ",
    "One question. ",
    "Listen. ",
    "Hey, ",
    "So, ",
    "Now then. ",
    "One more thing. ",
    "Well, ",
    "I was wondering. ",
    "Say, ",
    "Oh, and ",
    "Before I go. ",
    "Be honest. ",
    "Quick question. ",
    "Hm. ",
]
_GREETINGS = ["Hello. ", "Hi! ", "Good day. ", "Hey. ", "Good evening. ", "Greetings. ", "Hello there! ", "Well met. "]

KIN = (
    frozenset({"name", "nickname", "family_name", "false_name", "named_after", "title_of_place", "rank"}),
    frozenset({"home_town", "birth_place", "title_of_place", "home_river"}),
    frozenset({"carrying", "told_item", "lucky_charm", "heirloom", "event_drops"}),
    frozenset({"errand", "destination", "plan_tomorrow", "meeting"}),
    frozenset({"trade", "profession", "former_trade", "employer", "rank"}),
    frozenset({"likes_food", "meal_eaten", "allergy_food", "allergy", "aunt_taught_dish"}),
    frozenset({"event_gift", "gift_to_npc", "event_puts", "lent_to_npc", "item_lent", "left_item_with", "favour"}),
    frozenset({"pet", "mount_name", "horse", "dead_pet", "companion"}),
    frozenset({"event_days", "length_of_stay", "stay_length"}),
    frozenset({"event_color", "wears_color", "favourite_color_clothes"}),
    frozenset({"event_visitor", "seen_on_road", "person_met_on_road", "sent_by"}),
    frozenset({"event_wound", "bitten_by", "fear_of_animal", "allergy_animal"}),
    frozenset({"price_agreed", "price_offered", "item_sold", "item_sold_price", "debt_to", "wage"}),
    frozenset({"ship", "ship_name"}),
    frozenset({"weapon_name", "sword_name", "weapon_kind"}),
)
"""Kinds so near to each other that one told makes "you never told me" of another a doubtful answer."""


@dataclass(frozen=True, slots=True)
class Told:
    """A fact as told: where its answer must be found again. `facts` are the values that answer it."""

    kind: str
    facts: tuple[str, ...]


class Fact(Protocol):
    """Something told, perhaps corrected, and asked again: a card's (`Facts`) or one of a grammar's."""

    @property
    def kin(self) -> set[str]:
        """What it is about; nothing that shares a word of this is called never told in the same conversation."""

    @property
    def fits(self) -> bool:
        """Whether what is told answers what can be asked."""

    def told(self) -> Told:
        """The values that the answer must hold, as they are now."""

    def tell(self, before: str = "", after: str = "") -> Step:
        """The player tells it, perhaps between two other remarks."""

    def volunteer(self) -> Step | None:
        """The character uses it unasked; None where it cannot."""

    def correct(self) -> Step | None:
        """The player corrects it; from here on the new value holds. None where it cannot be said clearly."""

    def ask(self) -> Step:
        """The player asks, the character answers."""

    def beside(self) -> Step | None:
        """The player asks something so near that only a word or two tell it apart, never told: honest ignorance."""


def near(card: PlayerCard) -> set[str]:
    """A card's kind, every kind that may be taken for it, and its telling words: a sister is a sister in any card."""
    named = {word for word in card.kind.split("_") if word not in DULL} | {noun.split()[-1] for noun in card.nouns}
    groups = (group for group in KIN if card.kind in group)
    return {card.kind, *card.kin, *(f"about {word}" for word in named)}.union(*groups)


def heard(text: str, rng: random.Random | None = None) -> Line:
    """A player's line or, marked by `E: `, an event; typed carelessly now and then."""
    if text.startswith("E: "):
        return Line("event", text[3:])
    return Line("player", careless(text, rng) if rng else text)


def careless(text: str, rng: random.Random) -> str:
    """How players type: sometimes without capitals, sometimes without the last stop."""
    kind = rng.random()
    if kind < 0.12:
        return text.lower().rstrip(".?!")
    if kind < 0.2:
        return text.lower()
    return text.rstrip(".?!") if kind < 0.28 else text


def reworded(text: str, rng: random.Random) -> str:
    """The text with a word lost, doubled, moved or misspelt now and then, its slots untouched.

    A dozen phrasings a card are soon known by heart; what should be learned is what they mean.
    """
    words = text.split(" ")
    free = [at for at, word in enumerate(words) if at and word.isalpha() and word.lower() not in _WHOSE]
    if len(words) < 4 or not free or text.startswith("E: ") or rng.random() > REWORDED:
        return text
    at = rng.choice(free)
    change = rng.randrange(4)
    if change == 0:
        del words[at]
    elif change == 1:
        words.insert(at, rng.choice(_FILLERS))
    elif change == 2 and at + 1 in free:
        words[at], words[at + 1] = words[at + 1], words[at]
    elif len(words[at]) > 3:
        cut = rng.randrange(1, len(words[at]) - 1)
        words[at] = words[at][:cut] + words[at][cut + 1 :]
    return " ".join(words)


def said(text: str, rng: random.Random, speech: float, moods: Sequence[str] = ()) -> Line:
    """The character's line. Without `moods` any mood stands there and none is learned from it."""
    if moods:
        return Line("npc", text, rng.choice(moods), None, head=0.5, speech=speech)
    mood = "neutral" if rng.random() < 0.5 else rng.choice(MOODS)
    return Line("npc", text, mood, None, head=0.0, speech=speech)


def brief(text: str, rng: random.Random) -> str:
    """An answer, its slots not filled yet, often without what follows its first sentence if that says all it tells."""
    first, told = _FIRST.match(text), value_slots(text)
    return first[0] if first and told and value_slots(first[0]) == told and rng.random() < BRIEF else text


def usable(texts: Collection[str], known: set[str]) -> list[str]:
    """The texts whose slots are all known."""
    return [text for text in texts if value_slots(text) <= known]


@lru_cache(1 << 17)
def value_slots(text: str) -> frozenset[str]:
    """Slots that are no pronoun; cards come again by the thousand."""
    return frozenset(slots(text) - PRONOUN_SLOTS)


def with_slots(texts: Sequence[str], known: set[str]) -> list[str]:
    """Usable texts that name every known slot's value if any does, else those that name some value."""
    good = usable(texts, known)
    best = max((len(value_slots(text)) for text in good), default=0)
    return [text for text in good if len(value_slots(text)) == best and best > 0]


class Facts:
    """A fact of a player card through a conversation: told, perhaps corrected or used, and asked again.

    `noisy`: the player's lines are reworded and typed carelessly now and then, which practice needs and tests do not.
    `told`: values of slots that something else tells; else `wording`, one of the card's own, tells them.
    """

    def __init__(
        self,
        card: PlayerCard,
        rng: random.Random,
        unseen: bool = False,
        noisy: bool = True,
        told: dict[str, str] | None = None,
    ) -> None:
        self.card, self._rng, self._noisy = card, rng, noisy
        self.values = Values(rng, unseen, told)
        self.wording = rng.choice(card.tell)
        self.known = set(told) if told else slots(self.wording) - PRONOUN_SLOTS
        self._answers = with_slots(card.answer, self.known)

    @property
    def kin(self) -> set[str]:
        """See `near`."""
        return near(self.card)

    @property
    def fits(self) -> bool:
        """Whether what is told answers what can be asked."""
        return bool(self._answers) and bool(usable(self.card.ask, self.known)) and bool(self.known)

    def told(self) -> Told:
        """The values that the answer must hold, as they are now."""
        wanted = set.intersection(*(slots(text) for text in self._answers)) - PRONOUN_SLOTS
        return Told(self.card.kind, tuple(self.values[slot] for slot in sorted(wanted)))

    def tell(self, before: str = "", after: str = "") -> Step:
        """The player tells it, perhaps in the middle of something else."""
        rng = self._rng
        told = self.values.fill(self._worded(self.wording))
        if not self.wording.startswith("E: "):
            greeting = rng.choice(_GREETINGS).strip() if self._noisy and rng.random() < 0.15 else ""
            parts = [part for part in (greeting, before, told, after) if part]
            told = " ".join((*map(ended, parts[:-1]), parts[-1]))
        acks = usable(self.card.ack, self.known)
        line = heard(told, rng if self._noisy else None)
        return (line, said(self.values.fill(rng.choice(acks)), rng, ACK)) if acks else (line,)

    def volunteer(self) -> Step | None:
        """The character uses it unasked, at some event."""
        texts = [text for text in usable(self.card.volunteer, self.known) if slots(text)]
        if not texts:
            return None
        event = self._rng.choice(
            ("The player comes back.", "The player walks up.", "Some time passes.", "Night falls.")
        )
        return (Line("event", event), said(self.values.fill(self._rng.choice(texts)), self._rng, 1.0))

    def correct(self) -> Step | None:
        """The player corrects it; from here on the new value holds. None where the card cannot say so clearly."""
        texts = [text for text in self.card.correct if self._changes(text)]
        if not texts:
            return None
        text = self._rng.choice(texts)
        changed = self._changes(text)
        acks = [ack for ack in self.card.correct_ack if slots(ack) - PRONOUN_SLOTS <= self.known | changed]
        line = heard(self.values.fill(text), self._rng if self._noisy else None)
        ack = (said(self.values.fill(self._rng.choice(acks)), self._rng, 1.0),) if acks else ()
        new = {slot.rstrip("2"): self.values[slot] for slot in changed}
        kept = {slot: self.values[slot] for slot in self.known if slot not in new}
        self.values = Values(self._rng, fixed={**kept, **new})
        return (line, *ack)

    def _changes(self, text: str) -> set[str]:
        changed = {slot for slot in slots(text) if slot.endswith("2")}
        clear = changed and not changed & self.known and {slot.rstrip("2") for slot in changed} <= self.known
        return changed if clear and slots(text) - PRONOUN_SLOTS <= self.known | changed else set()

    def ask(self) -> Step:
        """The player asks, the character answers."""
        question = self.values.fill(self._worded(self._rng.choice(usable(self.card.ask, self.known))))
        answer = said(self.values.fill(brief(self._rng.choice(self._answers), self._rng)), self._rng, ANSWER)
        if not self._noisy:
            return (heard(question), answer)
        return (heard(aside(question, self._rng), self._rng), answer)

    def beside(self) -> Step | None:
        """Cards know nothing of their neighbours."""
        return None

    def _worded(self, text: str) -> str:
        return reworded(text, self._rng) if self._noisy else text


def ended(text: str) -> str:
    """The text with a stop where something may follow."""
    return text if text[-1:] in ".!?," else f"{text}."


def aside(question: str, rng: random.Random) -> str:
    """The question, sometimes after a few words of leading in."""
    if rng.random() > 0.15 or question.startswith("E: "):
        return question
    opening = rng.choice(_ASIDES)
    return opening + (
        question[0].lower() + question[1:] if opening.endswith(", ") and question[1:2] != "'" else question
    )


def never_told(card: PlayerCard, rng: random.Random, noisy: bool = True) -> Step | None:
    """The player asks for what was never told."""
    asks, answers = usable(card.ask, set()), usable(card.unknown, set()) or IGNORANCE
    if not asks:
        return None
    asked, answer = rng.choice(asks), said(rng.choice(answers), rng, HONEST)
    return (heard(aside(reworded(asked, rng), rng), rng) if noisy else heard(asked), answer)


def persona_fact(
    card: PersonaCard,
    rng: random.Random,
    pronoun: dict[str, str],
    unseen: bool = False,
    marked: bool = False,
    more: int = 0,
) -> tuple[str, list[Step]]:
    """(the fact for the header, steps that ask for it, one or two and `more`).

    A secret is asked for and kept, and so is what is `marked`.
    """
    values = Values(rng, unseen, pronoun)
    way = rng.choice((card.fact, *card.ways))
    fact = values.fill(f"{SECRET_MARK}{way}" if marked else way)
    known = slots(card.fact) - PRONOUN_SLOTS
    secret = marked or "secret" in card.tags
    asks = usable(card.ask, known)
    plain = "" if secret else restated(way, "want" in card.tags)
    guard = usable(card.guard, known) or GUARDED
    answers = guard if secret else with_slots(card.answer, known) or usable(card.answer, known)
    steps: list[Step] = []
    for _ in range(rng.choice((1, 2, 2)) + more):
        if plain and openings(way) and rng.random() < OPENED:
            question = heard(aside(values.fill(reworded(rng.choice(openings(way)), rng)), rng), rng)
            steps.append((question, said(values.fill(plain), rng, ANSWER)))
        elif asks and answers:
            question = heard(aside(values.fill(reworded(rng.choice(asks), rng)), rng), rng)
            answer = plain if plain and rng.random() < RESTATED else brief(rng.choice(answers), rng)
            steps.append((question, said(values.fill(answer), rng, HONEST if secret else ANSWER)))
    return fact, steps


def ignorance(card: PersonaCard, rng: random.Random) -> Step | None:
    """A question about somebody or some place of which the header knows nothing."""
    kinds = [kind for kind in ("person", "place") if any(kind in slots(text) for text in card.ask)]
    if not kinds:
        return None
    kind = rng.choice(kinds)
    values = Values(rng)
    question = values.fill(rng.choice([text for text in card.ask if kind in slots(text)]))
    named = rng.random() < 0.7
    answer = rng.choice(UNKNOWN_NAME if kind == "person" else UNKNOWN_PLACE) if named else rng.choice(IGNORANCE)
    value = values[kind]
    answer = answer.replace("{x}", value[:1].upper() + value[1:] if answer.startswith("{x}") else value)
    return (heard(question, rng), said(answer, rng, HONEST))


def unwritten(card: PersonaCard, rng: random.Random) -> Step | None:
    """A question about the character's own life that nothing in its header answers."""
    asks = usable(card.ask, set())
    if not asks:
        return None
    question = heard(aside(reworded(rng.choice(asks), rng), rng), rng)
    return (question, said(rng.choice(UNWRITTEN), rng, ACK))


def identity(card: PersonaCard, persona: Persona, rng: random.Random) -> Step | None:
    """A question that the header's own fields answer; None where the persona lacks such a field."""
    place = persona.setting.partition(",")[0]  # what follows, "late autumn, a big fire", goes into no sentence
    fields = {"name": persona.name, "role": persona.role, "setting": place, "want": persona.wants}
    if persona.traits:
        fields["trait"] = rng.choice(persona.traits)
    known = {slot for slot, value in fields.items() if value}
    asks, answers = usable(card.ask, known), usable(card.answer, known)
    good = [text for text in answers if slots(text)] or answers
    if not asks or not good:
        return None
    values = Values(rng, fixed=fields)
    question = heard(values.fill(reworded(rng.choice(asks), rng)), rng)
    return (question, said(values.fill(brief(rng.choice(good), rng)), rng, ANSWER))


def smalltalk(card: SmalltalkCard, temperament: str, rng: random.Random) -> Step:
    """Something any player says, answered by temperament."""
    reply = rng.choice(card.replies(temperament))
    return (heard(reworded(rng.choice(card.say), rng), rng), said(reply, rng, CHAT, card.mood))


def quiet(step: Step, speech: float) -> Step:
    """A step of somebody else's scene, as filler: heard, and hardly learned from."""
    return tuple(replace(line, head=speech / 2, speech=speech) for line in step)


def core(card: PlayerCard) -> bool:
    """Whether the card is one that players use most."""
    return card.kind in CORE
