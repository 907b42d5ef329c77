"""Plays bindings/vectors/script.json through the Python client; the other languages' players must come to the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from npc_runtime.errors import NpcError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from npc_runtime.client import Client
    from npc_runtime.verbs import NpcInfo
    from npc_runtime.wire import Reply

OPTIONS = ("kind", "moods", "actions", "pace", "seed", "temperature", "max_tokens")


def play(client: Client, script: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is told at each step; errors by their code."""
    told = []
    for step in script["steps"]:
        try:
            told.append(_step(client, step))
        except NpcError as error:
            told.append({"error": error.code})
    return told


def _step(client: Client, step: Mapping[str, Any]) -> dict[str, Any]:
    npc = step.get("npc", "")
    options = {"pace": 0.0, **{name: step[name] for name in OPTIONS if name in step}}
    match step["op"]:
        case "spawn":
            spawned = client.spawn(npc, step["persona"], seed=step["seed"])
            return {"opening": spawned.opening.text if spawned.opening else None, "seed": spawned.seed}
        case "say":
            return _reply(client.say(npc, step["text"], **options))
        case "stream":
            return _stream(client, step, options)
        case "observe":
            observed = client.observe(step["npcs"], step["text"])
            return {"npcs": list(observed.npcs), "read": observed.tokens["read"]}
        case "choose":
            chosen = client.choose(npc, step["lines"], step["text"])
            return {"index": chosen.index, "scores": list(chosen.scores)}
        case "fork":
            return _info(client.fork(npc, step["to"]))
        case "rewind":
            return _info(client.rewind(npc, step["turns"]))
        case "snapshot":
            return {"sha256": hashlib.sha256(client.snapshot(npc)).hexdigest(), "npc": npc}
        case "return":
            return _info(client.restore(step["to"], client.snapshot(npc)))
        case "drop":
            client.drop(npc)
            return {"npc": npc, "dropped": True}
    raise ValueError(step["op"])


def _stream(client: Client, step: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a stream; with `cut`, cancels as soon as so many characters have come, with just these heard."""
    cut: int | None = step.get("cut")
    text = ""
    stream = client.stream(step["npc"], step["text"], **options)
    for piece in stream:
        text += piece.text
        if cut is not None and len(text) >= cut:
            client.cancel(step["npc"], cut)
            cut = None
    told = _reply(stream.reply)
    return {**told, "whole": text.startswith(told["text"])}


def _reply(reply: Reply) -> dict[str, Any]:
    names = ("npc", "mood", "action", "text", "finish", "turn", "seed")
    counts = {"read": reply.tokens["read"], "spoken": reply.tokens["spoken"]}
    return {**{name: getattr(reply, name) for name in names}, **counts}


def _info(info: NpcInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in ("npc", "turns", "tokens", "rewind", "seed")}
