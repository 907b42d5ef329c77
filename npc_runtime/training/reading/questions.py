"""Questions: what is asked of a clause, and answered, as blocks of a deck (see known)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.training.reading.clauses import DULL
from npc_runtime.training.reading.words import NUMBERS, OF_TIME, PLAINER, POSSESSIVES, listed
from npc_runtime.training.values import third_person

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from npc_runtime.training.reading.clauses import Clause, Phrase
    from npc_runtime.training.reading.words import Lexicon

PRESENT = 0.45
"""Share of what was, told as what is: headers mostly say what is."""
OTHERS = 0.7
"""Share of spots that hold what other sentences have there, too."""
REWORDED, SHORTENED = 0.4, 0.35
"""Chance that a question says a plainer verb, and that it leaves out a phrase that nobody needs."""
MOST_ASKED = 3
"""Phrases of a clause that are asked for."""

_OF_PLACE, _MOTION, _AIMED, _WISHING = listed("of_place"), listed("motion"), listed("aimed"), listed("wishing")
_PLAIN = {"time": "when", "span": "how long", "often": "how often", "reason": "why"}
_STRANDED = ("with", "without", "about", "of", "against", "for")
_FAR = ("this", "that", "these", "those", "no", "any", "its")
_BE = {"is": "are", "was": "were"}
_TELL, _KNOW = ("Tell me", "I want to know", "Can you tell me"), ("Do you know", "do you remember", "Do you recall")
_PAST_TIMES = ("yesterday", "last", "one", "that", "during", "after", "before")


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a phrase is asked for: the word, the preposition that stays behind ("" for none), and what answers."""

    word: str
    stranded: str
    answer: str


@dataclass(frozen=True, slots=True)
class _Verb:
    """A verb as the header tells it, its auxiliary and form in a question, after its subject, and said of oneself."""

    told: str
    aux: str
    base: str
    after_subject: str
    mine: str


def wanted(phrase: Phrase, clause: Clause) -> Wanted | None:
    """How a phrase is asked for; None where nobody would."""
    noun, word = phrase.noun, phrase.preposition
    if phrase.kind in _PLAIN:
        return Wanted(_PLAIN[phrase.kind], "", phrase.text)
    if phrase.kind == "purpose":
        return Wanted("what" if clause.verb in _WISHING else "why", "", phrase.text)
    if noun is None or noun.head in DULL or noun.head in OF_TIME or noun.determiner in ("no", "any", "this", "that"):
        return None
    what = "who" if noun.person else "what"
    if phrase.kind == "object":
        return None if clause.verb == "be" else Wanted(what, "", noun.text)
    if phrase.kind != "prep":
        return None
    if word in _STRANDED or (word == "by" and clause.aux in _BE.keys() | _BE.values() and clause.form):
        return Wanted(what, word, noun.text)
    if (word == "at" and clause.verb in _AIMED) or (clause.adjective and word in ("in", "on", "at")):
        return Wanted(what, word, noun.text)
    if word in ("to", "into", "toward", "towards", "onto", "from", "out of"):
        return _of_motion(phrase, clause, what)
    if word in _OF_PLACE:
        return Wanted("who", word, noun.text) if noun.person and word in ("in", "on") else _where(phrase)
    return None


def _where(phrase: Phrase) -> Wanted:
    return Wanted("where", "", phrase.text)


def _of_motion(phrase: Phrase, clause: Clause, what: str) -> Wanted | None:
    noun, word = phrase.noun, phrase.preposition
    assert noun is not None
    if what == "who":
        return Wanted("who", word, noun.text) if word in ("to", "from") else None
    if word == "from":
        return Wanted("where", "from", noun.text)
    if word == "out of" or clause.verb in _MOTION:
        return _where(phrase)
    return Wanted("what", word, noun.text) if word in ("to", "into") else None


