"""Spawn a character and talk to it; nothing else is needed.

python examples/hello_npc.py
"""

from npc_runtime import Runtime

LINES = ("Hello. I'm Rowan.", "How much is a knife?", "Do you remember my name?")

with Runtime() as game:
    smith = game.spawn("smith", "marta")
    if smith.opening:
        print(f"{smith.name} ({smith.opening.mood}): {smith.opening.text}")
    for line in LINES:
        reply = game.say("smith", line)
        manner = f"{reply.mood}, {reply.action}" if reply.action else reply.mood
        print(f"> {line}\n{smith.name} ({manner}): {reply.text}")
