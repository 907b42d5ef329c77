"""Loops: whether a reply says the same over and over."""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby
from typing import NamedTuple

RUN, TIMES = 3, 3
"""So many words in the same order, or one word in a row, so many times, are a loop."""
SHARE, FEWEST_WORDS = 0.4, 6
"""The share of a reply that one content word may not reach, counted from so many words on."""
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?\u2026]")
_CALLS = frozenset((
    "ah", "aye", "go", "ha", "hah", "haha", "heh", "hey", "ho", "hush", "i", "knock", "nay", "no", "now", "oh",
    "so", "tap", "tick", "tut", "well", "yes",
))  # fmt: skip
"""What people say three times in a row and mean it, or stammer."""
_FUNCTION = frozenset((
    "all", "and", "any", "are", "been", "but", "can", "could", "did", "does", "for", "from", "had", "has", "have",
    "her", "him", "his", "how", "its", "let", "may", "must", "not", "now", "our", "out", "shall", "she", "should",
    "that", "the", "their", "them", "then", "there", "they", "this", "was", "were", "what", "when", "where",
    "which", "who", "why", "will", "with", "would", "you", "your", "don't", "i'm", "it's", "that's", "you're",
))  # fmt: skip
"""Words that no reply is about."""


class _Word(NamedTuple):
    text: str
    capital: bool
    named: bool
    """With the capital inside a sentence, as a name has it."""


def looping(text: str) -> bool:
    """Whether three words occur in the same order three times, one word three times in a row, or one nearly alone.

    `no, no, no` and `ha ha ha` are ways to speak and no loops.
    """
    words = _words(text)
    return _repeats(text.lower().split()) or _stutters(words) or _fills(words)


def _words(text: str) -> list[_Word]:
    """The words of a text without its punctuation, in lower case."""
    found: list[_Word] = []
    text, end = text.replace("\u2019", "'"), 0
    for match in _WORD.finditer(text):
        capital = match[0][0].isupper()
        inside = bool(found) and _SENTENCE_END.search(text, end, match.start()) is None
        found.append(_Word(match[0].lower(), capital, capital and inside))
        end = match.end()
    return found


def _repeats(words: list[str]) -> bool:
    runs = Counter(tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1))
    return max(runs.values(), default=0) >= TIMES


def _stutters(words: list[_Word]) -> bool:
    for text, row in groupby(words, lambda word: word.text):
        said = list(row)
        counts = text.isalpha() and text not in _CALLS and (len(text) >= 3 or any(word.capital for word in said))
        if len(said) >= TIMES and counts:
            return True
    return False


def _fills(words: list[_Word]) -> bool:
    names = {word.text for word in words if word.named}
    counts = Counter(word.text for word in words if word.text not in _FUNCTION | _CALLS)
    most = max((count for word, count in counts.items() if len(word) >= 3 or word in names), default=0)
    return len(words) >= FEWEST_WORDS and most >= SHARE * len(words)
