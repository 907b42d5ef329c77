"""Stage: one Bundle on one backend, and every Session that plays on it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_runtime.archive import Archive
from npc_runtime.backends.base import spares
from npc_runtime.backends.spare import trim_heap
from npc_runtime.cast import Cast
from npc_runtime.errors import ConfigError, Overloaded
from npc_runtime.persona import check_folders, persona_from
from npc_runtime.scheduler import Scheduler
from npc_runtime.scribe import Scribe
from npc_runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.backends.base import Backend
    from npc_runtime.bundle import Bundle
    from npc_runtime.config import Config
    from npc_runtime.journal import Journal, Key
    from npc_runtime.save import NpcRecord

_WRITING_POLL_S = 0.005
"""How often to look whether a save being written on the side has reached the disk."""


class Stage:
    """Holds bundle, backend, scheduler and Sessions. One thread calls everything here."""

    def __init__(
        self, bundle: Bundle, backend: Backend, reason: str, config: Config, persona_folders: Sequence[Path] = ()
    ) -> None:
        self.bundle, self.backend, self.reason, self.config = bundle, backend, reason, config
        self.scheduler = Scheduler(backend, config)
        self.cast = Cast(bundle, self.scheduler, persona_folders)
        self.archive = Archive(bundle, backend, self.cast, self.scheduler)
        self.sessions: dict[str, Session] = {}
        self.scribe: Scribe | None = None
        if config.journal:
            self.scribe = self._open_journal(Path(config.journal))

    def _open_journal(self, folder: Path) -> Scribe:
        """Brings back the Npcs of a journal. Raises JournalError, or ConfigError when they do not fit the limits."""
        from npc_runtime.journal import Journal

        if not self.config.keep_npcs:
            raise ConfigError(
                "`journal` keeps Npcs for their client's return, and `keep_npcs` is off: drop one of them"
            )
        journal = Journal(folder, self.bundle.name, self.bundle.hash, self.backend.spec)
        try:
            self._revive(journal)
        except BaseException:
            journal.close()
            raise
        scribe = Scribe(journal, self._record)
        for session in self.sessions.values():
            scribe.watch(session)
        return scribe

    def _revive(self, journal: Journal) -> None:
        for name, record in journal.read():
            persona = persona_from(record.persona, f"the journal's `{record.id}`")
            try:
                self.session(name, lasting=False).add(self.archive.revive(record, persona, record.id))
            except Overloaded as error:
                text = f"the journal `{journal.folder}` holds {len(journal)} Npcs, which do not fit: {error}"
                raise ConfigError(
                    text, "Raise `state_budget_mb` or `max_sessions`; the journal was left as it is"
                ) from error

    def _record(self, key: Key) -> NpcRecord | None:
        """The Npc of a Session's name and an id, as a save holds it; None when there is none."""
        session = self.sessions.get(key[0])
        npc = session.npcs.get(key[1]) if session is not None else None
        return None if npc is None or npc.timeline.current is None else self.archive.record(npc)

    def session(self, name: str, lasting: bool = True) -> Session:
        """The Session of a name: the one that was kept, or a new one. Raises Overloaded.

        lasting: whether the journal, if there is one, keeps its Npcs.
        """
        if name not in self.sessions:
            if len(self.sessions) >= self.config.max_sessions:
                raise Overloaded(f"{len(self.sessions)} Sessions are open or kept, and no more are allowed")
            session = Session(name, self.cast, self.scheduler)
            self.archive.serve(session)
            if self.scribe is not None and lasting:
                self.scribe.watch(session)
            self.sessions[name] = session
        return self.sessions[name]

    def forget(self, name: str) -> None:
        """Ends a Session and drops its Npcs."""
        session = self.sessions.pop(name, None)
        if session is not None:
            session.close(keep=False)

    def tick(self) -> float | None:
        """A bounded piece of work; seconds until the next call is wanted, None when idle."""
        writing = self.archive.settle()  # before the scheduler: a load that has been read submits Turns
        waits = [self.scheduler.tick(), _WRITING_POLL_S if writing else None]
        if self.scribe is not None:
            waits.append(self.scribe.settle())
        return min((wait for wait in waits if wait is not None), default=None)

    def flush(self) -> None:
        """Waits until the journal, if there is one, holds everything, and lets the answers go that waited for it."""
        if self.scribe is not None:
            self.scribe.flush()

    def stats(self) -> dict[str, Any]:
        """Counters: Npcs, Sessions, Slots, Turns, tokens."""
        scheduler, pool = self.scheduler, self.scheduler.pool
        return {
            "npcs": sum(len(session.npcs) for session in self.sessions.values()),
            "sessions": len(self.sessions),
            "personas": self.cast.cached,
            "queued": sum(session.queued for session in self.sessions.values()),
            "active": len(scheduler.active),
            "slots": {"total": pool.capacity, "free": pool.free, "room": scheduler.room},
            "state_bytes": self.backend.spec.nbytes,
            "turns": {"done": scheduler.turns_done, "failed": scheduler.turns_failed},
            "tokens": {"read": scheduler.tokens_read, "spoken": scheduler.tokens_spoken},
            "ticks": scheduler.ticks,
            **({} if self.scribe is None else {"journal": self.scribe.stats()}),
        }

    def rest(self) -> None:
        """Hands back memory that nobody needs now; for a moment in which nothing happens."""
        if spares(self.backend):
            self.backend.release(self.scheduler.pool.unused)
        gc.collect()  # a Session that ended is a circle: without this it stays, and the pages around it
        trim_heap()

    def close(self) -> None:
        """Ends every Session, waits for saves being written, and frees the backend. The journal keeps its Npcs."""
        if self.scribe is not None:
            for session in self.sessions.values():
                session.cancel_all()
            self.scribe.close()
        for name in list(self.sessions):
            self.forget(name)
        self.archive.close()
        self.backend.close()


def open_stage(
    bundle_path: Path | str | None, config: Config, backend: str = "auto", persona_folders: Sequence[Path] = ()
) -> Stage:
    """Loads a Bundle (a folder or a shipped one's name; None: the default) onto the best backend of this machine."""
    from npc_runtime.backends import choose
    from npc_runtime.bundle import Bundle, default_bundle_path, find_bundle

    check_folders(persona_folders)
    bundle = Bundle.load(default_bundle_path() if bundle_path is None else find_bundle(str(bundle_path)))
    chosen, reason = choose(backend, bundle, config)
    try:
        return Stage(bundle, chosen, reason, config, persona_folders)
    except BaseException:
        chosen.close()
        raise
