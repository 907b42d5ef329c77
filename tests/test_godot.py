"""The Godot addon in a real Godot: fetched by bindings/godot/tools/get_godot, or named by NPC_GODOT.

Everything runs on a copy of the project, so that Godot's caches stay out of the tree. Where no Godot can be
had the tests are skipped with the reason; under CI=true that is a failure.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from npc_runtime import __version__, errors, wire
from npc_runtime.persona import list_personas, load_persona, persona_from, to_mapping

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "bindings" / "godot"
ADDON = PROJECT / "addons" / "npc_runtime"
TAVERN = ROOT / "examples" / "godot_tavern"
SCRIPTS = sorted(path for folder in (PROJECT, TAVERN) for path in folder.rglob("*.gd") if ".godot" not in path.parts)
RAN = re.compile(r"^(\d+) tests, (\d+) failed, (\d+) bad files$", re.MULTILINE)

pytestmark = pytest.mark.timeout(300)


class Godot:
    """A Godot program and the folder that it may write to."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.files = folder / "files"
        self.files.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """Settings and user data of Godot's own kept in our folder; the daemon is that of this checkout."""
        places = {f"XDG_{kind}_HOME": str(self.folder / kind.lower()) for kind in ("DATA", "CONFIG", "CACHE")}
        command = json.dumps([sys.executable, "-m", "npc_runtime"])
        told = {"NPC_RUNTIME_COMMAND": command, "NPC_TEST_FILES": str(self.files), "NPC_TEST_OUT": str(self.out)}
        return {**os.environ, **places, **told, "PYTHONPATH": str(ROOT)}

    @property
    def out(self) -> Path:
        """Where screenshots and figures are kept: NPC_TEST_OUT, or our folder."""
        return Path(os.environ.get("NPC_TEST_OUT") or self.folder)

    def has_screen(self) -> bool:
        """True when a virtual screen can be had here: it needs root or user namespaces."""
        program = self.program.with_name("godot-screen")
        return program.exists() and subprocess.run([program, "--version"], check=False).returncode == 0

    def run(
        self, project: Path, *options: str, screen: bool = False, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs Godot on a project to its end; its log is stdout and stderr together."""
        program = self.program.with_name("godot-screen") if screen else self.program
        return subprocess.run(
            [program, *([] if screen else ["--headless"]), "--path", project, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            env=self.environment,
            check=False,
        )

    def copy(self, source: Path, name: str) -> Path:
        """A copy of a project, links followed, imported and free of script errors."""
        target = self.folder / name
        shutil.copytree(source, target, symlinks=False, ignore=shutil.ignore_patterns(".godot"))
        log = self.run(target, "--import").stdout
        assert "SCRIPT ERROR" not in log, log
        assert not re.search(r"^ERROR", log, re.MULTILINE), log
        return target

    def passes(self, project: Path, *folders: str) -> str:
        """Runs the GDScript tests of folders; fails when one failed, or when none ran. The log."""
        done = self.run(project, "--script", "res://tests/runner.gd", "--", *folders)
        counts = RAN.search(done.stdout)
        assert counts is not None, done.stdout
        assert done.returncode == 0, done.stdout
        assert int(counts[1]) >= 5, done.stdout
        assert (counts[2], counts[3]) == ("0", "0"), done.stdout
        return done.stdout


def find_godot() -> Path:
    """NPC_GODOT, or Debian's own Godot fetched into the user's cache."""
    if os.environ.get("NPC_GODOT"):
        return Path(os.environ["NPC_GODOT"])
    fetch = subprocess.run(
        [PROJECT / "tools" / "get_godot", "--render"], capture_output=True, text=True, timeout=280, check=False
    )
    if fetch.returncode == 0:
        return Path(fetch.stdout.splitlines()[-1])
    why = f"no Godot can be had: {fetch.stderr.strip()[-400:]}"
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def godot(tmp_path_factory: pytest.TempPathFactory) -> Godot:
    if sys.platform != "linux" and not os.environ.get("NPC_GODOT"):
        pytest.skip("get_godot fetches a Godot for Linux only; set NPC_GODOT")
    return Godot(find_godot(), tmp_path_factory.mktemp("godot"))


@pytest.fixture(scope="module")
def project(godot: Godot) -> Path:
    shutil.copy(ROOT / "bindings" / "vectors" / "frames.json", godot.files)
    (godot.files / "personas.json").write_text(json.dumps(persona_cases()), "utf-8")
    (godot.files / "codes.json").write_text(json.dumps(sorted(errors.BY_CODE)), "utf-8")
    shutil.copytree(ROOT / "personas", godot.files / "personas")
    return godot.copy(PROJECT, "project")


def persona_cases() -> list[dict[str, object]]:
    """Persona tables with what npc-runtime itself thinks of them: the addon's checks must agree."""
    good = to_mapping(load_persona(list_personas()["marta"]))
    short = {"name": "Perrin", "role": "ferryman"}
    changes: list[dict[str, object]] = [
        {},
        {"name": ""},
        {"name": "x" * 64},
        {"name": "x" * 65},
        {"name": " \n "},
        {"name": 5},
        {"role": None},
        {"nmae": "Perrin"},
        {"traits": ["a, b"]},
        {"traits": ["a"] * 8},
        {"traits": ["a"] * 9},
        {"traits": "slow"},
        {"knows": ["a; b"]},
        {"knows": ["x" * 241]},
        {"voice": "x\u200by"},
        {"voice": "  two\n lines "},
        {"wants": "é" * 240},
        {"moods": []},
        {"moods": ["happy", "happy"]},
        {"moods": ["Happy"]},
        {"moods": ["sleepy", "neutral"]},
        {"actions": []},
        {"actions": ["row"]},
        {"actions": ["two words"]},
        {"opening": "Hello.", "opening_mood": "sleepy"},
        {"opening_mood": "sleepy"},
        {"opening": "Hello.", "moods": ["happy"]},
        {"fallbacks": ["x"] * 9},
        {"samples": [{"player": "a", "npc": "b"}]},
        {"samples": [{"player": "a"}]},
        {"samples": [{"player": "a", "npc": "b", "mood": "sleepy"}]},
        {"samples": [{"player": "a", "npc": "b", "action": "row"}]},
        {"samples": [{"player": "a", "npc": "b", "action": "trade"}]},
        {"samples": [{"player": "a", "npc": "b", "tone": "c"}]},
        {"samples": {}},
        {"sampling": {"temperature": 0.0}},
        {"sampling": {"temperature": 5.5}},
        {"sampling": {"top_p": 0.0}},
        {"sampling": {"max_tokens": 0}},
        {"sampling": {"heat": 1.0}},
        {"knows": ["x" * 240] * 24, "wants": "y" * 240},
        {"knows": ["é" * 240] * 24},
    ]
    tables = [good, {"role": "ferryman"}, {"name": "Perrin"}, *({**short, **change} for change in changes)]
    return [{"table": table, "good": accepted(table)} for table in tables]


def accepted(table: dict[str, object]) -> bool:
    try:
        persona_from(table, "the test")
    except errors.PersonaError:
        return False
    return True


def test_scripts_are_formatted_and_lint_clean() -> None:
    if os.environ.get("CI") != "true":
        pytest.importorskip("gdtoolkit", reason="gdtoolkit is not installed")
    for tool in (["gdtoolkit.formatter", "--check"], ["gdtoolkit.linter"]):
        call = [sys.executable, "-W", "ignore", "-m", *tool, *map(str, SCRIPTS)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_wire_personas_and_settings(godot: Godot, project: Path) -> None:
    godot.passes(project, "res://tests/unit")


def test_talk_memory_and_faults_with_the_real_daemon(godot: Godot, project: Path) -> None:
    log = godot.passes(project, "res://tests/daemon")
    found = re.search(r"frame cost: (\{.*\})", log)
    assert found is not None, log
    (godot.out / "frame_cost.json").write_text(found[1], "utf-8")
    print(found[0])


def test_a_killed_game_takes_its_daemon_along(godot: Godot, project: Path) -> None:
    """The daemon watches its parent: nothing of the game is asked to stop it."""
    game = subprocess.Popen(
        [godot.program, "--headless", "--path", project, "res://tests/alone.tscn"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=godot.environment,
    )
    with game:
        assert game.stdout is not None
        pid = int(next(line for line in game.stdout if line.startswith("daemon ")).split()[1])
        daemon = os.pidfd_open(pid)
        game.send_signal(signal.SIGKILL)
    with os.fdopen(daemon) as watched:
        assert select.select([watched], [], [], 20) == ([watched], [], [])


def test_plugin_in_a_real_editor(godot: Godot, project: Path) -> None:
    """Enables it, sees preview and dock at work, disables it: nothing is left, twice over."""
    edited = godot.folder / "edited"
    shutil.copytree(project, edited)
    shutil.copytree(edited / "tests" / "editor_check", edited / "addons" / "npc_runtime_check")
    with (edited / "project.godot").open("a", encoding="utf-8") as settings:
        settings.write('\n[editor_plugins]\n\nenabled=PackedStringArray("res://addons/npc_runtime_check/plugin.cfg")\n')
    done = godot.run(edited, "--editor")
    assert done.returncode == 0, done.stdout
    assert "SCRIPT ERROR" not in done.stdout, done.stdout
    assert re.search(r"editor check: \d\d+ checks, 0 failed", done.stdout), done.stdout


def test_tavern_played_by_a_scripted_player(godot: Godot) -> None:
    """The example game, by keys and clicks; under a virtual screen, with pictures, where there is one."""
    tavern = godot.copy(TAVERN, "tavern")
    screen = godot.has_screen()
    renderer = ["--rendering-driver", "opengl3_es"] if screen else []
    done = godot.run(tavern, *renderer, "res://tests/played.tscn", screen=screen, seconds=200)
    assert done.returncode == 0, done.stdout
    assert "SCRIPT ERROR" not in done.stdout, done.stdout
    assert re.search(r"scripted player: \d\d checks, 0 failed", done.stdout), done.stdout
    pictures = sorted(path.name for path in godot.out.glob("tavern_*.png"))
    assert not screen or len(pictures) == 5, pictures


ENABLE = """@tool
extends EditorPlugin


func _enter_tree() -> void:
	_enable.call_deferred()


func _enable() -> void:
	for i: int in 30:
		await get_tree().process_frame
	EditorInterface.set_plugin_enabled("npc_runtime", true)
	ProjectSettings.save()
	get_tree().quit()
"""
"""What the hand of a reader does in the dialog of step 2."""


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language, in order."""
    page = (PROJECT / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_tutorial_step_by_step_in_an_empty_project(godot: Godot) -> None:
    """Then the same exported: a pack with the persona's file in it, run without the project."""
    forge = godot.folder / "forge"
    (forge / "addons" / "enable").mkdir(parents=True)
    (forge / "addons" / "enable" / "plugin.cfg").write_text('[plugin]\nname="enable"\nscript="plugin.gd"\n', "utf-8")
    (forge / "addons" / "enable" / "plugin.gd").write_text(ENABLE, "utf-8")
    settings = 'config_version=5\n[application]\nconfig/name="Forge"\nrun/main_scene="res://tutorial_check.tscn"\n'
    enabled = '[editor_plugins]\nenabled=PackedStringArray("res://addons/enable/plugin.cfg")\n'
    (forge / "project.godot").write_text(settings + enabled, "utf-8")
    shutil.copytree(ADDON, forge / "addons" / "npc_runtime")
    godot.run(forge, "--editor", seconds=60)  # step 2
    saved = (forge / "project.godot").read_text("utf-8")
    assert re.search(r"\[autoload\]\s+NpcRuntime=", saved), saved
    hand = '"res://addons/enable/plugin.cfg"'
    assert f'enabled=PackedStringArray({hand}, "res://addons/npc_runtime/plugin.cfg")' in saved, saved
    shutil.rmtree(forge / "addons" / "enable")
    (forge / "project.godot").write_text(saved.replace(f"{hand}, ", ""), "utf-8")
    (toml,), (scene,), (_, script, more) = blocks("toml"), blocks("tscn"), blocks("gdscript")
    (forge / "marta.toml").write_text(toml, "utf-8")  # steps 3 to 5, and 7
    (forge / "forge.tscn").write_text(scene, "utf-8")
    (forge / "forge.gd").write_text(f"{script}\n\n{more}", "utf-8")
    shutil.copy(PROJECT / "tests" / "tutorial_check.gd", forge)
    check = (
        (TAVERN / "tests" / "played.tscn")
        .read_text("utf-8")
        .replace("res://tests/played.gd", "res://tutorial_check.gd")
    )
    check = check.replace("res://tavern.tscn", "res://forge.tscn").replace('name="Tavern"', 'name="Forge"')
    (forge / "tutorial_check.tscn").write_text(check, "utf-8")
    log = godot.run(forge, "--import").stdout
    assert "SCRIPT ERROR" not in log, log
    assert_played(godot.run(forge))
    preset = '[preset.0]\nname="pack"\nplatform="Linux"\nexport_filter="all_resources"\ninclude_filter="*.toml"\n'
    (forge / "export_presets.cfg").write_text(preset + "[preset.0.options]\n", "utf-8")
    away = godot.folder / "away"
    away.mkdir()
    done = godot.run(forge, "--export-pack", "pack", str(away / "forge.pck"))
    assert (away / "forge.pck").exists(), done.stdout
    assert_played(godot.run(away, "--main-pack", str(away / "forge.pck")))


def assert_played(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout
    assert "SCRIPT ERROR" not in done.stdout, done.stdout
    assert re.search(r"tutorial: streamed \d+ letters, same true, cleared true", done.stdout), done.stdout


def test_api_page_is_what_the_code_says() -> None:
    made = runpy.run_path(str(PROJECT / "tools" / "make_api.py"))["page"]()
    assert (PROJECT / "API.md").read_text("utf-8") == made
    members = [line for line in made.splitlines() if line.startswith("- `")]
    assert len(members) > 80


def test_comments_show_in_the_editors_help(godot: Godot, project: Path) -> None:
    """Godot's own reader of `##` comments finds one on every class, and on what characters can do."""
    folder = godot.folder / "help"
    folder.mkdir()
    godot.run(project, "--doctool", str(folder), "--gdscript-docs", "res://addons/npc_runtime")
    pages = {path.stem: path.read_text("utf-8") for path in folder.rglob("Npc*.xml")}
    assert len(pages) >= 18, sorted(pages)
    bare = [name for name, page in pages.items() if re.search(r"<brief_description>\s*</brief_description>", page)]
    assert bare == []
    methods = re.findall(
        r'<method name="([a-z]\w*)".*?<description>\s*(.*?)\s*</description>', pages["NpcCharacter"], re.S
    )
    assert {name for name, text in methods if not text} == set()
    assert {"say", "choose", "cancel", "fork"} <= {name for name, _ in methods}


def test_versions_of_the_readme_are_those_of_the_code() -> None:
    page = (PROJECT / "README.md").read_text("utf-8")
    addon = re.search(r'version="([\d.]+)"', (ADDON / "plugin.cfg").read_text("utf-8"))
    protocol = re.search(r"const PROTOCOL := (\d+)", (ADDON / "wire" / "npc_connection.gd").read_text("utf-8"))
    assert addon is not None
    assert protocol is not None
    assert int(protocol[1]) == wire.PROTOCOL
    runtime = __version__.rpartition(".")[0]
    assert f"| {addon[1]} | {runtime} | {protocol[1]} | 4.6" in page


def test_readme_lists_every_setting_with_its_default() -> None:
    page = (PROJECT / "README.md").read_text("utf-8")
    code = (ADDON / "npc_settings.gd").read_text("utf-8")
    settings = re.findall(r'"npc_runtime/([\w/]+)": ([^,]+),', code)
    assert len(settings) == 10
    for name, default in settings:
        shown = "empty" if default in ("[]", '""') else default.removesuffix(".0")
        row = next(line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line)
        assert f"| {shown} |" in row, row
