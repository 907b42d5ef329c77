"""One unit (Turn), one resource (Slots), one rule of order; whatever goes wrong, the State is as before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import MARTA, FakeBackend, FakeTokenizer, perceived, tokens_in

from npc_runtime.config import Config
from npc_runtime.errors import BackendError, BudgetExceeded, Cancelled, ConfigError, DeadlineExceeded
from npc_runtime.pool import Timeline
from npc_runtime.prompt import ControlLayout, Head, Piece, ReplyReader
from npc_runtime.sampling import Sampling
from npc_runtime.scheduler import Scheduler
from npc_runtime.turn import BACKGROUND, PLAYER, Choice, Speech, Turn

TOKENIZER = FakeTokenizer()
LAYOUT = ControlLayout(TOKENIZER)
CUE = LAYOUT.cue(MARTA)
HEADS = LAYOUT.heads(("happy", "sad"), ("give",))


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Ear:
    """A listener that keeps what it is told."""

    def __init__(self):
        self.pieces, self.outcome, self.error, self.begun = [], None, None, False

    def begin(self):
        self.begun = True

    def piece(self, piece):
        self.pieces.append(piece)

    def commit(self, outcome):
        return outcome.finish

    def done(self, outcome):
        self.outcome = outcome

    def fail(self, error):
        self.error = error

    @property
    def text(self):
        return "".join(piece.text for piece in self.pieces)


class Theatre:
    """A scheduler over the fake backend, with a clock in the test's hand."""

    def __init__(self, slots=200, **options):
        self.clock = Clock()
        self.backend = FakeBackend(slots)
        self.scheduler = Scheduler(self.backend, Config(**options), self.clock)

    def line(self):
        timeline = Timeline()
        self.scheduler.register(timeline)
        return timeline

    def turn(self, timeline, text="hello", *, speak=True, seed=7, number=0, max_tokens=40, **fields):
        reader = ReplyReader(LAYOUT, TOKENIZER, HEADS, max_tokens)
        ask = Speech(CUE, reader, Sampling(max_tokens=max_tokens), seed, number) if speak else None
        turn = Turn(timeline, LAYOUT.player(text), Ear(), ask, **fields)
        self.scheduler.submit(turn)
        return turn

    def run(self, ticks=400):
        for _ in range(ticks):
            wait = self.scheduler.tick()
            if wait is None:
                return
            self.clock.now += wait
        raise AssertionError("the scheduler never came to rest")

    def state(self, timeline):
        return self.backend.read(timeline.current.slot)


def whole(turn):
    """Everything a State holds after a Turn that ended by itself."""
    return (*turn.tokens, *CUE, *turn.ask.drawn[: turn.ask.reader.kept], *LAYOUT.end)


def test_a_reply_is_in_the_state_token_for_token():
    theatre = Theatre()
    turn = theatre.turn(theatre.line())
    theatre.run()
    ear = turn.listener
    assert ear.outcome.finish in ("end", "length")
    assert ear.text == ear.outcome.text != ""
    assert ear.pieces[0].head == ear.outcome.head
    assert theatre.state(turn.timeline).equals(perceived(whole(turn)))
    assert theatre.scheduler.pool.free == 200 - 1


def test_the_same_seed_and_state_give_the_same_reply_whatever_else_runs():
    alone = Theatre()
    first = alone.turn(alone.line())
    alone.run()
    crowd = Theatre()
    others = [crowd.turn(crowd.line(), f"noise {i}", seed=i, lane=i % 2) for i in range(13)]
    second = crowd.turn(crowd.line())
    crowd.run()
    assert second.listener.outcome.text == first.listener.outcome.text
    assert crowd.state(second.timeline).equals(alone.state(first.timeline))
    assert all(turn.listener.outcome for turn in others)


def test_a_backend_whose_batches_are_not_exact_is_given_one_row_at_a_time():
    theatre = Theatre()
    theatre.backend.exact_batches = False
    for i in range(5):
        theatre.turn(theatre.line(), f"line {i}")
    theatre.run()
    assert {size for name, size in theatre.backend.calls if name == "open"} == {1}


