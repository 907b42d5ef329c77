"""Cast: personas as the model has read them. Each is read once; its State is kept by content."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from npc_runtime.errors import TooLarge, UnknownPersona
from npc_runtime.persona import find_persona, is_path, persona_from
from npc_runtime.pool import Timeline
from npc_runtime.prompt import make_layout
from npc_runtime.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from npc_runtime.bundle import Bundle
    from npc_runtime.constraint import Trie
    from npc_runtime.errors import NpcError
    from npc_runtime.persona import Persona
    from npc_runtime.prompt import Head, Piece
    from npc_runtime.scheduler import Scheduler
    from npc_runtime.turn import Outcome

MAX_CACHED = 256
"""Personas whose States are kept; the one unused longest goes first."""
MAX_NAMED = 4096
"""Characters of a persona's name or path."""


@dataclass(slots=True, eq=False)
class Role:
    """A persona's State, or the way to it: `waiting` are told when it has been read."""

    timeline: Timeline[None] = field(default_factory=Timeline)
    tokens: int = 0
    waiting: list[tuple[Callable[[Role], None], Callable[[NpcError], None]]] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """True once the persona is in the State."""
        return self.timeline.current is not None


class Cast:
    """Finds personas, reads each into a State once, and lends that State to every Npc of it."""

    def __init__(self, bundle: Bundle, scheduler: Scheduler, folders: Sequence[Path] = ()) -> None:
        self.bundle, self.scheduler, self.folders = bundle, scheduler, folders
        self.tokenizer = bundle.tokenizer
        self.layout = make_layout(bundle.layout, self.tokenizer)
        self._roles: OrderedDict[str, Role] = OrderedDict()
        self._heads: dict[tuple[tuple[str, ...], tuple[str, ...]], Trie[Head]] = {}
        scheduler.reclaim = self._give_back

    @property
    def cached(self) -> int:
        """Personas whose States are kept."""
        return sum(role.ready for role in self._roles.values())

    def find(self, persona: str | dict[str, Any]) -> Persona:
        """The Persona of a name, a path or a table; raises PersonaError or UnknownPersona."""
        if isinstance(persona, dict):
            return persona_from(persona, "the request")
        if len(persona) > MAX_NAMED:
            raise TooLarge(f"`persona` as a name or path may hold {MAX_NAMED} characters, got {len(persona)}")
        if self.scheduler.config.save_dir and is_path(persona):
            raise UnknownPersona(
                "this daemon reads no file that a client names", "Send the persona's name or its table"
            )
        return find_persona(persona, self.folders)

    def is_ready(self, persona: Persona) -> bool:
        """True when the persona need not be read again."""
        role = self._roles.get(persona.digest())
        return role is not None and role.ready

    def play(self, persona: Persona, ready: Callable[[Role], None], failed: Callable[[NpcError], None]) -> None:
        """Calls `ready` now if the persona was read before, or else once it has been read."""
        digest = persona.digest()
        role = self._roles.get(digest)
        if role is not None and role.ready:
            self._roles.move_to_end(digest)
            ready(role)
            return
        if role is None:
            tokens = self.layout.persona(persona)  # before there is a Role: one that nobody reads is waited for in vain
            role = self._roles[digest] = Role(tokens=len(tokens))
            listener = _Reading(self, digest, role)
            self.scheduler.submit(Turn(role.timeline, tokens, listener))
        role.waiting.append((ready, failed))

    def heads(self, moods: tuple[str, ...], actions: tuple[str, ...]) -> Trie[Head]:
        """The trie of heads a Turn may use; the same words give the same trie again."""
        key = (moods, actions)
        if key not in self._heads:
            if len(self._heads) >= MAX_CACHED:
                self._heads.clear()
            self._heads[key] = self.layout.heads(moods, actions)
        return self._heads[key]

    def _give_back(self) -> bool:
        """Frees the State of the persona unused longest."""
        for digest, role in self._roles.items():
            if role.ready:
                role.timeline.clear(self.scheduler.pool)
                del self._roles[digest]
                return True
        return False

    def _settle(self, digest: str, role: Role, error: NpcError | None) -> None:
        waiting, role.waiting = role.waiting, []
        if error is not None:
            del self._roles[digest]
        elif self.cached > MAX_CACHED:
            self._give_back()
        for ready, failed in waiting:
            if error is not None:
                failed(error)
            else:
                ready(role)


class _Reading:
    """Listens to the Turn that reads a persona."""

    def __init__(self, cast: Cast, digest: str, role: Role) -> None:
        self._cast, self._digest, self._role = cast, digest, role

    def begin(self) -> None:
        """Reading depends on nothing before it."""

    def piece(self, piece: Piece) -> None:
        """Reading yields no speech."""

    def commit(self, outcome: Outcome) -> None:
        """A persona's point carries no mark."""

    def done(self, outcome: Outcome) -> None:
        """Tells everyone who waits."""
        self._cast._settle(self._digest, self._role, None)

    def fail(self, error: NpcError) -> None:
        """Tells everyone who waits that it came to nothing."""
        self._cast._settle(self._digest, self._role, error)
