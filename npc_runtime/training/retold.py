"""Single facts as players tell them, of themselves or of others, and what they ask of that again.

A deck of headers (see known) says "{they} kept the mule [in the yard]" and asks a character "Where did you keep the
mule?". A player tells "I kept the mule in the yard" and asks "Where did I keep the mule?": the same words, and whose
they are must be told apart.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from npc_runtime.training.known import FIRST, SECOND, Telling
from npc_runtime.training.restate import stated
from npc_runtime.training.threads import ACK, ANSWER, HONEST, Told, aside, brief, ended, heard, reworded, said
from npc_runtime.training.values import AMENDED, BEFORE_SUBJECTS, CONFIDED, NEWS, NOTED, UNTOLD, UNWRITTEN, Values

if TYPE_CHECKING:
    import random

    from npc_runtime.training.known import Known, Spot
    from npc_runtime.training.threads import Step

RETURNED = 0.7
"""Share of questions about the spot that a correction would change; the others ask for any."""

_LEAD = re.compile(
    r"(?:and |so )?(?:do|can|could|would|will) you (?:happen to )?(?:tell me|remember|recall|know|say)\b", re.I
)
_SUBJECT = re.compile(rf"(?:\b(?:{'|'.join(BEFORE_SUBJECTS)})|^) you\b", re.IGNORECASE)
_ASKED = (
    (r"\bare you\b", "am I"),
    (r"\bwere you\b", "was I"),
    (r"\byou are\b", "I am"),
    (r"\byou were\b", "I was"),
    (r"\byou(?='(?:ve|ll|d)\b)", "I"),
    (r"\byou're\b", "I'm"),
    (r"\byourself\b", "myself"),
    (r"\byours\b", "mine"),
    (r"\byour\b", "my"),
)
_ANSWERED = (
    (r"\bI am\b", "you are"),
    (r"\bam I\b", "are you"),
    (r"\bI was\b", "you were"),
    (r"\bwas I\b", "were you"),
    (r"\bI'm\b", "you're"),
    (r"\bI\b", "you"),
    (r"\bmyself\b", "yourself"),
    (r"\bmine\b", "yours"),
    (r"\bmy\b", "your"),
    (r"\bme\b", "you"),
)
_OF_THE_PLAYER = re.compile(r"\b(?:I|me|my|mine|we|us|our)\b|n't you\b")
_OF_THE_CHARACTER = re.compile(r"\b(?:you|your|yours)\b", re.IGNORECASE)
_OPENS = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")


@lru_cache(1 << 17)
def asked_of_oneself(question: str) -> str:
    """A question to a character about itself as a player asks it of himself; "" where that is not sure."""
    lead = _LEAD.match(question)
    first, rest = (lead[0], question[lead.end() :]) if lead else ("", question)
    if _OF_THE_PLAYER.search(rest):
        return ""
    for pattern, new in _ASKED:
        rest = re.sub(pattern, new, rest, flags=re.IGNORECASE)
    rest = _SUBJECT.sub(lambda found: f"{found[0][:-3]}I", rest)
    if _OF_THE_CHARACTER.search(rest):
        return ""  # an object, perhaps: "Who sold you the mule?"
    return f"{first}{_capital(rest) if not first and question[:1].isupper() else rest}"


@lru_cache(1 << 17)
def answered_to(answer: str) -> str:
    """What a character says of itself as it is said to the player of him; "" where that is not sure."""
    if re.search(r"\b(?:you|your|yours|we|us|our)\b", answer, re.IGNORECASE):
        return ""
    for pattern, new in _ANSWERED:
        answer = re.sub(pattern, new, answer, flags=0 if "I" in pattern else re.IGNORECASE)
    return _OPENS.sub(lambda found: found[0].upper(), answer)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class Retold:
    """A fact of such a deck through a conversation: a `threads.Fact`."""

    def __init__(self, card: Known, rng: random.Random, unseen: bool = False) -> None:
        self.card, self._rng = card, rng
        self._telling = Telling(card, Values(rng, unseen), rng)
        self._asks = {at: found for at, spot in enumerate(card.spots) if (found := _turned(spot, card.own))[0]}
        self._main = rng.choice(sorted(self._asks)) if self._asks else -1

    @property
    def kin(self) -> set[str]:
        """The words that it is about."""
        return {f"about {word}" for word in self.card.topic}

    @property
    def fits(self) -> bool:
        """Whether it can be said of the player and asked by him, or of another, and is told from other facts."""
        return bool(self._asks) and bool(self.card.topic) and bool(self._text())

    def _text(self) -> str:
        """What the player says, without the last stop."""
        if not self.card.own:
            return _capital(self._telling.fact)
        return self._telling.spoken(stated(self.card.fact).rstrip("."))

    def told(self) -> Told:
        """The value that most questions are about."""
        return Told(self.card.fact, (self._telling.value(self.card.spots[self._main], SECOND),))

    def tell(self, before: str = "", after: str = "") -> Step:
        """The player tells it, or, where it is not his own, it is seen to happen."""
        line = self._framed(self._rng.choice(CONFIDED if self.card.own else NEWS))
        if line.startswith("E: "):
            return (heard(line),)
        parts = [part for part in (before, line, after) if part]
        told = heard(" ".join((*map(ended, parts[:-1]), parts[-1])), self._rng)
        return (told, said(self._rng.choice(NOTED), self._rng, ACK))

    def _framed(self, frame: str) -> str:
        text = self._text()
        named = text.startswith("I ") or self._telling.fact[:1].isupper()
        return frame.replace("{x}", text).replace("{y}", text if named else text[:1].lower() + text[1:])

    def volunteer(self) -> Step | None:
        """No use for it is known."""
        return None

    def correct(self) -> Step | None:
        """The player says it again, of something else."""
        if not self._telling.change(self._main, self._rng):
            return None
        line = heard(self._framed(self._rng.choice(AMENDED)), self._rng)
        return (line, said(self._rng.choice(NOTED), self._rng, ACK))

    def ask(self) -> Step:
        """The player asks for what a spot holds."""
        rng = self._rng
        at = self._main if rng.random() < RETURNED else rng.choice(sorted(self._asks))
        asks, answers = self._asks[at]
        person = SECOND if self.card.own else FIRST
        question = self._telling.spoken(reworded(rng.choice(asks), rng))
        answer = self._telling.spoken(brief(rng.choice(answers), rng), person)
        return (heard(aside(question, rng), rng), said(answer, rng, ANSWER))

    def beside(self) -> Step | None:
        """What the player told of himself, asked of the character, of whom nobody said it."""
        if not self.card.own:
            return None
        question = self._telling.asked(self._rng.choice(self.card.spots[self._main].ask))
        return (heard(question, self._rng), said(self._rng.choice(UNWRITTEN), self._rng, HONEST))

    def untold(self) -> Step:
        """The player asks for it and never told it: another step of no thread that tells it."""
        question, _ = self.ask()
        return (question, said(self._rng.choice(UNTOLD if self.card.own else UNWRITTEN), self._rng, HONEST))


def _turned(spot: Spot, own: bool) -> tuple[list[str], list[str]]:
    """(questions, answers) as the player asks of what he told; ([], []) where either is lacking."""
    asks, answers = list(spot.ask), list(spot.answer)
    if own:
        asks, answers = list(map(asked_of_oneself, asks)), list(map(answered_to, answers))
    else:  # what is nobody's own is asked without the character: not "What do you sell?"
        asks = [text for text in asks if not _OF_THE_CHARACTER.search(_LEAD.sub("", text))]
    found = [text for text in asks if text], [text for text in answers if text]
    return found if all(found) else ([], [])