def test_turns_of_one_npc_run_in_the_order_they_came():
    theatre = Theatre()
    timeline = theatre.line()
    turns = [theatre.turn(timeline, text, number=i) for i, text in enumerate("abc")]
    theatre.run()
    assert theatre.state(timeline).equals(perceived([t for turn in turns for t in whole(turn)]))
    assert [point.mark for point in timeline.past] == [
        turns[0].listener.outcome.finish,
        turns[1].listener.outcome.finish,
    ]


def test_a_long_reading_does_not_stall_others():
    theatre = Theatre(prefill_chunk=16)
    reading = theatre.turn(theatre.line(), "x" * 2000)
    short = theatre.turn(theatre.line(), "y")
    while short.listener.outcome is None:
        theatre.scheduler.tick()
    assert 0 < reading.position < len(reading.tokens)
    theatre.run()
    assert theatre.state(reading.timeline).equals(perceived(whole(reading)))


def test_the_background_reads_little_at_a_time_while_a_player_waits():
    """A client with a queue of long lines slowed everybody by what it reads between two bursts of speech."""
    theatre = Theatre(prefill_chunk=64)
    player = theatre.turn(theatre.line(), "y")
    theatre.scheduler.tick()
    reading = theatre.turn(theatre.line(), "x" * 2000, lane=BACKGROUND)
    while player.listener.outcome is None:
        before = reading.position
        theatre.scheduler.tick()
        assert reading.position - before <= 16
    before = reading.position
    assert before > 0, "the background is not shut out"
    theatre.scheduler.tick()
    assert reading.position - before == 64
    theatre.run()
    assert theatre.state(reading.timeline).equals(perceived(whole(reading)))


def test_an_event_for_many_is_read_in_one_batch():
    theatre = Theatre(prefill_chunk=64)
    turns = [theatre.turn(theatre.line(), "the roof falls in", speak=False) for _ in range(8)]
    theatre.run()
    reads = [size for name, size in theatre.backend.calls if name == "prefill"]
    assert reads == [8 * len(turns[0].tokens)]


def test_the_player_goes_before_the_background():
    theatre = Theatre(max_batch=2)
    crowd = [theatre.turn(theatre.line(), f"{i}", lane=BACKGROUND) for i in range(6)]
    theatre.scheduler.tick()
    player = theatre.turn(theatre.line(), "me first", lane=PLAYER)
    while player.listener.outcome is None:
        theatre.scheduler.tick()
    assert sum(turn.listener.outcome is not None for turn in crowd) <= 2
    theatre.run()
    assert all(turn.listener.outcome for turn in crowd)


def test_pacing_lets_speech_out_at_its_rate_and_makes_it_in_bursts():
    theatre = Theatre(burst=8)
    theatre.backend = theatre.scheduler.backend
    turn = theatre.turn(theatre.line(), pace=10.0)
    started = theatre.clock.now
    theatre.run()
    spoken = len(turn.ask.drawn) - len(LAYOUT.head(turn.listener.outcome.head))
    assert theatre.clock.now - started == pytest.approx((spoken - 1) / 10, abs=0.25)
    steps = sum(name == "step" for name, _ in theatre.backend.calls)
    opens = sum(name == "open" for name, _ in theatre.backend.calls)
    assert steps / opens > 3


def cut_at(theatre, turn, characters):
    """Runs until so many characters are out, then cuts there."""
    while len(turn.listener.text) < characters:
        theatre.clock.now += theatre.scheduler.tick() or 0.0
    theatre.scheduler.cancel(turn.timeline)


@pytest.mark.parametrize("characters", [1, 2, 5, 9, 14, 23, 30])
def test_what_was_heard_is_what_is_remembered(characters):
    theatre = Theatre()
    theatre.backend._bias[LAYOUT.end[0]] = -60.0
    turn = theatre.turn(theatre.line(), pace=20.0)
    cut_at(theatre, turn, characters)
    outcome = turn.listener.outcome
    assert outcome.finish == "cancelled"
    assert outcome.text == turn.listener.text
    head = LAYOUT.head(outcome.head)
    assert outcome.spoken[: len(head)] == head
    assert TOKENIZER.decode(outcome.spoken[len(head) :]).lstrip() == outcome.text
    assert theatre.state(turn.timeline).equals(perceived((*turn.tokens, *CUE, *outcome.spoken, *LAYOUT.end)))
    assert tokens_in(theatre.state(turn.timeline)) == len(turn.tokens) + 1 + len(outcome.spoken) + 1
    assert theatre.scheduler.pool.free == 200 - 1
    theatre.run()


