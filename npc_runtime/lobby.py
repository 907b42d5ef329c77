"""Lobby: who is connected, in which Session, and how they come and go."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

from npc_runtime import __version__, errors, wire
from npc_runtime.peer import Peer
from npc_runtime.persona import ACTIONS, MOODS

if TYPE_CHECKING:
    import zmq

    from npc_runtime.stage import Stage

FLUSHES = 8
"""Peers per round that are found to take nothing still: each costs some 20 us, and hundreds may be gone unnoticed."""
UNNAMED = "~"
"""Begins the name given to a Session whose client named none; such a Session ends with its connection."""
_LIMITS = (
    "max_frame_bytes",
    "max_text_chars",
    "max_text_tokens",
    "max_lines",
    "max_npcs",
    "max_queued",
    "rewind_turns",
)


class Lobby:
    """The Peers of a daemon, by connection and by Session."""

    def __init__(self, stage: Stage, router: zmq.Socket[bytes]) -> None:
        self.stage, self.config = stage, stage.config
        self.peers: dict[bytes, Peer] = {}
        self._router = router
        self._playing: dict[str, Peer] = {}
        self._flushed = 0

    def greet(self, address: bytes, request: wire.Hello, user: str, now: float) -> None:
        """Lets a client in: settles the version, opens or takes over its Session, tells what can be done here."""
        if wire.PROTOCOL not in request.protocol:
            theirs = request.protocol[:8]
            raise errors.VersionMismatch(f"this daemon speaks protocol {wire.PROTOCOL}, the client {theirs}")
        if len(request.session) > wire.MAX_NAME or not request.session.isprintable():
            raise errors.BadInput(f"`session` may hold {wire.MAX_NAME} printable characters")
        name = request.session or UNNAMED + secrets.token_hex(8)
        key = f"{user}/{name}"
        self._make_room(key, now)
        resumed = key in self.stage.sessions
        session = self.stage.session(key, lasting=bool(request.session))
        peer = Peer(self._router, address, session, key, now)
        peer.named = bool(request.session)
        peer.kept = peer.named and self.config.keep_npcs
        peer.max_backlog_bytes = 2**20 + self.config.max_frame_bytes
        self.peers[address] = self._playing[key] = peer
        peer.emit(wire.Event(request.id, "ok", {**self.card(), "session": name, "resumed": resumed}))

    def _make_room(self, key: str, now: float) -> None:
        """Ends the connection that held the Session before, and those that prove dead when none is left to give."""
        before = self._playing.get(key)
        if before is not None:
            before.emit(wire.Event(0, "bye", {"reason": "taken_over"}))
            self.leave(before, keep=True)
        if len(self.peers) >= self.config.max_sessions:
            for peer in self.peers.values():
                if not peer.behind:  # else the sweep asks by what waits
                    self._probe(peer, now)
            self.sweep()
        if len(self.peers) >= self.config.max_sessions:
            raise errors.Overloaded(f"{len(self.peers)} clients are connected, and no more are allowed")

    def card(self) -> dict[str, Any]:
        """What this daemon is and allows: most of the answer to `hello`."""
        stage = self.stage
        return {
            "protocol": wire.PROTOCOL,
            "version": __version__,
            "bundle": {"name": stage.bundle.name, "hash": stage.bundle.hash},
            "backend": stage.backend.name,
            "reason": stage.reason,
            "ops": sorted(wire.REQUESTS),
            "moods": list(MOODS),
            "actions": list(ACTIONS),
            "heartbeat_s": self.config.heartbeat_s,
            "relative_paths": bool(self.config.save_dir),
            "keep_npcs": self.config.keep_npcs,
            "journal": bool(self.config.journal),
            "limits": {"max_name": wire.MAX_NAME, **{name: getattr(self.config, name) for name in _LIMITS}},
        }

    def leave(self, peer: Peer, keep: bool) -> None:
        """Ends a Peer: what it asked for is cut, its Npcs stay or go."""
        self.peers.pop(peer.address, None)
        if self._playing.get(peer.key) is peer:
            del self._playing[peer.key]
        peer.lost = peer.lost or "it left"
        peer.session.close(keep=True)
        if not keep or not peer.session.npcs:
            self.stage.forget(peer.key)

    def beat(self, now: float) -> None:
        """Asks silent Peers whether they live; those silent three times as long are gone."""
        silence = self.config.heartbeat_s
        if not silence:
            return
        for peer in self.peers.values():
            asked = peer.pinged_at > peer.heard_at
            if asked and now - peer.pinged_at > 2 * silence:
                peer.lost = peer.lost or f"nothing was heard of it for {now - peer.heard_at:.1f} s"
            elif not asked and now - peer.heard_at > silence:
                self._probe(peer, now)

    def _probe(self, peer: Peer, now: float) -> None:
        """A `ping`: a living client answers, and a closed connection shows at once."""
        peer.pinged_at = now
        peer.emit(wire.Event(0, "ping"))

    def sweep(self) -> bool:
        """Sends what was held back; lets go whom a send, or silence, showed to be lost. True when someone was."""
        self._flush()
        lost = [peer for peer in self.peers.values() if peer.lost]
        for peer in lost:
            print(f"npc-runtime: a client is gone: {peer.lost}", file=sys.stderr, flush=True)
            self.leave(peer, peer.kept)
        return bool(lost)

    def _flush(self) -> None:
        """Sends what was held back; a few Peers who take nothing end it, and the next round begins behind them."""
        late, refused = [peer for peer in self.peers.values() if peer.behind], 0
        first = self._flushed % len(late) if late else 0
        for peer in late[first:] + late[:first]:
            self._flushed += 1
            peer.flush()
            refused += peer.behind
            if refused >= FLUSHES:
                return

    @property
    def behind(self) -> bool:
        """True while messages are held back for anyone."""
        return any(peer.behind for peer in self.peers.values())

    @property
    def waiting(self) -> bool:
        """True while any request has not been answered."""
        return any(peer.open for peer in self.peers.values())

    def tell(self, event: wire.Event) -> None:
        """Sends an event to everyone."""
        for peer in self.peers.values():
            peer.emit(event)

    def cut_all(self) -> None:
        """Cuts everything under way: what was said in part is answered as far as it went."""
        for peer in self.peers.values():
            peer.session.cancel_all()

    def fail_all(self, error: errors.NpcError) -> None:
        """Answers every open request with an error."""
        for peer in self.peers.values():
            peer.fail_open(error)
