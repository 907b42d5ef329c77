"""A daemon on the fake backend, for tests that kill or soak it: python -m faults.daemon FOLDER KEY.

FOLDER is its journal; an empty one means none.
"""

from __future__ import annotations

import sys
from collections import deque

from fakes import FakeBackend, fake_stage

from npc_runtime.auth import PlainAuth
from npc_runtime.config import Config
from npc_runtime.server import serve_stage

if __name__ == "__main__":
    backend = FakeBackend(slots=256)
    backend.calls = deque(maxlen=0)  # type: ignore[assignment]  # its notes of all that it did would be all that grows
    stage = fake_stage(Config(journal=sys.argv[1], pace_tokens_per_s=0), backend)
    serve_stage(stage, PlainAuth(sys.argv[2]), "127.0.0.1", 0)
    stage.close()
