"""A real daemon under attack, beside a player who wants to talk: python tests/hostile/siege.py --seconds 20.

For each attack of attacks.py: the player's time per token before and meanwhile (p95 over Turns, answered at full
speed), the daemon's own processor time per token before and meanwhile, its memory before, at most and after, and
whether the player was ever refused. The attackers run in a process of their own. Two rows are no attacks but what
to compare with: `nothing`, and `busy neighbour`, a process that computes and never speaks to the daemon: what it
costs is the machine's. With --fake the daemon has no weights; else it is `npc-runtime serve`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from npc_runtime.client import Client

LINES = ("Who goes there?", "What do you sell?", "My name is Tolliver.", "Have you seen the smith today?")
SETTLE_S = 40.0
"""How long memory may take to return: connections that never finish their handshake last ten seconds."""
RETURNED = 1.05
WARM_TURNS = 12
REST_S = 5.0
"""A daemon hands spare memory back after two quiet seconds, looked for every second."""
MIB = 2**20


@dataclass(slots=True)
class Row:
    """What one attack did: times in ms per token, memory in MiB."""

    attack: str
    sent: int
    turns: int
    unloaded: float
    loaded: float
    before: float
    most: float
    after: float
    unloaded_cpu: float
    """The daemon's processor time, ms per token of the player's, whoever it was spent for."""
    loaded_cpu: float
    refused: str = ""

    @property
    def slower(self) -> float:
        return self.loaded / self.unloaded if self.unloaded else 0.0

    @property
    def dearer(self) -> float:
        return self.loaded_cpu / self.unloaded_cpu if self.unloaded_cpu else 0.0

    @property
    def returned(self) -> bool:
        return self.after <= self.before * RETURNED


def memory(pid: int) -> float:
    """MiB of the process that are resident."""
    import psutil

    return float(psutil.Process(pid).memory_info().rss) / MIB


def processor(pid: int) -> float:
    """Milliseconds of processor time that a process has used, by all its threads."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return 1e3 * float(times.user + times.system)


class Player:
    """A client who talks without pause on a thread; `times` are milliseconds per token of its Turns."""

    def __init__(self, client: Client, pid: int = 0) -> None:
        self.client, self.pid = client, pid or os.getpid()
        self.times: list[float] = []
        self.cpu = 0.0
        self.refused = ""
        client.spawn("marta", {"name": "Marta", "role": "innkeeper", "voice": "warm"}, seed=7)

    def talk(self, seconds: float) -> None:
        self.times = []
        end, count = time.monotonic() + seconds, 0
        used, tokens = processor(self.pid), 0
        while not count or time.monotonic() < end:
            begun = time.perf_counter()
            try:
                reply = self.client.say("marta", LINES[count % len(LINES)], pace=0, max_tokens=24, seed=count)
            except Exception as error:
                self.refused = self.refused or f"{type(error).__name__}: {error}"
                return
            # What is read is computed like what is said: a token is a token.
            took = reply.tokens["read"] + reply.tokens["spoken"]
            self.times.append(1e3 * (time.perf_counter() - begun) / took)
            count, tokens = count + 1, tokens + took
        self.cpu = (processor(self.pid) - used) / tokens

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.times, n=20)[-1] if len(self.times) > 1 else float("inf")


@contextmanager
def daemon(fake: bool, bundle: str | None) -> Iterator[Mapping[str, Any]]:
    """The ready line of a daemon of our own."""
    from npc_runtime.launch import Daemon

    places = [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]  # for a daemon that is not installed
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    command = [sys.executable, str(HERE.parent / "fake_daemon.py")] if fake else []
    child = Daemon.start(command, ["--bundle", bundle] if bundle else [], 60.0)
    try:
        yield child.ready
        assert child.process.poll() is None, f"the daemon died: {child.tail()}"
    finally:
        child.process.terminate()
        child.stop()
        assert "a defect" not in child.tail(), child.tail()


def _strike(pipe: Any, attack: str, ready: Mapping[str, Any], seconds: float) -> None:
    from hostile.attacks import ATTACKS, KNOWN

    pipe.send((ATTACKS | KNOWN | CONTROLS)[attack](ready, seconds))


def nothing(ready: Mapping[str, Any], seconds: float) -> int:
    """No attack: what the player's own talk, and the machine, do."""
    time.sleep(seconds)
    return 0


