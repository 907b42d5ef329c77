"""What a conversation looks like, on a terminal and on a pipe."""

from __future__ import annotations

import io
import re

import pytest

from npc_runtime.persona import ACTIONS as KNOWN_ACTIONS
from npc_runtime.persona import MOODS as KNOWN_MOODS
from npc_runtime.screen import ACTIONS, MOODS, Screen
from npc_runtime.wire import Reply

SPARKS = "Mind the sparks. If it is broken, put it on the bench. If it is you, the inn is across the lane."


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


def terminal(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, width: int = 50) -> Screen:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Screen(shown)


def plain(shown: io.StringIO) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).splitlines()


def test_on_a_pipe_nothing_is_coloured_or_wrapped(shown):
    screen = Screen(shown)
    assert not screen.live
    screen.said("Marta", "wary", SPARKS * 3, "take")
    screen.note("a note")
    screen.error("no [bold]such[/bold] thing", "try [x]")
    assert shown.getvalue().splitlines() == [
        "Marta, wary  [takes what is offered]",
        "  " + SPARKS * 3,
        "a note",
        "error: no [bold]such[/bold] thing",
        "hint: try [x]",
    ]


@pytest.mark.parametrize("size", [1, 3, 40])
@pytest.mark.parametrize("width", [30, 50, 200])
def test_speech_is_wrapped_at_words_however_it_comes(shown, monkeypatch, size, width):
    screen = terminal(shown, monkeypatch, width)
    screen.begin("Marta", "wary")
    for start in range(0, len(SPARKS), size):
        screen.speech(SPARKS[start : start + size])
    screen.end()
    lines = plain(shown)[1:]
    assert all(line.startswith("  ") and len(line) <= min(width, 88) for line in lines)
    assert " ".join(line.strip() for line in lines) == SPARKS


def test_a_word_longer_than_the_line_is_shown(shown, monkeypatch):
    screen = terminal(shown, monkeypatch, 30)
    screen.said("Marta", "wary", "x" * 70)
    assert "".join(line.strip() for line in plain(shown)[1:]) == "x" * 70


def test_a_cut_line_ends_in_a_dash(shown):
    screen = Screen(shown)
    screen.begin("Marta", "wary")
    screen.speech("Mind the")
    screen.end(cut=True)
    screen.end()
    assert shown.getvalue() == "Marta, wary\n  Mind the -\n"


def test_moods_have_colours_on_a_terminal(shown, monkeypatch):
    screen = terminal(shown, monkeypatch)
    screen.said("Marta", "angry", "Out!")
    screen.said("Marta", "bored", "Well.")
    angry, _, bored, _ = shown.getvalue().splitlines()
    assert angry.startswith("\x1b[1;31mMarta")
    assert bored.startswith("\x1b[1mMarta")


def test_every_default_mood_and_action_has_its_look():
    assert MOODS.keys() == set(KNOWN_MOODS) - {"neutral"}
    assert ACTIONS.keys() == set(KNOWN_ACTIONS)


def test_an_action_of_ones_own_is_shown_as_its_word(shown):
    Screen(shown).said("Perrin", "happy", "In you get.", "row")
    assert shown.getvalue().splitlines()[0] == "Perrin, happy  [row]"


def test_a_table_is_aligned(shown):
    Screen(shown).table([("a", "1"), ("longer", "2")])
    Screen(shown).table([])
    assert shown.getvalue() == "  a       1\n  longer  2\n"


def test_verdicts(shown):
    screen = Screen(shown)
    screen.verdict(True, "it holds")
    screen.verdict(False, "it does not")
    assert shown.getvalue() == "  ok    it holds\n  FAIL  it does not\n"


def test_timings(shown):
    reply = Reply(
        npc="m",
        mood="wary",
        action=None,
        text="x",
        finish="end",
        turn=0,
        seed=1,
        tokens={"read": 7, "spoken": 21, "reread": 0},
        ms={"queued": 0.0, "first": 12.4, "total": 1234.0},
    )
    Screen(shown).timings(reply)
    assert shown.getvalue() == "  7 tokens read, first words after 12 ms, 21 spoken in 1.2 s\n"
