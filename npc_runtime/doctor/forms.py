"""Promise 3: the same answer however it was computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime import wire
from npc_runtime.backends.reference import ReferenceBackend, ReferenceModel
from npc_runtime.doctor.check import Finding, check
from npc_runtime.doctor.patient import EVENT, LINES, line
from npc_runtime.sampling import Draw, Sampling
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from npc_runtime.bundle import Bundle
    from npc_runtime.doctor.patient import Game, Patient
    from npc_runtime.state import State

CHUNKS = (1, 7, 64)
FORM_BOUNDS = {"fp32": 1e-4, "int8": 0.02, "bf16": 0.02}
"""By arithmetic: the largest RMS ratio between States of one text read in different chunks.

A sum taken in another order may round the other way: in the last bit of fp32, of an activation in 8 bits (onnx with
weights of 4 or 8 bits) or in bf16 (cuda).
"""
REFERENCE_BOUNDS = {"fp32": 2e-5, "int8": 0.05, "bf16": 0.03}
"""By arithmetic: the largest RMS difference of log-probabilities from the fp64 definition, as a share of their spread.

The definition computes with what the same stored weights stand for, and rounds nothing.
"""
ROWS = (1, 2, 5, 8)
CROWDS = (1, 2, 8)
LIMITS: tuple[dict[str, Any], ...] = (
    {},
    {"burst": 1, "prefill_chunk": 17, "max_batch": 1},
    {"burst": 32, "prefill_chunk": 512, "pace_tokens_per_s": 500.0},
)
_STEPS = 16
_TEXT_TOKENS = 160


@check("chunks", 3, "Token by token, in chunks and all at once give the same State")
def chunks(patient: Patient) -> Finding:
    """One text read in every way; the largest difference from reading it at once."""
    with patient.game() as game:
        tokens = _text(game)
        whole = _read(game, tokens, len(tokens))
        ratios = {size: rms_ratio(whole, _read(game, tokens, size)) for size in CHUNKS}
        bound = FORM_BOUNDS[arithmetic(patient, game)]
    worst = max(ratios.values())
    figures = {"rms_ratio": {str(size): ratio for size, ratio in ratios.items()}, "tokens": len(tokens)}
    figure = (
        f"{len(tokens)} tokens by {', '.join(map(str, CHUNKS))} and at once: States differ by {worst:.1e} (RMS ratio)"
    )
    return Finding(worst <= bound, figure, f"at most {bound:g}", figures)


@check("batch", 3, "Alone and in a batch give the same bits")
def batch(patient: Patient) -> Finding:
    """Bursts of 1, 2, 5 and 8 rows with different pasts; every row against the same row alone."""
    with patient.game() as game:
        if not game.backend.exact_batches:
            figure = "rows depend on their batch mates on this machine, so every Npc is stepped alone"
            return Finding(True, figure, "bit-equal, or never batched", {"exact_batches": False})
        rows = min(max(ROWS), game.backend.max_batch)
        slots = game.slots(rows)
        for row, slot in enumerate(slots):
            game.backend.prefill([slot], game.encode(LINES[row % len(LINES)] + " " + EVENT * row))
        starts = [game.backend.read(slot) for slot in slots]
        alone = [_burst(game, [slot], [start])[0] for slot, start in zip(slots, starts, strict=True)]
        sizes = [size for size in ROWS if size <= rows]
        equal = {size: _burst(game, slots[:size], starts[:size]) == alone[:size] for size in sizes}
    figures = {"equal": {str(size): same for size, same in equal.items()}, "exact_batches": True}
    figure = f"{sum(equal.values())} of {len(equal)} batch sizes ({', '.join(map(str, sizes))}) bit-equal to rows alone"
    return Finding(all(equal.values()), figure, "all", figures)


@check("reference", 3, "The backend computes what the definition does in double precision")
def reference(patient: Patient) -> Finding:
    """Log-probabilities of a text, against the NumPy definition in fp64 over the same weights."""
    with patient.game() as game:
        tokens, bits, bound = _text(game), weight_bits(patient, game), reference_bound(patient, game)
        [slot] = game.slots(1)
        ours = game.backend.score(slot, tokens)
    truth = ReferenceBackend(_definition(patient.bundle), slots=1).score(0, tokens)
    rms, worst, share = _rms(ours - truth), float(np.abs(ours - truth).max()), spread_share(truth, ours)
    figures = {"share_of_spread": share, "rms_nats": rms, "max_nats": worst, "bits": bits, "tokens": len(tokens)}
    figure = f"{bits}-bit weights, {len(tokens)} tokens: RMS {rms:.1e} nats, {share:.1e} of their spread"
    return Finding(share <= bound, figure, f"at most {bound:g} of the spread", figures)


@check("crowd", 3, "The same seed and State give the same Reply whatever else runs")
def crowd(patient: Patient) -> Finding:
    """One Npc's Reply and State while 0, 1 and 7 others talk of other things."""
    told = [_in_crowd(patient, size) for size in CROWDS]
    same = [one == told[0] for one in told]
    figures = {"equal": dict(zip(map(str, CROWDS), same, strict=True)), "text": told[0][0]}
    figure = f"{sum(same)} of {len(CROWDS)} Replies and States equal among {', '.join(map(str, CROWDS))} Npcs at once"
    return Finding(all(same), figure, "all, bit for bit", figures)


