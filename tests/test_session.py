"""The verbs of one game, over the fake backend: what each answers, and what it leaves in the State."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from fakes import SPEC, FakeBackend, FakeTokenizer, fake_stage, perceived

from npc_runtime import wire
from npc_runtime.config import Config
from npc_runtime.persona import ACTIONS, MOODS, persona_from
from npc_runtime.prompt import ControlLayout, Head
from npc_runtime.sampling import Sampling
from npc_runtime.stage import Stage

TOKENIZER = FakeTokenizer()
LAYOUT = ControlLayout(TOKENIZER)
TABLE = {"name": "Marta", "role": "smith", "opening": "Come in!", "opening_mood": "happy"}
PERSONA = persona_from(TABLE, "the test")


def make_stage(slots=200, **options):
    options.setdefault("pace_tokens_per_s", 0.0)
    bundle = SimpleNamespace(
        name="fake", hash="f" * 64, spec=SPEC, layout="control-1", tokenizer=TOKENIZER, sampling=Sampling()
    )
    return Stage(bundle, FakeBackend(slots), "a test", Config(**options))


class Game:
    """One Session, asked synchronously."""

    def __init__(self, stage=None, name="game"):
        self.stage = stage or make_stage()
        self.session = self.stage.session(name)
        self.ids = 0

    def send(self, cls, **fields):
        """Hands over a request; its events arrive in the returned list."""
        self.ids += 1
        events = []
        self.session.handle(cls(id=self.ids, **fields), events.append)
        return events

    def run(self):
        for _ in range(20_000):
            wait = self.stage.tick()
            if wait is None:
                return
            time.sleep(wait)  # a save is being written on the side
        raise AssertionError("the stage never came to rest")

    def ask(self, cls, **fields):
        """The last event of a request, or its error's code."""
        events = self.send(cls, **fields)
        self.run()
        assert events, f"`{cls.op}` was never answered"
        assert events[-1].last
        assert all(event.id == self.ids for event in events)
        return events[-1].fields["code"] if events[-1].ev == "error" else events[-1].fields

    def spawn(self, npc="marta", **fields):
        return self.ask(wire.Spawn, npc=npc, persona=fields.pop("persona", TABLE), seed=fields.pop("seed", 5), **fields)

    def say(self, text, npc="marta", **fields):
        return self.ask(wire.Say, npc=npc, text=text, **fields)

    def state(self, npc="marta"):
        return self.stage.backend.read(self.session.npcs[npc].timeline.current.slot)


@pytest.fixture
def game():
    return Game()


def answer(reply):
    """The tokens of a Reply as the layout writes them."""
    head = Head(reply["mood"], reply["action"])
    return (*LAYOUT.cue(PERSONA), *LAYOUT.head(head), *LAYOUT.speech(reply["text"]), *LAYOUT.end)


def test_spawn_reads_the_persona_once_and_answers_its_opening(game):
    first = game.spawn()
    assert first["opening"] == {"text": "Come in!", "mood": "happy"}
    assert first["tokens"] == {"read": len(LAYOUT.persona(PERSONA))}
    assert not first["cached"]
    second = game.spawn("twin")
    assert second["cached"]
    assert second["tokens"] == {"read": 0}
    assert game.state("twin").equals(game.state("marta"))
    assert game.state().equals(perceived(LAYOUT.persona(PERSONA)))


def test_a_hundred_guards_cost_one_state(game):
    for i in range(100):
        game.spawn(f"guard {i}")
    assert game.stage.scheduler.pool.free == 199


def test_two_spawns_of_one_persona_at_once_read_it_once(game):
    events = [game.send(wire.Spawn, npc=name, persona=TABLE) for name in ("a", "b")]
    game.run()
    assert [event[-1].ev for event in events] == ["ok", "ok"]
    assert game.stage.scheduler.tokens_read == len(LAYOUT.persona(PERSONA))


def test_say_streams_mood_first_and_ends_with_the_reply(game):
    game.spawn()
    events = game.send(wire.Say, npc="marta", text="Hello")
    game.run()
    kinds = [event.ev for event in events]
    assert kinds[0] == "mood"
    assert kinds[-1] == "done"
    assert set(kinds[1:-1]) <= {"act", "delta"}
    reply = events[-1].fields
    assert "".join(event.fields["text"] for event in events if event.ev == "delta") == reply["text"]
    assert reply["tokens"]["reread"] == 0
    assert reply["turn"] == 0


