"""What is answered is on the disk: held answers, group commit, failing disks, and Npcs that come back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeBackend, fake_stage
from served import MARTA, Raw, served

from npc_runtime import Runtime, errors, wire
from npc_runtime.config import Config
from npc_runtime.errors import ConfigError, JournalError, JournalFailed
from npc_runtime.journal import BATCH, Journal
from npc_runtime.scribe import RETRY_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from npc_runtime.stage import Stage

TOM = {"name": "Tom", "role": "guard"}


def config(folder: Path, **more: Any) -> Config:
    return Config(journal=str(folder / "journal"), pace_tokens_per_s=0, **more)


class Play:
    """A Stage with a journal, ticked by hand; `disk` holds writes back while it is cleared."""

    def __init__(self, folder: Path, backend: FakeBackend | None = None, name: str = "game", **more: Any) -> None:
        self.stage: Stage = fake_stage(config(folder, **more), backend)
        self.name, self.ids, self.now = name, 0, 0.0
        self.disk = threading.Event()
        self.disk.set()
        self.writes: list[set[tuple[str, str]]] = []
        self.full = 0
        scribe = self.stage.scribe
        assert scribe is not None
        self.scribe, self.write = scribe, scribe.journal.write
        scribe._clock = lambda: self.now
        scribe.journal.write = self._write  # type: ignore[method-assign]

    def _write(self, records: Any) -> None:
        assert self.disk.wait(20)
        if self.full:
            self.full -= 1
            raise JournalFailed("the journal could not be written: No space left on device")
        self.writes.append(set(records))
        self.write(records)

    def send(self, request: wire.Request) -> list[wire.Event]:
        self.ids += 1
        events: list[wire.Event] = []
        request = type(request)(**{**{f: getattr(request, f) for f in request.__slots__}, "id": self.ids})
        self.stage.session(self.name).handle(request, events.append)
        return events

    def tick(self, count: int = 200) -> None:
        for _ in range(count):
            self.stage.tick()

    def until(self, events: list[wire.Event]) -> wire.Event:
        while not (events and events[-1].last):
            self.stage.tick()
        return events[-1]

    def ask(self, request: wire.Request) -> wire.Event:
        return self.until(self.send(request))

    def say(self, npc: str = "marta", text: str = "Hello.") -> list[wire.Event]:
        return self.send(wire.Say(npc=npc, text=text, max_tokens=8))

    def spawn(self, *names: str) -> None:
        asked = [self.send(wire.Spawn(npc=name, persona=MARTA, seed=7)) for name in names]
        assert {self.until(events).ev for events in asked} <= {"ok"}

    def minds(self) -> dict[str, tuple[int, str]]:
        """Turns and State of every Npc of the Session."""
        found = {}
        for name, npc in self.stage.session(self.name).npcs.items():
            assert npc.timeline.current is not None
            found[name] = (npc.mark.turns, self.stage.backend.read(npc.timeline.current.slot).digest())
        return found

    def crash(self) -> None:
        """The process is gone: nothing is written or told any more."""
        self.disk.set()
        self.scribe._disk.shutdown(wait=True)
        self.scribe.journal.close()


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    made = Play(tmp_path)
    yield made
    made.crash()


def test_an_answer_waits_for_the_disk_and_speech_does_not(play: Play) -> None:
    play.spawn("marta")
    play.disk.clear()
    events = play.say()
    play.tick()
    assert events[0].ev == "mood"
    assert {event.ev for event in events[1:]} == {"delta"}
    play.disk.set()
    assert play.until(events).ev == "done"
    assert "".join(event.fields["text"] for event in events if event.ev == "delta") == events[-1].fields["text"]


def test_what_was_answered_is_there_after_a_crash_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.spawn("marta", "tom")
    for text in ("I am Rowan.", "Who are you?"):
        play.until(play.say("marta", text))
    play.ask(wire.Observe(npcs=["marta", "tom"], text="A bell rings."))
    play.ask(wire.Choose(npc="tom", lines=["Yes.", "No."]))
    play.ask(wire.Fork(npc="marta", to="twin"))
    play.until(play.say("twin", "Once more."))
    play.ask(wire.Rewind(npc="twin"))
    play.ask(wire.Restore(npc="guest", data=play.ask(wire.Snapshot(npc="tom")).fields["data"]))
    play.spawn("gone")
    play.ask(wire.Drop(npc="gone"))
    before = play.minds()
    assert set(before) == {"marta", "tom", "twin", "guest"}
    play.crash()
    again = Play(tmp_path)
    assert again.minds() == before
    told = again.until(again.say("marta", "And now?"))
    again.crash()
    unbroken = fake_stage(Config(pace_tokens_per_s=0))
    plain = Play.__new__(Play)
    plain.stage, plain.name, plain.ids = unbroken, "game", 0
    plain.spawn("marta")
    for text in ("I am Rowan.", "Who are you?"):
        plain.until(plain.say("marta", text))
    plain.ask(wire.Observe(npcs=["marta"], text="A bell rings."))
    assert plain.until(plain.say("marta", "And now?")).fields["text"] == told.fields["text"]


def test_changes_during_a_batch_go_together_in_the_next(play: Play) -> None:
    names = [f"npc-{i}" for i in range(6)]
    play.spawn(*names)
    play.writes.clear()
    play.disk.clear()
    first = play.say("npc-0")
    play.tick()
    rest = [play.say(name) for name in names[1:]]
    play.tick()
    assert not any(events[-1].last for events in (first, *rest))
    play.disk.set()
    for events in (first, *rest):
        assert play.until(events).ev == "done"
    assert play.writes == [{("game", "npc-0")}, {("game", name) for name in names[1:]}]


def test_an_answer_about_many_npcs_waits_for_all_of_them(play: Play) -> None:
    names = [f"npc-{i}" for i in range(40)]
    play.spawn(*names)
    play.writes.clear()
    play.disk.clear()
    events = play.send(wire.Observe(npcs=names, text="A bell rings."))
    play.tick()
    assert [npc.mark.turns for npc in play.stage.session("game").npcs.values()] == [1] * 40
    play.disk.set()
    while not events:
        assert len(set().union(*play.writes)) < 40 or play.scribe._writing is not None
        play.stage.tick()
    assert set().union(*play.writes) == {("game", name) for name in names}
    assert max(map(len, play.writes)) <= BATCH


def test_silent_npcs_are_written_anew_before_their_segments_fill_the_disk(tmp_path: Path) -> None:
    """In every round another Npc of each batch falls silent, and its segment would be kept for its sake alone."""
    play = Play(tmp_path)
    names = [f"npc-{i}" for i in range(24)]
    play.spawn(*names)
    for silent in range(20):
        play.ask(wire.Observe(npcs=names[silent:], text="A bell rings."))
    play.scribe.flush()
    held = sum(play.scribe.journal._sizes.values())
    before = play.minds()
    play.crash()
    assert held <= 2 * len(names) + BATCH < sum(range(5, 25))
    again = Play(tmp_path)
    assert again.minds() == before
    again.crash()


def test_the_events_of_an_npc_keep_their_order(play: Play) -> None:
    """Turns that were sent together: the second begins to speak while the first waits for the disk."""
    play.spawn("marta")
    play.disk.clear()
    told: list[wire.Event] = []
    session = play.stage.session("game")
    for id in (901, 902):
        session.handle(wire.Say(id=id, npc="marta", text="Hello.", max_tokens=8), told.append)
    play.tick()
    assert {event.id for event in told} == {901}
    play.disk.set()
    while sum(event.last for event in told) < 2:
        play.stage.tick()
    assert [event.id for event in told] == sorted(event.id for event in told)


def test_a_full_disk_is_told_keeps_memory_and_heals(play: Play) -> None:
    play.spawn("marta")
    before = play.minds()
    play.full = 2
    events = play.say()
    failed = play.until(events)
    assert (failed.ev, failed.fields["code"]) == ("error", "journal_failed")
    assert failed.fields["text"].startswith("done and in memory, but not on the disk")
    assert play.minds()["marta"][0] == 1 + before["marta"][0]
    refused = play.until(play.say())
    assert (refused.fields["code"], play.minds()["marta"][0]) == ("journal_failed", 1)
    assert "nothing new is taken" in refused.fields["text"]
    assert play.ask(wire.List()).ev == "ok"
    play.now += 1.1 * RETRY_S
    play.tick()
    while play.scribe.failure is not None:
        play.now += 1.1 * RETRY_S
        play.stage.tick()
    assert play.until(play.say()).ev == "done"
    minds = play.minds()
    play.crash()
    journal = Journal(play.scribe.journal.folder, "fake", "00" * 32, play.stage.backend.spec)
    assert {item.id: item.turns for _, item in journal.read()} == {"marta": minds["marta"][0]} == {"marta": 2}
    journal.close()


def test_saves_and_snapshots_are_made_while_the_journal_fails(play: Play, tmp_path: Path) -> None:
    play.spawn("marta")
    play.full = 10**6
    play.until(play.say())
    snapshot = play.ask(wire.Snapshot(npc="marta"))
    saved = play.ask(wire.Save(path=str(tmp_path / "elsewhere.npcsave")))
    assert (snapshot.ev, saved.ev) == ("ok", "ok")


def test_a_state_that_cannot_be_read_fails_like_a_disk(tmp_path: Path) -> None:
    backend = FakeBackend(slots=256)
    play = Play(tmp_path, backend)
    play.spawn("marta")
    backend.fail["read"] = 1
    assert play.until(play.say()).fields["code"] == "journal_failed"
    play.now += 1.1 * RETRY_S
    play.tick()
    while play.scribe.failure is not None:
        play.stage.tick()
    assert play.until(play.say()).ev == "done"
    play.crash()


def test_a_session_without_a_name_is_not_kept(tmp_path: Path) -> None:
    with served(config(tmp_path)) as daemon, Raw(daemon) as named, Raw(daemon, session="kept") as kept:
        assert named.card["journal"]
        named.spawn()
        kept.spawn()
        assert kept.ask("say", npc="marta", text="Hello.")["ev"] == "done"
        assert kept.ask("stats")["journal"]["npcs"] == 1


def test_a_daemon_that_comes_back_has_its_sessions_until_they_are_left_for_good(tmp_path: Path) -> None:
    with served(config(tmp_path)) as daemon, Raw(daemon, session="kept") as raw:
        raw.spawn()
        turn = raw.ask("say", npc="marta", text="Hello.")
    with served(config(tmp_path)) as daemon, Raw(daemon, session="kept") as raw:
        assert raw.card["resumed"]
        assert [npc["turns"] for npc in raw.ask("list")["npcs"]] == [turn["turn"] + 1]
        raw.ask("bye", keep=False)
    with served(config(tmp_path)) as daemon, Raw(daemon, session="kept") as raw:
        assert not raw.card["resumed"]


def test_the_operator_is_told_when_the_journal_fails_and_when_it_heals(tmp_path: Path, capfd: Any) -> None:
    quick = config(tmp_path, heartbeat_s=0.2)
    with served(quick) as daemon, Raw(daemon, session="kept") as raw:
        raw.spawn()
        journal = daemon.stage.scribe.journal  # type: ignore[union-attr]
        write, journal.write = journal.write, full  # type: ignore[method-assign]
        assert raw.ask("say", npc="marta", text="Hello.")["code"] == "journal_failed"
        told = ""
        while "No space left on device; it is tried again" not in told:
            raw.ask("ping")
            told += capfd.readouterr().err
        journal.write = write  # type: ignore[method-assign]
        while "the journal is written again" not in told:
            raw.ask("ping")
            told += capfd.readouterr().err
        assert raw.ask("say", npc="marta", text="Hello.")["ev"] == "done"


def full(records: Any) -> None:
    raise JournalFailed("the journal could not be written: No space left on device")


def test_a_cut_at_the_end_of_the_daemon_is_kept(tmp_path: Path) -> None:
    slow = Config(journal=str(tmp_path / "journal"), pace_tokens_per_s=5, shutdown_grace_s=0.05)
    with served(slow, FakeBackend(slots=256, end_bias=-60)) as daemon, Raw(daemon, session="kept") as raw:
        raw.spawn()
        asked = raw.send("say", npc="marta", text="Hello.")
        raw.until(asked, "delta")
        daemon.server.stop()
        done = raw.until(asked)
        daemon.thread.join(20)
    assert (done["ev"], done["finish"]) == ("done", "cancelled")
    with served(config(tmp_path)) as daemon, Raw(daemon, session="kept") as raw:
        [npc] = raw.ask("list")["npcs"]
    assert npc["turns"] == 1


def test_an_in_process_game_comes_back_too(tmp_path: Path) -> None:
    def stage() -> Stage:
        return fake_stage(config(tmp_path))

    with Runtime(open_stage=stage) as game:
        game.spawn("marta", MARTA, seed=7)
        game.say("marta", "Hello.")
        with pytest.raises(JournalError, match="is in use"):
            Runtime(open_stage=stage)
    with Runtime(open_stage=stage) as game:
        assert [npc.turns for npc in game.list()] == [1]
        with pytest.raises(errors.NpcExists):
            game.spawn("marta", MARTA)


def test_a_journal_needs_sessions_that_are_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_npcs"):
        fake_stage(config(tmp_path, keep_npcs=False))


def test_a_journal_that_does_not_fit_the_budget_is_left_as_it_is(tmp_path: Path) -> None:
    play = Play(tmp_path)
    names = [f"npc-{i}" for i in range(20)]
    play.spawn(*names)
    play.crash()
    with pytest.raises(ConfigError, match="holds 20 Npcs, which do not fit"):
        fake_stage(config(tmp_path), FakeBackend(slots=70))
    again = Play(tmp_path)
    assert set(again.minds()) == set(names)
    again.crash()
