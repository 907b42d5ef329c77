"""`python -m npc_runtime`: the same as the command `npc-runtime`."""

from npc_runtime.cli import main

main()
