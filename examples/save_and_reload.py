"""Save a character in mid-talk, load it in another Runtime, and hear it go on as if nothing had happened.

python examples/save_and_reload.py
"""

import tempfile
from pathlib import Path

from npc_runtime import Runtime

QUESTION = "Do you remember my name?"

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "evening.npcsave"

    with Runtime() as game:
        game.spawn("innkeeper", "bram", seed=7)
        print("Bram:", game.say("innkeeper", "Good evening. My name is Rowan.").text)
        saved = game.save(path)
        print(f"[saved: {saved.bytes:,} bytes]")
        stayed = game.say("innkeeper", QUESTION)

    with Runtime() as game:  # tomorrow, or on another day
        loaded = game.load(path).npcs[0]
        print(f"[loaded: {loaded.tokens} tokens remembered, none read again]")
        came_back = game.say("innkeeper", QUESTION)

print(f"> {QUESTION}\nBram, who stayed: {stayed.text}\nBram, reloaded:   {came_back.text}")
if (stayed.mood, stayed.action, stayed.text) != (came_back.mood, came_back.action, came_back.text):
    raise SystemExit("the reloaded character answered differently")
