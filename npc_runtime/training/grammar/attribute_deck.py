"""The attributes of decks/attributes.toml: on what owners, which values, and in which words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from npc_runtime.training.grammar import wording
from npc_runtime.training.grammar.owners import ME, OWNERS
from npc_runtime.training.grammar.supply import DECK
from npc_runtime.training.grammar.wording import parted

Text = tuple[str, str]
"""A text for one owner and for many (or "I", "you")."""

_AGREES = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")
_ASKS = re.compile(r"(?:(?:to|for|by|from|on|in|at|with|under|out|near|through|over|of) )?(?:wh[aoeiy]\w*|how)\b")


def _texts(table: dict[str, str], key: str) -> tuple[Text, ...]:
    """The texts of a key, [one|many] resolved. `|` within brackets parts nothing."""
    whole = _AGREES.sub(lambda found: found.group(0).replace("|", "\0"), table.get(key, ""))
    texts = [text.replace("\0", "|") for text in parted(whole)]
    return tuple((_AGREES.sub(r"\1", text), _AGREES.sub(r"\2", text)) for text in texts)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing to know of owners of some classes; texts as in attributes.toml."""

    key: str
    on: tuple[str, ...]
    value: str
    noun: Text
    group: str
    kin: frozenset[str]
    own: bool
    chain: bool
    article: str
    tell: tuple[Text, ...]
    ask: tuple[Text, ...]
    embedded: tuple[Text, ...]
    answer: tuple[Text, ...]
    ack: tuple[Text, ...]
    who: tuple[Text, ...]
    gap: tuple[Text, ...]
    cloze: tuple[Text, ...]

    def phrase(self, value: str) -> str:
        """The value with its article, as it answers in one word."""
        if self.article == "a":
            return wording.a(value)
        return f"{self.article} {value}" if self.article else value


def _attribute(key: str, table: dict[str, str]) -> Attribute:
    tell = _texts(table, "tell")
    noun = table["np"]
    return Attribute(
        key,
        tuple(table["on"].split()),
        table["v"],
        (f"{{os}} {noun}",) * 2,
        table.get("group", key),
        frozenset(table.get("kin", "").split()),
        table.get("own") != "no",
        table.get("chain") != "no",
        table.get("article", "a" if "{a} {v}" in table["tell"] else ""),
        tell,
        tuple((one[:1].lower() + one[1:-1], many[:1].lower() + many[1:-1]) for one, many in _texts(table, "ask")),
        tuple(text for text in _texts(table, "emb") if _ASKS.match(text[0])),
        _texts(table, "say"),
        _texts(table, "ack"),
        tuple((one[:1].lower() + one[1:-1], many[:1].lower() + many[1:-1]) for one, many in _texts(table, "who")),
        _texts(table, "gap") if tell[0][0].startswith("{o} ") else (),
        tuple(text for text in tell if _open(text[0])),
    )


def _whole(table: dict[str, str]) -> dict[str, str]:
    """The table with what it lacks taken from the one it is `like`; both are of that one's group."""
    if "like" not in table:
        return table
    like = _whole(_TABLES[table["like"]])
    return {"group": table["like"], **like, **table}


def _open(text: str) -> bool:
    """Whether the text without its value still tells what is asked."""
    return text.endswith("{v}") and len(text.replace("{is}", "").replace("{a}", "").split()) > 2


_TABLES: dict[str, dict[str, str]] = DECK["attribute"]
ATTRIBUTES = tuple(_attribute(key, _whole(table)) for key, table in _TABLES.items())
WORDING: dict[str, tuple[str, ...]] = {key: wording.lines(text) for key, text in DECK["wording"].items()}
"""Wordings by what they are for."""
OF: dict[str, tuple[Attribute, ...]] = {
    kind: tuple(attribute for attribute in ATTRIBUTES if kind in attribute.on) for kind in (*OWNERS, ME)
}
"""The attributes that suit a class of owners."""
