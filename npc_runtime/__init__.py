"""NPC Runtime: characters whose memory is the fixed-size state of a small Mamba model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npc_runtime import errors
    from npc_runtime.client import Client
    from npc_runtime.config import Config
    from npc_runtime.errors import NpcError
    from npc_runtime.pending import Pending, Piece, Stream
    from npc_runtime.persona import Persona
    from npc_runtime.runtime import Runtime
    from npc_runtime.wire import Reply

__version__ = "0.1.0"

__all__ = [
    "Client",
    "Config",
    "NpcError",
    "Pending",
    "Persona",
    "Piece",
    "Reply",
    "Runtime",
    "Stream",
    "errors",
]

_HOMES = {
    "Client": "client",
    "Config": "config",
    "NpcError": "errors",
    "Pending": "pending",
    "Persona": "persona",
    "Piece": "pending",
    "Reply": "wire",
    "Runtime": "runtime",
    "Stream": "pending",
}


if not TYPE_CHECKING:  # else every misspelt import would pass the type checker

    def __getattr__(name: str) -> Any:
        """Imports a public name when it is first used, so that `import npc_runtime` costs nothing."""
        from importlib import import_module

        if name == "errors":
            return import_module("npc_runtime.errors")
        if name not in _HOMES:
            raise AttributeError(f"module `npc_runtime` has no attribute `{name}`")
        return getattr(import_module(f"npc_runtime.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
