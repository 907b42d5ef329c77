"""A fact of the header as the character would say it: the plainest true answer to any question about it."""

from __future__ import annotations

import re
from functools import cache

from npc_runtime.training.values import ADVERBS, SAME_FOR_ALL, STATEMENT_HEADS

_BASES = {"is": "am", "isn't": "am not", "has": "have", "hasn't": "haven't", "does": "do", "doesn't": "don't"}
_JOINED_VERB = re.compile(r"(?:\b(?:and|but|or|who|that)|,) (?:\w+ly )?(?:is|has|[a-z]{2,}[^s\W]s)\b")
"""What may be a second verb of the character's: too doubtful to put into the first person."""
_REFLEXIVE = re.compile(r"\b(?:him|her|them)sel(?:f|ves)")
_TOPIC = re.compile(
    r"(\{their\}|\bthe) (?!name|number|place|only|one|first|last)([a-z]{3,})"
    r"(?= (?:is|was|are|were|has|had|have|in|of|at|on|to|with|from|for|by|and|costs?|named|called|\{))"
)
_OPENINGS = (
    "Tell me about {x}.",
    "tell me more about {x}",
    "What about {x}?",
    "what's the matter with {x}",
    "What do you know about {x}?",
    "Is there anything I should know about {x}?",
    "I heard something about {x}.",
    "{x}?",
    "Talk to me about {x}.",
    "how are things with {x}",
    "And {x}?",
    "so, {x}",
)
"""Ways to bring up a thing without asking for anything of it."""


@cache
def openings(fact: str) -> tuple[str, ...]:
    """What a player says who wants to hear of a fact and knows only a noun of it; () where none is found."""
    topics = [f"{'your' if found[1] != 'the' else 'the'} {found[2]}" for found in _TOPIC.finditer(fact)]
    texts = [text.replace("{x}", topic) for topic in topics for text in _OPENINGS]
    return tuple(text[:1].upper() + text[1:] if text.endswith(("?", ".")) else text for text in texts)


@cache
def restated(fact: str, want: bool = False) -> str:
    """A clause of a card about its character as a sentence in the first person, slots kept; "" where that is not sure.

    `want`: the clause completes "wants". "{they} sell {food}", "sells {food}" -> "I sell {food}."
    """
    if _REFLEXIVE.search(fact):
        return ""
    if fact.startswith(("{they}", "{they_are}")):
        clause = fact
    elif want and not (fact.startswith("{their}") and " is " in fact):
        clause = f"I want {fact}"
    else:
        clause = _with_subject(fact)
    return f"{_first_person(clause)}." if clause else ""


@cache
def stated(fact: str) -> str:
    """The same of a clause that names its subject, as talks do: "boats leave at dawn" has no verb "to boat"."""
    return "" if _REFLEXIVE.search(fact) else f"{_first_person(fact)}."


def _with_subject(fact: str) -> str:
    """A clause that begins at its verb with "I" before it; one that has a subject as it is."""
    head, adverb = fact.split(" ")[0], ""
    if head.startswith("{") or head.rstrip(",") in STATEMENT_HEADS:
        return f"{head[:1].upper()}{head[1:]}{fact[len(head) :]}"
    if _JOINED_VERB.search(fact):
        return ""
    if head in ADVERBS:
        adverb, fact = f" {head}", fact[len(head) + 1 :]
        head = fact.split(" ")[0]
    base = _base(head)
    return f"I{adverb} {base}{fact[len(head) :]}" if base else ""


def _base(verb: str) -> str:
    """The verb after "I" for that after "she"; "" where the word may be no verb."""
    if verb in _BASES or verb in SAME_FOR_ALL or verb.endswith("ed") or verb in ("was", "wasn't"):
        return _BASES.get(verb, verb)
    if not verb.endswith("s") or verb.endswith("ss"):
        return ""
    if verb.endswith("ies") and len(verb) > 4:
        return f"{verb[:-3]}y"
    return verb[:-2] if verb.endswith(("ches", "shes", "sses", "xes", "zzes", "oes")) else verb[:-1]


def _first_person(clause: str) -> str:
    text = clause.replace("{they_are}", "I am").replace("{they}", "I").replace("{their}", "my").replace("{them}", "me")
    text = re.sub(r"\bI are\b", "I am", re.sub(r"\bI were\b", "I was", re.sub(r"\bI aren't\b", "I'm not", text)))
    text = re.sub(r"\bthe player\b", "you", re.sub(r"\bthe player's\b", "your", text))
    return text[:1].upper() + text[1:]
