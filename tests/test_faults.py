"""A bounded share of tests/faults, and faults that need no long run: disks, clocks, memory, clients that die."""

from __future__ import annotations

import ast
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeBackend, fake_stage
from served import MARTA, Raw, served

from npc_runtime import wire
from npc_runtime.config import Config
from npc_runtime.doctor.patient import Game, line
from npc_runtime.errors import BudgetExceeded, JournalError, JournalFailed, SaveFailed

if sys.platform == "win32":
    pytest.skip("kills and limits of POSIX", allow_module_level=True)

from faults import backend, journal
from faults.disk import read_only, small_files

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
QUICK = Config(pace_tokens_per_s=0)


# ---- the share of the long runs


def test_a_kill_during_save_leaves_a_complete_save():
    """In a process of its own: it forks, and has no threads."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-m", "faults", "saves", "--rounds", "25", "--seed", "3"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["complete"] == 25
    assert found["generations"] >= 25


def test_a_kill_with_a_journal_loses_no_acknowledged_turn(tmp_path):
    found = journal.run(tmp_path, 5, seed=3)
    assert found["lost"] == 0
    assert found["acknowledged"] > 10


def test_a_failing_device_fails_single_turns_and_harms_nobody(tmp_path):
    found = backend.run(tmp_path, 150, seed=3)
    assert (found["lost"], found["untyped"], found["slots_leaked"]) == (0, 0, 0)
    assert 20 < found["failed"] < found["turns"] / 2


# ---- disks


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone may look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_full_disk_harms_no_older_save(tmp_path):
    path = tmp_path / "one.npcsave"
    with Game(fake_stage(QUICK)) as game:
        game.spawn("marta")
        game.ask(wire.Save(path=str(path)))
        older, digest = path.read_bytes(), game.state("marta").digest()
        game.say("marta", "Hello.")
        with small_files(len(older) // 2), pytest.raises(SaveFailed, match="could not be written"):
            game.ask(wire.Save(path=str(path)))
        assert path.read_bytes() == older
        assert [item.name for item in tmp_path.iterdir()] == ["one.npcsave"]
        game.ask(wire.Load(path=str(path), replace=True))
        assert game.state("marta").digest() == digest


def test_a_full_disk_under_a_journal_is_told_and_heals(tmp_path):
    config = Config(journal=str(tmp_path), pace_tokens_per_s=0)
    with Game(fake_stage(config)) as game:
        game.spawn("marta")
        with small_files(1000):
            with pytest.raises(JournalFailed, match="done and in memory, but not on the disk"):
                game.say("marta", "Hello.")
            with pytest.raises(JournalFailed, match="nothing new is taken"):
                game.say("marta", "Hello?")
            assert game.session.npcs["marta"].mark.turns == 1
        assert game.stage.scribe is not None
        game.stage.scribe.flush()
        game.say("marta", "Hello again.")
        digest = game.state("marta").digest()
    with Game(fake_stage(config)) as again:
        assert (again.session.npcs["marta"].mark.turns, again.state("marta").digest()) == (2, digest)


def test_a_read_only_folder_keeps_its_save_and_takes_no_journal(open_folder):
    with Game(fake_stage(QUICK)) as game:
        game.spawn("marta")
        game.ask(wire.Save(path=str(open_folder / "old.npcsave")))
        with read_only(open_folder):
            for name in ("old", "new"):
                with pytest.raises(SaveFailed, match="Permission denied"):
                    game.ask(wire.Save(path=str(open_folder / f"{name}.npcsave")))
            assert game.ask(wire.Load(path=str(open_folder / "old.npcsave"), replace=True))["npcs"]
            for folder in (open_folder, open_folder / "inside"):
                with pytest.raises(JournalError, match="Permission denied"):
                    fake_stage(Config(journal=str(folder)))
    assert [item.name for item in open_folder.iterdir()] == ["old.npcsave"]


def test_a_journal_whose_folder_is_closed_later_fails_by_name(open_folder):
    folder = open_folder / "journal"
    with Game(fake_stage(Config(journal=str(folder), pace_tokens_per_s=0))) as game:
        game.spawn("marta")
        with read_only(folder), pytest.raises(JournalFailed, match="Permission denied"):
            game.say("marta", "Hello.")


# ---- clocks

WALL = {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime", "datetime", "date"}
TELLS_THE_DATE = {"npc_runtime/doctor/__init__.py"}
"""Reports carry a date; nothing decides by it."""


def test_nothing_that_runs_a_game_looks_at_the_wall_clock():
    found = set()
    for path in (ROOT / "npc_runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                wall = (node.value.id == "time" and node.attr in WALL) or node.value.id == "datetime"
                if wall and "training" not in path.parts:
                    found.add(path.relative_to(ROOT).as_posix())
    assert found <= TELLS_THE_DATE


def test_an_hour_that_the_machine_slept_ends_no_turn_and_drops_no_client(monkeypatch):
    """Some systems' monotonic clocks count it, some do not; a client that answers then is not gone."""
    offset = 0.0
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + offset)
    slow = Config(pace_tokens_per_s=200, heartbeat_s=5)
    with served(slow, FakeBackend(slots=256, end_bias=-60)) as daemon, Raw(daemon, session="game") as raw:
        daemon.stage.scheduler.clock = time.monotonic
        raw.spawn()
        asked = raw.send("say", npc="marta", text="Hello.", max_tokens=60)
        raw.until(asked, "delta")
        offset = 3600.0
        assert raw.until(asked)["finish"] == "length"
        assert raw.ask("say", npc="marta", text="Again.", stream=False, max_tokens=4)["ev"] == "done"


