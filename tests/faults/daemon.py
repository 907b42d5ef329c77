"""A daemon on the fake backend, for tests that kill it: python -m faults.daemon FOLDER KEY."""

from __future__ import annotations

import sys

from fakes import fake_stage

from npc_runtime.auth import PlainAuth
from npc_runtime.config import Config
from npc_runtime.server import serve_stage

if __name__ == "__main__":
    stage = fake_stage(Config(journal=sys.argv[1], pace_tokens_per_s=0))
    serve_stage(stage, PlainAuth(sys.argv[2]), "127.0.0.1", 0)
    stage.close()