def test_say_without_stream_answers_once(game):
    game.spawn()
    events = game.send(wire.Say, npc="marta", text="Hello", stream=False)
    game.run()
    assert [event.ev for event in events] == ["done"]


def test_only_allowed_moods_and_actions_occur(game):
    game.spawn()
    for turn in range(12):
        reply = game.say(f"line {turn}", moods=["sad", "wary"], actions=["give"])
        assert reply["mood"] in ("sad", "wary")
        assert reply["action"] in (None, "give")


def test_a_call_may_allow_what_the_persona_does_not(game):
    """Moods and actions are those of the persona or of the call: a game may want a word for one moment alone."""
    game.spawn()
    assert not {"smug", "kneel"} & {*MOODS, *ACTIONS}
    actions = set()
    for turn in range(12):
        reply = game.say(f"line {turn}", moods=["smug"], actions=["kneel"])
        assert reply["mood"] == "smug"
        actions.add(reply["action"])
    assert actions == {None, "kneel"}
    assert game.ask(wire.Choose, npc="marta", lines=["Yes.", "No."], moods=["smug"])["mood"] == "smug"
    assert game.say("And now?")["mood"] in MOODS


def test_the_state_holds_everything_perceived_and_said(game):
    game.spawn()
    reply = game.say("Hello there")
    game.say("The door opens.", kind="event", max_tokens=3)
    listed = game.ask(wire.List)["npcs"][0]
    assert listed["turns"] == 2
    rewound = game.ask(wire.Rewind, npc="marta")
    assert rewound["turns"] == 1
    expected = (*LAYOUT.persona(PERSONA), *LAYOUT.player("Hello there"), *answer(reply))
    if "  " not in TOKENIZER.decode(expected):  # the layout folds blanks that the fake may speak
        assert game.state().equals(perceived(expected))


def test_rewind_then_the_same_line_gives_the_same_reply(game):
    game.spawn()
    game.say("one")
    first = game.say("two")
    after = game.state()
    game.ask(wire.Rewind, npc="marta")
    second = game.say("two")
    assert second["text"] == first["text"]
    assert game.state().equals(after)


def test_rewind_refuses_more_than_it_keeps(game):
    game.spawn()
    game.say("one")
    assert game.ask(wire.Rewind, npc="marta", turns=2) == "nothing_to_rewind"
    assert game.ask(wire.Rewind, npc="marta", turns=0) == "bad_input"


def test_eight_turns_can_be_taken_back_at_no_reading(game):
    game.spawn()
    states = [game.state()]
    for i in range(8):
        game.say(f"line {i}")
        states.append(game.state())
    read = game.stage.scheduler.tokens_read
    for i in range(7, -1, -1):
        game.ask(wire.Rewind, npc="marta")
        assert game.state().equals(states[i])
    assert game.stage.scheduler.tokens_read == read


def test_a_fork_goes_its_own_way(game):
    game.spawn()
    game.say("one")
    game.ask(wire.Fork, npc="marta", to="twin")
    assert game.state("twin").equals(game.state())
    same = game.say("two", npc="twin")
    assert game.say("two")["text"] == same["text"]
    game.say("three", npc="twin")
    assert not game.state("twin").equals(game.state())
    assert game.ask(wire.Rewind, npc="twin", turns=3)["turns"] == 0


def test_observe_reaches_everyone_named_and_nobody_else(game):
    for name in ("a", "b", "c"):
        game.spawn(name)
    answered = game.ask(wire.Observe, npcs=["a", "b"], text="A bell rings.")
    assert sorted(answered["npcs"]) == ["a", "b"]
    heard = perceived((*LAYOUT.persona(PERSONA), *LAYOUT.event("A bell rings.")))
    assert game.state("a").equals(heard)
    assert game.state("b").equals(heard)
    assert game.state("c").equals(perceived(LAYOUT.persona(PERSONA)))


def test_choose_remembers_the_line_it_picked(game):
    game.spawn()
    lines = ["Go away.", "Come in.", "Sit down."]
    chosen = game.ask(wire.Choose, npc="marta", text="May I?", lines=lines, moods=["sad"])
    assert chosen["text"] == lines[chosen["index"]]
    assert chosen["index"] == chosen["scores"].index(max(chosen["scores"]))
    said = answer({"mood": "sad", "action": None, "text": chosen["text"]})
    assert game.state().equals(perceived((*LAYOUT.persona(PERSONA), *LAYOUT.player("May I?"), *said)))


