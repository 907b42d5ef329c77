"""Checks: what passes comes back clean, what does not is named with what was expected and what came."""

from __future__ import annotations

from typing import Any

import pytest

from npc_runtime.checks import MOST_FAULTS, Check, Count, Items, Mismatch, Number, Table, Text, Word, near, shown

TABLE = Table(dict, {"size": Count(1, 9), "colour": Word()}, ("size",))

PASSES: dict[str, tuple[Check, object, Any]] = {
    "a text's white space is folded": (Text(12), " two\r\n\t words ", "two words"),
    "accents and emoji are text": (Text(12, 1), "Ærø \U0001f4ab", "Ærø \U0001f4ab"),
    "an empty text where none is needed": (Text(12), "", ""),
    "a text as long as allowed": (Text(3), "abc", "abc"),
    "a word": (Word(), "wary", "wary"),
    "a tuple as a list": (Items(Word(), 2), ("a", "b"), ("a", "b")),
    "an empty list": (Items(Word(), 2), [], ()),
    "a whole number as a number": (Number(0, 2), 1, 1.0),
    "the ends of a range": (Count(1, 9), 9, 9),
    "a table": (TABLE, {"size": 3}, {"size": 3}),
}

FAILS: dict[str, tuple[Check, object, str]] = {
    "no text": (Text(12), 7, "`f` must be text of up to 12 characters, got 7"),
    "a text too long": (Text(3), "abcd", "`f` must be text of up to 3 characters, got 4 characters"),
    "a huge text": (Text(3), "a" * 10**7, "`f` must be text of up to 3 characters, got 65536 characters"),
    "a text too short": (Text(3, 1), " \n", "`f` must be text of 1 to 3 characters, got ' \\n'"),
    "a control character": (Text(9), "a\x1bb", "`f` must not hold control or invisible characters, got U+001B"),
    "a null": (Text(9), "a\x00", "`f` must not hold control or invisible characters, got U+0000"),
    "a hidden turn of direction": (
        Text(9),
        "a\u202eb",
        "`f` must not hold control or invisible characters, got U+202E",
    ),
    "half a surrogate pair": (Text(9), "a\ud800", "`f` must not hold control or invisible characters, got U+D800"),
    "the parting character": (
        Text(9, without=";"),
        "a; b",
        "`f` must not hold `;`, which parts one item from the next; make it two items",
    ),
    "a capital": (Word(), "Wary", "`f` must be a word of 1 to 24 letters a to z, got 'Wary'"),
    "two words": (Word(), "very wary", "`f` must be a word of 1 to 24 letters a to z, got 'very wary'"),
    "a word with a line end": (Word(), "wary\n", "`f` must be a word of 1 to 24 letters a to z, got 'wary\\n'"),
    "a text as a list": (
        Items(Word(), 2),
        "a, b",
        "`f` must be a list of up to 2, each a word of 1 to 24 letters a to z, got 'a, b'",
    ),
    "too many": (
        Items(Word(), 2, 1),
        ["a"] * 3,
        "`f` must be a list of 1 to 2, each a word of 1 to 24 letters a to z, got a list of 3",
    ),
    "a bad item": (
        Items(Word(), 2),
        ["a", None],
        "`f` item 2 must be a word of 1 to 24 letters a to z, got a NoneType",
    ),
    "an item twice": (
        Items(Word(), 2, unique=True),
        ["a", "a"],
        "`f` must name each word once, got `a` more than once",
    ),
    "a number out of range": (Number(0, 2), 2.5, "`f` must be a number from 0 to 2, got 2.5"),
    "not a number": (Number(0, 2), float("nan"), "`f` must be a number from 0 to 2, got nan"),
    "endless": (Number(0, 2), float("inf"), "`f` must be a number from 0 to 2, got a number beyond 1e18"),
    "true as a number": (Number(0, 2), True, "`f` must be a number from 0 to 2, got true"),
    "a part as a whole": (Count(1, 9), 2.0, "`f` must be a whole number from 1 to 9, got 2.0"),
    "a number of 5,000 digits": (
        Count(1, 9),
        16**4200,
        "`f` must be a whole number from 1 to 9, got a number beyond 1e18",
    ),
    "no table": (TABLE, [], "`f` must be a table of `size`, `colour`, got a list of 0"),
    "a field that is near": (TABLE, {"color": "red"}, "`f`, 'color' is not a field; did you mean `colour`?"),
    "a field that is not": (TABLE, {"weight": 1}, "`f`, 'weight' is not a field; the fields are size, colour"),
    "a field that is no text": (TABLE, {b"size": 1}, "`f`, a bytes is not a field; did you mean `size`?"),
    "a field that lacks": (TABLE, {"colour": "red"}, "`f`, `size` is missing; it must be a whole number from 1 to 9"),
    "a field within": (TABLE, {"size": 0}, "`f`, `size` must be a whole number from 1 to 9, got 0"),
}


@pytest.mark.parametrize("case", PASSES)
def test_what_fits_comes_back_clean(case: str) -> None:
    check, value, clean = PASSES[case]
    result = check(value, "`f`")
    assert result == clean
    assert type(result) is type(clean)


@pytest.mark.parametrize("case", FAILS)
def test_what_does_not_fit_is_told_in_full(case: str) -> None:
    check, value, text = FAILS[case]
    with pytest.raises(Mismatch) as caught:
        check(value, "`f`")
    assert str(caught.value) == text


def test_every_fault_is_kept_and_their_number_is_bounded() -> None:
    table = Table(dict, {"sizes": Items(Count(1, 9), 99), "colour": Word(), "name": Text(3, 1)}, ("name",))
    with pytest.raises(Mismatch) as caught:
        table({"sizes": [1, 0, 2, "x"], "color": "red", "colour": "Red"}, "`f`")
    assert caught.value.faults == (
        "`f`, 'color' is not a field; did you mean `colour`?",
        "`f`, `name` is missing; it must be text of 1 to 3 characters",
        "`f`, `sizes` item 2 must be a whole number from 1 to 9, got 0",
        "`f`, `sizes` item 4 must be a whole number from 1 to 9, got 'x'",
        "`f`, `colour` must be a word of 1 to 24 letters a to z, got 'Red'",
    )
    assert str(caught.value) == caught.value.faults[0]
    for many in ({str(number): 1 for number in range(10_000)}, {"name": "a", "sizes": [0] * 99, "colour": 1}):
        with pytest.raises(Mismatch) as caught:
            table(many, "`f`")
        assert MOST_FAULTS <= len(caught.value.faults) <= MOST_FAULTS + 1


def test_values_are_shown_short_whatever_they_are() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    values = ["x" * 10**6, 10**10_000, -(10.0**300), deep, {"a": deep}, None, b"bytes", False]
    assert max(len(shown(value)) for value in values) < 64


def test_only_close_words_are_suggested() -> None:
    assert near("tratis", ["traits", "wants"]) == "; did you mean `traits`?"
    assert near("VOICE", ["voice"]) == "; did you mean `voice`?"
    assert near("nobody", ["bo", "oddy", "marta"]) == ""
    assert near("colour", ["traits", "wants"]) == ""
    assert near("x" * 10**6, ["traits"]) == ""
