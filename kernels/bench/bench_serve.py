"""A served crowd: `npc-runtime serve` in its own process, thousands of Npcs in one client, over ZeroMQ.

    python kernels/bench/bench_serve.py [--npcs 8192] [--turns 3] [--backend cuda] [--state-budget-mb 80000]

Everyone is spoken to at once, each turn. Checked before anything is printed as a figure: every Reply has text, and two
Npcs with one seed and one line, the first and the last, say the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import numpy as np  # noqa: E402

from npc_runtime.client import Client  # noqa: E402
from npc_runtime.doctor.patient import LINES, PERSONA  # noqa: E402

SPEECH_TOKENS = 32
WAIT_S = 240.0


class Heard:
    """When the first text and the end of one Reply came, seconds after it was asked for."""

    def __init__(self, game: Client, npc: str, line: str) -> None:
        self.first = 0.0
        self._begun = time.perf_counter()
        self.stream = game.aio.say(npc, line, max_tokens=SPEECH_TOKENS)
        feed = self.stream.feed

        def timed(event: Any) -> None:
            feed(event)
            now = time.perf_counter() - self._begun
            self.first = self.first or (now if event.fields.get("text") else 0.0)
            self.end = now

        self.stream.feed = timed  # type: ignore[method-assign]  # the clock must run as events arrive


def spread(times: list[float]) -> str:
    return " / ".join(f"{np.percentile(times, p):.3f}" for p in (50, 95, 99)) + " s"


def turn(game: Client, npcs: list[str], line: str, label: str) -> None:
    begun = time.perf_counter()
    heard = [Heard(game, npc, line) for npc in npcs]
    replies = [one.stream.result(WAIT_S) for one in heard]
    spent = time.perf_counter() - begun
    empty = sum(not reply.text for reply in replies)
    if empty or replies[0].text != replies[-1].text:
        raise SystemExit(f"{label}: {empty} Replies are empty; first {replies[0].text!r}, last {replies[-1].text!r}")
    tokens = sum(reply.tokens.get("spoken", 0) for reply in replies)
    first, end = [one.first for one in heard], [one.end for one in heard]
    print(
        f"{label}: {len(replies)} Replies, {tokens} tokens in {spent:.2f} s, {tokens / spent:.0f} tokens/s; first text "
        f"p50/p95/p99 {spread(first)}; whole Reply {spread(end)}; {replies[0].text!r}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npcs", type=int, default=8192)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--state-budget-mb", type=int, default=80_000)
    given = parser.parse_args()
    count = given.npcs
    limits = {"max-npcs": count + 1, "max-queued": 2 * count + 16, "max-batch": count}
    limits |= {"state-budget-mb": given.state_budget_mb, "pace-tokens-per-s": 0, "rewind-turns": 0}
    options = [text for name, value in limits.items() for text in (f"--{name}", str(value))]
    with Client.start(backend=given.backend, options=options, timeout_s=WAIT_S) as game:
        print({name: game.hello.get(name) for name in ("version", "bundle", "backend", "reason")}, flush=True)
        begun = time.perf_counter()
        npcs = [f"n{number}" for number in range(count)]
        spawned = [game.aio.spawn(npc, PERSONA, seed=number % (count - 1)) for number, npc in enumerate(npcs)]
        for each in spawned:
            each.result(WAIT_S)
        print(f"{count} Npcs alive after {time.perf_counter() - begun:.2f} s", flush=True)
        for number in range(given.turns):
            turn(game, npcs, LINES[number % len(LINES)], f"turn {number + 1}")
        state = game.snapshot(npcs[-1])
        print(f"a State taken over the wire: {len(state)} bytes; npcs {game.stats()['npcs']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