def test_cancel_ends_the_reply_where_it_was_heard():
    game = Game(make_stage(pace_tokens_per_s=50.0))
    game.stage.backend._bias[LAYOUT.end[0]] = -60.0
    game.spawn()
    events = game.send(wire.Say, npc="marta", text="Tell me everything")
    while sum(len(event.fields["text"]) for event in events if event.ev == "delta") < 5:
        game.stage.tick()
    cancelled = game.ask(wire.Cancel, npc="marta")
    assert cancelled["cancelled"] == 1
    reply = events[-1].fields
    assert reply["finish"] == "cancelled"
    assert reply["text"] == "".join(event.fields["text"] for event in events if event.ev == "delta")
    assert game.session.npcs["marta"].mark.log[-1][1] == reply["text"]


def test_snapshot_and_restore_continue_bit_for_bit(game):
    game.spawn()
    game.say("My name is Wren.")
    data = game.ask(wire.Snapshot, npc="marta")["data"]
    first = game.say("What is my name?")
    after = game.state()
    other = Game()
    restored = other.ask(wire.Restore, npc="smith", data=data)
    assert restored["turns"] == 1
    assert not restored["rebuilt"]
    second = other.say("What is my name?", npc="smith")
    assert (second["text"], second["mood"], second["seed"]) == (first["text"], first["mood"], first["seed"])
    assert other.state("smith").equals(after)
    assert other.stage.scheduler.tokens_read == second["tokens"]["read"]


def test_save_and_load_a_whole_game(game, tmp_path):
    path = str(tmp_path / "game.npcsave")
    for name in ("a", "b", "c"):
        game.spawn(name)
        game.say(f"I am {name}", npc=name)
    saved = game.ask(wire.Save, path=path)
    assert saved["npcs"] == ["a", "b", "c"]
    assert saved["bytes"] == (tmp_path / "game.npcsave").stat().st_size
    other = Game()
    loaded = other.ask(wire.Load, path=path)
    assert [npc["npc"] for npc in loaded["npcs"]] == ["a", "b", "c"]
    assert loaded["rebuilt"] == []
    for name in ("a", "b", "c"):
        assert other.state(name).equals(game.state(name))


def test_load_takes_only_the_npcs_asked_for_and_is_all_or_nothing(game, tmp_path):
    path = str(tmp_path / "game.npcsave")
    for name in ("a", "b"):
        game.spawn(name)
    game.ask(wire.Save, path=path)
    other = Game()
    assert [npc["npc"] for npc in other.ask(wire.Load, path=path, npcs=["b"])["npcs"]] == ["b"]
    assert other.ask(wire.Load, path=path) == "npc_exists"
    assert list(other.session.npcs) == ["b"]
    assert other.ask(wire.Load, path=path, npcs=["zoe"]) == "unknown_npc"
    assert len(other.ask(wire.Load, path=path, replace=True)["npcs"]) == 2


def test_a_save_of_another_bundle_is_refused_by_name_or_rebuilt(game, tmp_path):
    path = str(tmp_path / "game.npcsave")
    game.spawn()
    game.say("My name is Wren.", max_tokens=6)
    game.ask(wire.Save, path=path)
    other = Game()
    other.stage.bundle.hash = "0" * 64
    events = other.send(wire.Load, path=path)
    other.run()
    assert events[-1].fields["code"] == "save_mismatch"
    assert "fake" in events[-1].fields["text"]
    rebuilt = other.ask(wire.Load, path=path, rebuild=True)
    assert rebuilt["rebuilt"] == ["marta"]
    assert rebuilt["npcs"][0]["turns"] == 1
    assert rebuilt["npcs"][0]["rebuilt"]
    assert other.stage.scheduler.tokens_read > len(LAYOUT.persona(PERSONA))


@pytest.mark.parametrize("bad", ["game.txt", "relative.npcsave", "nul\0.npcsave"])
def test_save_refuses_paths_that_are_no_save(game, bad):
    game.spawn()
    assert game.ask(wire.Save, path=bad) == "bad_input"


def test_a_refused_observe_keeps_no_place_in_the_queue(game):
    """Its places were counted before its lane was looked at, and never given back: 256 of them closed the Session."""
    game.spawn()
    for _ in range(3):
        assert game.ask(wire.Observe, npcs=["marta"], text="A bell rings.", lane="fast") == "bad_input"
    assert game.session.queued == 0


