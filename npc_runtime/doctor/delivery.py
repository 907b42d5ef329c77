"""Promises 1, 3 and 7 through what is delivered: smaller saves, the wire, damaged files and strangers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from npc_runtime import wire
from npc_runtime.doctor.check import Finding, check
from npc_runtime.doctor.forms import REFERENCE_BOUNDS, spread_share, weight_bits
from npc_runtime.doctor.patient import EVENT, LINES, PERSONA
from npc_runtime.errors import NpcError, SaveError, WrongKey
from npc_runtime.precision import PRECISIONS, round_trip, to_disk

if TYPE_CHECKING:
    from npc_runtime.doctor.patient import Game, Patient

DRIFT_BOUNDS = {"fp32": 0.0, "fp16": 0.001, "int8": 0.02}
"""By precision of a save: the largest RMS drift of the log-probabilities of what is said next, as a share of their
spread. Weights of 8 bits or fewer round activations too, and any change of a State may round one the other way: there
a drift as large as that rounding's own (`REFERENCE_BOUNDS`) is allowed."""
_DRIFT_TEXT = " ".join(LINES[2:])


@check("small-saves", 1, "fp16 and int8 saves are smaller, and how far they drift is known")
def small_saves(patient: Patient) -> Finding:
    """Log-probabilities of a text after States that went through each precision."""
    with patient.game() as game:
        game.spawn("odalys")
        game.say("odalys", LINES[0])
        game.ask(wire.Observe(npcs=["odalys"], text=" ".join([EVENT] * 16)))
        drift = {precision: _drift(game, precision) for precision in PRECISIONS}
        bounds = _drift_bounds(weight_bits(patient, game))
        state = game.state("odalys")
    size = {precision: sum(part.nbytes for part in to_disk(state, precision).values()) for precision in PRECISIONS}
    good = all(drift[precision] <= bounds[precision] for precision in PRECISIONS)
    figure = "; ".join(f"{name} {size[name]:,} bytes, drift {drift[name]:.1e}" for name in PRECISIONS)
    bound = ", ".join(f"{name} {bounds[name]:g}" for name in PRECISIONS)
    return Finding(good, f"{figure} of the spread", bound, {"share_of_spread": drift, "state_bytes": size})


def _drift_bounds(bits: int) -> dict[str, float]:
    if bits > 8:
        return DRIFT_BOUNDS
    return {name: max(bound, REFERENCE_BOUNDS[bits]) if bound else 0.0 for name, bound in DRIFT_BOUNDS.items()}


def _drift(game: Game, precision: str) -> float:
    state = game.state("odalys")
    one, other = game.slots(2)
    game.backend.write(one, state)
    game.backend.write(other, round_trip(state, precision))
    tokens = game.encode(_DRIFT_TEXT)
    return spread_share(game.backend.score(one, tokens), game.backend.score(other, tokens))


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
    computing = {"pace-tokens-per-s": 0, "bits": patient.config.bits, "threads": patient.config.threads}
    options = [part for name, value in computing.items() for part in (f"--{name}", str(value))]
    with Client.start(patient.bundle.path, backend=patient.backend, options=options) as client:
        client.spawn("odalys", PERSONA, seed=7)
        told = [_essence(client.say("odalys", text, max_tokens=24)) for text in LINES[:3]]
        snapshot = client.snapshot("odalys")
        intruder = _turned_away(client.ready["endpoint"])
        ready_ms = client.ready["ready_ms"]
    same, bits = told == expected, snapshot == data
    figures = {"replies_equal": same, "snapshot_equal": bits, "intruder_refused": intruder, "ready_ms": ready_ms}
    figure = f"Replies {_word(same)}, snapshot {_word(bits)}; a wrong key is {'refused' if intruder else 'LET IN'}"
    return Finding(same and bits and intruder, f"{figure}; ready in {ready_ms:.0f} ms", "equal, refused", figures)


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