@check("scheduling", 3, "Chunk, burst and pace change when an answer comes, not what it is")
def scheduling(patient: Patient) -> Finding:
    """One life under very different limits."""
    lives = [_life(patient, limits) for limits in LIMITS]
    text, state = lives[0]
    same = [other == text for other, _ in lives]
    ratio = max(rms_ratio(state, other) for _, other in lives)
    with patient.game() as game:
        bound = FORM_BOUNDS[arithmetic(patient, game)]
    figures = {"equal": same, "rms_ratio": ratio}
    figure = f"{sum(same)} of {len(LIMITS)} Replies equal, States differ by {ratio:.1e} (RMS ratio)"
    return Finding(all(same) and ratio <= bound, figure, f"all, at most {bound:g}", figures)


def rms_ratio(expected: State, other: State) -> float:
    """RMS of the difference over RMS of what was expected, of the worse of convolution and SSM part."""
    parts = ((expected.conv, other.conv), (expected.ssm, other.ssm))
    return max(_rms(b - a) / max(_rms(a), 1e-30) for a, b in parts)


def spread_share(expected: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """RMS difference of log-probabilities as a share of how much they vary over a text."""
    return _rms(other - expected) / max(float(np.std(expected)), 1e-30)


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def weight_bits(patient: Patient, game: Game) -> int:
    """Weight bits that the backend computes with; the definition itself has those of its floats."""
    if game.backend.name == "reference":
        return 32
    return patient.config.bits or patient.bundle.bits


def arithmetic(patient: Patient, game: Game) -> str:
    """What matrix products are computed in: a key of the bounds."""
    if game.backend.name == "cuda":
        return "bf16"
    return "int8" if weight_bits(patient, game) <= 8 else "fp32"


def reference_bound(patient: Patient, game: Game) -> float:
    """The bound of REFERENCE_BOUNDS that holds here."""
    return REFERENCE_BOUNDS[arithmetic(patient, game)]


def _text(game: Game) -> list[int]:
    tokens = game.encode(" ".join([*LINES, EVENT]))
    return (tokens * (_TEXT_TOKENS // len(tokens) + 1))[:_TEXT_TOKENS]


def _definition(bundle: Bundle) -> ReferenceModel:
    weights = {name: bundle.dense(name) for name in dense_shapes(bundle.config, bundle.tied)}
    return ReferenceModel(weights, bundle.config, np.float64)


def _read(game: Game, tokens: Sequence[int], size: int) -> State:
    [slot] = game.slots(1)
    for start in range(0, len(tokens), size):
        game.backend.prefill([slot], tokens[start : start + size])
    return game.backend.read(slot)


def _burst(game: Game, slots: Sequence[int], starts: Sequence[State]) -> list[tuple[list[int], str]]:
    """Tokens drawn by each row in one burst from the given States, and the digest of the State after it."""
    for slot, start in zip(slots, starts, strict=True):
        game.backend.write(slot, start)
    opened = game.backend.open(slots)
    tokens = [[game.encode(EVENT)[0]] for _ in slots]
    for position in range(_STEPS):
        draws = [Draw(row[-1], Sampling(), slot, 1, position) for slot, row in zip(slots, tokens, strict=True)]
        for row, token in zip(tokens, opened.step(draws), strict=True):
            row.append(token)
    opened.close()
    return [(row, game.backend.read(slot).digest()) for row, slot in zip(tokens, slots, strict=True)]


def _in_crowd(patient: Patient, size: int) -> tuple[str, str]:
    """Text and State digest of one Npc's Reply while `size - 1` others, before and after it, answer something else."""
    names, place = [f"npc-{i}" for i in range(size)], size // 2
    with patient.game() as game:
        game.spawn(*names)
        texts = [LINES[1] if i == place else LINES[i % len(LINES)] * (i + 1) for i in range(size)]
        asked = [game.begin(line(name, text)) for name, text in zip(names, texts, strict=True)]
        text = game.finish(*asked)[place]["text"]
        return text, game.state(names[place]).digest()


def _life(patient: Patient, limits: dict[str, Any]) -> tuple[str, State]:
    """What an Npc says at the end of a short life under these limits, and its State."""
    with patient.game(**limits) as game:
        game.spawn("odalys")
        game.ask(wire.Observe(npcs=["odalys"], text=" ".join([EVENT] * 8)))
        reply = game.say("odalys", LINES[1], stream=True)
        return reply.text, game.state("odalys")
