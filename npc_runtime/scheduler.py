"""Scheduler: Turns to one batch per Tick to tokens. One unit (Turn), one resource (Slots), one rule of order.

A Turn works on a copy of its Npc's State, so that whatever goes wrong the State is as before; when it
ends, the copy becomes the Npc's newest point and the older one a rewind point. Each call of `tick` does a
bounded piece of work: one chunk of reading, a few rankings, one burst of steps. Speech is made in bursts
(single tokens find cold caches and cost up to twice as much) and let out at the Turn's pace; a cut goes
back to the checkpoint before the last token that was let out and replays from there.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from npc_runtime.backends.base import feed_rows, takes_rows
from npc_runtime.burst import Burst
from npc_runtime.errors import BackendError, BudgetExceeded, Cancelled, ConfigError, DeadlineExceeded, NpcError
from npc_runtime.pool import Point, Pool, Timeline
from npc_runtime.prompt import Piece
from npc_runtime.queues import Queues
from npc_runtime.turn import PLAYER, Choice, Outcome, Released, Speech, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from npc_runtime.backends.base import Backend, RowsBackend
    from npc_runtime.config import Config

_SLOTS_PER_TURN = 4
"""A speaking Turn's own Slot, the point before its cue, and the two latest burst checkpoints."""
_SCORES_PER_TICK = 4
_BACKGROUND_PART = 4
"""The background reads such a part of a chunk beside a player: a whole one takes twice as long as a burst of speech."""
_READ_PER_TICK = 131_072
"""Tokens read in one Tick on a device that reads many rows together: a tenth of a second of an H200's time."""


