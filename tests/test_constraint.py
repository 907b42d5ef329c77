"""The trie of what may come next."""

from __future__ import annotations

import pytest

from npc_runtime.constraint import Trie


def walk(trie: Trie[str], tokens: list[int]) -> Trie[str]:
    for token in tokens:
        trie = trie.child(token)
    return trie


def test_only_what_was_put_in_can_come_next() -> None:
    trie = Trie([([5, 9], "happy"), ([5, 2, 7], "angry"), ([3], "sad")])
    assert trie.allowed == (3, 5)
    assert walk(trie, [5]).allowed == (2, 9)
    assert walk(trie, [5, 2]).allowed == (7,)
    with pytest.raises(KeyError):
        trie.child(9)


def test_a_value_stands_at_the_end_of_its_sequence_only() -> None:
    trie = Trie([([5, 9], "happy"), ([3], "sad")])
    assert trie.value is None
    assert walk(trie, [5]).value is None
    assert walk(trie, [5, 9]).value == "happy"
    assert walk(trie, [3]).value == "sad"
    assert walk(trie, [3]).allowed == ()


def test_a_sequence_may_be_longer_than_the_stack_is_deep() -> None:
    """Found by fuzz.py: what may follow was gathered by a function that called itself once a token."""
    tokens = list(range(5000))
    trie = Trie([(tokens, "long"), ([7], "short")])
    assert trie.allowed == (0, 7)
    assert walk(trie, tokens[:-1]).allowed == (4999,)
    assert walk(trie, tokens).value == "long"


def test_an_empty_trie_allows_nothing() -> None:
    assert Trie[str]().allowed == ()
    assert Trie[str]().value is None


@pytest.mark.parametrize(
    "entries",
    [
        [([1, 2], "long"), ([1], "short")],
        [([1], "short"), ([1, 2], "long")],
        [([1], "one"), ([1], "twin")],
        [([], "nothing")],
        [([4], "four"), ([], "nothing")],
    ],
    ids=["prefix last", "prefix first", "twice", "empty", "empty last"],
)
def test_a_sequence_that_begins_another_is_refused(entries: list[tuple[list[int], str]]) -> None:
    """Or else nobody could tell, after the shorter one, whether the longer one is still to come."""
    with pytest.raises(ValueError, match="begins"):
        Trie(entries)
