from __future__ import annotations

from collections import Counter
from typing import Any

import zmq
from fakes import fake_stage

from npc_runtime import wire
from npc_runtime.lobby import FLUSHES, Lobby
from npc_runtime.peer import MAX_ASKS, Peer


class Full:
    """A ROUTER whose connections take nothing until `open`."""

    def __init__(self) -> None:
        self.tried: Counter[bytes] = Counter()
        self.open = False

    def send_multipart(self, parts: list[bytes], flags: int) -> None:
        self.tried[parts[0]] += 1
        if not self.open:
            raise zmq.Again


def lobby(count: int) -> tuple[Lobby, Full]:
    router: Any = Full()
    made = Lobby(fake_stage(), router)
    for number in range(count):
        made.greet(b"%d" % number, wire.Hello(id=1, protocol=[1]), "", 0.0)
    router.tried.clear()
    return made, router


def test_those_who_take_nothing_are_tried_a_few_at_a_time_and_all_in_turn() -> None:
    """Each try costs: sixty vanished clients, tried every round, took a tenth of the daemon's time."""
    made, router = lobby(3 * FLUSHES)
    assert not made.sweep()
    assert router.tried.total() == FLUSHES
    made.sweep()
    made.sweep()
    assert set(router.tried.values()) == {1}
    assert len(router.tried) == 3 * FLUSHES
    made.stage.close()


def test_those_who_take_what_waits_are_all_served_in_one_round() -> None:
    made, router = lobby(3 * FLUSHES)
    router.open = True
    made.sweep()
    assert not made.behind
    made.stage.close()


def peer(router: Any) -> Peer:
    session: Any = None
    return Peer(router, b"1", session, "k", 0.0)


def test_who_asks_on_and_on_and_takes_no_answer_is_cut_off() -> None:
    """A connection that ended while its pipe was full does not show: libzmq says `full`, not `gone`."""
    asker = peer(Full())
    asker.emit(wire.Event(0, "ping"))
    for number in range(MAX_ASKS + 1):
        asker.hear(0.001 * number)
    assert asker.lost
    assert not asker.behind


def test_who_asks_fast_or_reads_in_between_stays() -> None:
    router = Full()
    fast, reading = peer(router), peer(router)
    for one in (fast, reading):
        one.emit(wire.Event(0, "ping"))
    for number in range(2 * MAX_ASKS):
        fast.hear(1e-6 * number)
        reading.hear(float(number))
        router.open = number % 100 == 0
        reading.flush()
        reading.emit(wire.Event(0, "ping"))
    assert not fast.lost
    assert not reading.lost
