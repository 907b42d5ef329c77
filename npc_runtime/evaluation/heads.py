"""Heads: whether the mood and action that stand before a reply are those its author wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.evaluation.recall import Share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.evaluation.talk import Talker
    from npc_runtime.training.corpus import Scene


def heads(talker: Talker, scenes: Sequence[Scene]) -> dict[str, Share]:
    """Moods that agree, actions given that were right (precision) and those of the author that were given (recall).

    The likeliest head of every reply, the talk before it as written. Only typed scenes tell their actions.
    """
    asked = [
        (scene, at)
        for scene in scenes
        if scene.typed
        for at, line in enumerate(scene.lines)
        if line.who == "npc" and line.mood
    ]
    found = talker.heads([talker.prompt(scene.persona, scene.lines[:at]) for scene, at in asked])
    pairs = [(head, scene.lines[at]) for head, (scene, at) in zip(found, asked, strict=True)]
    same = sum(head.action == line.action for head, line in pairs if head.action)
    return {
        "moods that agree": Share(sum(head.mood == line.mood for head, line in pairs), len(pairs)),
        "actions, precision": Share(same, sum(head.action is not None for head, _ in pairs)),
        "actions, recall": Share(same, sum(line.action is not None for _, line in pairs)),
    }
