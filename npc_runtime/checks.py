"""Checks: what a field of a table that somebody wrote must be, in words and as a test.

A Check called with a value gives it back clean (one line of text, tuples for lists) or raises
Mismatch, whose text names the field, what was expected and what came: the first fault's, and all are kept.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_WORD = re.compile(r"[a-z]{1,24}")
_SPACE = re.compile(r"[ \t\r\n]+")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST = 64 * 1024
"""Characters of a text that are looked at; what is longer is refused without reading on."""
MOST_FAULTS = 32
"""Faults after which nothing more is looked at: each costs a search for what was meant."""


class Mismatch(Exception):
    """A field is not what it must be; `faults` holds a text for each fault found in it, the first one's is ours."""

    def __init__(self, *faults: str) -> None:
        super().__init__(faults[0])
        self.faults = faults


class Check(Protocol):
    """What a field must be."""

    @property
    def expected(self) -> str:
        """The rule in words, as errors and documents have it."""
        ...

    def __call__(self, value: object, field: str) -> Any:
        """The clean value; raises Mismatch with a text that opens with `field`."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; runs of white space become one space, and `without` may not occur in it."""

    most: int
    least: int = 0
    without: str = ""

    @property
    def expected(self) -> str:
        """The rule in words."""
        return (
            f"text of {self.least} to {self.most} characters" if self.least else f"text of up to {self.most} characters"
        )

    def __call__(self, value: object, field: str) -> str:
        """The text with its white space folded."""
        if not isinstance(value, str):
            _refuse(field, self.expected, value)
        line = _SPACE.sub(" ", value[:_LONGEST]).strip()
        if len(line) > self.most:
            raise Mismatch(f"{field} must be {self.expected}, got {len(line)} characters")
        if len(line) < self.least:
            _refuse(field, self.expected, value)
        hidden = next((c for c in line if unicodedata.category(c) in _HIDDEN), None)
        if hidden is not None:
            raise Mismatch(f"{field} must not hold control or invisible characters, got U+{ord(hidden):04X}")
        if self.without and self.without in line:
            raise Mismatch(
                f"{field} must not hold `{self.without}`, which parts one item from the next; make it two items"
            )
        return line


@dataclass(frozen=True, slots=True)
class Word:
    """A plain lower-case word."""

    expected: str = "a word of 1 to 24 letters a to z"

    def __call__(self, value: object, field: str) -> str:
        """The word."""
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            _refuse(field, self.expected, value)
        return value


@dataclass(frozen=True, slots=True)
class Items:
    """A list; `unique` refuses a second of the same."""

    item: Check
    most: int
    least: int = 0
    unique: bool = False

    @property
    def expected(self) -> str:
        """The rule in words."""
        count = f"{self.least} to {self.most}" if self.least else f"up to {self.most}"
        return f"a list of {count}, each {self.item.expected}"

    def __call__(self, value: object, field: str) -> tuple[Any, ...]:
        """The clean items."""
        if not isinstance(value, (list, tuple)) or not self.least <= len(value) <= self.most:
            _refuse(field, self.expected, value)
        faults: list[str] = []
        items = tuple(
            _clean(self.item, item, f"{field} item {number}", faults)
            for number, item in enumerate(value, 1)
            if len(faults) < MOST_FAULTS
        )
        if faults:
            raise Mismatch(*faults)
        again = next((item for item in items if items.count(item) > 1), None) if self.unique else None
        if again is not None:
            raise Mismatch(f"{field} must name each word once, got `{again}` more than once")
        return items


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range."""

    low: float
    high: float

    @property
    def expected(self) -> str:
        """The rule in words."""
        return f"a number from {self.low:g} to {self.high:g}"

    def __call__(self, value: object, field: str) -> float:
        """The number as a float."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            _refuse(field, self.expected, value)  # NaN is in no range
        return float(value)


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number in a range."""

    low: int
    high: int

    @property
    def expected(self) -> str:
        """The rule in words."""
        return f"a whole number from {self.low} to {self.high}"

    def __call__(self, value: object, field: str) -> int:
        """The number."""
        if type(value) is not int or not self.low <= value <= self.high:
            _refuse(field, self.expected, value)
        return value


@dataclass(frozen=True, slots=True)
class Table:
    """A table of named fields that `build` makes something of; fields not given keep its defaults."""

    build: Callable[..., Any]
    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The rule in words."""
        return "a table of " + ", ".join(f"`{name}`" for name in self.fields)

    def __call__(self, value: object, field: str) -> Any:
        """What `build` makes of the clean fields."""
        clean, faults = self.read(value, field)
        if faults:
            raise Mismatch(*faults)
        return self.build(**clean)

    def read(self, value: object, field: str) -> tuple[dict[str, Any], list[str]]:
        """The fields as far as they are clean, and the faults of the table; raises Mismatch where it is none."""
        if not isinstance(value, dict):
            _refuse(field, self.expected, value)
        prefix = f"{field}, " if field else ""
        faults = []
        for key in islice((key for key in value if key not in self.fields), MOST_FAULTS):
            others = near(key, self.fields) or f"; the fields are {', '.join(self.fields)}"
            faults.append(f"{prefix}{shown(key)} is not a field{others}")
        lacking = [key for key in self.required if key not in value]
        faults += [f"{prefix}`{key}` is missing; it must be {self.fields[key].expected}" for key in lacking]
        clean = {
            key: _clean(self.fields[key], item, f"{prefix}`{key}`", faults)
            for key, item in value.items()
            if key in self.fields and len(faults) < MOST_FAULTS
        }
        return {key: item for key, item in clean.items() if item is not None}, faults


def _clean(check: Check, value: object, field: str, faults: list[str]) -> Any:
    """The clean value; None, which no Check gives, where there are faults, and those on the list."""
    try:
        return check(value, field)
    except Mismatch as error:
        faults += error.faults
        return None


def near(word: object, known: Iterable[str]) -> str:
    """`; did you mean ...?` where one of the known words is close, else nothing."""
    match = difflib.get_close_matches(str(word)[:64].lower(), list(known), 1, 0.7)
    return f"; did you mean `{match[0]}`?" if match else ""


def shown(value: object) -> str:
    """A value for an error's text: short whatever its size or depth."""
    if isinstance(value, str):
        return repr(value[:40] + "..." if len(value) > 40 else value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return "a number beyond 1e18" if abs(value) > 1e18 else str(value)
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return "a table" if isinstance(value, dict) else f"a {type(value).__name__}"


def _refuse(field: str, expected: str, value: object) -> NoReturn:
    raise Mismatch(f"{field} must be {expected}, got {shown(value)}")
