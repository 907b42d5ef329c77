"""Promises 1, 2 and 4: what an Npc carries in its State, what that costs, and what it holds after a cut."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from npc_runtime import wire
from npc_runtime.doctor.check import Finding, check
from npc_runtime.doctor.forms import REFERENCE_BOUNDS, arithmetic, spread_share
from npc_runtime.doctor.patient import EVENT, LINES, PERSONA, line
from npc_runtime.npc import LOG_ENTRIES
from npc_runtime.persona import persona_from
from npc_runtime.precision import PRECISIONS, round_trip, to_disk
from npc_runtime.prompt import Head
from npc_runtime.sampling import FAILED, Draw, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.doctor.patient import Game, Patient
    from npc_runtime.state import State

DRIFT_BOUNDS = {"fp32": 0.0, "fp16": 0.001, "int8": 0.02}
"""By precision of a save: the largest RMS drift of the log-probabilities of what is said next, as a share of their
spread. Where activations are rounded too (to 8 bits or bf16), any change of a State may round one the other way: there
a drift as large as that rounding's own (`REFERENCE_BOUNDS`) is allowed."""
_DRIFT_TEXT = " ".join(LINES[2:])
COUNTER_BYTES = 64
"""What a save may gain by having more digits to write."""
COST_BOUND = 1.25
"""Times that a late token may cost of an early one: the spread of medians on a shared machine."""
LATE_TOKENS = 5000
LATE_SECONDS = 5.0
"""Reading towards LATE_TOKENS ends here on a slow machine; the figure says how far it came."""
_ROUNDS, _STEPS = 25, 16


