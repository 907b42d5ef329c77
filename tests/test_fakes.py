"""The fakes keep the Backend contract themselves, so that what is proved with them means something."""

from __future__ import annotations

import pytest
from fakes import MARTA, VOCAB, FakeBackend, FakeTokenizer, perceived, tokens_in

from npc_runtime.errors import BackendError
from npc_runtime.prompt import ControlLayout, ReplyReader
from npc_runtime.sampling import FAILED, Draw, Sampling
from npc_runtime.state import State


def draw(token: int, position: int = 0, **options: object) -> Draw:
    return Draw(token=token, sampling=Sampling(), seed=1, turn=1, position=position, **options)  # type: ignore[arg-type]


def speak(backend: FakeBackend, slot: int, line: str) -> ReplyReader:
    """One Reply, token by token, as the scheduler would draw it."""
    tokenizer = FakeTokenizer()
    layout = ControlLayout(tokenizer)
    reader = ReplyReader(layout, tokenizer, layout.heads(MARTA.moods, MARTA.actions), 60)
    backend.prefill([slot], layout.player(line))
    batch = backend.open([slot])
    token, position = layout.cue(MARTA)[-1], 0
    while reader.finish is None:
        token = batch.step([draw(token, position, allowed=reader.allowed, banned=reader.banned)])[0]
        reader.push(token)
        position += 1
    batch.close()
    return reader


def test_a_reply_has_a_head_and_readable_speech() -> None:
    reply = speak(FakeBackend(), 0, "hello")
    assert reply.head is not None
    assert reply.head.mood in MARTA.moods
    assert set(reply.text) <= set("abcdefghijklmnopqrstuvwxyz ")
    assert reply.text.strip()


def test_what_was_heard_changes_what_is_said() -> None:
    backend = FakeBackend()
    replies = [speak(backend, slot, line).text for slot, line in enumerate(["I am Tolliver", "I am Anna", "I am Anna"])]
    assert replies[0] != replies[1]
    assert replies[1] == replies[2]


def test_a_batch_equals_one_prefill() -> None:
    backend = FakeBackend()
    backend.prefill([0], [9, 10, 11])
    batch = backend.open([1])
    for token in (9, 10, 11):
        batch.step([draw(token)])
    batch.close()
    assert backend.read(0).equals(backend.read(1))
    assert backend.read(0).equals(perceived([9, 10, 11]))
    assert tokens_in(backend.read(0)) == 3


def test_a_released_row_keeps_the_state_of_the_step_before() -> None:
    backend = FakeBackend()
    batch = backend.open([0, 1])
    batch.step([draw(9), draw(9)])
    assert batch.step([None, draw(10)])[0] == FAILED
    assert backend.read(0).equals(perceived([9]))
    batch.close()
    assert backend.read(1).equals(perceived([9, 10]))


def test_knobs_fail_and_poison() -> None:
    backend = FakeBackend()
    backend.fail["prefill"] = 1
    with pytest.raises(BackendError):
        backend.prefill([0], [9])
    backend.prefill([0], [9])
    backend.poison = {1}
    batch = backend.open([0, 1])
    tokens = batch.step([draw(9), draw(9)])
    batch.close()
    assert tokens[0] >= 0
    assert tokens[1] == FAILED
    assert backend.read(0).finite()
    assert not backend.read(1).finite()


def test_the_fake_polices_the_contract() -> None:
    backend = FakeBackend(slots=4, max_batch=2)
    backend.open([0])
    for breach in (
        lambda: backend.read(0),
        lambda: backend.open([1, 1]),
        lambda: backend.open([1, 2, 3]),
        lambda: backend.read(4),
        lambda: backend.prefill([1], [VOCAB]),
    ):
        with pytest.raises(AssertionError):
            breach()


def test_score_is_a_distribution_and_leaves_the_state() -> None:
    backend = FakeBackend()
    total = sum(float(2.718281828459045 ** backend.score(0, [9, token])[0]) for token in range(VOCAB))
    assert total == pytest.approx(1.0)
    assert backend.read(0).equals(State.zeros(backend.spec))
