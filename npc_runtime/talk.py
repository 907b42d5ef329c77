"""Talk: a chat with a character on a terminal, in process or with a daemon; or a script of lines on a pipe."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_runtime.errors import BadInput, Cancelled, ConnectionLost, NothingToRewind, NpcError, TooLarge, UnknownPersona
from npc_runtime.persona import find_persona, to_mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from npc_runtime.screen import Screen
    from npc_runtime.verbs import Blocking, NpcInfo

SUFFIX = ".npcsave"
_DIGEST_DIGITS = 16
_LONGEST_LINE, _LONGEST_REST = 65536, 256
"""Characters of a line that are looked at, and how many times as many are passed over after them."""


class Talk:
    """One player at a prompt and the Npcs they have met. `run` returns the exit status."""

    def __init__(self, verbs: Blocking, screen: Screen, personas: Sequence[Path] = (), seed: int | None = None) -> None:
        self.verbs, self.screen, self.personas, self.seed = verbs, screen, personas, seed
        self.npc = ""
        self.names: dict[str, str] = {}
        """What each Npc's persona is called, by Npc id."""
        self._sources: dict[str, str] = {}
        self._commands: dict[str, Callable[[str], None]] = {
            "save": self._save,
            "load": self._load,
            "rewind": self._rewind,
            "fork": self._fork,
            "state": self._state,
            "event": self._event,
            "choose": self._choose,
            "persona": self.meet,
            "again": self._again,
            "npc": self._turn_to,
            "help": self._help,
        }

    def run(self, persona: str, lines: TextIO | None = None) -> int:
        """Meets a persona and talks until the player leaves. Without a prompt, a refused line makes the status 1."""
        source = sys.stdin if lines is None else lines
        prompted = self.screen.live and source.isatty()
        self.meet(persona)
        if prompted:
            self.screen.note("  /help shows what else you can do; Ctrl-C cuts a line short, /quit or Ctrl-D leaves")
        refused = False
        for line in _prompt(self.screen.note) if prompted else _piped(source):
            text = line.strip()
            if text.split()[:1] == ["/quit"]:
                break
            if text and not prompted:
                self.screen.player(text)
            refused |= bool(text) and not self._take(text)
        return 1 if refused and not prompted else 0

    def _take(self, text: str) -> bool:
        """Carries out one line; False when it was refused. Raises ConnectionLost, after which nothing can be said."""
        try:
            if text.startswith("/"):
                self._command(text[1:])
            else:
                self.say(text)
        except ConnectionLost:
            raise
        except TooLarge as error:  # it names a field and its configuration, which nobody here has seen
            more = " or more" if len(text) == _LONGEST_LINE else ""
            self._refuse(error.text.replace("`text`", "a line") + more, "Shorten it, or say it in several lines")
            return False
        except NpcError as error:
            self._refuse(error.text, error.hint)
            return False
        return True

    def _refuse(self, text: str, hint: str) -> None:
        self.screen.end()
        self.screen.error(text, hint)

    def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name not in self._commands:
            known = ", ".join(f"/{known}" for known in (*self._commands, "quit"))
            raise BadInput(f"there is no command `/{name:.40}`", f"Known are {known}")
        self._commands[name](rest.strip())

    # ---- talking

    def say(self, text: str) -> None:
        """Says a line and shows the Reply as it comes; Ctrl-C cuts it."""
        pace = None if self.screen.live else 0.0
        stream = self.verbs.stream(self.npc, text, pace=pace)
        shown, mood, action = 0, "", None
        try:
            for piece in stream:
                mood, action = piece.mood or mood, piece.action or action
                if not piece.text:
                    continue
                if not shown:
                    self.screen.begin(self.names[self.npc], mood, action)
                self.screen.speech(piece.text)
                shown += len(piece.text)
            self.screen.end()
        except KeyboardInterrupt:
            self._cut(shown)
        with contextlib.suppress(Cancelled):
            self.screen.timings(stream.reply)

    def _cut(self, shown: int) -> None:
        self.verbs.cancel(self.npc, heard=shown)
        self.screen.end(cut=True)
        self.screen.note("  cut; they remember it up to here" if shown else "  cut before a word was said")

    def meet(self, persona: str) -> None:
        """/persona NAME: turns to another character, a persona's name or file; one met before goes on as they were."""
        if not persona:
            raise BadInput("`/persona` needs a name or a file", "/persona marta")
        named = Path(persona).stem if persona.endswith(".toml") else persona
        if named in self.names:
            self._turn_to(named)
        elif lives := next((info for info in self.verbs.list() if info.npc == named), None):
            self._go_on(lives, persona)
        else:
            self._spawn(named, persona)

    def _go_on(self, lives: NpcInfo, persona: str) -> None:
        """Turns to a character that lives in the Session since an earlier talk, as it was left."""
        self.npc, self.names[lives.npc], self._sources[lives.npc] = lives.npc, lives.name, persona
        self.screen.note(f"  {lives.name} goes on after {_turns(lives.turns)}; /again starts over")

    def _spawn(self, npc: str, persona: str) -> None:
        """Brings a persona alive, read from disk anew."""
        try:
            spawned = self.verbs.spawn(npc, self._found(persona), seed=self.seed, replace=True)
        except UnknownPersona as error:
            beside = Path(f"{persona}.toml")
            hint = f"A file of one lies here: name it, {beside}" if os.path.isfile(beside) else error.hint
            raise UnknownPersona(error.text, hint) from None
        self.npc, self.names[npc], self._sources[npc] = npc, spawned.name, persona
        self.screen.note(f"  {spawned.name}, {spawned.role}")
        if spawned.opening:
            self.screen.said(spawned.name, spawned.opening.mood, spawned.opening.text)

    def _found(self, persona: str) -> str | dict[str, Any]:
        """A file, or a name in our own folders, as a table, because a daemon may stand elsewhere; else the name."""
        if not self.personas and not persona.endswith(".toml"):
            return persona
        return to_mapping(find_persona(persona, self.personas))

    # ---- commands

    def _again(self, text: str) -> None:
        """/again: starts over with this character, its persona read from disk as it is now."""
        if self.npc not in self._sources:
            raise BadInput(f"`{self.npc}` was not spawned here but loaded or forked", "/persona NAME meets another")
        self._spawn(self.npc, self._sources[self.npc])

    def _turn_to(self, name: str) -> None:
        """/npc NAME: turns to a character met before."""
        met = ", ".join(self.names) or "nobody"
        if not name:
            raise BadInput("`/npc` needs a name", f"So far you have met {met}")
        if name not in self.names:
            raise BadInput(f"you have not met `{name:.40}`", f"So far you have met {met}")
        self.npc = name
        self.screen.note(f"  now with {self.names[name]} ({name})")

    def _save(self, text: str) -> None:
        """/save FILE: writes everybody you have met to a file."""
        saved = self.verbs.save(self._file(text, "/save"))
        self.screen.note(f"  saved {', '.join(saved.npcs)}: {saved.bytes:,} bytes in {saved.path}")

    def _load(self, text: str) -> None:
        """/load FILE: brings back everybody in a file; nothing is read again."""
        loaded = self.verbs.load(self._file(text, "/load"), replace=True)
        self.names |= {info.npc: info.name for info in loaded.npcs}
        if loaded.npcs and self.npc not in [info.npc for info in loaded.npcs]:
            self.npc = loaded.npcs[0].npc
        told = ", ".join(f"{info.npc} ({_turns(info.turns)})" for info in loaded.npcs)
        self.screen.note(f"  loaded {told}; now with {self.names[self.npc]}")

    def _file(self, text: str, command: str) -> str:
        if not text:
            raise BadInput(f"`{command}` needs a file", f"{command} evening{SUFFIX}")
        return text if text.endswith(SUFFIX) else text + SUFFIX

    def _rewind(self, text: str) -> None:
        """/rewind [N]: takes back the last turn, or the last N."""
        if text and not text.isdecimal():
            raise BadInput(f"`/rewind` takes a number of turns, got `{text:.40}`", "/rewind 2")
        try:
            info = self.verbs.rewind(self.npc, int(text or 1))
        except NothingToRewind as error:
            raise NothingToRewind(error.text, "/state tells how many; a load begins them anew") from None
        self.screen.note(f"  back at {_turns(info.turns)}; {info.rewind} more can be taken back")

    def _fork(self, text: str) -> None:
        """/fork NAME: a second character with the same memory, and turns to it; /npc turns back."""
        if not text:
            raise BadInput("`/fork` needs a name for the other", "/fork what-if")
        if text in self.names:
            raise BadInput(f"you have met `{text:.40}` already", "/fork what-if, or /npc turns to them")
        self.verbs.fork(self.npc, text)
        self.names[text] = self.names[self.npc]
        self._turn_to(text)

    def _state(self, text: str) -> None:
        """/state: the figures of this character's memory."""
        info = next(info for info in self.verbs.list() if info.npc == self.npc)
        stats, snapshot = self.verbs.stats(), self.verbs.snapshot(self.npc)
        self.screen.table(
            [
                ("memory", f"{stats['state_bytes']:,} bytes, whatever was said"),
                ("saved", f"{len(snapshot):,} bytes"),
                ("lived", f"{info.tokens:,} tokens, {_turns(info.turns)}"),
                ("rewind", f"{_turns(info.rewind)} can be taken back"),
                ("seed", str(info.seed)),
                ("digest", hashlib.sha256(snapshot).hexdigest()[:_DIGEST_DIGITS]),
            ]
        )

    def _event(self, text: str) -> None:
        """/event TEXT: something happens that the character perceives without answering."""
        if not text:
            raise BadInput("`/event` needs what happens", "/event A bell rings.")
        observed = self.verbs.observe(self.npc, text, lane="player")
        if not self.screen.live:
            self.screen.event(text)
        self.screen.note(f"  {self.names[self.npc]} has seen it; {observed.tokens['read']} tokens read")

    def _choose(self, text: str) -> None:
        """/choose A | B | C: the character says the likeliest of your lines."""
        lines = [line.strip() for line in text.split("|") if line.strip()]
        if len(lines) < 2:
            raise BadInput(
                "`/choose` needs two or more lines, with `|` between", "/choose Yes. | No. | Ask the miller."
            )
        chosen = self.verbs.choose(self.npc, lines)
        self.screen.said(self.names[self.npc], chosen.mood, chosen.text)
        scores = "  ".join(f"{score:.2f} {line}" for score, line in zip(chosen.scores, lines, strict=True))
        self.screen.note(f"  {scores}")

    def _help(self, text: str) -> None:
        """/help: this list."""
        told = [(command.__doc__ or "").strip().partition(":") for command in self._commands.values()]
        self.screen.table([(usage, meaning.strip()) for usage, _, meaning in told] + [("/quit", "leaves")])


