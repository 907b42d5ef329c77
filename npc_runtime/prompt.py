"""Persona and Turns to tokens, tokens to a Reply.

Layout 1 (DESIGN, "The prompt") uses control symbols. `PlainLayout` serves imported checkpoints
that lack them: plain text with stop strings. Both yield typed replies, because the head of a
Reply (mood, optional action) is decoded under a trie of what is allowed.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from npc_runtime.constraint import Trie
from npc_runtime.errors import BundleError
from npc_runtime.persona import MOODS
from npc_runtime.tokenizer import CONTROL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.persona import Persona
    from npc_runtime.tokenizer import Tokenizer

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Head:
    """What a Reply opens with: the mood, and the action or None."""

    mood: str
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a Reply as it becomes known: a head, or a piece of speech."""

    head: Head | None = None
    text: str = ""


class Layout(Protocol):
    """How a model expects its input; every method gives token ids."""

    banned: frozenset[int]
    """Ids that speech may not contain."""
    unopening: frozenset[int]
    """Ids that speech may not open with: those, its end (an empty Reply is not allowed), and known moods."""
    stops: tuple[str, ...]
    """Texts that end speech (plain layout only)."""
    end: tuple[int, ...]
    """Tokens that close a Reply; the first of them, drawn, ends it."""

    @property
    def blank(self) -> frozenset[int]:
        """Ids after which a speech so far empty may still be: white space, parts of characters."""
        ...

    def surface(self, token: int) -> str | None:
        """What a token adds to any whole text before it; None where only decoding both tells."""
        ...

    def persona(self, persona: Persona) -> tuple[int, ...]:
        """The persona as the model reads it, sample lines and opening included."""
        ...

    def player(self, text: str) -> tuple[int, ...]:
        """A line of the player."""
        ...

    def event(self, text: str) -> tuple[int, ...]:
        """Something perceived."""
        ...

    def cue(self, persona: Persona) -> tuple[int, ...]:
        """What makes the model answer; its last token is fed to draw the first of the head."""
        ...

    def heads(self, moods: Sequence[str], actions: Sequence[str]) -> Trie[Head]:
        """All allowed heads, each sequence up to where speech begins."""
        ...

    def head(self, head: Head) -> tuple[int, ...]:
        """The tokens of one head."""
        ...

    def speech(self, text: str) -> tuple[int, ...]:
        """Speech without its end."""
        ...


