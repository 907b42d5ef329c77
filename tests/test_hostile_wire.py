"""The kept inputs of every fuzz target, a moment of fuzzing, and a daemon that outlives a moment of each attack."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hostile import attacks, siege, targets, zmtp
from hostile.zmtp import Wire

from npc_runtime.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent / "hostile"
KEPT = sorted(path for path in (HERE / "corpus").glob("*/*"))


def test_every_target_has_kept_inputs() -> None:
    assert {path.parent.name for path in KEPT} == targets.TARGETS.keys()


@pytest.mark.parametrize("target", targets.TARGETS)
def test_kept_and_good_inputs_hold(target: str) -> None:
    for data in [*targets.seeds(target), *(path.read_bytes() for path in KEPT if path.parent.name == target)]:
        targets.TARGETS[target](data)


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python or system")
def test_a_moment_of_fuzzing_finds_nothing() -> None:
    """CI fuzzes each target for a minute in a step of its own; this keeps the command alive everywhere."""
    call = [sys.executable, str(HERE / "fuzz.py"), "header", "--seconds", "2"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no finding" in done.stdout


@pytest.fixture(scope="module")
def daemon() -> Iterator[Mapping[str, Any]]:
    with siege.daemon(fake=True, bundle=None) as ready:
        yield ready


@pytest.mark.parametrize("attack", attacks.ATTACKS)
def test_a_daemon_outlives_every_attack(
    daemon: Mapping[str, Any], attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks, "CROWD", 100)
    before = siege.memory(daemon["pid"])
    with Client.connect(daemon["endpoint"], daemon["key"]) as client:
        player = siege.Player(client)
        assert attacks.ATTACKS[attack](daemon, 0.5) > 0
        player.talk(0.1)
        assert not player.refused
        assert player.times
        client.drop("marta")
    # 64 MiB frames pass through, and an endless message is kept until its connection ends.
    assert siege.memory(daemon["pid"]) < before + 1024


def test_clients_that_flood_and_vanish_do_not_end_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ZMTP heartbeats on, libzmq aborted the process within ten such clients (`!_io_error`, its issue 4841)."""
    monkeypatch.setenv("NPC_RUNTIME_HEARTBEAT_S", "0.05")
    asks = zmtp.request(5, "ping") * 20_000
    with siege.daemon(fake=True, bundle=None) as ready:
        for _ in range(30):
            wire = Wire(ready)
            wire.join()
            wire.socket.settimeout(0.5)
            with suppress(OSError):
                wire.send(asks)
            wire.abort()
        with Wire(ready) as wire:
            assert wire.join()["ev"] == "ok"
