"""The Unity package under Mono, the runtime that Unity uses: see bindings/unity/com.npcruntime.client/README.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mono
import pytest
from script_player import play

from npc_runtime import errors
from npc_runtime.client import Client

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = mono.ROOT / "bindings" / "vectors" / "script.json"
RUNTIME = mono.PACKAGE / "Runtime"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> mono.Built:
    built = mono.Built(tmp_path_factory.mktemp("mono"))
    built.compile("NpcRuntime.Client.dll", list((RUNTIME / "Client").rglob("*.cs")), docs=True)
    return built


@pytest.fixture(scope="module")
def probe(built: mono.Built) -> mono.Built:
    sources = [*(mono.UNITY / "tests~").glob("*.cs"), mono.PACKAGE / "Tests" / "Runtime" / "FakeDaemon.cs"]
    built.compile("NpcRuntime.Probe.exe", sources, "NpcRuntime.Client.dll", kind="exe")
    return built


@pytest.fixture(scope="module")
def daemon() -> Iterator[Client]:
    with Client.start(command=mono.daemon_command()) as client:
        yield client


def test_client_passes_its_own_tests(built: mono.Built) -> None:
    sources = list((mono.PACKAGE / "Tests" / "Runtime").glob("*.cs"))
    built.compile("NpcRuntime.Client.Tests.dll", sources, "NpcRuntime.Client.dll", built.nunit)
    said = built.test("NpcRuntime.Client.Tests.dll")
    counted = re.search(r"Tests run: (\d+), Errors: 0, Failures: 0.*Ignored: 0", said, re.DOTALL)
    assert counted is not None and int(counted[1]) > 80, said


def test_error_codes_are_the_daemons_and_four_of_its_own(probe: mono.Built) -> None:
    codes = probe.probe("codes")
    own = {"daemon_missing", "daemon_failed", "not_alive", "no_runtime"}
    assert set(codes) == {code for code in errors.BY_CODE} | own


def test_toml_is_read_as_tomllib_reads_it(probe: mono.Built, tmp_path: Path) -> None:
    good = sorted((mono.ROOT / "personas").glob("*.toml"))
    cases = json.loads((mono.UNITY / "tests~" / "toml.json").read_text("utf-8"))
    written = []
    for number, text in enumerate(cases):
        written.append(tmp_path / f"{number}.toml")
        written[-1].write_text(text, "utf-8")
    for path, ours in zip([*good, *written], probe.probe("toml", *map(str, [*good, *written])), strict=True):
        text = path.read_text("utf-8")
        try:
            expected = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            assert isinstance(ours, str), text
        else:
            assert repr(ours) == repr(expected), text


def test_a_whole_conversation_with_a_daemon_of_its_own(probe: mono.Built) -> None:
    told = probe.probe("converse", *mono.daemon_command())
    assert told["restarted"] and told["continued"] and told["heard"] and told["pieces"] > 1


def test_a_delta_costs_little_garbage_and_an_idle_frame_none(probe: mono.Built, record_property: Any) -> None:
    nursery = 2**18
    told = probe.probe("garbage", str(nursery), MONO_GC_PARAMS=f"nursery-size={nursery}")
    for name, value in told.items():
        record_property(name, value)
    print(f"bytes per delta: {told['text']:.0f} of text, {told['decode']:.0f} decoded, {told['stream']:.0f} in all")
    assert told["idle"] == 0
    assert told["decode"] <= told["text"] + 1, "between socket and game a Delta costs its text alone"
    assert told["text"] <= told["stream"] < 1024, "the socket of Mono costs the rest"


def test_the_same_script_gives_the_same_bytes_in_every_language(probe: mono.Built, daemon: Client) -> None:
    endpoint, key = daemon.ready["endpoint"], daemon.ready["key"]
    with Client.connect(endpoint, key, "script-python") as client:
        ours = play(client, json.loads(SCRIPT.read_text("utf-8")))
    theirs = probe.probe("script", endpoint, key, str(SCRIPT))
    assert json.dumps(theirs) == json.dumps(ours)
    assert sum("text" in told for told in ours) > 10
    assert {told["error"] for told in ours if "error" in told} == {
        "npc_exists", "unknown_persona", "nothing_to_rewind", "unknown_npc", "bad_input"
    }  # fmt: skip
    assert [told["finish"] for told in ours if "whole" in told][-1] == "cancelled"