def busy_neighbour(ready: Mapping[str, Any], seconds: float) -> int:
    """No attack: a process that takes a core and leaves the daemon alone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))
    return 0


CONTROLS: dict[str, Callable[[Mapping[str, Any], float], int]] = {
    "nothing": nothing,
    "busy neighbour": busy_neighbour,
}


class Watch:
    """The most memory that was seen."""

    def __init__(self, pid: int) -> None:
        self.pid, self.most, self._over = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, memory(self.pid))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


def strike(attack: str, ready: Mapping[str, Any], player: Player, seconds: float, before: float) -> Row:
    """One attack, with the player talking before and all the while; `before` is the memory of the daemon at rest."""
    player.talk(seconds / 2)
    unloaded, unloaded_cpu = player.p95, player.cpu
    forms = multiprocessing.get_context("spawn")
    ours, theirs = forms.Pipe()
    attacker = forms.Process(target=_strike, args=(theirs, attack, dict(ready), seconds), daemon=True)
    with Watch(ready["pid"]) as watch:
        attacker.start()
        time.sleep(1.0)  # until it has started
        player.talk(max(1.0, seconds - 1.0))
        loaded, loaded_cpu, turns = player.p95, player.cpu, len(player.times)
        sent = ours.recv() if ours.poll(120) else -1
        attacker.join(10)
        attacker.kill()
    after = _settled(ready["pid"], before)
    sizes = (before, watch.most, after)
    return Row(attack, sent, turns, unloaded, loaded, *sizes, unloaded_cpu, loaded_cpu, player.refused)


def _settled(pid: int, before: float) -> float:
    """Memory once it has returned, or when it has had its time to."""
    end = time.monotonic() + SETTLE_S
    while memory(pid) > before * RETURNED and time.monotonic() < end:
        time.sleep(0.2)
    return memory(pid)


def siege(attacks: list[str], seconds: float, fake: bool, bundle: str | None = None) -> list[Row]:
    """Every attack in turn on one daemon."""
    from npc_runtime.client import Client

    with daemon(fake, bundle) as ready, Client.connect(ready["endpoint"], ready["key"], "player") as client:
        player = Player(client, ready["pid"])
        with Client.connect(ready["endpoint"], ready["key"]) as other:  # an ordinary one, that comes and goes
            other.spawn("ann", {"name": "Ann", "role": "guard"}, seed=1)
            text = "hello " * (150 if fake else 300)  # a letter is a token of the fake, and 1024 are taken
            long = other.aio.say("ann", text, pace=0)  # two at a time, one long: what has room for it stays
            player.talk(0.0)
            long.result(60)
        for _ in range(WARM_TURNS):  # until the player's own points to go back to are all there
            player.talk(0.0)
        time.sleep(REST_S)
        before = memory(ready["pid"])
        return [_told(strike(attack, ready, player, seconds, before)) for attack in attacks]


def _told(row: Row) -> Row:
    times = f"{row.unloaded:>8.2f} {row.loaded:>8.2f} {row.slower:>6.2f}x {row.loaded_cpu:>8.2f} {row.dearer:>6.2f}x"
    sizes = f"{row.before:>8.1f} {row.most:>8.1f} {row.after:>8.1f}"
    word = row.refused or ("" if row.returned else "memory did not return")
    print(f"{row.attack:18} {row.sent:>10,} {row.turns:>6} {times} {sizes}  {word}", flush=True)
    return row


def main() -> int:
    from hostile.attacks import ATTACKS, KNOWN

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack")
    parser.add_argument("--attack", choices=[*CONTROLS, *ATTACKS, *KNOWN], action="append")
    parser.add_argument("--fake", action="store_true")
    parser.add_argument("--bundle")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    told = parser.parse_args()
    print(f"{'attack':18} {'sent':>10} {'turns':>6} {'ms/tok':>8} {'attacked':>8} {'':>7} {'cpu':>8} {'':>7} "
          f"{'MiB':>8} {'most':>8} {'after':>8}")  # fmt: skip
    rows = siege(told.attack or [*CONTROLS, *ATTACKS], told.seconds, told.fake, told.bundle)
    if told.json:
        told.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 1 if any(row.refused or not row.returned for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
