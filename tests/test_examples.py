"""Every example runs as it stands, on the default Bundle, and prints what it says it prints."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import npc_runtime
from npc_runtime.config import Config
from npc_runtime.persona import find_persona
from npc_runtime.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from npc_runtime.verbs import Spawned

EXAMPLES = Path(__file__).parent.parent / "examples"
SPOKEN = r"\((?:neutral|happy|amused|fond|sad|angry|afraid|surprised|wary|proud)(?:, \w+)?\): \S"


class Quick(Runtime):
    """A Runtime as the examples open it, but unpaced and with a fixed seed."""

    def __init__(self) -> None:
        super().__init__(config=Config(pace_tokens_per_s=0))

    def spawn(self, npc: str, persona: str, **options: Any) -> Spawned:  # type: ignore[override]
        return super().spawn(npc, persona, **{"seed": 1, **options})


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], list[str]]:
    """Runs an example and gives what it printed."""
    monkeypatch.setattr(npc_runtime, "Runtime", Quick)

    def run(name: str) -> list[str]:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.rstrip("\n").split("\n")

    return run


def test_hello_npc_hears_the_opening_and_three_replies(output: Callable[[str], list[str]]) -> None:
    lines = output("hello_npc.py")
    assert lines[0] == f"Marta Thwaite (neutral): {find_persona('marta').opening}"
    assert lines[1::2] == ["> Hello. I'm Rowan.", "> How much is a knife?", "> Do you remember my name?"]
    assert len(lines) == 7
    assert all(re.match("Marta Thwaite " + SPOKEN, line) for line in lines[2::2]), lines


def test_save_and_reload_goes_on_as_if_nothing_had_happened(output: Callable[[str], list[str]]) -> None:
    lines = output("save_and_reload.py")
    assert re.fullmatch(r"\[saved: [\d,]+ bytes\]", lines[1])
    assert re.fullmatch(r"\[loaded: \d+ tokens remembered, none read again\]", lines[2])
    stayed, came_back = (line.split(":", 1)[1].strip() for line in lines[4:])
    assert stayed
    assert stayed == came_back


def test_tavern_streams_both_characters(output: Callable[[str], list[str]]) -> None:
    lines = output("tavern.py")
    assert lines[0].startswith("* The player comes in out of the rain")
    assert len(lines) == 7
    speakers = [re.match(r"(Marta Thwaite|Bram Nuttall) \(\w+\) (?:\[\w+\] )?\S", line) for line in lines[2::2]]
    assert [found and found[1] for found in speakers] == ["Marta Thwaite", "Bram Nuttall", "Marta Thwaite"]


def test_the_python_of_the_readme_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.setattr(npc_runtime, "Runtime", Quick)
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(block, {})
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert (tmp_path / "slot1.npcsave").is_file()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 40
    assert f"python examples/{path.name}\n" in text