def _turns(count: int) -> str:
    return f"{count} turn{'' if count == 1 else 's'}"


def _prompt(note: Callable[[str], None]) -> Iterator[str]:
    """Lines typed at a prompt until Ctrl-D, or Ctrl-C twice in a row: one may be meant for a Reply that just ended."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives input() a history and editing
    warned = False
    while True:
        try:
            line = input("\n\001\x1b[1m\002> \001\x1b[0m\002")
        except (EOFError, KeyboardInterrupt) as end:
            print()
            if warned or isinstance(end, EOFError):
                return
            warned = True
            note("  /quit leaves, and so does Ctrl-C once more")
        else:
            warned = False
            yield line


def _piped(source: TextIO) -> Iterator[str]:
    """Lines of a pipe or file; what is not UTF-8 is shown as U+FFFD. A longer one is cut: it is refused as too long."""
    if hasattr(source, "reconfigure"):
        source.reconfigure(errors="replace")
    while line := source.readline(_LONGEST_LINE):
        yield line
        for _ in range(_LONGEST_REST):
            if len(line) < _LONGEST_LINE or line.endswith("\n"):
                break
            line = source.readline(_LONGEST_LINE)
        else:
            text = f"a line of input may hold {_LONGEST_LINE} characters, and this one goes on and on"
            raise TooLarge(text, "End lines with a line break")
