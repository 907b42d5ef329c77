"""A daemon on the FakeBackend, called as npc-runtime is: `fake_daemon.py serve [--parent PID] [--bundle NAME] ...`.

Bundle names with a meaning: `chatter` speaks without end, `broken` dies with a word on stderr, `mute` says
nothing, `garbage` prints something else than a ready line, `deep` JSON deeper than Python's stack.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque

from fakes import FakeBackend, fake_stage

from npc_runtime.auth import PlainAuth
from npc_runtime.config import load_config
from npc_runtime.parent import Parent
from npc_runtime.server import serve_stage


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("--parent", type=int)
    parser.add_argument("--bundle", default="fake")
    parser.add_argument("--backend")
    parser.add_argument("--personas", action="append")
    options = parser.parse_args()
    if options.bundle == "broken":
        sys.exit("the bundle is broken, says the daemon")
    if options.bundle == "mute":
        time.sleep(60)
    if options.bundle == "garbage":
        print("hello there", flush=True)
    if options.bundle == "deep":
        print("[" * 20_000, flush=True)
    backend = FakeBackend(slots=256, end_bias=-60.0 if options.bundle == "chatter" else 0.0)
    backend.calls = deque(maxlen=64)  # type: ignore[assignment]  # nobody asks, and a daemon may live long
    stage = fake_stage(load_config(), backend, name=options.bundle)
    parent = None if options.parent is None else Parent(options.parent)
    try:
        serve_stage(stage, PlainAuth(), "127.0.0.1", 0, parent)
    finally:
        stage.close()


if __name__ == "__main__":
    main()