# ---- memory


@pytest.mark.parametrize("operation", ["copy", "clear", "prefill"])
def test_no_memory_for_a_persona_fails_that_spawn_alone(monkeypatch, operation):
    with Game(fake_stage(QUICK)) as game:
        game.spawn("before")
        whole = getattr(game.backend, operation)

        def full(*_: Any) -> None:
            monkeypatch.setattr(game.backend, operation, whole)
            raise MemoryError

        monkeypatch.setattr(game.backend, operation, full)
        persona = {"name": "Tom", "role": "guard"}
        asked = game.begin(wire.Spawn(npc="tom", persona=persona))
        told = game.begin(line("before", "Hello."))
        while not (asked and asked[-1].last and told and told[-1].last):
            game.tick()
        failed = [events[-1].fields.get("code") for events in (asked, told) if events[-1].ev == "error"]
        assert failed == ["backend_failed"]
        game.ask(wire.Spawn(npc="thomas", persona=persona))
        assert game.say("thomas", "Hello.").text


def test_no_memory_while_a_persona_is_written_out_blocks_neither_id_nor_persona(monkeypatch):
    """The id stayed reserved and the persona's State awaited for ever: no such Npc could be spawned again."""
    with Game(fake_stage(QUICK)) as game:
        layout = game.stage.cast.layout
        with monkeypatch.context() as patch:
            patch.setattr(type(layout), "persona", lambda *_: (_ for _ in ()).throw(MemoryError()))
            with pytest.raises(MemoryError):
                game.session.handle(wire.Spawn(id=1, npc="marta", persona=MARTA), lambda event: None)
        game.spawn("marta")
        game.ask(wire.Spawn(npc="tom", persona=MARTA))


def test_no_slot_for_another_npc_refuses_it_and_keeps_the_rest():
    with Game(fake_stage(Config(pace_tokens_per_s=0), FakeBackend(slots=72))) as game:
        born = [f"npc-{number}" for number in range(game.stage.scheduler.room)]
        game.spawn(*born)
        with pytest.raises(BudgetExceeded, match="no room beside"):
            game.spawn("one-too-many")
        assert len(born) > 4
        assert all(game.say(name, "Hello.").text for name in born)


# ---- clients that die

DYING = """
import sys
from npc_runtime.client import Client
client = Client.connect(sys.argv[1], sys.argv[2], "game")
client.spawn("marta", {"name": "Marta", "role": "innkeeper"}, seed=7)
for delta in client.stream("marta", "Tell me everything.", max_tokens=200):
    print(delta, flush=True)
"""


def test_a_client_that_is_killed_in_the_middle_of_a_reply_is_cut_there():
    slow = Config(pace_tokens_per_s=50, heartbeat_s=5)
    with served(slow, FakeBackend(slots=256, end_bias=-60)) as daemon, Raw(daemon, session="other") as other:
        other.spawn()
        command = [sys.executable, "-c", DYING, daemon.endpoint, daemon.key]
        dying = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert dying.stdout is not None
        for _ in range(4):
            assert dying.stdout.readline()
        dying.send_signal(signal.SIGKILL)
        dying.wait()
        dying.stdout.close()
        while other.ask("stats")["clients"] != 1:
            assert other.ask("say", npc="marta", text="Are you there?", pace=0, max_tokens=8)["ev"] == "done"
        with Raw(daemon, session="game") as again:
            assert again.card["resumed"]
            [npc] = again.ask("list")["npcs"]
            assert (npc["turns"], npc["busy"]) == (1, False)
            assert again.ask("say", npc="marta", text="I am back.", pace=0, max_tokens=8)["turn"] == 1


def test_random_deaths_of_games_leave_no_slot_behind():
    rng = random.Random(5)
    with served(QUICK, FakeBackend(slots=256, end_bias=-60)) as daemon, Raw(daemon) as watch:
        free = watch.ask("stats")["slots"]["free"]
        for _ in range(25):
            raw = Raw(daemon)
            raw.spawn()
            raw.send("say", npc="marta", text="Hello.", max_tokens=400, pace=rng.choice([0, 20]))
            if rng.random() < 0.5:
                raw.event()
            raw.vanish()
        while watch.ask("stats")["clients"] != 1:
            pass
        stats = watch.ask("stats")
        assert stats["slots"]["free"] == free - stats["personas"]
        assert (stats["npcs"], stats["queued"], stats["active"]) == (0, 0, 0)
