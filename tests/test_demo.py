"""The demo proves what it claims: with untrained weights everything holds but the told name."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from bundles import tiny_bundle

from npc_runtime import demo
from npc_runtime.bundle import Bundle, find_bundle
from npc_runtime.demo import Demo, names
from npc_runtime.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

RECALLS = [
    "Marta Thwaite says the told name when asked",
    "Marta Thwaite says the told name after save, kill, restart and load",
]
EXACT = [
    "the loaded memory is the saved one, bit for bit",
    "no token was read again",
    "the same line gets the same Reply",
    "and leads to the same memory, bit for bit",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("demo"), bits=8).path


@pytest.fixture(scope="module")
def played(bundle: Path) -> tuple[Demo, str]:
    """The demo with untrained weights, and what it showed."""
    shown = io.StringIO()
    play = Demo(Screen(shown), str(bundle))
    play.run()
    return play, shown.getvalue()


def held(play: Demo) -> dict[str, bool]:
    return {proof.claim: proof.held for proof in play.proofs}


def test_untrained_weights_hold_every_claim_but_the_told_name(played):
    play, _ = played
    assert held(play) == dict.fromkeys(RECALLS, False) | dict.fromkeys(EXACT, True)
    assert play.passed is False


def test_the_transcript_can_be_read(played):
    play, shown = played
    lines = shown.splitlines()
    assert lines.index(f"> {demo.TOLD}") < lines.index(f"* {demo.SEEN}") < lines.index(f"> {demo.ASKED}")
    assert lines.count(f"> {demo.NEXT}") == 2
    assert "  the daemon was killed; what was said after the save is gone" in lines
    assert [line for line in lines if line.startswith("  ok    ")] == [f"  ok    {claim}" for claim in EXACT]
    assert [line for line in lines if line.startswith("  FAIL  ")] == [f"  FAIL  {claim}" for claim in RECALLS]
    assert len(play.replies) == 7
    for reply in play.replies:
        assert f"  {reply.text}" in lines


def test_the_figures_are_measured(played):
    figures = played[0].figures
    assert figures is not None
    assert figures.reread_tokens == 0
    assert figures.save_bytes > 2 * 19_456
    assert figures.first_text_ms > 0
    assert figures.ms_per_token > 0
    assert len(figures.ready_ms) == 2
    assert all(ms > 0 for ms in figures.ready_ms)


def test_another_memory_after_loading_fails_the_demo(bundle, monkeypatch):
    class Restarted(demo.Client):
        """Loads, and then says something that was not in the save."""

        def load(self, *arguments: Any, **options: Any) -> Any:
            loaded = super().load(*arguments, **options)
            self.observe(demo.SMITH, "A hammer falls.")
            return loaded

    monkeypatch.setattr(demo, "Client", Restarted)
    play = Demo(Screen(io.StringIO()), str(bundle))
    assert play.run() is False
    failed = [claim for claim, good in held(play).items() if not good]
    assert "the loaded memory is the saved one, bit for bit" in failed
    assert "and leads to the same memory, bit for bit" in failed
    assert "no token was read again" in failed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Corvin. You told me.", True),
        ("It's Corvin!", True),
        ("'Corvin', I think", True),
        ("Corvina?", False),
        ("corvin", False),
        ("McCorvin", False),
        ("", False),
    ],
)
def test_a_name_counts_only_as_a_word(text, found):
    assert names(text, "Corvin") is found


def test_a_demo_that_did_not_run_has_not_passed():
    assert Demo(Screen(io.StringIO())).passed is False


def test_the_command_ends_with_json_and_its_status(bundle):
    call = [sys.executable, "-m", "npc_runtime", "demo", "--bundle", str(bundle), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["passed"] is False
    assert [proof["claim"] for proof in told["proofs"] if proof["held"]] == EXACT
    assert told["figures"]["reread_tokens"] == 0
    assert "\x1b" not in done.stdout


def _trained() -> bool:
    return Bundle.load(find_bundle("default"), verify=False).version != "0"


@pytest.mark.skipif(not _trained(), reason="the shipped default Bundle is the untrained stand-in, version 0")
def test_the_default_bundle_uses_the_told_name_after_save_kill_restart_and_load():
    shown = io.StringIO()
    play = Demo(Screen(shown))
    assert play.run(), shown.getvalue()
    assert held(play) == dict.fromkeys([*RECALLS, *EXACT], True)
