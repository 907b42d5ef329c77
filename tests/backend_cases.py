"""What any Backend with Slots resident on a device must do, whatever the device; a test file gives the `backend`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundles import CONFIG

from npc_runtime.backends.reference import ReferenceModel
from npc_runtime.constraint import Trie
from npc_runtime.errors import BackendError
from npc_runtime.sampling import FAILED, Course, Draw, Sampling, pick_from_logits
from npc_runtime.state import State, StateSpec
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.backends.cuda import CudaBackend
    from npc_runtime.bundle import Bundle

TOKENS = np.random.default_rng(3).integers(0, CONFIG.vocab_size, 150).tolist()
FORMS = {"cpu": 1e-5, "cuda": 0.02}
"""RMS ratio between States of one text read in other chunks: another order of sums; on a GPU bf16 between them too."""


def reference(bundle: Bundle) -> ReferenceModel:
    """In fp64, over the same weights: what the codes stand for."""
    names = dense_shapes(bundle.config, bundle.tied)
    return ReferenceModel({name: bundle.dense(name) for name in names}, bundle.config, np.float64)


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - exact) ** 2)) / exact.std())


def draw(token: int, position: int = 0, temperature: float = 0.0, **more: Any) -> Draw:
    return Draw(token, Sampling(temperature=temperature), seed=7, turn=1, position=position, **more)


def start(backend: CudaBackend, slots: Sequence[int]) -> None:
    """Gives Slots different pasts, none of them empty."""
    for slot in slots:
        backend.clear(slot)
        backend.prefill([slot], TOKENS[slot : slot + 5 + slot])


def feed(backend: CudaBackend, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Steps a Batch through given tokens, one list per row; logits (steps, rows, V)."""
    batch = backend.open(slots)
    logits = []
    for tokens in zip(*rows, strict=True):
        batch.step([draw(token) for token in tokens])
        logits.append(backend.bucket(len(slots)).logits[: len(slots)].cpu().numpy().copy())
    batch.close()
    return np.stack(logits)


