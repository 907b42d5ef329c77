"""Promises 3 and 7 through what is delivered: the wire, damaged files and strangers."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from npc_runtime import wire
from npc_runtime.doctor.check import Finding, check
from npc_runtime.doctor.patient import LINES, PERSONA
from npc_runtime.errors import NpcError, SaveError, WrongKey

if TYPE_CHECKING:
    from npc_runtime.doctor.patient import Game, Patient


@check("damaged-saves", 7, "A damaged save is refused whole, and nothing in memory changes")
def damaged_saves(patient: Patient) -> Finding:
    """A save cut short, a save with one bit flipped at many places, and a file that is no save."""
    with patient.game() as game, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.npcsave"
        game.spawn("odalys")
        game.say("odalys", LINES[0])
        digest = game.state("odalys").digest()
        game.ask(wire.Save(path=str(path)))
        bad = _damaged(path.read_bytes())
        refused = sum(_refuses(game, path, data) for data in bad)
        same = game.state("odalys").digest() == digest and list(game.session.npcs) == ["odalys"]
    figure = (
        f"{refused} of {len(bad)} damaged saves refused; the living character is {'as before' if same else 'changed'}"
    )
    return Finding(refused == len(bad) and same, figure, "all, as before", {"tried": len(bad), "refused": refused})


def _damaged(data: bytes) -> list[bytes]:
    found = [data[:size] for size in (0, 7, len(data) // 3, len(data) - 1)] + [b"not a save", data + b"\0"]
    for place in range(0, len(data), max(1, len(data) // 23)):
        found.append(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
    return found


def _refuses(game: Game, path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        game.ask(wire.Load(path=str(path), replace=True))
    except SaveError:
        return True
    except NpcError:
        return False
    return False


@check("wire", 3, "A Reply over the wire is the Reply in process")
def over_the_wire(patient: Patient) -> Finding:
    """The same lines to a daemon of our own and to a Session in this process."""
    from npc_runtime.client import Client

    if not patient.stock:
        return Finding(True, "no daemon can be started with this backend", "equal", {})
    with patient.game() as game:
        game.spawn("odalys")
        expected = [_essence(game.say("odalys", text)) for text in LINES[:3]]
        data = game.ask(wire.Snapshot(npc="odalys"))["data"]
    with (
        tempfile.TemporaryDirectory() as folder,  # NPC_RUNTIME_JOURNAL may name a journal that is in use
        Client.start(
            patient.bundle.path, backend=patient.backend, options=["--journal", folder, *_computing(patient)]
        ) as client,
    ):
        client.spawn("odalys", PERSONA, seed=7)
        told = [_essence(client.say("odalys", text, max_tokens=24)) for text in LINES[:3]]
        snapshot = client.snapshot("odalys")
        intruder = _turned_away(client.ready["endpoint"])
        ready_ms = client.ready["ready_ms"]
    same, bits = told == expected, snapshot == data
    figures = {"replies_equal": same, "snapshot_equal": bits, "intruder_refused": intruder, "ready_ms": ready_ms}
    figure = f"Replies {_word(same)}, snapshot {_word(bits)}; a wrong key is {'refused' if intruder else 'LET IN'}"
    return Finding(same and bits and intruder, f"{figure}; ready in {ready_ms:.0f} ms", "equal, refused", figures)


@check("journal", 7, "A daemon that is killed comes back with every answered Turn")
def journal(patient: Patient) -> Finding:
    """A daemon with a journal, ended without warning after its last answer, and another one on the same folder."""
    from npc_runtime.client import Client

    if not patient.stock:
        return Finding(True, "no daemon can be started with this backend", "equal", {})
    with tempfile.TemporaryDirectory() as folder:
        options = ["--journal", folder, *_computing(patient)]
        with Client.start(patient.bundle.path, backend=patient.backend, options=options) as client:
            client.spawn("odalys", PERSONA, seed=7)
            for text in LINES[:2]:
                client.say("odalys", text, max_tokens=24)
            before = client.snapshot("odalys")
            os.kill(client.ready["pid"], getattr(signal, "SIGKILL", signal.SIGTERM))
        with Client.start(patient.bundle.path, backend=patient.backend, options=options) as client:
            resumed, after = client.hello["resumed"], client.snapshot("odalys")
            ready_ms = client.ready["ready_ms"]
    same = before == after
    figures = {"resumed": resumed, "equal": same, "bytes": len(after), "ready_ms": ready_ms}
    figure = f"killed after 2 Turns, back in {ready_ms:.0f} ms, {'bit-equal' if same else 'different'}"
    return Finding(resumed and same, figure, "resumed, bit-equal", figures)


def _computing(patient: Patient) -> list[str]:
    """Options of a daemon that is to compute as this process does."""
    computing = {"pace-tokens-per-s": 0, "bits": patient.config.bits, "threads": patient.config.threads}
    return [part for name, value in computing.items() for part in (f"--{name}", str(value))]


def _essence(reply: wire.Reply) -> tuple[object, ...]:
    return reply.mood, reply.action, reply.text, reply.finish, reply.turn


def _word(same: bool) -> str:
    return "equal" if same else "different"


def _turned_away(endpoint: str) -> bool:
    """True when a client with a wrong key gets no further than the handshake."""
    from npc_runtime.client import Client

    try:
        Client.connect(endpoint, "not-the-key-of-this-daemon").close()
    except WrongKey:
        return True
    return False
