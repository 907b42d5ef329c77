"""A crowd that talks: everybody is answered again and again, and the times are those of the clock."""

from __future__ import annotations

import pytest
from fakes import FakeBackend, fake_stage

from npc_runtime.bench_crowd import Audience, crowd
from npc_runtime.config import Config
from npc_runtime.errors import BackendError

CONFIG = Config(pace_tokens_per_s=0.0, rewind_turns=0, max_queued=64)


class Clock:
    """A millisecond passes with each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def test_everybody_talks() -> None:
    stage = fake_stage(CONFIG, FakeBackend(slots=400))
    audience = Audience(stage, 12, Clock())
    audience.spawn()
    audience.counting = True
    tokens = audience.run(2.0)
    assert tokens == stage.scheduler.tokens_spoken > 200
    assert len(audience.first) == len(audience.mean) == len(audience.longest) >= 12
    assert all(first > 0 for first in audience.first)
    assert all(mean > 0 for mean in audience.mean)
    assert all(longest >= first for first, longest in zip(audience.first, audience.longest, strict=True))
    assert len(stage.sessions["crowd"].npcs) == 12
    stage.close()


def test_what_a_run_finds() -> None:
    stage = fake_stage(CONFIG, FakeBackend(slots=400))
    found = crowd(stage, 4, 0.2, 0.05)
    stage.close()
    assert found["npcs"] == 4
    assert found["tokens_per_s"] > 100
    for name in ("first_ms", "token_ms", "wait_ms"):
        assert found[name] == sorted(found[name])
        assert len(found[name]) == 3
    assert found["device_share"] == 0
    assert found["host_us"] == pytest.approx(1e6 / found["tokens_per_s"], rel=0.05)


def test_a_crowd_that_fails_is_no_figure() -> None:
    backend = FakeBackend(slots=400)
    audience = Audience(fake_stage(CONFIG, backend), 3)
    audience.spawn()
    backend.fail["step"] = 1
    with pytest.raises(BackendError, match="a Npc of the crowd failed"):
        audience.run(1.0)
    assert audience.stage.scheduler.turns_failed == 1
