"""Wording of facts that grammars make: how a clause is told, asked for, corrected, acknowledged, or not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.training.threads import ACK, ANSWER, HONEST, aside, ended, heard, said
from npc_runtime.training.values import read_deck_table

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Mapping, Sequence

    from npc_runtime.training.threads import Step

Texts = tuple[str, ...]

PLAIN = 0.35
"""Share of clauses told with nothing around them."""
NOISE = 0.2
"""Share of the player's lines with a word misspelt, doubled by a filler, or an article lost."""
_GREETED = 0.12
_LOST = frozenset({"the", "that"})
_FILLERS = ("really", "just", "well", "now", "actually", "uh", "like", "um", "er", "then")
_GREETINGS = ("Hello.", "Hi!", "Good day.", "Hey.", "Good evening.", "Hello there!", "Well met.", "Morning.")
_COMES = (
    "The player comes back.",
    "The player walks up.",
    "Some time passes.",
    "Night falls.",
    "The player sits down.",
)


def read_table(name: str) -> dict[str, Texts]:
    """The lists of a file under decks/: one entry a line, or a TOML list as it is."""
    return {key: lines(value) for key, value in read_deck_table(name).items()}


def lines(value: str | list[str]) -> Texts:
    """The entries of a list that holds one a line, or of a TOML list."""
    entries = value.splitlines() if isinstance(value, str) else value
    return tuple(line.strip() for line in entries if line.strip())


def parted(text: str, by: str = "|") -> Texts:
    """The entries of a list that a sign parts."""
    return tuple(part.strip() for part in text.replace("\n", " ").split(by) if part.strip())


def untold(texts: Texts) -> Texts:
    """The texts that do not speak of something told before."""
    return tuple(text for text in texts if not any(word in text for word in _OF_TELLING))


_OF_TELLING = (
    *("told", "I say", "I ever", "I forg", "my head", "rememb", "Remind", "emory", "listened", "again", "thread"),
    *("mentioned", "recall", "gone", "forgotten", "forgetting", "last time", "come back", "still in", "never forget"),
)
_TEXTS = read_table("wording.toml")
_ASKED_OWN = untold(_TEXTS["asked"])


def cap(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def a(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    vowel = noun[:1].lower() in "aeiou" and not noun.lower().startswith(("one", "uni", "use", "eu", "ukul"))
    return f"an {noun}" if vowel or noun.startswith(("hour", "heir", "honest")) else f"a {noun}"


def told(clause: str, rng: random.Random) -> str:
    """The clause ("I bought a kettle from Aldo") as something told, mostly with a few words around it."""
    if rng.random() < PLAIN:
        return f"{cap(clause)}."
    return _filled(rng.choice(_TEXTS["told"]), c=clause)


def asked(direct: str, embedded: str, rng: random.Random, own: bool = False) -> str:
    """A question, from its direct form ("who did I buy it from") and its embedded one ("who I bought it from").

    `own`: about the character itself, of whom the player told nothing.
    """
    return _filled(rng.choice(_ASKED_OWN if own else _TEXTS["asked"]), q=direct, w=embedded)


def corrected(new: str, old: str, embedded: str, rng: random.Random) -> str:
    """The player puts `new` for `old`; `embedded` is what it answers, in the player's words."""
    return _sentences(rng.choice(_TEXTS["corrected"]).format(new=new, old=old, w=embedded))


def correct_ack(new: str, old: str, rng: random.Random) -> str:
    """The character takes a correction, mostly by naming the new value."""
    key = "correct_ack" if rng.random() < 0.9 else "correct_ack_plain"
    return _sentences(rng.choice(_TEXTS[key]).format(new=new, New=cap(new), old=old))


def ack(values: Sequence[str], rng: random.Random) -> str:
    """The character takes note, half of the time by naming one of the values."""
    if values and rng.random() < 0.5:
        return _filled(rng.choice(_TEXTS["ack_named"]), x=rng.choice(values))
    return rng.choice(_TEXTS["ack"])


def unknown(embedded: str, about: str, rng: random.Random) -> str:
    """Honest ignorance. `embedded`: what was asked, in the character's words ("who you bought it from"), or "".

    `about`: a thing never mentioned ("a lamp", "your sister"), "" where only the detail was never told.
    """
    kinds = [key for key, text in (("unknown_what", embedded), ("unknown_about", about)) if text] + ["unknown"]
    thing = about.split(" ", 1)[-1]
    return _filled(rng.choice(_TEXTS[rng.choice(kinds)]), w=embedded, about=about, thing=thing)


def typed(text: str, keep: Collection[str], rng: random.Random) -> str:
    """The text with one word misspelt, lost or added now and then; words of `keep` (values) stay whole."""
    if rng.random() > NOISE:
        return text
    words = text.split(" ")
    whole = {part for value in keep for part in value.split(" ")}
    at = rng.randrange(len(words))
    word = words[at]
    if at > 0 and word in _LOST - whole:
        del words[at]
    elif len(word) > 4 and word.isalpha() and word.islower() and word not in whole:
        cut = rng.randrange(1, len(word) - 1)
        words[at] = word[:cut] + word[cut + 1 :]
    elif at > 0 and not whole & {word, words[at - 1]} and words[at - 1].islower() and words[at - 1].isalpha():
        words.insert(at, rng.choice(_FILLERS))
    return " ".join(words)


def telling(text: str, reply: str, rng: random.Random, before: str = "", after: str = "") -> Step:
    """A step: the player says `text`, perhaps between other remarks, and the character takes note."""
    greeting = rng.choice(_GREETINGS) if rng.random() < _GREETED else ""
    parts = [part for part in (greeting, before, text, after) if part]
    whole = " ".join((*map(ended, parts[:-1]), parts[-1]))
    return (heard(whole, rng), said(reply, rng, ACK))


def asking(question: str, answer: str, rng: random.Random, weight: float = ANSWER) -> Step:
    """A step: the player asks, perhaps after a few words of leading in; the character answers."""
    return (heard(aside(question, rng), rng), said(answer, rng, weight))


def denying(question: str, answer: str, rng: random.Random) -> Step:
    """A step: the player asks what was never told; the character owns up."""
    return asking(question, answer, rng, HONEST)


def correcting(text: str, reply: str, rng: random.Random) -> Step:
    """A step: the player corrects something; the character takes it."""
    return (heard(text, rng), said(reply, rng, 1.0))


def unasked(text: str, rng: random.Random) -> Step:
    """A step: at some small event the character speaks of what it was told."""
    return (heard(f"E: {rng.choice(_COMES)}"), said(text, rng, 1.0))


def with_capitals(values: Mapping[str, str]) -> dict[str, str]:
    """The values and, under each key with a capital, the same with a capital first letter."""
    return {**values, **{key[:1].upper() + key[1:]: cap(value) for key, value in values.items()}}


def _filled(text: str, **values: str) -> str:
    return text.format(**with_capitals(values))


def _sentences(text: str) -> str:
    """The text with a capital after every stop."""
    parts = text.split(". ")
    return ". ".join(part if part[:1].isupper() else cap(part) for part in parts) if len(parts) > 1 else cap(text)