@check("save-and-load", 1, "A character saved, loaded by a fresh daemon and spoken to goes on bit for bit")
def save_and_load(patient: Patient) -> Finding:
    """The same line in the old Stage and after loading in a new one."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "doctor.npcsave")
        with patient.game() as before:
            _live(before, "odalys")
            size = before.ask(wire.Save(path=path))["bytes"]
            told = before.say("odalys", LINES[2])
            digest = before.state("odalys").digest()
        with patient.game() as after:
            begun = time.perf_counter()
            after.ask(wire.Load(path=path))
            load_ms = 1e3 * (time.perf_counter() - begun)
            reread = after.stage.scheduler.tokens_read
            again = after.say("odalys", LINES[2])
            same = _same(told, again) and after.state("odalys").digest() == digest
    figures = {"equal": same, "reread_tokens": reread, "save_bytes": size, "load_ms": round(load_ms, 2)}
    figure = (
        f"{'bit-equal' if same else 'different'}, {reread} tokens re-read, {size:,} bytes, loaded in {load_ms:.1f} ms"
    )
    return Finding(same and reread == 0, figure, "bit-equal, 0 tokens re-read", figures)


@check("ways-back", 1, "Snapshot, fork and rewind all lead to the same next line")
def ways_back(patient: Patient) -> Finding:
    """One Npc, and three that were brought to its State by other ways."""
    with patient.game() as game:
        _live(game, "odalys")
        read = game.stage.scheduler.tokens_read
        game.ask(wire.Restore(npc="restored", data=game.ask(wire.Snapshot(npc="odalys"))["data"]))
        game.ask(wire.Fork(npc="odalys", to="forked"))
        game.ask(wire.Fork(npc="odalys", to="rewound"))
        reread = game.stage.scheduler.tokens_read - read
        game.say("rewound", LINES[4])
        game.ask(wire.Rewind(npc="rewound"))
        told, digest = game.say("odalys", LINES[2]), game.state("odalys").digest()
        ways = ("restored", "forked", "rewound")
        equal = [_same(told, game.say(way, LINES[2])) and game.state(way).digest() == digest for way in ways]
    figures = {"ways": dict(zip(ways, equal, strict=True)), "reread_tokens": reread}
    figure = f"{sum(equal)} of {len(ways)} ways bit-equal, {reread} tokens re-read"
    return Finding(all(equal) and reread == 0, figure, "all, 0 tokens re-read", figures)


@check("small-saves", 1, "fp16 and int8 saves are smaller, and how far they drift is known")
def small_saves(patient: Patient) -> Finding:
    """Log-probabilities of a text after States that went through each precision."""
    with patient.game() as game:
        game.spawn("odalys")
        game.say("odalys", LINES[0])
        game.ask(wire.Observe(npcs=["odalys"], text=" ".join([EVENT] * 16)))
        drift = {precision: _drift(game, precision) for precision in PRECISIONS}
        bounds = _drift_bounds(arithmetic(patient, game))
        state = game.state("odalys")
    size = {precision: sum(part.nbytes for part in to_disk(state, precision).values()) for precision in PRECISIONS}
    good = all(drift[precision] <= bounds[precision] for precision in PRECISIONS)
    figure = "; ".join(f"{name} {size[name]:,} bytes, drift {drift[name]:.1e}" for name in PRECISIONS)
    bound = ", ".join(f"{name} {bounds[name]:g}" for name in PRECISIONS)
    return Finding(good, f"{figure} of the spread", bound, {"share_of_spread": drift, "state_bytes": size})


@check("constant-size", 2, "A save does not grow with what was said")
def constant_size(patient: Patient) -> Finding:
    """Snapshots after few and after many tokens, the same last turns in the log of each."""
    with patient.game() as game:
        game.spawn("odalys")
        sizes, tokens = [], []
        for goal in (0, LATE_TOKENS):
            _talk_at(game, "odalys", goal, " ".join([EVENT] * 8))
            for _ in range(LOG_ENTRIES):
                game.ask(wire.Observe(npcs=["odalys"], text="Rain."))
            sizes.append(len(game.ask(wire.Snapshot(npc="odalys"))["data"]))
            tokens.append(game.session.npcs["odalys"].mark.tokens)
    figures = {"bytes": sizes, "tokens": tokens, "growth_bytes": sizes[1] - sizes[0]}
    figure = f"{sizes[0]:,} bytes after {tokens[0]} tokens, {sizes[1]:,} after {tokens[1]:,}"
    return Finding(sizes[1] - sizes[0] <= COUNTER_BYTES, figure, f"{COUNTER_BYTES} more, for longer counters", figures)


@check("constant-time", 2, "A late token costs what an early one did", timed=True)
def constant_time(patient: Patient) -> Finding:
    """CPU time per token of two States, one short of memories and one full of them, in turns."""
    with patient.game() as game:
        early, late = game.slots(2)
        unit = game.encode(EVENT) * 8
        game.backend.prefill([early], unit[:50])
        read = _read_until(game, late, unit)
        for slot in (early, late):
            _step_ms(game, slot)  # the first burst of a process is slower, whoever it is for
        rounds = [(_step_ms(game, early), _step_ms(game, late)) for _ in range(_ROUNDS)]
    first, last = median(a for a, _ in rounds), median(b for _, b in rounds)
    ratio = last / first
    figures = {"ms_per_token": [round(first, 4), round(last, 4)], "tokens": [50, read], "ratio": round(ratio, 3)}
    figure = f"{first:.2f} ms a token after 50 tokens, {last:.2f} ms after {read:,}: {ratio:.2f} times"
    return Finding(ratio <= COST_BOUND, figure, f"at most {COST_BOUND} times", figures)


@check("cut", 4, "A line that is cut off is remembered up to the cut")
def cut(patient: Patient) -> Finding:
    """Cuts Replies at several lengths and compares the State with one that read exactly what was heard."""
    cuts = (1, 2, 3, 5, 8)
    with patient.game(pace_tokens_per_s=200.0) as game:
        exact = [_cut_after(game, f"cut-{pieces}", pieces) for pieces in cuts]
    figures = {"pieces_heard": list(cuts), "equal": exact}
    figure = f"{sum(exact)} of {len(cuts)} States hold exactly what was let out, bit for bit"
    return Finding(all(exact), figure, "all", figures)


@check("whole-line", 4, "A line heard to its end is remembered whole")
def whole_line(patient: Patient) -> Finding:
    """States after finished Replies, compared with ones that read the same tokens."""
    with patient.game() as game:
        exact = [_heard_whole(game, f"whole-{i}", text) for i, text in enumerate(LINES)]
    figure = f"{sum(exact)} of {len(exact)} States hold the line and its end, bit for bit"
    return Finding(all(exact), figure, "all", {"equal": exact})


# ---- lives


def _live(game: Game, name: str) -> None:
    """A short life: two lines and an event."""
    game.spawn(name)
    game.say(name, LINES[0])
    game.ask(wire.Observe(npcs=[name], text=EVENT))
    game.say(name, LINES[1])


def _same(one: wire.Reply, other: wire.Reply) -> bool:
    return (one.mood, one.action, one.text, one.finish) == (other.mood, other.action, other.text, other.finish)


def _talk_at(game: Game, name: str, tokens: int, event: str) -> None:
    """Lets an event happen until the Npc has lived through `tokens`."""
    begun = time.perf_counter()
    npc = game.session.npcs[name]
    while npc.mark.tokens < tokens and time.perf_counter() - begun < LATE_SECONDS:
        game.ask(wire.Observe(npcs=[name], text=event))


def _drift_bounds(arithmetic: str) -> dict[str, float]:
    if arithmetic == "fp32":
        return DRIFT_BOUNDS
    return {name: max(bound, REFERENCE_BOUNDS[arithmetic]) if bound else 0.0 for name, bound in DRIFT_BOUNDS.items()}


def _drift(game: Game, precision: str) -> float:
    state = game.state("odalys")
    one, other = game.slots(2)
    game.backend.write(one, state)
    game.backend.write(other, round_trip(state, precision))
    tokens = game.encode(_DRIFT_TEXT)
    return spread_share(game.backend.score(one, tokens), game.backend.score(other, tokens))


# ---- tokens


def _read_until(game: Game, slot: int, unit: Sequence[int]) -> int:
    """Reads `unit` again and again up to LATE_TOKENS; tokens read."""
    read, begun = 0, time.perf_counter()
    while read < LATE_TOKENS and time.perf_counter() - begun < LATE_SECONDS:
        chunk = unit[: LATE_TOKENS - read]
        game.backend.prefill([slot], chunk)
        read += len(chunk)
    return read


def _step_ms(game: Game, slot: int) -> float:
    """CPU milliseconds per token of one burst."""
    batch = game.backend.open([slot])
    token, begun = game.encode(EVENT)[0], time.process_time()
    for position in range(_STEPS):
        token = batch.step([Draw(token, Sampling(), 1, 0, position)])[0]
        if token == FAILED:
            raise ArithmeticError("a step's logits were not finite")
    spent = time.process_time() - begun
    batch.close()
    return 1e3 * spent / _STEPS


# ---- what was heard


def _cut_after(game: Game, name: str, pieces: int) -> bool:
    """Cuts a Reply after some pieces of speech; True when the State is that of someone who heard just those."""
    game.spawn(name)
    before = game.state(name)
    events = game.begin(line(name, LINES[0], stream=True, max_tokens=48))
    while _pieces(events) < pieces and not (events and events[-1].last) and game.tick():
        pass
    game.ask(wire.Cancel(npc=name))
    reply = wire.decode_reply(game.finish(events)[0])
    let_out = "".join(event.fields["text"] for event in events if event.ev == "delta")
    return reply.text == let_out and game.state(name).equals(_reading(game, name, before, LINES[0], reply))


def _pieces(events: Sequence[wire.Event]) -> int:
    return sum(event.ev == "delta" for event in events)


def _heard_whole(game: Game, name: str, text: str) -> bool:
    game.spawn(name)
    before = game.state(name)
    reply = game.say(name, text)
    return game.state(name).equals(_reading(game, name, before, text, reply))


def _reading(game: Game, name: str, before: State, heard: str, reply: wire.Reply) -> State:
    """The State of someone who read the player's line, and then the Reply token by token."""
    layout, mark = game.stage.cast.layout, game.session.npcs[name].mark
    spoken = mark.recent[-reply.tokens["spoken"] :]
    speech = game.stage.bundle.tokenizer.decode(spoken[len(layout.head(Head(reply.mood, reply.action))) :])
    closing = () if any(stop in speech for stop in layout.stops) else layout.end
    [slot] = game.slots(1)
    game.backend.write(slot, before)
    player, chunk = layout.player(heard), game.stage.config.prefill_chunk
    for start in range(0, len(player), chunk):
        game.backend.prefill([slot], player[start : start + chunk])
    for token in (*layout.cue(persona_from(PERSONA, "the doctor")), *spoken, *closing):
        game.backend.prefill([slot], [token])
    state = game.backend.read(slot)
    game.stage.scheduler.pool.drop(slot)
    return state
