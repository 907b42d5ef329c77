"""Screen: a conversation on a terminal, or as plain lines where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.markup import escape
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from npc_runtime.wire import Reply

MOODS = {
    "happy": "green",
    "amused": "green",
    "fond": "magenta",
    "sad": "blue",
    "angry": "red",
    "afraid": "bright_magenta",
    "surprised": "cyan",
    "wary": "yellow",
    "proud": "bright_yellow",
}
"""Colours of the moods that have one."""
ACTIONS = {
    "trade": "opens a bargain",
    "give": "hands something over",
    "take": "takes what is offered",
    "quest": "asks for something to be done",
    "follow": "comes along",
    "attack": "attacks",
    "flee": "flees",
    "leave": "turns away",
    "point": "points the way",
}
"""What the default actions look like; any other is shown as its word."""
_INDENT = "  "
_WIDEST = 88


class Screen:
    """Shows who speaks, in what mood, and speech as it comes; notes are dim. Without a terminal nothing is coloured."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.console = Console(file=out, highlight=False, soft_wrap=True)
        self._line: _Line | None = None

    @property
    def live(self) -> bool:
        """True when somebody watches: speech is paced and may be cut."""
        return self.console.is_terminal

    def note(self, text: str) -> None:
        """Something about the talk, not of it."""
        self.console.print(Text(text, "dim"))

    def error(self, text: str, hint: str) -> None:
        """What went wrong and what to do."""
        self.console.print(f"[red]error:[/red] {escape(text)}")
        self.console.print(f"[dim]hint: {escape(hint)}[/dim]")

    def player(self, text: str) -> None:
        """The player's line, where it was not typed here."""
        self.console.print(Text.assemble(("> ", "bold"), text))

    def event(self, text: str) -> None:
        """Something that everybody present perceives."""
        self.console.print(Text(f"* {text}", "italic"))

    def begin(self, name: str, mood: str, action: str | None = None) -> None:
        """Who speaks now, how, and what they do."""
        self.end()
        heading = Text.assemble((name, f"bold {MOODS.get(mood, '')}".strip()), (f", {mood}", "dim"))
        if action:
            heading.append(f"  [{ACTIONS.get(action, action)}]", "dim italic")
        self.console.print(heading)
        self._line = _Line(self.console)

    def speech(self, text: str) -> None:
        """More of what is said."""
        if self._line is not None:
            self._line.add(text)

    def end(self, cut: bool = False) -> None:
        """The line is over; `cut` when the player did not let it end."""
        if self._line is not None:
            self._line.end(" -" if cut else "")
            self._line = None

    def said(self, name: str, mood: str, text: str, action: str | None = None) -> None:
        """A whole line at once."""
        self.begin(name, mood, action)
        self.speech(text)
        self.end()

    def timings(self, reply: Reply) -> None:
        """What a Reply cost."""
        self.note(_INDENT + timings(reply))

    def verdict(self, good: bool, text: str) -> None:
        """A claim, and whether it held."""
        mark = ("  ok    ", "green") if good else ("  FAIL  ", "bold red")
        self.console.print(Text.assemble(mark, text))

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and values, one pair a line."""
        pairs = list(rows)
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self.console.print(Text.assemble((f"{_INDENT}{name:<{width}}  ", "dim"), value))


def timings(reply: Reply) -> str:
    """Tokens and milliseconds of a Reply in one line."""
    read, spoken = reply.tokens["read"], reply.tokens["spoken"]
    first, total = reply.ms["first"], reply.ms["total"]
    return f"{read} tokens read, first words after {first:.0f} ms, {spoken} spoken in {total / 1000:.1f} s"


class _Line:
    """Speech wrapped at words while it comes: a word is shown once it is known to fit."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, _WIDEST) - 1
        self._wraps = console.is_terminal
        self._column = 0
        self._word = ""

    def add(self, text: str) -> None:
        for letter in text:
            if letter.isspace():
                self._flush()
                self._word = " " if self._column else ""
            else:
                self._word += letter
        # A word at the end of a piece may go on in the next one, and is shown at once unless it would not fit.
        if self._column + len(self._word) < self._width - 16 or not self._wraps:
            self._flush()

    def end(self, tail: str) -> None:
        self._word += tail
        self._flush()
        self._write("\n")

    def _flush(self) -> None:
        word, self._word = self._word, ""
        if not word:
            return
        if self._wraps and self._column + len(word) > self._width and word[0] == " ":
            self._write("\n")
            self._column, word = 0, word[1:]
        if self._column == 0:
            word = _INDENT + word
        self._write(word)
        self._column += len(word)

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()
