"""Scenes told again with other names, so that names are read from the scene and not remembered."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from npc_runtime.training.corpus import held_out
from npc_runtime.training.values import NOT_NAMES, person

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from npc_runtime.persona import Persona
    from npc_runtime.training.corpus import Line, Scene

_WORD = re.compile(r"[A-Za-z][a-z]+")
_MID = re.compile(r"[a-z,;] ([A-Z][a-z]{2,})")
_INTRODUCES = re.compile(r"\b(?:my name|name'?s|call me|i'?m|i am|it'?s|this is)\b", re.IGNORECASE)


def texts(scene: Scene) -> Iterator[str]:
    """Every text of a scene, the header's first."""
    persona = scene.persona
    yield from (
        persona.name,
        persona.role,
        *persona.traits,
        persona.voice,
        *persona.knows,
        persona.wants,
        persona.setting,
    )
    for line in scene.lines:
        yield line.text


class Renamer:
    """Finds the proper names of scenes and swaps them for invented ones, the same throughout a scene.

    Names in `kept` stay as they are.
    """

    def __init__(self, scenes: Iterable[Scene], kept: frozenset[str] = frozenset()) -> None:
        self._kept = kept
        words: Counter[str] = Counter()
        for scene in scenes:
            for text in texts(scene):
                words.update(_WORD.findall(text))
        self._common = {word for word in words if word.islower()}

    def names(self, scene: Scene) -> list[str]:
        """Words that are written with a capital inside sentences and nowhere without one."""
        found = {word for text in texts(scene) for word in _MID.findall(text)}
        found |= set(_WORD.findall(scene.persona.name))
        return sorted(word for word in found if word.lower() not in self._common and word not in NOT_NAMES)

    def shared(self, scenes: Iterable[Scene]) -> frozenset[str]:
        """Names that more than one scene holds: those of their world."""
        count = Counter(name for scene in scenes for name in self.names(scene))
        return frozenset(name for name, times in count.items() if times > 1)

    def told_names(self, scene: Scene) -> bool:
        """Whether the player seems to say a name in this scene."""
        heard = " ".join(line.text for line in scene.lines if line.who == "player")
        said = " ".join(line.text for line in scene.lines if line.who == "npc")
        names = set(_WORD.findall(heard)) & set(_WORD.findall(said))
        fresh = {word for word in names if word[0].isupper() and word.lower() not in self._common}
        return bool(fresh - set(_WORD.findall(scene.persona.name))) or bool(_INTRODUCES.search(heard) and fresh)

    def vary(self, scene: Scene, rng: random.Random, share: float = 0.6) -> Scene:
        """The scene with each name changed at a chance of `share`."""
        names = (name for name in self.names(scene) if name not in self._kept)
        changes = {name: _single(rng) for name in names if rng.random() < share}
        return rename(scene, changes) if changes else scene


def _single(rng: random.Random) -> str:
    while True:
        name = person(rng)
        if " " not in name and not held_out(name):
            return name


def rename(scene: Scene, changes: Mapping[str, str]) -> Scene:
    """The scene with whole words changed everywhere."""
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, changes))})\b")

    def new(text: str) -> str:
        return pattern.sub(lambda match: changes[match.group()], text)

    return replace(scene, persona=_renamed(scene, new), lines=tuple(_respoken(line, new) for line in scene.lines))


def _renamed(scene: Scene, new: Callable[[str], str]) -> Persona:
    persona = scene.persona
    return replace(
        persona,
        name=new(persona.name),
        role=new(persona.role),
        voice=new(persona.voice),
        knows=tuple(map(new, persona.knows)),
        wants=new(persona.wants),
        setting=new(persona.setting),
    )


def _respoken(line: Line, new: Callable[[str], str]) -> Line:
    return replace(line, text=new(line.text))