def test_saves_stay_inside_save_dir_when_it_is_set(tmp_path):
    game = Game(make_stage(save_dir=str(tmp_path / "saves")))
    (tmp_path / "saves").mkdir()
    game.spawn()
    assert game.ask(wire.Save, path="../out.npcsave") == "bad_input"
    assert game.ask(wire.Save, path=str(tmp_path / "out.npcsave")) == "bad_input"
    assert game.ask(wire.Save, path="slot1.npcsave")["bytes"] > 0
    assert (tmp_path / "saves" / "slot1.npcsave").is_file()


def test_a_daemon_with_a_save_dir_reads_no_persona_by_path(tmp_path):
    (tmp_path / "zoe.toml").write_text('name = "Zoe"\nrole = "spy"\n')
    game = Game(make_stage(save_dir=str(tmp_path)))
    assert game.spawn("zoe", persona=str(tmp_path / "zoe.toml")) == "unknown_persona"
    assert Game().spawn("zoe", persona=str(tmp_path / "zoe.toml"))["name"] == "Zoe"


def test_what_a_persona_leaves_out_of_its_sampling_is_the_bundles(game):
    game.stage.bundle.sampling = Sampling(max_tokens=4, temperature=0.1)
    game.spawn("terse")
    game.spawn("wordy", persona={**TABLE, "sampling": {"max_tokens": 9}})
    assert game.session._base_sampling(game.session.npcs["terse"].persona) == Sampling(max_tokens=4, temperature=0.1)
    assert game.session._base_sampling(game.session.npcs["wordy"].persona) == Sampling(max_tokens=9, temperature=0.1)