class Cases:
    """One test for each thing promised."""

    @pytest.mark.parametrize("cuts", [[], [2, 3], [64], [7, 77, 79]], ids=str)
    def test_chunks_give_the_state_of_steps(self, backend: CudaBackend, cuts: list[int]) -> None:
        start(backend, [0])
        backend.copy(0, 1)
        for first, last in zip([0, *cuts], [*cuts, len(TOKENS)], strict=True):
            backend.prefill([0], TOKENS[first:last])
        for token in TOKENS:
            backend.prefill([1], [token])
        chunks, steps = backend.read(0), backend.read(1)
        bound = FORMS[backend.store.device.type]
        assert relative_error(chunks.ssm, steps.ssm) < bound
        assert relative_error(chunks.conv, steps.conv) < bound

    def test_a_token_read_alone_gives_the_bits_of_a_step(self, backend: CudaBackend) -> None:
        start(backend, [0])
        backend.copy(0, 1)
        for token in TOKENS[:9]:
            backend.prefill([0], [token])
        feed(backend, [1], [TOKENS[:9]])
        assert backend.read(0).equals(backend.read(1))

    @pytest.mark.parametrize("rows", [2, 3, 5, 8])
    def test_a_batch_gives_the_bits_of_each_row_alone(self, backend: CudaBackend, rows: int) -> None:
        slots = list(range(rows))
        said = [TOKENS[row * 10 : row * 10 + 6] for row in slots]
        start(backend, slots)
        together = feed(backend, slots, said)
        states = [backend.read(slot) for slot in slots]
        start(backend, slots)
        for row, slot in enumerate(slots):
            assert feed(backend, [slot], [said[row]])[:, 0].tobytes() == together[:, row].tobytes()
            assert backend.read(slot).equals(states[row])
        assert backend.exact_batches

    def test_rows_read_together_give_the_bits_of_each_alone(self, backend: CudaBackend) -> None:
        slots, rows = [0, 1, 2, 3, 4], [TOKENS[:20], TOKENS[5:12], TOKENS[:1], TOKENS[9:79], TOKENS[30:32]]
        start(backend, slots)
        for slot in slots:
            backend.copy(slot, slot + 8)
        backend.prefill_rows(slots, rows)
        for slot, tokens in zip(slots, rows, strict=True):
            backend.prefill([slot + 8], tokens)
            assert backend.read(slot).equals(backend.read(slot + 8))

    def test_one_event_to_many_gives_the_bits_of_each_alone(self, backend: CudaBackend) -> None:
        start(backend, [0, 1, 2])
        backend.copy(1, 5)
        backend.prefill([0, 1, 2], TOKENS[:20])
        backend.prefill([5], TOKENS[:20])
        assert backend.read(1).equals(backend.read(5))
        assert not backend.read(0).equals(backend.read(1))

    def test_slots_nobody_asked_about_stay(self, backend: CudaBackend) -> None:
        start(backend, range(8))
        before = {slot: backend.read(slot).digest() for slot in (0, 2, 4, 6, 7)}
        backend.prefill_rows([5, 1, 3], [TOKENS[:7], TOKENS[:3], TOKENS[4:5]])
        feed(backend, [3, 5, 1], [TOKENS[:2], TOKENS[2:4], TOKENS[4:6]])
        backend.score(4, TOKENS[:30])
        assert {slot: backend.read(slot).digest() for slot in before} == before

    def test_score_is_the_log_probability_and_changes_nothing(self, backend: CudaBackend) -> None:
        start(backend, [0])
        before = backend.read(0)
        tokens = [TOKENS[i % 90] for i in range(158)]
        scores = backend.score(0, tokens)
        assert backend.read(0).equals(before)
        logits = feed(backend, [0], [tokens[:-1]])[:, 0].astype(np.float64)
        expected = logits[np.arange(len(tokens) - 1), tokens[1:]] - np.log(np.exp(logits).sum(axis=1))
        assert relative_error(scores, expected) < FORMS[backend.store.device.type]
        assert backend.score(0, tokens[:1]).shape == (0,)
        assert backend.score(0, []).shape == (0,)

    def test_a_released_row_keeps_its_state_and_the_others_go_on(self, backend: CudaBackend) -> None:
        start(backend, [0, 1, 2])
        for slot in (0, 1, 2):
            backend.copy(slot, slot + 3)
        batch = backend.open([0, 1, 2])
        batch.step([draw(5), draw(6), draw(7)])
        assert batch.step([None, draw(8), draw(9)])[0] == FAILED
        assert batch.step([None, draw(10), draw(11)])[0] == FAILED
        assert batch.step([None, None, draw(12)])[:2] == [FAILED, FAILED]
        assert batch.step([None, None, None]) == [FAILED] * 3
        batch.close()
        batch.close()
        for slot, said in ((3, [5]), (4, [6, 8, 10]), (5, [7, 9, 11, 12])):
            for token in said:
                backend.prefill([slot], [token])
            assert backend.read(slot - 3).equals(backend.read(slot))

    def test_two_batches_and_a_prefill_do_not_disturb_each_other(self, backend: CudaBackend) -> None:
        start(backend, [0, 1, 2])
        for slot in (0, 1, 2):
            backend.copy(slot, slot + 3)
        one, two = backend.open([0]), backend.open([1])
        one.step([draw(5)])
        backend.prefill([2], TOKENS[:9])
        two.step([draw(6)])
        one.close()
        two.close()
        for slot, said in ((3, [5]), (4, [6]), (5, TOKENS[:9])):
            backend.prefill([slot], said)
            assert backend.read(slot - 3).equals(backend.read(slot))

    @pytest.mark.parametrize(
        "rules",
        [
            {},
            {"banned": frozenset(range(300))},
            {"banned": frozenset(range(1000))},
            {"allowed": (3, 50, 200)},
            {"allowed": (9,)},
            {"allowed": tuple(range(0, 300, 3))},
            {"recent": tuple(range(64))},
            {"recent": tuple(range(100)) * 9},
            {"temperature": 1.5, "banned": frozenset({1, 2, 3}), "recent": (5, 5, 9)},
            {"temperature": 1.5, "allowed": (3, 50, 200)},
        ],
        ids=["free", "most", "all", "allowed", "forced", "wide", "recent", "long", "hot", "hot allowed"],
    )
    def test_tokens_are_drawn_as_from_whole_logits(self, backend: CudaBackend, rules: dict[str, Any]) -> None:
        for position in range(4):
            start(backend, [0, 1])
            asked = draw(TOKENS[position], position, **rules)
            batch = backend.open([0, 1])
            picked = batch.step([asked, asked])
            logits = backend.bucket(2).logits.cpu().numpy()
            batch.close()
            assert picked == [pick_from_logits(asked, logits[row]) for row in (0, 1)]

    def test_a_run_draws_what_single_steps_draw(self, backend: CudaBackend) -> None:
        """Heads under a trie, the end forbidden until there is a text, repetition control, an end and a length."""
        end, blank, banned = 7, frozenset(range(0, backend.vocab_size, 2)), frozenset({11, 13})
        trie = Trie([((20, 30), "a"), ((20, 31, 40), "b"), ((21,), "c"), ((22, 23, 24, 25), "d")])
        rows = 5
        start(backend, range(rows))
        for slot in range(rows):
            backend.copy(slot, slot + 8)
        runs = [Follower(slot, trie, end, blank, banned, 6 + slot) for slot in range(rows)]
        steps = [Follower(slot, trie, end, blank, banned, 6 + slot) for slot in range(rows)]
        fast, slow = backend.open(range(rows)), backend.open(range(8, 8 + rows))
        lengths = set()
        for _ in range(60):
            for row, tokens in zip(runs, fast.run([row.course() for row in runs], 4), strict=True):
                lengths.add(len(tokens))
                for token in tokens:
                    row.push(token)
            if all(row.over for row in runs):
                break
        while not all(row.over for row in steps):
            tokens = slow.step([None if row.over else row.course().draw for row in steps])
            for row, token in zip(steps, tokens, strict=True):
                if not row.over:
                    row.push(token)
        assert [row.drawn for row in runs] == [row.drawn for row in steps]
        for slot in range(rows):
            assert backend.read(slot).equals(backend.read(slot + 8))
        assert {0, 1, 4} <= lengths  # over, stopped by a blank id, gone on to the end of the run

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("part", ["conv", "ssm"])
    def test_a_broken_state_fails_alone(self, backend: CudaBackend, part: str, value: float) -> None:
        start(backend, [0, 1])
        backend.copy(1, 2)
        broken = backend.read(0)
        getattr(broken, part)[0, 0, 3] = value
        backend.write(0, broken)
        batch = backend.open([0, 1])
        picked = [batch.step([draw(5, i), draw(6, i)]) for i in range(3)]
        batch.close()
        for _ in range(3):
            backend.prefill([2], [6])
        assert [row[0] for row in picked] == [FAILED] * 3
        assert all(row[1] != FAILED for row in picked)
        assert backend.read(1).equals(backend.read(2))
        backend.clear(0)

    def test_tokens_outside_the_vocabulary_are_refused(self, backend: CudaBackend) -> None:
        start(backend, [0])
        before = backend.read(0)
        for tokens in ([3, backend.vocab_size], [-1, 3]):
            with pytest.raises(BackendError, match="tokens are from 0 to"):
                backend.prefill([0], tokens)
            with pytest.raises(BackendError, match="tokens are from 0 to"):
                backend.score(0, tokens)
            batch = backend.open([0])
            with pytest.raises(BackendError, match="tokens are from 0 to"):
                batch.step([draw(max(tokens, key=abs) if tokens[0] > 0 else -1)])
            batch.close()
        assert backend.read(0).equals(before)

    def test_slots_are_copied_cleared_and_checked(self, backend: CudaBackend) -> None:
        start(backend, [0, 1])
        backend.copy(0, 9)
        backend.copy_rows([0, 1, 0], [10, 11, 12])
        states = [backend.read(slot) for slot in (0, 1)]
        assert [states[i].equals(backend.read(slot)) for i, slot in ((0, 9), (0, 10), (1, 11), (0, 12))] == [True] * 4
        backend.prefill_rows([], [])
        assert backend.finite_rows([]) == []
        backend.clear(9)
        assert not backend.read(9).vector.any()
        with pytest.raises(ValueError, match="State of this model"):
            backend.write(0, State.zeros(StateSpec(1, 2, 3, 4)))
        with pytest.raises(ValueError, match="1 to 8 rows"):
            backend.open([])

    def test_a_state_goes_to_the_host_and_back_exactly(self, backend: CudaBackend) -> None:
        vector = np.random.default_rng(2).standard_normal(backend.spec.size, dtype=np.float32)
        vector[:4] = [0.0, -0.0, 1e-42, 3e38]
        state = State(backend.spec, vector)
        backend.write(6, state)
        assert backend.read(6).equals(state)


