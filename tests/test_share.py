from __future__ import annotations

import pytest

from npc_runtime.share import PART, Share


def test_messages_get_their_part_of_a_busy_loop() -> None:
    share, ticked, spent = Share(0.004), 0.0, 0.0
    for _ in range(1000):
        if share.left > 0:
            share.spend(0.003)
            spent += 0.003
        share.earn(0.008, hurry=True)
        ticked += 0.008
    assert spent == pytest.approx(PART * ticked, abs=0.008)


def test_nobody_is_kept_while_no_tick_is_wanted() -> None:
    share = Share(0.004)
    share.spend(1.0)
    share.earn(0.0, hurry=False)
    assert share.left == 0.004


def test_a_dear_message_shuts_the_door_for_a_short_time_only() -> None:
    share = Share(0.004)
    share.spend(60.0)
    share.earn(0.004 / PART + 0.001, hurry=True)
    assert share.left > 0
    share.earn(3600.0, hurry=True)
    assert share.left == 0.004
