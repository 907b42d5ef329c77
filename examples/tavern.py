"""Two characters perceive the same event and answer in streams: mood, then action, then speech as it is made.

python examples/tavern.py
"""

from npc_runtime import Runtime

EVENT = "The player comes in out of the rain and puts a wet purse on the table. It smells of flour."
TALK = (
    ("marta", "I found this by the third willow."),
    ("bram", "Do you know whose purse it is?"),
    ("marta", "What should we do with it?"),
)

with Runtime() as game:
    names = {npc: game.spawn(npc, npc).name for npc in ("marta", "bram")}
    game.observe(list(names), EVENT)
    print(f"* {EVENT}")
    for npc, line in TALK:
        print(f"> {line}")
        for piece in game.stream(npc, line):
            if piece.mood:
                print(f"{names[npc]} ({piece.mood})", end=" ")
            if piece.action:
                print(f"[{piece.action}]", end=" ")
            print(piece.text, end="", flush=True)
        print()
