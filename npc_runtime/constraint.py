"""Trie: the set of token sequences that may come next, walked one token at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

Value = TypeVar("Value")


class Trie(Generic[Value]):
    """Allowed token sequences, each with a value; no sequence may be the beginning of another."""

    __slots__ = ("_children", "_value", "allowed")

    def __init__(self, entries: Sequence[tuple[Sequence[int], Value]] = ()) -> None:
        self._children: dict[int, Trie[Value]] = {}
        self._value: Value | None = None
        self.allowed: tuple[int, ...] = ()
        for tokens, value in entries:
            self._insert(tokens, value)
        self._freeze()

    def _insert(self, tokens: Sequence[int], value: Value) -> None:
        node = self
        for token in tokens:
            if node._value is not None:
                raise ValueError(f"the sequence of {node._value!r} begins the sequence of {value!r}")
            node = node._children.setdefault(token, Trie())
        if not tokens or node._children or node._value is not None:
            raise ValueError(f"the sequence of {value!r} is empty, given twice, or begins another")
        node._value = value

    def _freeze(self) -> None:
        nodes = [self]
        for node in nodes:  # grows while it is walked: a sequence may be longer than Python's stack is deep
            node.allowed = tuple(sorted(node._children))
            nodes += node._children.values()

    def child(self, token: int) -> Trie[Value]:
        """The trie of what may follow `token`; KeyError when the token is not allowed."""
        return self._children[token]

    @property
    def value(self) -> Value | None:
        """The value of the sequence that ends here, or None inside a sequence."""
        return self._value
