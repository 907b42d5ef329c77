"""Persona: who someone is. A TOML file, immutable once read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from npc_runtime.sampling import Sampling

MOODS = ("neutral", "happy", "amused", "fond", "sad", "angry", "afraid", "surprised", "wary", "proud")
ACTIONS = ("trade", "give", "take", "quest", "follow", "attack", "flee", "leave", "point")


@dataclass(frozen=True, slots=True)
class Sample:
    """A line of the player and how this character answers it."""

    player: str
    npc: str
    mood: str = "neutral"


@dataclass(frozen=True, slots=True)
class Persona:
    """A character as written: `name` and `role` are required, the rest gives voice and knowledge."""

    name: str
    role: str
    traits: tuple[str, ...] = ()
    voice: str = ""
    knows: tuple[str, ...] = ()
    wants: str = ""
    setting: str = ""
    moods: tuple[str, ...] = MOODS
    actions: tuple[str, ...] = ACTIONS
    opening: str = ""
    opening_mood: str = "neutral"
    samples: tuple[Sample, ...] = ()
    fallbacks: tuple[str, ...] = ()
    """Lines a game may show when no Reply can be had."""
    sampling: Sampling = field(default_factory=Sampling)

    def digest(self) -> str:
        """SHA-256 of everything that shapes the persona's State and replies."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