class Follower:
    """A Reply under way, as the scheduler and its reader would follow it."""

    def __init__(
        self, slot: int, trie: Trie[str], end: int, blank: frozenset[int], banned: frozenset[int], most: int
    ) -> None:
        self.slot, self.end, self.blank, self.banned, self.most = slot, end, blank, banned, most
        self.place: Trie[str] | None = trie
        self.drawn: list[int] = []
        self.spoken = 0
        self.text = self.over = False

    def course(self) -> Course | None:
        """The way on from here; None when the Reply is over."""
        if self.over:
            return None
        early = None if self.text else self.banned | {self.end}
        recent = ((50, 51, 52) * 20 + tuple(self.drawn))[-64:]
        rules = Sampling(temperature=1.2 if self.slot % 2 else 0.0, repetition=0.5)
        head = None if self.place is None else self.place.allowed
        asked = Draw(
            self.drawn[-1] if self.drawn else 3,
            rules,
            (self.slot << 61) + 5,
            self.slot,
            len(self.drawn),
            head,
            frozenset() if head else early or self.banned,
            () if head else recent,
        )
        return Course(asked, self.place, early, self.banned, self.blank, self.end, self.most - self.spoken, recent)

    def push(self, token: int) -> None:
        """Takes a drawn token."""
        assert token != FAILED
        self.drawn.append(token)
        if self.place is not None:
            self.place = self.place.child(token)
            self.place = None if self.place.value else self.place
            return
        if token == self.end:
            self.over = True
            return
        self.spoken += 1
        self.text |= token not in self.blank
        self.over = self.spoken >= self.most