class Questions:
    """Makes blocks of clauses; what one tells may stand in another that tells the like."""

    def __init__(self, clauses: Sequence[Clause], words: Lexicon, rng: random.Random) -> None:
        self._words, self._rng = words, rng
        self._alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for clause in clauses:
            for phrase in clause.phrases:
                want = wanted(phrase, clause)
                if want and not POSSESSIVES & set(want.answer.split()):
                    self._alike[_kind(phrase, clause, want)].append(want.answer)
            subject = clause.subject
            if subject and subject.person and not subject.plural and subject.determiner not in POSSESSIVES:
                self._alike[_kind_of_subject(subject.name, subject.determiner)].append(subject.text)

    def block(self, clause: Clause) -> str | None:
        """A fact with its spots, and a line of questions and one of answers for each that is asked for."""
        verb = self._verb(clause, self._present(clause))
        asked = self._asked(clause)
        if verb is None or not (asked or (clause.subject and (clause.verb != "be" or clause.subject.person))):
            return None
        subject, own = clause.subject, clause.subject is None
        spots = {index: number for number, index in enumerate(asked, 1 if own else 2)}
        values = {number: self._values(clause, clause.phrases[index], asked[index]) for index, number in spots.items()}
        if subject:
            values[1] = self._subjects(clause)
        pieces = [self._piece(phrase, spots.get(i), asked.get(i)) for i, phrase in enumerate(clause.phrases)]
        head = "{they}" if own else "{1}"
        fact = " ".join((head, verb.told, *pieces))
        lines = [re.sub(r"\{(\d)\}", lambda spot: f"[{'|'.join(values[int(spot[1])])}]", fact)]
        if subject and not subject.number and not any(phrase.kind == "reason" for phrase in clause.phrases):
            lines += self._of_subject(clause, verb, pieces)
        for index, number in spots.items():
            lines += self._of_phrase(clause, verb, pieces, (index, number), asked[index])
        if own or (subject and subject.determiner in POSSESSIVES):
            lines = [re.sub(r"\b(?:his|her|their)\b(?!\})", "{their}", line) for line in lines]
            lines = [_addressed(line) if line[1:2] == " " else line for line in lines]
        return "\n".join(lines) if len(lines) > 1 else None

    def _present(self, clause: Clause) -> bool:
        if clause.aux not in ("", "was", "were"):
            return False
        ends = any(phrase.kind in ("reason", "purpose") or _long_ago(phrase) for phrase in clause.phrases)
        timed = clause.aux and any(phrase.kind == "time" for phrase in clause.phrases)
        return clause.now or (not ends and not timed and self._rng.random() < PRESENT)

    def _verb(self, clause: Clause, present: bool) -> _Verb | None:
        own, plural = clause.subject is None, bool(clause.subject and clause.subject.plural)
        if clause.aux:
            aux = {"was": "is", "were": "are"}.get(clause.aux, clause.aux) if present else clause.aux
            many = _BE.get(aux, aux) if own else aux
            mine = {"are": "am", "is": "am", "were": "was"}.get(many, many) if own else aux
            form = f" {clause.form}" if clause.form else ""
            return _Verb(many + form, many, clause.form, many + form, mine + form)
        if present:
            one = "has" if clause.verb == "have" else third_person(clause.verb)
            form = clause.verb if own or plural else one
            return _Verb(form, "do" if own or plural else "does", clause.verb, form, form)
        if own and third_person(clause.form) != clause.form:
            return None  # the deck's slots would make a present of it
        return _Verb(clause.form, "did", clause.verb, clause.form, clause.form)

    def _asked(self, clause: Clause) -> dict[int, Wanted]:
        found: dict[int, Wanted] = {}
        if clause.verb == "be" and clause.phrases[0].kind == "object":
            return found
        last = len(clause.phrases) - 1
        for index, phrase in enumerate(clause.phrases):
            want = wanted(phrase, clause)
            if want and not (want.stranded and (index != last or last > 2)):
                found[index] = want
        kept = self._rng.sample(sorted(found), min(len(found), MOST_ASKED))
        return {index: found[index] for index in kept}

    def _values(self, clause: Clause, phrase: Phrase, want: Wanted) -> list[str]:
        found = [want.answer]
        alike = self._alike[_kind(phrase, clause, want)]
        if phrase.kind not in ("reason", "purpose") and len(alike) >= 4 and self._rng.random() < OTHERS:
            drawn = self._rng.sample(alike, min(len(alike), self._rng.randint(2, 5)))
            found += [text for text in drawn if text.split()[0] not in _FAR]
        noun = phrase.noun
        if noun and noun.name:
            return found[:2] + [want.answer.replace(noun.text, "{place}" if want.word == "where" else "{person2}")] * 2
        if noun and noun.number in NUMBERS:
            return [*found[:2], re.sub(rf"\b{noun.number}\b", "{number}", want.answer, count=1)]
        return list(dict.fromkeys(found))

    def _subjects(self, clause: Clause) -> list[str]:
        subject = clause.subject
        assert subject is not None
        found = [subject.text]
        whose = POSSESSIVES & set(" ".join(phrase.text for phrase in clause.phrases).split())
        alike = self._alike[_kind_of_subject(subject.name, subject.determiner)]
        if subject.person and not subject.plural and not whose and len(alike) >= 4 and self._rng.random() < OTHERS:
            found += self._rng.sample(alike, min(len(alike), 3))
        return found[:2] + ["{person}"] * 2 if subject.name else list(dict.fromkeys(found))

    def _piece(self, phrase: Phrase, number: int | None, want: Wanted | None) -> str:
        if number is None or want is None:
            return phrase.text
        kept = f"{phrase.preposition} " if want.stranded else ""
        return f"{kept}{{{number}}}"

    def _shortened(self, clause: Clause, pieces: Sequence[str], but: int = -1) -> list[str]:
        """The pieces without the one asked for, now and then without another that is not needed."""
        needless = [i for i, phrase in enumerate(clause.phrases) if i and i != but and phrase.kind != "object"]
        left_out = self._rng.choice(needless) if needless and self._rng.random() < SHORTENED else but
        return ["" if index in (but, left_out) else piece for index, piece in enumerate(pieces)]

    def _of_subject(self, clause: Clause, verb: _Verb, pieces: Sequence[str]) -> list[str]:
        assert clause.subject is not None
        word = "who" if clause.subject.person else "what"
        plural, one = clause.subject.plural, verb.told
        if plural and verb.aux == "do":
            one = "has" if clause.verb == "have" else third_person(clause.verb)
        elif plural:
            one = re.sub("^(are|were)", lambda found: {"are": "is", "were": "was"}[found[1]], one)
        whole, short = " ".join(pieces), " ".join(filter(None, self._shortened(clause, pieces)))
        ask = f"{word} {one} {short or whole}"
        texts = [_opened(f"{word} {one} {whole}?"), ask, self._rng.choice([f"Do you know {ask}?", f"Tell me {ask}."])]
        answers = ["{1}.", "{1}.", f"{{1}} {verb.aux}.", f"{{1}} {verb.told} {whole}."]
        return _lines(1, texts, answers)

    def _of_phrase(
        self, clause: Clause, verb: _Verb, pieces: Sequence[str], spot: tuple[int, int], want: Wanted
    ) -> list[str]:
        index, number = spot
        subject = "{1}" if clause.subject else "you"
        texts: list[str] = []
        for frame in self._rng.sample(("plain", "plain", "and", "tell", "know", "bare"), 4):
            rest = self._shortened(clause, pieces, index)
            rest[index] = want.stranded
            base, after = self._reworded(clause, verb)
            doing = "to do" if clause.phrases[index].kind == "purpose" and want.word == "what" else ""
            direct = _joined(want.word, verb.aux, subject, base, *rest, doing)
            texts.append(self._framed(frame, direct, _joined(want.word, subject, after, *rest, doing)))
        plain = [p for p, phrase in zip(pieces, clause.phrases, strict=True) if phrase.kind != "adverb"]
        full = _joined("{1}" if clause.subject else "I", verb.told if clause.subject else verb.mine, *plain)
        answers = [f"{{{number}}}."] * 3 + [f"{full}."]
        if want.stranded not in ("", "of") and self._rng.random() < 0.5:
            answers.append(f"{_opened(want.stranded)} {{{number}}}.")
        return _lines(number, texts, answers)

    def _framed(self, frame: str, direct: str, told: str) -> str:
        if frame == "tell":
            lead = self._rng.choice(_TELL)
            return f"{lead} {told}{'?' if lead.startswith('Can') else '.'}"
        if frame == "know":
            lead = self._rng.choice(_KNOW)
            return f"{lead} {told}{'?' if lead[0] == 'D' else ''}"
        return {"plain": _opened(f"{direct}?"), "and": f"And {direct}?", "bare": direct}[frame]

    def _reworded(self, clause: Clause, verb: _Verb) -> tuple[str, str]:
        """The verb of a question after its auxiliary, and after its subject, plainer now and then."""
        plain = PLAINER.get(clause.verb, "")
        moved = plain == "go" and any(phrase.kind == "object" for phrase in clause.phrases)
        if clause.aux or not plain or moved or self._rng.random() >= REWORDED:
            return verb.base, verb.after_subject
        first, _, more = plain.partition(" ")
        if verb.aux == "did":
            form = self._words.past_of.get(first, f"{first}ed")
        elif verb.aux == "do":
            form = first
        else:
            form = "has" if first == "have" else third_person(first)
        return plain, _joined(form, more)


def _kind(phrase: Phrase, clause: Clause, want: Wanted) -> tuple[str, ...]:
    """What may stand for what: objects of one verb, places after one preposition."""
    close = phrase.kind == "object" or want.word in ("who", "what")
    return (phrase.kind, phrase.preposition, clause.verb if close else "", want.word)


def _kind_of_subject(name: bool, determiner: str) -> tuple[str, ...]:
    return ("subject", "name" if name else "one" if determiner in ("a", "an") else "the")


def _long_ago(phrase: Phrase) -> bool:
    words = phrase.text.split()
    return phrase.kind == "time" and (words[-1] == "ago" or words[0] in _PAST_TIMES)


def _joined(*words: str) -> str:
    return " ".join(" ".join(words).split())


def _opened(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lines(number: int, texts: Iterable[str], answers: Iterable[str]) -> list[str]:
    return [f"{number} {' | '.join(dict.fromkeys(texts))}", f"= {' | '.join(answers)}"]


def _addressed(line: str) -> str:
    """A line of questions says "your", one of answers "my"."""
    return line.replace("{their}", "my" if line.startswith("=") else "your")