def clean(text: str) -> str:
    """One line of text: control characters dropped, runs of white space folded to one space."""
    if text.isascii() and text.isprintable():  # as nearly all text is
        return _SPACE.sub(" ", text).strip()
    visible = "".join(c if c in "\n\r\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "" for c in text)
    return _SPACE.sub(" ", visible).strip()


def persona_lines(persona: Persona) -> list[str]:
    """`field: value` lines of a persona header, empty fields left out, in the layout's order."""
    fields = (
        ("name", persona.name),
        ("role", persona.role),
        ("traits", ", ".join(persona.traits)),
        ("voice", persona.voice),
        ("knows", "; ".join(persona.knows)),
        ("wants", persona.wants),
        ("setting", persona.setting),
    )
    return [f"{key}: {clean(value)}" for key, value in fields if value.strip()]


class ControlLayout:
    """Prompt layout 1: control symbols that no text can produce."""

    stops: tuple[str, ...] = ()

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = {symbol: tokenizer.control(symbol) for symbol in CONTROL}
        missing = [symbol for symbol, token in ids.items() if token is None]
        if missing:
            raise BundleError(f"layout 1 needs the control symbols {', '.join(missing)}; the tokenizer lacks them")
        self._tokenizer = tokenizer
        self._id = {symbol: token for symbol, token in ids.items() if token is not None}
        self.end: tuple[int, ...] = (self._id["<end>"],)
        self.banned = (tokenizer.special | tokenizer.unspeakable) - {self._id["<end>"]}
        # After a mood that it does not know the model may go on with one that it does, as if the head had not ended.
        moods = map(tokenizer.encode, MOODS)
        self.unopening = self.banned | {self._id["<end>"], *(mood[0] for mood in moods if len(mood) == 1)}

        self._surfaces: dict[int, str | None] = {}
        self._anchor = tokenizer.encode("a")

    def surface(self, token: int) -> str | None:
        """What a token adds to any whole text before it; None where only decoding both tells."""
        if token not in self._surfaces:
            before, text = self._tokenizer.decode(self._anchor), self._tokenizer.decode([*self._anchor, token])
            whole = text.startswith(before) and "\ufffd" not in text
            self._surfaces[token] = text[len(before) :] if whole else None
        return self._surfaces[token]

    @cached_property
    def blank(self) -> frozenset[int]:
        """Ids that are no text by themselves."""
        texts = ((i, self._tokenizer.decode([i])) for i in range(self._tokenizer.vocab_size))
        return frozenset(i for i, text in texts if not text.strip() or "\ufffd" in text)

    def _text(self, symbol: str, text: str) -> tuple[int, ...]:
        return (self._id[symbol], *self._tokenizer.encode(text))

    def persona(self, persona: Persona) -> tuple[int, ...]:
        """`<persona>` and the header lines, then sample exchanges and the opening as Turns."""
        tokens = list(self._text("<persona>", "\n".join(persona_lines(persona)) + "\n"))
        for sample in persona.samples:
            tokens += self.player(sample.player)
            tokens += self._spoken(Head(sample.mood, sample.action or None), sample.npc)
        if persona.opening:
            tokens += self._spoken(Head(persona.opening_mood), persona.opening)
        return tuple(tokens)

    def _spoken(self, head: Head, text: str) -> tuple[int, ...]:
        return (self._id["<npc>"], *self.head(head), *self.speech(text), *self.end)

    def player(self, text: str) -> tuple[int, ...]:
        """`<player>` and the line."""
        return self._text("<player>", clean(text))

    def event(self, text: str) -> tuple[int, ...]:
        """`<event>` and what is perceived."""
        return self._text("<event>", clean(text))

    def cue(self, persona: Persona) -> tuple[int, ...]:
        """`<npc>`."""
        return (self._id["<npc>"],)

    def heads(self, moods: Sequence[str], actions: Sequence[str]) -> Trie[Head]:
        """mood `<say>`, or mood `<act>` action `<say>`."""
        return _heads(self, moods, actions)

    def head(self, head: Head) -> tuple[int, ...]:
        """The tokens of one head, `<say>` included; a persona's own mood in several tokens stands behind `neutral`.

        The model has met no such mood: without a known one before it first Replies often began in mid-word.
        """
        mood = self._tokenizer.encode(head.mood)
        if len(mood) > 1 and head.mood not in MOODS:
            mood = [*self._tokenizer.encode(MOODS[0]), *mood]
        act = self._text("<act>", head.action) if head.action else ()
        return (*mood, *act, self._id["<say>"])

    def speech(self, text: str) -> tuple[int, ...]:
        """The line as the tokenizer splits it."""
        return tuple(self._tokenizer.encode(clean(text)))


class PlainLayout:
    """A plain-text template for checkpoints without control symbols.

    <header lines>

    Player: text
    (event)
    Name (mood): text
    Name (mood, action): text
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.end = tuple(tokenizer.encode("\n"))
        if not self.end or not tokenizer.encode("("):
            raise BundleError("the tokenizer has no tokens for a line break or a bracket, which the plain layout needs")
        self.banned = frozenset(tokenizer.special)
        self.unopening = self.banned | {self.end[0]}
        self.stops: tuple[str, ...] = ("\n",)
        self.blank: frozenset[int] = frozenset()  # nobody asks: with stops every token is looked at

    def _line(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text))

    def persona(self, persona: Persona) -> tuple[int, ...]:
        """Header lines, a blank line, then sample exchanges and the opening."""
        lines = [*persona_lines(persona), ""]
        for sample in persona.samples:
            lines += [f"Player: {clean(sample.player)}", self._answer(persona, sample.mood, sample.action, sample.npc)]
        if persona.opening:
            lines.append(self._answer(persona, persona.opening_mood, "", persona.opening))
        return self._line("\n".join(lines) + "\n")

    def _answer(self, persona: Persona, mood: str, action: str, text: str) -> str:
        head = f"{mood}, {action}" if action else mood
        return f"{clean(persona.name)} ({head}): {clean(text)}"

    def player(self, text: str) -> tuple[int, ...]:
        """A `Player:` line."""
        return self._line(f"Player: {clean(text)}\n")

    def event(self, text: str) -> tuple[int, ...]:
        """A line in round brackets."""
        return self._line(f"({clean(text)})\n")

    def cue(self, persona: Persona) -> tuple[int, ...]:
        """The name and an opening bracket, after which the mood is drawn."""
        return self._line(f"{clean(persona.name)} (")

    def heads(self, moods: Sequence[str], actions: Sequence[str]) -> Trie[Head]:
        """`mood):` or `mood, action):`."""
        return _heads(self, moods, actions)

    def head(self, head: Head) -> tuple[int, ...]:
        """The tokens of one head, the closing bracket and colon included."""
        return self._line(f"{head.mood}, {head.action}):" if head.action else f"{head.mood}):")

    def surface(self, token: int) -> str | None:
        """Nothing: stop strings are looked for in all that was said."""
        return None

    def speech(self, text: str) -> tuple[int, ...]:
        """The line after a space."""
        return self._line(f" {clean(text)}")


def _heads(layout: Layout, moods: Sequence[str], actions: Sequence[str]) -> Trie[Head]:
    """Every mood alone and with each action."""
    heads = [Head(mood, action) for mood in moods for action in (None, *actions)]
    try:
        return Trie([(layout.head(head), head) for head in heads])
    except ValueError as error:
        raise BundleError(f"the Bundle's tokenizer cannot tell the words of a persona apart: {error}") from error


def make_layout(name: str, tokenizer: Tokenizer) -> Layout:
    """The layout a Bundle asks for: `control-1` or `plain`."""
    if name == "control-1":
        return ControlLayout(tokenizer)
    if name == "plain":
        return PlainLayout(tokenizer)
    raise BundleError(f"prompt layout must be `control-1` or `plain`, got `{name}`")


class ReplyReader:
    """Follows one Reply token by token: its head under the trie, then speech up to its end."""

    def __init__(self, layout: Layout, tokenizer: Tokenizer, heads: Trie[Head], max_tokens: int) -> None:
        self._layout, self._tokenizer, self._trie = layout, tokenizer, heads
        self._max_tokens = max_tokens
        self._first_end = layout.end[0]
        self._speech: list[int] = []
        self.head: Head | None = None
        self.text = ""
        self._whole = True
        self.finish: str | None = None
        """`end` or `length` once the Reply is over."""
        self.kept = 0
        """Tokens pushed that belong to the Reply (head and speech)."""
        self.end = layout.end
        self.closing: tuple[int, ...] = layout.end
        """Tokens that must follow the kept ones to close the Reply."""

    @property
    def allowed(self) -> tuple[int, ...] | None:
        """The ids that may come next in the head; None in speech."""
        return self._trie.allowed if self.head is None else None

    @property
    def banned(self) -> frozenset[int]:
        """The ids that may not come next in speech."""
        return self._layout.banned if self.text.strip() else self._layout.unopening

    @property
    def trie(self) -> Trie[Head] | None:
        """Where the head stands; None in speech."""
        return self._trie if self.head is None else None

    @property
    def settled(self) -> frozenset[int]:
        """The ids that may not come next once there is a text."""
        return self._layout.banned

    @property
    def left(self) -> int:
        """Tokens of speech that may still come."""
        return self._max_tokens - len(self._speech)

    @property
    def blank(self) -> frozenset[int] | None:
        """Ids that do not surely make a text; None when speech may end inside a token, which only a reader sees."""
        return None if self._layout.stops else self._layout.blank

    def push(self, token: int) -> Piece | None:
        """Takes the next token; the Piece it makes known, or None. Sets `finish` at the end."""
        if self.head is None:
            self.kept += 1
            return self._push_head(token)
        if token == self._first_end:
            self.finish = "end"
            return None
        self.kept += 1
        self._speech.append(token)
        piece = self._new_text()
        if self.finish is None and len(self._speech) >= self._max_tokens:
            self.finish = "length"
        return piece

    def _push_head(self, token: int) -> Piece | None:
        self._trie = self._trie.child(token)
        self.head = self._trie.value
        return Piece(head=self.head) if self.head else None

    def _new_text(self) -> Piece | None:
        added = self._layout.surface(self._speech[-1]) if self._whole else None
        if added is None:
            return self._decoded()
        new = added if self.text else added.lstrip()
        self.text += new
        return Piece(text=new) if new else None

    def _decoded(self) -> Piece | None:
        """What all tokens together make known."""
        self._whole = False
        text = self._tokenizer.decode(self._speech).lstrip()
        for stop in self._layout.stops:
            if stop in text:  # the token that holds the stop closes the Reply itself
                text, self.finish, self.closing = text[: text.index(stop)], "end", ()
        if self.finish is None and (text.endswith("\ufffd") or self._may_stop(text)):
            return None  # an unfinished character or stop string is held back until it is whole
        new, self.text, self._whole = text[len(self.text) :], text, True
        return Piece(text=new) if new else None

    def _may_stop(self, text: str) -> bool:
        return any(text.endswith(stop[:n]) for stop in self._layout.stops for n in range(1, len(stop)))