@pytest.mark.parametrize("heard", [0, 1, 3, 10])
def test_the_game_may_say_how_much_the_player_saw(heard):
    theatre = Theatre()
    theatre.backend._bias[LAYOUT.end[0]] = -60.0
    turn = theatre.turn(theatre.line(), pace=20.0)
    while len(turn.listener.text) < 14:
        theatre.clock.now += theatre.scheduler.tick() or 0.0
    theatre.scheduler.cancel(turn.timeline, heard)
    outcome = turn.listener.outcome
    assert outcome.text == turn.listener.text[:heard]
    expected = (*turn.tokens, *CUE, *outcome.spoken, *LAYOUT.end) if heard else turn.tokens
    assert theatre.state(turn.timeline).equals(perceived(expected))


def test_a_cut_during_reading_leaves_the_state_as_before():
    theatre = Theatre(prefill_chunk=4)
    timeline = theatre.line()
    theatre.turn(timeline, "first")
    theatre.run()
    before = theatre.state(timeline)
    turn = theatre.turn(timeline, "a long line " * 10)
    theatre.scheduler.tick()
    assert theatre.scheduler.cancel(timeline) == 1
    assert isinstance(turn.listener.error, Cancelled)
    assert theatre.state(timeline).equals(before)
    assert theatre.scheduler.tick() is None


def test_cancel_empties_the_queue_too():
    theatre = Theatre()
    timeline = theatre.line()
    turns = [theatre.turn(timeline, text) for text in "abc"]
    assert theatre.scheduler.cancel(timeline) == 3
    assert all(isinstance(turn.listener.error, Cancelled) for turn in turns)
    assert not theatre.scheduler.busy(timeline)
    assert theatre.scheduler.pool.free == 200


@pytest.mark.parametrize("operation", ["copy", "prefill", "open", "step"])
def test_a_failing_backend_fails_the_turn_and_leaves_the_state_as_before(operation):
    theatre = Theatre()
    timeline = theatre.line()
    theatre.turn(timeline, "first")
    theatre.run()
    before = theatre.state(timeline)
    theatre.backend.fail[operation] = 1
    broken = theatre.turn(timeline, "second", number=1)
    after = theatre.turn(timeline, "third", number=1)
    theatre.run()
    assert isinstance(broken.listener.error, BackendError)
    assert theatre.state(timeline).equals(perceived(whole(after), before))


def test_logits_that_are_not_finite_fail_one_turn_only():
    theatre = Theatre()
    turns = [theatre.turn(theatre.line(), f"line {i}") for i in range(4)]
    theatre.scheduler._admit()
    theatre.backend.poison.add(turns[2].slot)
    theatre.run()
    assert [type(turn.listener.error) for turn in turns] == [type(None), type(None), BackendError, type(None)]
    assert turns[2].timeline.current is None
    for turn in (turns[0], turns[1], turns[3]):
        assert theatre.state(turn.timeline).equals(perceived(whole(turn)))


def test_a_device_that_raises_after_logits_that_were_not_finite_fails_each_turn_once(monkeypatch):
    """The row that had failed was failed again after its batch: a KeyError ended the Tick, and everyone's Turns."""
    theatre = Theatre()
    turns = [theatre.turn(theatre.line(), "heard by all, so that all speak together") for _ in range(3)]
    theatre.scheduler._admit()
    theatre.backend.poison.add(turns[1].slot)
    note, steps = theatre.backend._note, []

    def raise_at_the_second_step(name, size):
        note(name, size)
        if name == "step":
            steps.append(size)
            if len(steps) == 2:
                raise BackendError("the device fell over")

    monkeypatch.setattr(theatre.backend, "_note", raise_at_the_second_step)
    theatre.run()
    assert [type(turn.listener.error) for turn in turns] == [BackendError] * 3
    assert theatre.scheduler.turns_failed == 3
    assert theatre.scheduler.pool.free == 200


