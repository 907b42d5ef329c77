from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from fakes import FakeBackend, fake_stage
from served import MARTA

from npc_runtime import Runtime, errors
from npc_runtime.config import Config

if TYPE_CHECKING:
    from npc_runtime.stage import Stage


def test_what_the_stage_raises_the_constructor_raises() -> None:
    def fail() -> Stage:
        raise errors.BundleError("no such Bundle")

    before = threading.active_count()
    with pytest.raises(errors.BundleError, match="no such Bundle"):
        Runtime(open_stage=fail)
    assert threading.active_count() == before


def test_a_missing_bundle_is_told_of() -> None:
    with pytest.raises(errors.BundleError, match="no-such-bundle"):
        Runtime("no-such-bundle")


def test_a_config_of_the_wrong_type_is_told_of() -> None:
    with pytest.raises(errors.ConfigError, match="`config` must be a Config, got 3"):
        Runtime(config=3)  # type: ignore[arg-type]
    for wrong in ({"threads": "x"}, {"journal": 5}, {"max_batch": True}, {"keep_npcs": 1}, {"bits": None}):
        with pytest.raises(errors.ConfigError, match="must be of type"):
            Config(**wrong)  # type: ignore[arg-type]
    assert Config(pace_tokens_per_s=4).pace_tokens_per_s == 4


def test_closing_ends_what_is_under_way_and_every_later_verb() -> None:
    backend = FakeBackend(slots=256, end_bias=-60)
    runtime = Runtime(open_stage=lambda: fake_stage(Config(pace_tokens_per_s=1), backend))
    runtime.spawn("marta", MARTA, seed=7)
    stream = runtime.stream("marta", "Tell me all.")
    assert next(iter(stream)).mood
    waiting = runtime.aio.say("marta", "and more")
    runtime.close()
    runtime.close()
    assert stream.reply.finish == "cancelled"
    with pytest.raises(errors.NpcError):
        waiting.result(10)
    with pytest.raises(errors.ShuttingDown):
        runtime.list()
    assert backend.closed


def test_half_a_character_is_refused() -> None:
    with Runtime(open_stage=lambda: fake_stage(Config())) as runtime:
        runtime.spawn("marta", MARTA, seed=7)
        for ask in (runtime.say, runtime.observe):
            with pytest.raises(errors.BadInput, match=r"`text` must not hold half a character .*, got U\+D800"):
                ask("marta", "good \ud800 day")
        assert runtime.list()[0].turns == 0


def test_it_tells_its_backend_and_why() -> None:
    with Runtime(open_stage=lambda: fake_stage(Config(burst=4))) as runtime:
        assert runtime.backend == "fake: a fake, for tests"
        assert runtime.config.burst == 4


def test_a_defect_ends_one_request_not_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = fake_stage(Config(pace_tokens_per_s=0))
    with Runtime(open_stage=lambda: stage) as runtime:
        runtime.spawn("marta", MARTA, seed=7)
        session = stage.sessions[""]
        with monkeypatch.context() as patch:
            patch.setattr(session, "handle", lambda request, emit: 1 // 0)
            with pytest.raises(errors.NpcError, match="ZeroDivisionError") as caught:
                runtime.list()
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with monkeypatch.context() as patch:
            patch.setattr(stage, "tick", lambda: 1 // 0)
            with pytest.raises(errors.NpcError, match="ZeroDivisionError"):
                runtime.say("marta", "hello")
        assert runtime.say("marta", "hello").finish == "end"


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`import npc_runtime` is instant, and all public names together load neither onnxruntime nor torch."""
    loaded = "print(sorted(name for name in sys.modules if name.partition('.')[0] in names))"
    first = f"import sys, npc_runtime; names = {{'npc_runtime', 'numpy', 'zmq', 'msgpack', 'asyncio'}}; {loaded}"
    done = subprocess.run([sys.executable, "-c", first], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['npc_runtime']"
    names = "import sys, npc_runtime; [getattr(npc_runtime, name) for name in npc_runtime.__all__]"
    code = f"{names}; names = {{'torch', 'onnxruntime', 'sentencepiece'}}; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_not_public_is_no_attribute() -> None:
    import npc_runtime

    assert set(npc_runtime.__all__) <= set(dir(npc_runtime))
    with pytest.raises(AttributeError, match="Nonsense"):
        npc_runtime.Nonsense  # type: ignore[attr-defined]  # noqa: B018
