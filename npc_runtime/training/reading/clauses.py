"""Clauses: plain sentences taken apart into subject, verb and the phrases that follow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.training.reading.words import (
    CALENDAR,
    CLOSED,
    DETERMINERS,
    NOUNS,
    NUMBERS,
    OF_TIME,
    POSSESSIVES,
    PREPOSITIONS,
    TITLES,
    Lexicon,
    listed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHORTEST, LONGEST = 4, 15
"""Words of a sentence."""
MOST_PHRASES = 5

_PEOPLE, DULL, _SPANS, _PARTICLES = listed("people"), listed("dull"), listed("spans"), listed("particles")
_OF_VERBS = listed("of_verbs")
_UNFIT = re.compile(rf"\b(?:{'|'.join(sorted(listed('unfit')))})", re.IGNORECASE)
_TITLE = re.compile(r"\b(Mr|Mrs|Dr|Ms|St)\. ")
_ENDS = re.compile(r"(?<=[.;!?])\s+|\n+")
_QUOTED = re.compile(r"[“\"]([^”\"]{12,400})[”\"]")
_NOT_PLAIN = re.compile(r"[^A-Za-z' ,-]| '|' |^'|'$|--| -|- ")
_OPENING = re.compile(r", (?:and|but|for|so|yet|while|as|where|who|which|when|though|with|his|her)\b")
_COUNT = re.compile(r"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)-[a-z]+")
_OTHERS = {
    "he": frozenset({"her", "she", "they", "their", "them"}),
    "she": frozenset({"his", "him", "he", "they", "their", "them"}),
    "they": frozenset({"he", "she", "his", "her", "him"}),
}
_OF_OTHERS = frozenset(
    ["he", "she", "they", "his", "her", "their", "him", "them", "you", "your", "me", "we", "us", "I'm", "I"]
)
_WRITTEN_OUT = [
    (re.compile(pattern), text)
    for pattern, text in (
        ("^(?:I'm|We're|We are)\\b", "I am"),
        ("^(?:I've|We've|We have)\\b", "I have"),
        ("^(?:I'll|We'll|We will|(?:I|We) shall)\\b", "I will"),
        ("^We were\\b", "I was"),
        ("^We\\b", "I"),
        ("^Our\\b", "My"),
        ("\\bour\\b", "my"),
    )
]
"""What several people say they do, one does as well."""
_OF_NOW = {"am": "was", "is": "was", "are": "were", "have": "had", "has": "had"}
_MODALS = ("could", "would", "will", "can", "must")
_NEVER_VERBS = frozenset({"been", "said", "thought", "did"})
_WHOLE_TIMES = {"every": "often", "each": "often", "all": "span", "last": "time", "next": "time", "one": "time"}
_WHOLE_TIMES |= {"that": "time"}
_UNTIL = ("in", "on", "at", "before", "after", "since", "until", "during", "by", "towards", "toward")


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """Words that name a thing, and the noun among them."""

    text: str
    head: str
    determiner: str = ""
    number: str = ""
    name: bool = False
    plural: bool = False
    person: bool = False


@dataclass(frozen=True, slots=True)
class Phrase:
    """What follows a verb: `kind` is object, place or so ("prep"), time, span, often, reason, purpose, adverb, particle
    or none of these ("other").
    """

    kind: str
    text: str
    noun: NounPhrase | None = None
    preposition: str = ""


@dataclass(frozen=True, slots=True)
class Clause:
    """A plain sentence: `subject` is None where it is the character itself; `form` is the verb as it stands after
    `aux`, of the verb `verb`; after "was" `adjective` may stand. `now`: it is said of the present.
    """

    subject: NounPhrase | None
    aux: str
    form: str
    verb: str
    adjective: str
    phrases: tuple[Phrase, ...]
    now: bool = False


def plain_sentences(text: str) -> Iterator[str]:
    """Sentences without speech and side remarks, or their first clauses, and what speakers say of themselves."""
    text = _TITLE.sub(r"\1 ", text)
    for quote in _QUOTED.findall(text):
        for sentence in _ENDS.split(quote):
            if sentence and sentence[-1] in ".;," and not _NOT_PLAIN.search(sentence[:-1]):
                first = _OPENING.split(sentence[:-1])[0]
                for pattern, written in _WRITTEN_OUT:
                    first = pattern.sub(written, first)
                if first.startswith(("I ", "My ")) and "," not in first:
                    yield first
    for sentence in _ENDS.split(text):
        if sentence and sentence[-1] in ".;" and not _NOT_PLAIN.search(sentence[:-1]):
            first = _OPENING.split(sentence[:-1])[0]
            if "," not in first:
                yield first


class Clauses:
    """Takes sentences apart by what a corpus shows of their words."""

    def __init__(self, words: Lexicon) -> None:
        self._words = words

    def clause(self, sentence: str) -> Clause | None:
        """What a sentence tells; None where it is not wholly understood."""
        tokens = sentence.split()
        if not SHORTEST <= len(tokens) <= LONGEST or _UNFIT.search(sentence):
            return None
        own = tokens[0] in ("I", "My")
        if own:
            if _OF_OTHERS & set(tokens[1:]):
                return None
            tokens = ["He" if tokens[0] == "I" else "His", *("his" if token == "my" else token for token in tokens[1:])]
        started = self._subject(tokens)
        if started is None:
            return None
        subject, at = started
        verb = tokens[at] if at < len(tokens) else ""
        now = own and (verb in _OF_NOW or (self._words.present(verb) != "" and verb not in self._words.past))
        if at < len(tokens) - 2 and self._words.is_adverb(tokens[at]) and tokens[at + 1] in self._words.past:
            tokens = tokens[:at] + tokens[at + 1 :]
        return self._rest(subject, tokens, at, now) if at < len(tokens) else None

    def _subject(self, tokens: list[str]) -> tuple[NounPhrase | None, int] | None:
        pronoun = tokens[0].lower()
        if tokens[0] in ("He", "She", "They"):
            return None if _OTHERS[pronoun] & {token.lower() for token in tokens[1:]} else (None, 1)
        if not self._words.is_name(tokens[0]):
            tokens[0] = tokens[0][0].lower() + tokens[0][1:]
        found = self.noun_phrase(tokens, 0)
        if found is None:
            return None
        subject, _ = found
        named = subject.name or subject.number or subject.determiner
        far = subject.determiner in ("this", "that", "these", "those", "any", "no", "every", "each")
        return None if far or not named or subject.head in OF_TIME or subject.head in DULL else found

    def _rest(self, subject: NounPhrase | None, tokens: list[str], at: int, now: bool) -> Clause | None:
        verb = self._verb(tokens, at, now)
        if verb is None:
            return None
        aux, form, base, adjective, after = verb
        rest = tokens[after:]
        allowed = {"it", "as", "ago", *DETERMINERS} if "because" not in rest else set(rest)
        if any(token.lower() in CLOSED and token not in allowed for token in rest):
            return None
        phrases = self._phrases(tokens, after, base)
        if not phrases or len(phrases) > MOST_PHRASES:
            return None
        if any(phrase.noun and phrase.noun.determiner == "no" for phrase in phrases):
            return None
        if base == "be" and not adjective and phrases[0].kind not in ("object", "prep", "time"):
            return None
        return Clause(subject, aux, form, base, adjective, tuple(phrases), now)

    def _verb(self, tokens: Sequence[str], at: int, now: bool) -> tuple[str, str, str, str, int] | None:
        """(auxiliary, form, verb, adjective, where the rest begins)."""
        word = (_OF_NOW.get(tokens[at]) or self._words.present(tokens[at])) if now else tokens[at]
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        if word in ("was", "were"):
            return self._being(tokens, at, word, after)
        if word == "had" and after in self._words.participles and after != "had":
            return ("have" if now else "had"), after, self._words.participles[after], "", at + 2
        if word in _MODALS and self._words.is_verb(after) and after != "have":
            return word, after, after, "", at + 2
        if now and word != "had":
            return "", word, word, "", at + 1
        if word in self._words.past and word not in _NEVER_VERBS:
            return "", ("have" if now else word), self._words.past[word], "", at + 1
        return None

    def _being(self, tokens: Sequence[str], at: int, aux: str, after: str) -> tuple[str, str, str, str, int] | None:
        if after in self._words.participles and after not in ("had", "been"):
            return aux, after, self._words.participles[after], "", at + 2
        noun = self.noun_phrase(tokens, at + 1)
        if self._words.is_progressive(after) and not noun:
            return aux, after, after, "", at + 2
        if after in PREPOSITIONS or noun:
            return aux, "", "be", "", at + 1
        plain = re.fullmatch("[a-z]{3,}", after) and after not in CLOSED and after not in DETERMINERS
        if plain and at + 2 < len(tokens) and tokens[at + 2] in PREPOSITIONS:
            return aux, after, "be", after, at + 2
        return None

    def noun_phrase(self, tokens: Sequence[str], start: int, deep: bool = True) -> tuple[NounPhrase, int] | None:
        """(a noun phrase that begins at `start`, where it ends), with "of" and "and" and another where `deep`."""
        at, determiner, number = start, "", ""
        if tokens[at : at + 1] and tokens[at] in ("all", "both", "half") and tokens[at + 1 : at + 2]:
            at += tokens[at + 1] in ("the", *POSSESSIVES)
        if tokens[at : at + 1] and tokens[at] in DETERMINERS and tokens[at] != "its":
            determiner, at = tokens[at], at + 1
        if tokens[at : at + 1] and (tokens[at] in NUMBERS or _COUNT.fullmatch(tokens[at])):
            number, at = tokens[at], at + 1
        if not determiner and not number:
            named = self._name(tokens, at)
            if named and not named[0].text.endswith(("'s", "s'")):
                return named
            if named:
                determiner, at = named[0].text, named[1]
        end = self._head(tokens, at)
        if end == at:
            return None
        head = tokens[end - 1].lower()
        alone = not determiner and not number
        if self._words.as_noun[head] < NOUNS or (alone and not self._bare(tokens[at:end])):
            return None
        plural = bool(number) or (head.endswith("s") and not head.endswith("ss"))
        person = head in _PEOPLE or head in self._words.speakers
        found = NounPhrase(" ".join(tokens[start:end]), head, determiner, number, False, plural, person)
        return self._joined(found, tokens, start, end) if deep else (found, end)

    def _bare(self, words: Sequence[str]) -> bool:
        head = words[-1].lower()
        return self._words.bare_noun(head) and (len(words) == 1 or head.endswith("s"))

    def _name(self, tokens: Sequence[str], start: int) -> tuple[NounPhrase, int] | None:
        end = start
        while end < len(tokens) and end - start < 3 and self._words.is_name(tokens[end]):
            end += 1
        if end == start or tokens[end - 1] in TITLES:
            return None
        return NounPhrase(" ".join(tokens[start:end]), tokens[end - 1].lower(), name=True, person=True), end

    def _head(self, tokens: Sequence[str], start: int) -> int:
        """Where the noun of at most three words ends; `start` where there is none."""
        end = start
        while end < len(tokens) and end - start < 3:
            word = tokens[end]
            if not re.fullmatch("[a-z][a-z'-]+|[A-Z][a-z'-]{2,}", word) or not self._words.may_describe(word):
                break
            if word.endswith("'s") and end + 1 == len(tokens):
                break
            end += 1
        while end > start and (tokens[end - 1].endswith("'s") or not self._words.is_noun(tokens[end - 1].lower())):
            end -= 1
        return end

    def _joined(self, first: NounPhrase, tokens: Sequence[str], start: int, end: int) -> tuple[NounPhrase, int] | None:
        """With another after "of" or "and"; None where that word leads elsewhere."""
        joint = tokens[end] if end < len(tokens) else ""
        if joint not in ("of", "and"):
            return first, end
        other = self.noun_phrase(tokens, end + 1, False)
        if other is None or (joint == "and" and other[1] < len(tokens) and tokens[other[1]] not in PREPOSITIONS):
            return None
        text = " ".join(tokens[start : other[1]])
        plural = first.plural or joint == "and"
        return NounPhrase(text, first.head, first.determiner, first.number, False, plural, first.person), other[1]

    def _phrases(self, tokens: Sequence[str], at: int, verb: str) -> list[Phrase] | None:
        """All that follows a verb; None where any of it is not understood."""
        found: list[Phrase] = []
        while at < len(tokens):
            opening = all(phrase.kind == "particle" for phrase in found) and len(found) < 2
            taken = (
                (self._particle(tokens, at) if opening else None)
                or self._clause_of_ends(tokens, at, verb, bool(found))
                or self._time(tokens, at)
                or self._adverb(tokens, at)
                or self._prepositional(tokens, at, verb)
                or (self._object(tokens, at) if all(p.kind in ("particle", "adverb") for p in found) else None)
            )
            if taken is None:
                return None
            found.append(taken[0])
            at = taken[1]
        return found

    def _particle(self, tokens: Sequence[str], at: int) -> tuple[Phrase, int] | None:
        word = tokens[at]
        if word not in _PARTICLES:
            return None
        noun = self.noun_phrase(tokens, at + 1)
        if word == "out" and tokens[at + 1 : at + 2] == ["of"]:
            inner = self.noun_phrase(tokens, at + 2)
            return (Phrase("prep", f"out of {inner[0].text}", inner[0], "out of"), inner[1]) if inner else None
        if word in PREPOSITIONS and noun and word not in ("up", "down", "off"):
            return None
        return Phrase("particle", word), at + 1

    def _clause_of_ends(self, tokens: Sequence[str], at: int, verb: str, late: bool) -> tuple[Phrase, int] | None:
        """A reason or a purpose, which end a sentence."""
        rest = tokens[at:]
        if rest[0] == "because" and len(rest) > 2:
            clear = rest[1] == "the" or self._words.is_name(rest[1])
            return (Phrase("reason", " ".join(rest)), len(tokens)) if clear else None
        if rest[0] != "to" or len(rest) < 2 or len(rest) > 8 or (verb == "have" and not late):
            return None
        word = rest[1]
        acts = self._words.is_verb(word) and self._words.as_noun[word] < self._words.after_to[word]
        if (
            not acts
            or self.noun_phrase(tokens, at + 1)
            or any(x in CLOSED and x not in ("it", "and") for x in rest[1:])
        ):
            return None
        return Phrase("purpose", " ".join(rest)), len(tokens)

    def _time(self, tokens: Sequence[str], at: int) -> tuple[Phrase, int] | None:
        word, after = tokens[at], tokens[at + 1].lower() if at + 1 < len(tokens) else ""
        if word in _WHOLE_TIMES and after in OF_TIME:
            return Phrase(_WHOLE_TIMES[word], f"{word} {tokens[at + 1]}"), at + 2
        if tokens[at + 2 : at + 3] == ["ago"] and after in _SPANS:
            return Phrase("time", " ".join(tokens[at : at + 3])), at + 3
        return (Phrase("time", word), at + 1) if word in ("yesterday", "today", "tonight", "tomorrow") else None

    def _adverb(self, tokens: Sequence[str], at: int) -> tuple[Phrase, int] | None:
        plain = tokens[at] in ("once", "twice", "daily", "often", "always", "seldom")
        return (Phrase("adverb", tokens[at]), at + 1) if plain or self._words.is_adverb(tokens[at]) else None

    def _prepositional(self, tokens: Sequence[str], at: int, verb: str) -> tuple[Phrase, int] | None:
        word = tokens[at]
        if word not in PREPOSITIONS or word in ("as", "like", "up", "down", "past", "except"):
            return None
        found = self.noun_phrase(tokens, at + 1) if word != "of" or verb in _OF_VERBS else None
        if found is None:
            return None
        noun, end = found
        kind = "prep"
        if noun.head in OF_TIME and word in _UNTIL:
            kind = "time"
        elif noun.head in _SPANS and word == "for":
            kind = "span"
        elif word in ("after", "before", "during"):
            kind = "time"
        elif word in ("since", "until"):
            kind = "other"
        vague = word in ("at", "in") and noun.head in ("time", "times", "moment")
        return None if vague else (Phrase(kind, f"{word} {noun.text}", noun, word), end)

    def _object(self, tokens: Sequence[str], at: int) -> tuple[Phrase, int] | None:
        found = self.noun_phrase(tokens, at)
        if found is None or found[0].head in OF_TIME or found[0].text in CALENDAR:
            return None
        return Phrase("object", found[0].text, found[0]), found[1]