@pytest.mark.parametrize("moment", ["reading", "closing"])
def test_a_state_that_is_not_finite_becomes_nobodys_memory(moment):
    """Reading yields no logits, and a Reply's end none that are looked at: NaN went into the Npc for good."""
    theatre = Theatre()
    timelines = [theatre.line() for _ in range(3)]
    for timeline in timelines:
        theatre.turn(timeline, "first")
    theatre.run()
    before = [theatre.state(timeline) for timeline in timelines]
    turns = [theatre.turn(timeline, "second", number=1) for timeline in timelines]
    theatre.scheduler._admit()
    if moment == "reading":
        turns[1].ask = None
        theatre.backend.spoil.add(turns[1].slot)
    else:
        prefill = theatre.backend.prefill

        def closing(slots, tokens):
            theatre.backend.spoil |= {turns[1].slot} & set(slots) if tokens[-1] == LAYOUT.end[-1] else set()
            prefill(slots, tokens)

        theatre.backend.prefill = closing
    theatre.run()
    assert [type(turn.listener.error) for turn in turns] == [type(None), BackendError, type(None)]
    assert "not finite" in str(turns[1].listener.error)
    assert theatre.state(timelines[1]).equals(before[1])
    for turn in (turns[0], turns[2]):
        assert theatre.state(turn.timeline).equals(perceived(whole(turn), before[turns.index(turn)]))


def test_a_turn_that_waits_beyond_its_deadline_fails():
    theatre = Theatre(max_batch=1)
    first = theatre.turn(theatre.line(), "first")
    late = theatre.turn(theatre.line(), "late", deadline=theatre.clock.now + 1)
    theatre.scheduler.tick()
    theatre.clock.now += 2
    theatre.run()
    assert first.listener.outcome is not None
    assert isinstance(late.listener.error, DeadlineExceeded)


def test_a_deadline_bounds_waiting_not_speaking():
    theatre = Theatre()
    turn = theatre.turn(theatre.line(), pace=5.0, deadline=theatre.clock.now + 0.5)
    theatre.run()
    assert turn.listener.outcome.finish in ("end", "length")


def test_choose_remembers_the_likeliest_line():
    theatre = Theatre()
    timeline = theatre.line()
    heads = [(Head(mood), LAYOUT.head(Head(mood))) for mood in ("happy", "sad")]
    lines = [(text, LAYOUT.speech(text)) for text in ("go away", "come in", "sit down")]
    choice = Choice(CUE, heads, lines, LAYOUT.end)
    turn = Turn(timeline, LAYOUT.player("hi"), Ear(), choice)
    theatre.scheduler.submit(turn)
    theatre.run()
    outcome = turn.listener.outcome
    assert outcome.choice == outcome.scores.index(max(outcome.scores))
    assert outcome.text == lines[outcome.choice][0]
    said = (*LAYOUT.head(outcome.head), *LAYOUT.speech(outcome.text))
    assert theatre.state(timeline).equals(perceived((*turn.tokens, *CUE, *said, *LAYOUT.end)))


def test_rewind_points_are_given_up_before_an_npc_is_refused():
    theatre = Theatre(slots=8 * 2 + 4, max_batch=2)
    lines = [theatre.line() for _ in range(4)]
    for _ in range(9):
        for timeline in lines:
            theatre.turn(timeline, "again")
        theatre.run()
    assert all(timeline.current is not None for timeline in lines)
    assert sum(len(timeline.past) for timeline in lines) < 4 * 8
    with pytest.raises(BudgetExceeded, match="no room beside 4 Npcs"):
        theatre.line()


def test_a_budget_too_small_for_one_batch_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="`state_budget_mb` must be at least"):
        Theatre(slots=10)


def test_dropping_an_npc_under_way_frees_every_slot():
    theatre = Theatre()
    timeline = theatre.line()
    turn = theatre.turn(timeline, pace=5.0)
    for _ in range(3):
        theatre.scheduler.tick()
    theatre.scheduler.unregister(timeline)
    assert isinstance(turn.listener.error, Cancelled)
    assert theatre.scheduler.pool.free == 200
    assert theatre.scheduler.tick() is None


def test_a_reply_that_reaches_its_length_is_closed():
    theatre = Theatre()
    theatre.backend._bias[LAYOUT.end[0]] = -60.0
    turn = theatre.turn(theatre.line(), max_tokens=5)
    theatre.run()
    assert turn.listener.outcome.finish == "length"
    assert len(turn.listener.outcome.text.strip()) <= 5
    assert theatre.state(turn.timeline).equals(perceived(whole(turn)))


