"""Stage: one Bundle on one backend, and every Session that plays on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npc_runtime.archive import Archive
from npc_runtime.cast import Cast
from npc_runtime.errors import ConfigError, Overloaded
from npc_runtime.scheduler import Scheduler
from npc_runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from npc_runtime.backends.base import Backend
    from npc_runtime.bundle import Bundle
    from npc_runtime.config import Config

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

    def session(self, name: str) -> Session:
        """The Session of a name: the one that was kept, or a new one. Raises Overloaded."""
        if name not in self.sessions:
            if len(self.sessions) >= self.config.max_sessions:
                raise Overloaded(f"{len(self.sessions)} Sessions are open or kept, and no more are allowed")
            session = Session(name, self.cast, self.scheduler)
            self.archive.serve(session)
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
        wait = self.scheduler.tick()
        if writing:
            return _WRITING_POLL_S if wait is None else min(wait, _WRITING_POLL_S)
        return wait

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
        }

    def close(self) -> None:
        """Ends every Session, waits for saves being written, and frees the backend."""
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

    for folder in persona_folders:
        if not folder.is_dir():
            raise ConfigError(f"persona folder `{folder}` is not a folder")
    bundle = Bundle.load(default_bundle_path() if bundle_path is None else find_bundle(str(bundle_path)))
    chosen, reason = choose(backend, bundle, config)
    return Stage(bundle, chosen, reason, config, persona_folders)