REFUSED = {
    "no such npc": (wire.Say, {"npc": "zoe", "text": "hi"}, "unknown_npc"),
    "empty text": (wire.Say, {"npc": "marta", "text": " \n\t"}, "bad_input"),
    "too long": (wire.Say, {"npc": "marta", "text": "x" * 5000}, "too_large"),
    "too many tokens": (wire.Say, {"npc": "marta", "text": "\U0001f600" * 1000}, "too_large"),
    "bad kind": (wire.Say, {"npc": "marta", "text": "hi", "kind": "god"}, "bad_input"),
    "bad lane": (wire.Say, {"npc": "marta", "text": "hi", "lane": "fast"}, "bad_input"),
    "nan temperature": (wire.Say, {"npc": "marta", "text": "hi", "temperature": float("nan")}, "bad_input"),
    "no moods": (wire.Say, {"npc": "marta", "text": "hi", "moods": []}, "bad_input"),
    "shouted mood": (wire.Say, {"npc": "marta", "text": "hi", "moods": ["HAPPY"]}, "bad_input"),
    "tag as mood": (wire.Say, {"npc": "marta", "text": "hi", "moods": ["<say>"]}, "bad_input"),
    "twin": (wire.Spawn, {"npc": "marta", "persona": TABLE}, "npc_exists"),
    "blank id": (wire.Spawn, {"npc": " ", "persona": TABLE}, "bad_input"),
    "no persona": (wire.Spawn, {"npc": "zoe", "persona": "nobody-at-all"}, "unknown_persona"),
    "bad persona": (wire.Spawn, {"npc": "zoe", "persona": {"name": 3}}, "bad_persona"),
    "nobody observes": (wire.Observe, {"npcs": [], "text": "x"}, "bad_input"),
    "one observes twice": (wire.Observe, {"npcs": ["marta", "marta"], "text": "x"}, "bad_input"),
    "nothing to choose": (wire.Choose, {"npc": "marta", "lines": []}, "bad_input"),
    "too much to choose": (wire.Choose, {"npc": "marta", "lines": ["x"] * 65}, "bad_input"),
    "fork onto itself": (wire.Fork, {"npc": "marta", "to": "marta"}, "bad_input"),
    "garbage snapshot": (wire.Restore, {"npc": "zoe", "data": b"garbage"}, "bad_save"),
    "negative heard": (wire.Cancel, {"npc": "marta", "heard": -1}, "bad_input"),
    "not a session's": (wire.Ping, {}, "unknown_op"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_requests_are_refused_and_change_nothing(game, case):
    game.spawn()
    before = game.state()
    cls, fields, code = REFUSED[case]
    assert game.ask(cls, **fields) == code
    assert game.state().equals(before)
    assert list(game.session.npcs) == ["marta"]
    assert game.session.queued == 0


def test_ten_thousand_spawns_beyond_the_budget_are_refused_and_harm_nothing():
    game = Game(make_stage(slots=80, max_npcs=20_000))
    answers = [game.spawn(f"npc {i}") for i in range(200)]
    born = [answered for answered in answers if answered != "budget_exceeded"]
    assert len(born) == 80 - 4 * 2 * 8
    assert game.send(wire.Spawn, npc="late", persona=TABLE)[-1].fields["retry"]
    assert game.say("hello", npc="npc 0")["text"]


def test_a_full_queue_refuses_a_line_unread(monkeypatch):
    """A flood of long lines had each one cleaned and tokenised before it was refused."""
    game = Game(make_stage(max_queued=1))
    game.spawn()
    game.send(wire.Say, npc="marta", text="hello")
    monkeypatch.setattr("npc_runtime.session.clean", lambda text: pytest.fail("the line was read"))
    assert game.send(wire.Say, npc="marta", text="hello")[-1].fields["code"] == "queue_full"
    assert game.send(wire.Choose, npc="marta", lines=["yes"])[-1].fields["code"] == "queue_full"


def test_a_full_queue_refuses_and_recovers():
    game = Game(make_stage(max_queued=3))
    game.spawn()
    events = [game.send(wire.Say, npc="marta", text=f"{i}") for i in range(5)]
    assert [event[-1].fields["code"] for event in events if event] == ["queue_full", "queue_full"]
    game.run()
    assert game.session.queued == 0
    assert game.say("again")["text"]


def test_rewind_and_fork_wait_for_the_npc_to_rest(game):
    game.spawn()
    game.send(wire.Say, npc="marta", text="hi")
    for cls, fields in ((wire.Rewind, {}), (wire.Fork, {"to": "twin"})):
        assert game.send(cls, npc="marta", **fields)[-1].fields["code"] == "npc_busy"
    game.run()


def test_drop_frees_the_slots_and_ends_turns(game):
    game.spawn()
    game.say("one")
    events = game.send(wire.Say, npc="marta", text="two")
    game.ask(wire.Drop, npc="marta")
    assert events[-1].fields["code"] == "cancelled"
    assert game.stage.scheduler.pool.free == 199
    assert game.ask(wire.List)["npcs"] == []


def test_sessions_do_not_see_each_other():
    stage = make_stage()
    one, two = Game(stage, "one"), Game(stage, "two")
    one.spawn()
    assert two.say("hi") == "unknown_npc"
    two.spawn()
    two.say("hi")
    assert one.session.npcs["marta"].mark.turns == 0


def test_a_session_that_goes_keeps_or_drops_its_npcs(game):
    game.spawn()
    game.session.close(keep=True)
    assert list(game.session.npcs) == ["marta"]
    game.session.close(keep=False)
    assert game.session.npcs == {}


def test_stats_count_exactly(game):
    game.spawn()
    reply = game.say("hello")
    stats = game.stage.stats()
    assert stats["npcs"] == 1
    assert stats["turns"] == {"done": 2, "failed": 0}
    assert stats["tokens"]["read"] == len(LAYOUT.persona(PERSONA)) + reply["tokens"]["read"]


def test_a_persona_that_cannot_be_read_fails_the_spawn_and_can_be_tried_again(game):
    game.stage.backend.fail["prefill"] = 1
    assert game.spawn() == "backend_failed"
    assert game.spawn()["npc"] == "marta"


def test_a_save_that_claims_as_many_turns_as_can_be_saved_does_not_spoil_the_next():
    """One more turn could not be saved, and so nobody's game could."""
    from npc_runtime.npc import Mark
    from npc_runtime.turn import Outcome
    from npc_runtime.wire import MAX_ID

    mark = Mark(turns=MAX_ID, tokens=MAX_ID).after([], 5, Outcome())
    assert (mark.turns, mark.tokens) == (MAX_ID, MAX_ID)


def test_a_save_of_more_than_four_state_budgets_is_refused_unread(tmp_path):
    stage = fake_stage(Config(state_budget_mb=1, save_dir=str(tmp_path)))
    with open(tmp_path / "huge.npcsave", "wb") as file:
        file.truncate(40 * 2**20)  # sparse: it takes no room on disk and would take it all in memory
    answers = []
    stage.session("game").handle(wire.Load(id=1, path="huge.npcsave"), answers.append)
    while stage.tick() is not None:
        pass
    assert answers[0].fields["code"] == "bad_save"
    assert "holds more than" in answers[0].fields["text"]
    stage.close()