def test_greedy_sampling_ignores_the_seed():
    texts = set()
    for seed in (1, 2):
        theatre = Theatre()
        turn = theatre.turn(theatre.line(), seed=seed)
        turn.ask.sampling = replace(turn.ask.sampling, temperature=0.0)
        theatre.run()
        texts.add(turn.listener.outcome.text)
    assert len(texts) == 1


def test_tokens_that_are_no_text_do_not_bring_paced_speech_to_rest(monkeypatch):
    """A burst that ended in many parts of characters left nothing to let out, and asked for no more tokens."""
    theatre = Theatre(burst=16)
    theatre.backend._bias[:] = -60.0
    theatre.backend._bias[-64:] = 0.0  # bytes that begin or go on with a character
    turn = theatre.turn(theatre.line(), pace=50.0, max_tokens=100)
    monkeypatch.setattr(turn.speech.reader, "_new_text", no_text_after_the_first(turn.speech.reader))
    theatre.run()
    assert turn.listener.outcome.finish == "length"


def no_text_after_the_first(reader):
    told = reader._new_text

    def new_text():
        return told() if len(reader._speech) == 100 else Piece(text="a") if len(reader._speech) == 1 else None

    return new_text


class RowsFake(FakeBackend):
    """A fake device that takes many rows together, and notes how many."""

    def copy_rows(self, sources, targets):
        assert not set(sources) & set(targets)
        self._note("copy_rows", len(sources))
        for source, target in zip(sources, targets, strict=True):
            self.copy(source, target)

    def prefill_rows(self, slots, rows):
        self._note("prefill_rows", len(slots))
        for slot, tokens in zip(slots, rows, strict=True):
            self.prefill([slot], tokens)

    def finite_rows(self, slots):
        self._note("finite_rows", len(slots))
        return [self.finite(slot) for slot in slots]


def rows_theatre(**options):
    theatre = Theatre(slots=600, **options)
    theatre.backend = RowsFake(600)
    theatre.scheduler = Scheduler(theatre.backend, Config(**options), theatre.clock)
    return theatre


def test_a_device_that_takes_rows_reads_different_lines_together():
    theatre, plain = rows_theatre(), Theatre()
    told = []
    for each in (theatre, plain):
        turns = [each.turn(each.line(), f"line {i} " * (i + 1), seed=i) for i in range(6)]
        each.run()
        told.append([(turn.listener.text, each.state(turn.timeline).digest()) for turn in turns])
    assert told[0] == told[1]
    sizes = [size for name, size in theatre.backend.calls if name == "prefill_rows"]
    assert sizes[0] == 6
    assert ("copy_rows", 6) in theatre.backend.calls
    assert max(size for name, size in theatre.backend.calls if name == "finite_rows") > 1


def test_such_a_device_reads_a_bounded_share_in_one_tick(monkeypatch):
    monkeypatch.setattr("npc_runtime.scheduler._READ_PER_TICK", 30)
    theatre = rows_theatre()
    for i in range(6):
        theatre.turn(theatre.line(), "a" * 19, speak=False, seed=i)
    theatre.run()
    assert [size for name, size in theatre.backend.calls if name == "prefill_rows"] == [1] * 6
    theatre.backend.calls.clear()
    theatre.turn(theatre.line(), "a" * 200, speak=False)
    theatre.run()
    assert [size for name, size in theatre.backend.calls if name == "prefill_rows"] == [1, 1]


def test_what_such_a_device_fails_at_fails_everyone_and_nobody_forgets():
    theatre = rows_theatre()
    timelines = [theatre.line() for _ in range(3)]
    for timeline in timelines:
        theatre.turn(timeline, "first", speak=False)
    theatre.run()
    before = [theatre.state(timeline) for timeline in timelines]
    theatre.backend.fail["prefill_rows"] = 1
    turns = [theatre.turn(timeline, "second") for timeline in timelines]
    theatre.run()
    assert all(isinstance(turn.listener.error, BackendError) for turn in turns)
    assert [theatre.state(timeline).digest() for timeline in timelines] == [state.digest() for state in before]


def test_pieces_of_one_moment_go_out_together_there():
    theatre, plain = rows_theatre(), Theatre()
    counts, texts = [], []
    for each in (theatre, plain):
        turn = each.turn(each.line())
        each.run()
        counts.append(len(turn.listener.pieces))
        texts.append(turn.listener.text)
    assert texts[0] == texts[1]
    assert counts[0] < counts[1]
