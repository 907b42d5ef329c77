"""Slots full of somebody else's memory, handed to strangers as often as asked: not one bit may stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundles import tiny_bundle

from npc_runtime.bundle import Bundle, find_bundle
from npc_runtime.config import Config
from npc_runtime.doctor.leaks import leaks
from npc_runtime.doctor.patient import open_patient

if TYPE_CHECKING:
    from pathlib import Path


def run(folder: Path, rounds: int, seed: int, bundle: str = "") -> dict[str, int]:
    """Reuses so many Slots of the CPU backend."""
    model = Bundle.load(find_bundle(bundle)) if bundle else tiny_bundle(folder, bits=4)
    found = leaks(open_patient(model, Config(state_budget_mb=80), "onnx"), rounds)
    counted = {"reused": found.reused, "lives": found.lives, "differing_bits": found.bits}
    return {**counted, "dirty": found.dirty, "lost": found.bits + found.dirty + found.replies}