class Scheduler:
    """Runs Turns on one backend. Not thread-safe: one thread submits, cancels and ticks."""

    def __init__(self, backend: Backend, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self.backend, self.config, self.clock = backend, config, clock
        self.max_batch = min(config.max_batch or backend.max_batch, backend.max_batch)
        self.pool = Pool(backend.slots)
        self.reserve = _SLOTS_PER_TURN * 2 * self.max_batch
        if self.pool.capacity <= self.reserve:
            needed = (self.reserve + 1) * backend.spec.nbytes // 2**20 + 1
            raise ConfigError(f"`state_budget_mb` must be at least {needed} with max_batch {self.max_batch}")
        self.reclaim: Callable[[], bool] = lambda: False
        """Gives back a cached State when no rewind point is left to give; False when there is none."""
        self.timelines: OrderedDict[Timeline[Any], None] = OrderedDict()
        """Registered Timelines, least recently advanced first."""
        self.active: dict[Turn, None] = {}
        """Turns under way, in the order they began."""
        self.ticks = self.tokens_read = self.tokens_spoken = self.turns_done = self.turns_failed = 0
        self._queues = Queues()
        self._joins = takes_rows(backend)
        """Whether what goes out at one moment goes as one piece: thousands speak, and each message costs."""
        self._finite: set[int] = set()
        """Slots of Turns about to end that were found finite."""

    # ---- Timelines

    @property
    def budget_mb(self) -> int:
        """Megabytes of the Slots."""
        return -(-self.pool.capacity * self.backend.spec.nbytes // 2**20)

    @property
    def room(self) -> int:
        """How many more Timelines can be registered and still be sure of a Slot each."""
        return self.pool.capacity - self.reserve - len(self.timelines)

    def register(self, timeline: Timeline[Any]) -> None:
        """Counts a Timeline into the budget. Raises BudgetExceeded when no room is left."""
        if self.room < 1:
            raise BudgetExceeded(
                f"the state budget of {self.budget_mb} MB has no room beside {len(self.timelines)} Npcs"
            )
        self.timelines[timeline] = None

    def unregister(self, timeline: Timeline[Any]) -> None:
        """Abandons the Timeline's Turns and frees its Slots."""
        self.abandon(timeline)
        timeline.clear(self.pool)
        self.timelines.pop(timeline, None)

    def take_slot(self) -> int:
        """A free Slot; gives up the oldest rewind point of the Npc that was quiet longest, then cached States."""
        while not self.pool.free:
            victim = next((line for line in self.timelines if line.past), None)
            if victim is not None:
                victim.forget_oldest(self.pool)
            elif not self.reclaim():
                break
        return self.pool.take()

    # ---- Turns

    def submit(self, turn: Turn) -> None:
        """Queues a Turn behind the others of its Timeline."""
        turn.submitted = self.clock()
        self._queues.add(turn)

    def busy(self, timeline: Timeline[Any]) -> bool:
        """True while the Timeline has Turns waiting or under way."""
        return timeline in self._queues

    def cancel(self, timeline: Timeline[Any], heard: int | None = None) -> int:
        """Empties the Timeline's queue and cuts its running Turn; how many Turns were touched.

        A Turn that was heard in part ends there (`heard`: characters the player saw, at most what
        was let out); one that was not begun or still reading leaves the State as before.
        """
        queue = self._queues.of(timeline)
        for turn in reversed(queue):
            if turn.slot >= 0 and not turn.reading and turn.speech is not None:
                self._cut(turn, heard)
            else:
                self._fail(turn, Cancelled("the Turn was cancelled before it was answered"))
        return len(queue)

    def abandon(self, timeline: Timeline[Any]) -> None:
        """Ends the Timeline's Turns as if they had never been."""
        for turn in reversed(self._queues.of(timeline)):
            self._fail(turn, Cancelled("the Npc was dropped or replaced"))

    def tick(self) -> float | None:
        """Does a bounded piece of work; seconds until it wants to be called again, None when idle."""
        self.ticks += 1
        self._expire(self.clock())
        self._admit()
        self._read()
        self._choose()
        self._speak()
        now = self.clock()
        for turn in list(self.active):
            self._let_out(turn, now)
        return self._wait(now)

    def _expire(self, now: float) -> None:
        for turn in self._queues.expired(now):
            waited = 1e3 * (now - turn.submitted)
            self._fail(turn, DeadlineExceeded(f"the Turn did not begin within {waited:.0f} ms"))

    def _admit(self) -> None:
        """Begins waiting Turns: the player's up to one batch, others only into what is left of it."""
        begun: list[Turn] = []
        players = sum(turn.lane == PLAYER for turn in self.active)
        while turn := self._queues.first():
            if (players if turn.lane == PLAYER else len(self.active)) >= self.max_batch:
                break
            if self._begin(self._queues.take()):
                begun.append(turn)
                players += turn.lane == PLAYER
        self._start(begun)

    def _begin(self, turn: Turn) -> bool:
        try:
            turn.slot = self.take_slot()
        except BudgetExceeded as error:
            self._fail(turn, error)
            return False
        turn.begun = self.clock()
        turn.listener.begin()
        self.active[turn] = None
        return True

    def _start(self, turns: list[Turn]) -> None:
        """Gives begun Turns the State they go on from."""
        for turn in [turn for turn in turns if turn.timeline.current is None]:
            with _Guard(self, [turn]):
                self.backend.clear(turn.slot)
        for group in self._together([turn for turn in turns if turn.timeline.current is not None]):
            with _Guard(self, group):
                self._copy([(turn.timeline.current.slot, turn.slot) for turn in group if turn.timeline.current])

    def _together(self, turns: list[Turn]) -> list[list[Turn]]:
        """All at once on a device that takes many rows, else one by one: what fails then fails alone."""
        if takes_rows(self.backend):
            return [turns] if turns else []
        return [[turn] for turn in turns]

    def _copy(self, pairs: list[tuple[int, int]]) -> None:
        """Copies Slots onto others, given as (source, target)."""
        if takes_rows(self.backend) and len(pairs) > 1:
            self.backend.copy_rows([source for source, _ in pairs], [target for _, target in pairs])
            return
        for source, target in pairs:
            self.backend.copy(source, target)

    # ---- reading

    def _read(self) -> None:
        """One chunk for whoever has read least, together with all that read the same tokens (an event).

        On a device that takes many rows together with all others too.
        """
        turns = sorted((t for t in self.active if t.reading), key=lambda t: (t.lane, t.position, t.order))
        if not turns:
            self._open_replies()
            return
        first = turns[0]
        if takes_rows(self.backend):
            self._read_rows(self.backend, turns)
            return
        group = [t for t in turns if t.position == first.position and t.tokens == first.tokens][: self.max_batch]
        chunk = first.tokens[first.position : first.position + self._chunk(first)]
        with _Guard(self, group):
            self.backend.prefill([t.slot for t in group], chunk)
            for turn in group:
                turn.position += len(chunk)
                self.tokens_read += len(chunk)
        self._open_replies()

    def _chunk(self, turn: Turn) -> int:
        """Tokens to read now: few for the background while a player waits for words."""
        kept = any(t.lane == PLAYER and (t.reading or self._wants_tokens(t)) for t in self.active)
        size = self.config.prefill_chunk
        return size if turn.lane == PLAYER or not kept else -(-size // _BACKGROUND_PART)

    def _read_rows(self, backend: RowsBackend, turns: list[Turn]) -> None:
        """A chunk for each of as many as a Tick's tokens allow, and at least for the first."""
        chunks = [turn.tokens[turn.position : turn.position + self.config.prefill_chunk] for turn in turns]
        count = max(1, bisect_right(list(accumulate(map(len, chunks))), _READ_PER_TICK))
        turns, chunks = turns[:count], chunks[:count]
        with _Guard(self, turns):
            backend.prefill_rows([turn.slot for turn in turns], chunks)
            for turn, chunk in zip(turns, chunks, strict=True):
                turn.position += len(chunk)
                self.tokens_read += len(chunk)
        self._open_replies()

    def _open_replies(self) -> None:
        """Turns that have read everything end, or take their first checkpoint and feed the cue."""
        read = [turn for turn in self.active if not turn.reading]
        heard = [turn for turn in read if turn.ask is None]
        if takes_rows(self.backend) and len(heard) > 1:
            self._note_finite(self.backend, [turn.slot for turn in heard])
        for turn in heard:
            self._complete(turn, Outcome())
        opening = [turn for turn in read if turn.speech is not None and turn.pending < 0]
        for group in self._together(opening):
            cues = [turn.speech.cue for turn in group if turn.speech is not None]
            with _Guard(self, group):
                self._checkpoint(group)
                feed_rows(self.backend, [turn.slot for turn in group], [cue[:-1] for cue in cues])
                for turn, cue in zip(group, cues, strict=True):
                    turn.pending = cue[-1]

    # ---- choosing

    def _choose(self) -> None:
        turns = [t for t in self.active if isinstance(t.ask, Choice) and not t.reading]
        if turns:
            turn = min(turns, key=Turn.rank)
            with _Guard(self, [turn]):
                for _ in range(_SCORES_PER_TICK):
                    if self._score_one(turn, turn.ask):  # type: ignore[arg-type]  # chosen for being a Choice
                        return

    def _score_one(self, turn: Turn, choice: Choice) -> bool:
        """Ranks one more head or line; True when the best line has been said."""
        if len(choice.head_scores) < len(choice.heads):
            tokens = choice.heads[len(choice.head_scores)][1]
            scores = self.backend.score(turn.slot, (*choice.cue, *tokens))[-len(tokens) :]
            choice.head_scores.append(_finite(float(scores.sum())))
            return False
        head, head_tokens = choice.best_head
        if len(choice.scores) < len(choice.lines):
            tokens = (*choice.lines[len(choice.scores)][1], *choice.end)
            scores = self.backend.score(turn.slot, (*choice.cue, *head_tokens, *tokens))[-len(tokens) :]
            choice.scores.append(_finite(float(scores.mean())))
            return False
        best = choice.scores.index(max(choice.scores))
        text, line = choice.lines[best]
        self.backend.prefill([turn.slot], (*choice.cue, *head_tokens, *line, *choice.end))
        spoken = (*head_tokens, *line)
        self._complete(turn, Outcome("chosen", head, text, spoken, choice=best, scores=tuple(choice.scores)))
        return True

    # ---- speaking

    def _wants_tokens(self, turn: Turn) -> bool:
        speech = turn.speech
        if speech is None or turn.reading or turn.pending < 0 or speech.reader.finish is not None:
            return False
        if turn.pace <= 0 or not turn.heard or not turn.waiting:  # tokens may be ahead that are no text by themselves
            return True
        return len(speech.drawn) - turn.let_out < max(1, self.config.burst // 2)

    def _speak(self) -> None:
        rows = sorted((t for t in self.active if self._wants_tokens(t)), key=Turn.rank)[: self.max_batch]
        if not rows:
            return
        if self.backend.exact_batches:
            self._burst(rows)
        else:  # this machine's kernels give a row other bits in a batch than alone: promise 3 goes before speed
            for turn in rows:
                self._burst([turn])

    def _burst(self, rows: list[Turn]) -> None:
        burst = Burst(rows, self.config.burst)
        with _Guard(self, rows):
            self._checkpoint([turn for turn in rows if turn.speech is not None and turn.speech.drawn])
            batch = self.backend.open([turn.slot for turn in rows])
            try:
                burst.draw(batch)
            finally:
                self.tokens_spoken += burst.spoken
                batch.close()
            self._close_replies([turn for turn in rows if turn not in burst.failed])
        for turn in burst.failed:
            if turn.slot < 0:  # the device raised as well, and failed the whole burst
                continue
            self._fail(turn, BackendError("the model's output was not finite; the State is as before the Turn"))

    def _close_replies(self, turns: list[Turn]) -> None:
        """Feeds what the States still lack of finished Replies: the last token, if kept, and the end."""
        over = [(turn, turn.speech) for turn in turns if turn.speech and turn.speech.reader.finish is not None]
        if takes_rows(self.backend) and over:
            slots = [turn.slot for turn, _ in over]
            feed_rows(self.backend, slots, [speech.missing() for _, speech in over])
            self._note_finite(self.backend, slots)
            return
        for turn, speech in over:
            self._close_reply(turn, speech)

    def _close_reply(self, turn: Turn, speech: Speech) -> None:
        feed_rows(self.backend, [turn.slot], [speech.missing()])

    def _checkpoint(self, turns: list[Turn]) -> None:
        """Keeps a copy of each State; drops those between the first and the newest that a cut could need."""
        slots = [self.take_slot() for _ in turns]
        for turn, slot in zip(turns, slots, strict=True):
            turn.checkpoints.append((len(turn.speech.drawn) if turn.speech else 0, slot))
        self._copy([(turn.slot, slot) for turn, slot in zip(turns, slots, strict=True)])
        for turn in turns:
            let_out = turn.let_out
            while len(turn.checkpoints) > _SLOTS_PER_TURN - 1 or (
                len(turn.checkpoints) > 2 and turn.checkpoints[2][0] <= let_out
            ):
                self.pool.drop(turn.checkpoints.pop(1)[1])

    def _cut(self, turn: Turn, heard: int | None) -> None:
        """Ends a Reply at the last token the player saw."""
        speech = turn.speech
        if speech is None:
            return
        kept = turn.heard_within(heard)
        tokens = kept[-1].tokens if kept and any(item.piece.text for item in kept) else 0
        with _Guard(self, [turn]):
            if tokens < speech.reader.kept or speech.reader.finish is None:
                self._replay(turn, speech, tokens)
            text = "".join(item.piece.text for item in kept)
            self._complete(turn, Outcome("cancelled", speech.reader.head, text, tuple(speech.drawn[:tokens])))

    def _replay(self, turn: Turn, speech: Speech, tokens: int) -> None:
        """Brings the Slot to exactly `tokens` of the Reply and its end; to before the cue when none was heard."""
        self._finite.discard(turn.slot)
        count, slot = max(point for point in turn.checkpoints if point[0] <= tokens)
        self.backend.copy(slot, turn.slot)
        if tokens == 0:
            return
        start = speech.drawn[count - 1 : tokens] if count else [*speech.cue, *speech.drawn[:tokens]]
        feed_rows(self.backend, [turn.slot], [(*start, *speech.reader.end)])

    # ---- letting out

    def _let_out(self, turn: Turn, now: float) -> None:
        """Hands over the pieces whose time has come, and the Turn itself after its last piece."""
        speech = turn.speech
        if speech is None or turn.pending < 0:
            return
        said: list[str] = []
        while turn.waiting and self._is_due(turn, turn.waiting[0], now):
            item = turn.waiting.popleft()
            turn.heard.append(item)
            if not turn.first and item.piece.text:
                turn.first = now
            if self._joins and item.piece.head is None:
                said.append(item.piece.text)
            else:
                turn.listener.piece(item.piece)
        if said:
            turn.listener.piece(Piece(text="".join(said)))
        if speech.reader.finish is not None and not turn.waiting:
            reader = speech.reader
            outcome = Outcome(reader.finish or "", reader.head, reader.text, tuple(speech.drawn[: reader.kept]))
            self._complete(turn, outcome)

    def _is_due(self, turn: Turn, item: Released, now: float) -> bool:
        """True when a piece may go out; speech then waits for as long as the piece takes to say."""
        if turn.pace > 0 and item.piece.head is None:
            if now < turn.due:
                return False
            step = (item.tokens - turn.let_out) / turn.pace
            turn.due = max(turn.due, now - step) + step
        return True

    def _wait(self, now: float) -> float | None:
        if any(t.reading or not isinstance(t.ask, Speech) or self._wants_tokens(t) for t in self.active):
            return 0.0
        if self._queues.any_ready and len(self.active) < self.max_batch:
            return 0.0
        moments = [turn.due for turn in self.active if turn.waiting]
        deadline = self._queues.next_deadline
        moments += [] if deadline is None else [deadline]
        return max(0.0, min(moments) - now) if moments else None

    # ---- ending

    def _note_finite(self, backend: RowsBackend, slots: list[int]) -> None:
        """Looks at many States together; those found finite are not looked at again when their Turns end."""
        self._finite.update(slot for slot, finite in zip(slots, backend.finite_rows(slots), strict=True) if finite)

    def _complete(self, turn: Turn, outcome: Outcome) -> None:
        """Makes the Turn's State the Npc's; one that is not finite would be no memory, now and ever after."""
        with _Guard(self, [turn]):
            known = turn.slot in self._finite
            self._finite.discard(turn.slot)
            if not known and not self.backend.finite(turn.slot):
                raise BackendError("the State became not finite; it is as before the Turn")
        if turn.slot < 0:
            return
        now = self.clock()
        outcome.read = len(turn.tokens)
        outcome.queued_ms = 1e3 * (turn.begun - turn.submitted)
        outcome.first_ms = 1e3 * ((turn.first or now) - turn.submitted)
        outcome.total_ms = 1e3 * (now - turn.submitted)
        mark = turn.listener.commit(outcome)
        turn.timeline.advance(self.pool, Point(turn.slot, mark), self.config.rewind_turns)
        if turn.timeline in self.timelines:
            self.timelines.move_to_end(turn.timeline)
        self.turns_done += 1
        self._leave(turn)
        turn.listener.done(outcome)

    def _fail(self, turn: Turn, error: NpcError) -> None:
        self._finite.discard(turn.slot)
        if turn.slot >= 0:
            self.pool.drop(turn.slot)
        self.turns_failed += 1
        self._leave(turn)
        turn.listener.fail(error)

    def _leave(self, turn: Turn) -> None:
        """Takes an ended Turn off the books and makes the next of its Timeline ready."""
        for _, slot in turn.checkpoints:
            self.pool.drop(slot)
        turn.checkpoints.clear()
        turn.slot = -2
        self.active.pop(turn, None)
        self._queues.leave(turn)


class _Guard:
    """Fails the Turns of a computation that raised, so that the States are as before and the rest goes on."""

    def __init__(self, scheduler: Scheduler, turns: Sequence[Turn]) -> None:
        self._scheduler, self._turns = scheduler, list(turns)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        typed = error if isinstance(error, NpcError) else BackendError(f"the backend failed: {error!r}")
        for turn in self._turns:
            if turn.slot >= 0:
                self._scheduler._fail(turn, typed)
        return True


def _finite(score: float) -> float:
    if score != score or score in (float("inf"), float("-inf")):
        raise BackendError("a line's likelihood was not finite; the State is as before the Turn")
    return score
