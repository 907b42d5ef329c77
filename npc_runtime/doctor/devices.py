"""Promise 3 across backends: a life begun on one goes on on another, as it would between a laptop and a server."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from npc_runtime import wire
from npc_runtime.backends import choose
from npc_runtime.doctor.check import Finding, check
from npc_runtime.doctor.forms import reference_bound, spread_share
from npc_runtime.doctor.patient import EVENT, LINES, Patient

if TYPE_CHECKING:
    from npc_runtime.doctor.patient import Game
    from npc_runtime.state import State

_NAME = "odalys"


@check("devices", 3, "A save made on one backend goes on on another")
def devices(patient: Patient) -> Finding:
    """A save carried there and one carried back: the bits of the State, and how likely the next lines are."""
    with tempfile.TemporaryDirectory() as folder, patient.game() as here:
        name = "onnx" if here.backend.name == "cuda" else "reference"
        elsewhere = Patient(
            patient.bundle, patient.config, name, lambda bundle, config: choose(name, bundle, config), stock=False
        )
        with elsewhere.game() as there:
            out, equal_there = _carried(here, there, str(Path(folder) / "there.npcsave"))
            back, equal_back = _carried(there, here, str(Path(folder) / "back.npcsave"))
        names, bound = f"{here.backend.name} and {name}", reference_bound(patient, here)
    shares = [out, back]
    figures = {"bit_equal": [equal_there, equal_back], "share_of_spread": shares, "other": name}
    figure = f"{names}: States {'bit-equal' if equal_there and equal_back else 'different'} both ways, "
    figure += f"likelihoods differ by {max(shares):.1e} of their spread"
    good = equal_there and equal_back and max(shares) <= bound
    return Finding(good, figure, f"bit-equal, at most {bound:g}", figures)


def _carried(source: Game, target: Game, path: str) -> tuple[float, bool]:
    """Difference of likelihoods, as a share of their spread, and whether the bits arrived."""
    if _NAME in source.session.npcs:
        source.ask(wire.Drop(npc=_NAME))
    source.spawn(_NAME)
    source.say(_NAME, LINES[0])
    source.ask(wire.Observe(npcs=[_NAME], text=EVENT))
    source.ask(wire.Save(path=path))
    if _NAME in target.session.npcs:
        target.ask(wire.Drop(npc=_NAME))
    target.ask(wire.Load(path=path))
    state = source.state(_NAME)
    share = spread_share(_likelihoods(source, state), _likelihoods(target, state))
    return share, target.state(_NAME).equals(state)


def _likelihoods(game: Game, state: State) -> NDArray[np.float64]:
    [slot] = game.slots(1)
    game.backend.write(slot, state)
    scores = game.backend.score(slot, game.encode(" ".join(LINES[1:])))
    game.stage.scheduler.pool.drop(slot)
    return scores


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
