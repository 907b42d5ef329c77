"""The Unity package under Mono, the runtime that Unity uses: see bindings/unity/com.npcruntime.client/README.md."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from typing import TYPE_CHECKING, Any

import mono
import pytest
from script_player import play
from test_godot import PROJECT, Godot, find_godot

import npc_runtime
from npc_runtime import errors
from npc_runtime.client import Client

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = mono.ROOT / "bindings" / "vectors" / "script.json"
RUNTIME = mono.PACKAGE / "Runtime"
FORBIDDEN = r"Reflection\.Emit|\bdynamic\b|Activator\.|MakeGeneric|DynamicMethod|\bunsafe\b|Get(Method|Field)\("
pytestmark = pytest.mark.timeout(240)  # the first test may have to fetch Mono
ROW = re.compile(r"^\| `(\w+)` \| (`.*`) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> mono.Built:
    built = mono.Built(tmp_path_factory.mktemp("mono"))
    built.compile("NpcRuntime.Client.dll", list((RUNTIME / "Client").rglob("*.cs")), docs=True)
    return built


@pytest.fixture(scope="module")
def components(built: mono.Built) -> mono.Built:
    stubs, client, unity = mono.UNITY / "stubs~", "NpcRuntime.Client.dll", "UnityEngine.dll"
    built.compile(unity, [stubs / "UnityEngine.cs", stubs / "FakePlayer.cs"])
    built.compile("UnityEditor.dll", [stubs / "UnityEditor.cs"], unity)
    built.compile("NpcRuntime.dll", list((RUNTIME / "Unity").glob("*.cs")), unity, client, docs=True)
    known = [unity, client, "NpcRuntime.dll"]
    built.compile(
        "NpcRuntime.Editor.dll", list((mono.PACKAGE / "Editor").glob("*.cs")), *known, "UnityEditor.dll", docs=True
    )
    built.compile("Tavern.dll", list((mono.PACKAGE / "Samples~").rglob("*.cs")), *known)
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
    assert counted is not None, said
    assert int(counted[1]) > 80


def test_components_pass_their_tests_in_a_player_loop(components: mono.Built) -> None:
    sources = [*(mono.UNITY / "tests~" / "components").glob("*.cs"), *(mono.PACKAGE / "Tests" / "Editor").glob("*.cs")]
    sources.append(mono.PACKAGE / "Tests" / "Runtime" / "FakeDaemon.cs")
    known = ["NpcRuntime.Client", "NpcRuntime", "NpcRuntime.Editor", "Tavern", "UnityEngine", "UnityEditor"]
    components.compile("NpcRuntime.Components.Tests.dll", sources, *(f"{name}.dll" for name in known), components.nunit)
    said = components.test("NpcRuntime.Components.Tests.dll", NPC_RUNTIME_COMMAND=" ".join(mono.daemon_command()))
    assert re.search(r"Tests run: 3[0-9], Errors: 0, Failures: 0.*Ignored: 0", said, re.DOTALL), said


def test_the_console_example_runs(built: mono.Built) -> None:
    source = mono.ROOT / "examples" / "dotnet_console" / "Program.cs"
    built.compile("hello.exe", [source], "NpcRuntime.Client.dll", kind="exe")
    done = built.program("hello.exe", *mono.daemon_command())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    asked = [number for number, line in enumerate(lines) if line == "> How much is a knife?"]
    assert len(asked) == 2
    assert lines[0].startswith("Marta Thwaite: ")
    assert lines[asked[0] + 1 : asked[1] - 1] == lines[asked[1] + 1 :], "the same State gives the same Reply"


def test_readme_names_every_public_member(components: mono.Built) -> None:
    table = dict(ROW.findall((mono.PACKAGE / "README.md").read_text("utf-8")))
    known: dict[str, set[str]] = {}
    for name in ("NpcRuntime.Client", "NpcRuntime"):
        text = (components.folder / f"{name}.xml").read_text("utf-8")
        for kind, member in re.findall(r'name="([MPEF]):NpcRuntime\.(\w+\.[\w#]+)', text):
            owner, _, told = member.partition(".")
            if kind != "F" or owner == "PersonaToml":
                known.setdefault(owner, set()).add(told)
    for owner, members in table.items():
        public = {told for told in known[owner] if not told.startswith("#")} & _public(owner)
        assert set(re.findall(r"`(\w+)`", members)) == public, owner


def _public(owner: str) -> set[str]:
    """Names of the public members of a type, from its source."""
    files = [path for path in RUNTIME.rglob("*.cs") if path.stem == owner or path.stem.startswith(owner + ".")]
    text = "\n".join(path.read_text("utf-8") for path in files)
    return set(re.findall(r"^        public [^=(]*?(\w+)(?: =>| = |;|\(|\n        \{| \{ get)", text, re.MULTILINE))


def test_error_codes_are_the_daemons_and_three_of_its_own(probe: mono.Built) -> None:
    codes = probe.probe("codes")
    own = {"daemon_missing", "daemon_failed", "no_runtime"}
    assert set(codes) == set(errors.BY_CODE) | own


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
    assert told["restarted"]
    assert told["heard"]
    assert told["continued"]
    assert told["pieces"] > 1


def test_a_delta_costs_little_garbage_and_an_idle_frame_none(probe: mono.Built, record_property: Any) -> None:
    nursery = 2**18
    told = probe.probe("garbage", str(nursery), MONO_GC_PARAMS=f"nursery-size={nursery}")
    for name, value in told.items():
        record_property(name, value)
    print(f"bytes per delta: {told['text']:.0f} of text, {told['decode']:.0f} decoded, {told['stream']:.0f} in all")
    assert told["idle"] == 0
    assert told["decode"] <= told["text"] + 1, "between socket and game a Delta costs its text alone"
    assert told["text"] <= told["stream"] < 1024, "the socket of Mono costs the rest"


@pytest.fixture(scope="module")
def python_told(daemon: Client) -> list[dict[str, Any]]:
    with Client.connect(daemon.ready["endpoint"], daemon.ready["key"], "script-python") as client:
        return play(client, json.loads(SCRIPT.read_text("utf-8")))


def test_the_script_goes_through_every_verb_and_five_errors(python_told: list[dict[str, Any]]) -> None:
    assert sum("text" in told for told in python_told) > 10
    assert {told["error"] for told in python_told if "error" in told} == {
        "npc_exists", "unknown_persona", "nothing_to_rewind", "unknown_npc", "bad_input"
    }  # fmt: skip
    assert [told["finish"] for told in python_told if "whole" in told][-1] == "cancelled"


def test_the_same_script_in_csharp_gives_the_same_bytes(
    probe: mono.Built, daemon: Client, python_told: list[dict[str, Any]]
) -> None:
    theirs = probe.probe("script", daemon.ready["endpoint"], daemon.ready["key"], str(SCRIPT))
    assert json.dumps(theirs) == json.dumps(python_told)


def test_the_same_script_in_gdscript_gives_the_same_bytes(
    daemon: Client, python_told: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    godot = Godot(find_godot(), tmp_path)
    project = godot.copy(PROJECT, "project")
    shutil.copy(SCRIPT.with_name("script_player.gd"), project / "tests")
    told = tmp_path / "told.json"
    places = {"ENDPOINT": daemon.ready["endpoint"], "KEY": daemon.ready["key"], "SCRIPT": SCRIPT, "TOLD": told}
    for name, value in places.items():
        monkeypatch.setenv(f"NPC_{name}", str(value))
    done = godot.run(project, "--script", "res://tests/script_player.gd", seconds=60)
    assert done.returncode == 0, done.stdout
    assert "SCRIPT ERROR" not in done.stdout
    theirs = json.loads(told.read_text("utf-8"))
    assert json.dumps(theirs, sort_keys=True) == json.dumps(python_told, sort_keys=True), done.stdout


def test_every_asset_has_its_meta_and_every_meta_its_asset() -> None:
    metas = runpy.run_path(str(mono.UNITY / "tools~" / "metas.py"))
    assets = metas["assets"]()
    for path in assets:
        assert metas["beside"](path).read_text("utf-8") == metas["meta"](path), path
    assert {metas["beside"](path) for path in assets} == set(mono.PACKAGE.rglob("*.meta"))
    guids = [metas["guid"](path) for path in assets]
    assert len(set(guids)) == len(guids)


def test_manifest_and_assemblies_fit_together() -> None:
    manifest = json.loads((mono.PACKAGE / "package.json").read_text("utf-8"))
    assert (manifest["name"], manifest["version"]) == (mono.PACKAGE.name, npc_runtime.__version__)
    assert all((mono.PACKAGE / sample["path"] / "README.md").is_file() for sample in manifest["samples"])
    assert f"## [{manifest['version']}]" in (mono.PACKAGE / "CHANGELOG.md").read_text("utf-8")
    assert (mono.PACKAGE / "LICENSE.md").read_text("utf-8") == (mono.ROOT / "LICENSE").read_text("utf-8")
    assemblies = {path.stem: json.loads(path.read_text("utf-8")) for path in mono.PACKAGE.rglob("*.asmdef")}
    given = {"UnityEngine.TestRunner", "UnityEditor.TestRunner"}
    for name, told in assemblies.items():
        assert told["name"] == name
        assert set(told["references"]) <= {*assemblies, *given}
        assert told["defineConstraints"] == (["UNITY_INCLUDE_TESTS"] if name.endswith("Tests") else [])
        assert told["includePlatforms"] == (["Editor"] if "Editor" in name else [])
    assert assemblies["NpcRuntime.Client"]["noEngineReferences"]
    assert not assemblies["NpcRuntime.Client"]["references"]


@pytest.mark.parametrize("path", sorted(mono.PACKAGE.rglob("*.cs")), ids=lambda path: path.name)
def test_source_is_fit_for_il2cpp_and_for_every_project(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("#nullable enable\n"), "a project's own settings do not reach a package"
    assert len(text.splitlines()) < 450
    shipped = "Tests" not in path.parts
    if shipped:
        assert not re.search(FORBIDDEN, text)
    if "Client" in path.parts:
        assert "UnityEngine" not in text
