"""A chat: what is shown, what each command does, and that a cut is remembered as it was heard."""

from __future__ import annotations

import io
import os
import re
import select
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundles import tiny_bundle
from fakes import SPEC, FakeBackend, fake_stage
from served import served
from typer.testing import CliRunner

from npc_runtime import save
from npc_runtime.cli import app
from npc_runtime.client import Client
from npc_runtime.config import Config
from npc_runtime.errors import ConnectionLost, TooLarge, UnknownPersona
from npc_runtime.runtime import Runtime
from npc_runtime.screen import Screen
from npc_runtime.talk import Talk, _piped, _prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from npc_runtime.verbs import Blocking

PERRIN = 'name = "Perrin Auld"\nrole = "ferryman"\nopening = "Three pennies."\nopening_mood = "amused"\n'


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime(open_stage=partial(fake_stage, Config(rewind_turns=4))) as opened:
        yield opened


@pytest.fixture
def personas(tmp_path: Path) -> Path:
    (tmp_path / "perrin.toml").write_text(PERRIN, "utf-8")
    return tmp_path


def talked(
    verbs: Blocking, *lines: str, persona: str = "marta", personas: tuple[Path, ...] = ()
) -> tuple[int, list[str]]:
    """The status and what was shown of a talk through a pipe."""
    shown = io.StringIO()
    status = Talk(verbs, Screen(shown), personas, seed=5).run(
        persona, io.StringIO("".join(f"{line}\n" for line in lines))
    )
    return status, shown.getvalue().splitlines()


def log(verbs: Blocking, npc: str = "marta") -> tuple[tuple[str, str], ...]:
    """What an Npc has heard and said, as its save tells."""
    return save.decode(verbs.snapshot(npc), SPEC, None).records[0].log


def test_a_piped_talk_is_a_plain_transcript(runtime):
    status, shown = talked(runtime, "Good evening.", "", "  ", "/quit now", "never said")
    assert status == 0
    assert shown[0] == "  Marta Thwaite, blacksmith"
    assert shown[1] == "Marta Thwaite, neutral"
    assert shown[2].startswith("  Mind the sparks.")
    assert shown[3] == "> Good evening."
    assert re.fullmatch(r"Marta Thwaite, [a-z]+(  \[.+\])?", shown[4])
    (_, heard), (kind, said) = log(runtime)[1:]
    assert heard == "Good evening."
    assert kind.startswith("npc ")
    assert shown[5] == f"  {said}"
    assert re.fullmatch(r"  \d+ tokens read, first words after \d+ ms, \d+ spoken in \d+\.\d s", shown[6])
    assert len(shown) == 7
    assert "\x1b" not in "".join(shown)


def test_an_action_is_shown_with_the_mood(runtime):
    _, shown = talked(runtime, *(f"Line {i}." for i in range(12)))
    heads = [line for line in shown if re.fullmatch(r"Marta Thwaite, [a-z]+  \[.+\]", line)]
    acted = [kind for kind, _ in log(runtime) if kind.count(" ") == 2]
    assert acted
    assert len(heads) == len(acted)


def test_save_and_load_go_on_as_before(runtime, tmp_path):
    file = tmp_path / "evening"
    _, shown = talked(
        runtime, "My name is Corvin.", f"/save {file}", "/state", "Goodbye.", f"/load {file}", "/state", "Goodbye."
    )
    states = [shown[i + 1 : i + 7] for i, line in enumerate(shown) if line == "> /state"]
    assert [row.split()[0] for row in states[0]] == ["memory", "saved", "lived", "rewind", "seed", "digest"]
    assert [row for row in states[0] if "rewind" not in row] == [row for row in states[1] if "rewind" not in row]
    said = [shown[i + 1 : i + 3] for i, line in enumerate(shown) if line == "> Goodbye."]
    assert said[0] == said[1]
    size = file.with_suffix(".npcsave").stat().st_size
    assert f"  saved marta: {size:,} bytes in {file}.npcsave" in shown
    assert "  loaded marta (1 turn); now with Marta Thwaite" in shown


def test_a_save_of_a_name_too_long_is_refused_and_the_talk_goes_on(runtime):
    status, shown = talked(runtime, f"/save /tmp/{'x' * 300}", "/save evening\0", "/state")
    assert status == 1
    assert sum("File name too long" in line for line in shown) == 1
    assert sum("null character" in line for line in shown) == 1
    assert "hint: Choose a shorter name" in shown
    assert shown[-1].startswith("  digest")


def test_rewind_takes_turns_back(runtime):
    status, shown = talked(runtime, "One.", "Two.", "Three.", "/rewind 2", "/rewind", "/rewind", "/rewind two")
    assert "  back at 1 turn; 1 more can be taken back" in shown
    assert "  back at 0 turns; 0 more can be taken back" in shown
    assert "error: turns to go back: 1 asked for, 0 kept" in shown
    assert "error: `/rewind` takes a number of turns, got `two`" in shown
    assert status == 1
    assert [text for kind, text in log(runtime) if kind == "player"] == []


def test_turning_to_nobody_names_those_met(runtime):
    assert talked(runtime, "/npc")[1][-2:] == ["error: `/npc` needs a name", "hint: So far you have met marta"]


def test_a_fork_goes_its_own_way(runtime):
    talked(runtime, "One.", "/fork other", "Only you.", "/npc marta", "Only me.", "/npc nobody")
    heard = {npc: [text for kind, text in log(runtime, npc) if kind == "player"] for npc in ("marta", "other")}
    assert heard == {"marta": ["One.", "Only me."], "other": ["One.", "Only you."]}


def test_events_are_seen_and_not_answered(runtime):
    _, shown = talked(runtime, "/event A bell rings.")
    assert "* A bell rings." in shown
    assert shown[-1].startswith("  Marta Thwaite has seen it; ")
    assert log(runtime)[-1] == ("event", "A bell rings.")


def test_a_choice_is_said_and_scored(runtime):
    status, shown = talked(runtime, "/choose Yes. | No, and go away. |  | Ask the miller.", "/choose")
    kind, chosen = log(runtime)[-1]
    assert kind.startswith("npc ")
    assert chosen in ("Yes.", "No, and go away.", "Ask the miller.")
    at = shown.index(f"  {chosen}")
    assert re.fullmatch(r"  -[\d.]+ Yes\.  -[\d.]+ No, and go away\.  -[\d.]+ Ask the miller\.", shown[at + 1])
    assert status == 1


def test_what_a_command_lacks_is_told_in_the_words_of_the_prompt(runtime):
    lines = ("/event", "/fork marta", "/choose Yes.", "/rewind 9")
    status, shown = talked(runtime, *lines)
    assert status == 1
    errors, hints = ([line for line in shown if line.startswith(kind)] for kind in ("error: ", "hint: "))
    assert len(errors) == len(lines)
    for line, hint in zip(lines, hints, strict=True):
        assert "/" in hint, (line, hint)
    assert not any("`text`" in error or "`to`" in error for error in errors)


def test_a_persona_file_beside_is_pointed_at(runtime, personas, monkeypatch, tmp_path):
    (tmp_path / "hesper.toml").write_text((personas / "perrin.toml").read_text())
    monkeypatch.chdir(tmp_path)
    _, shown = talked(runtime, "/persona hesper", "/persona zzz")
    assert [line for line in shown if line.startswith("hint: A file")] == [
        "hint: A file of one lies here: name it, hesper.toml"
    ]


def test_another_persona_by_name_or_file_and_back(runtime, personas):
    _, shown = talked(runtime, f"/persona {personas / 'perrin.toml'}", "Across?", "/persona marta", "/persona perrin")
    at = shown.index("  Perrin Auld, ferryman")
    assert shown[at + 1 : at + 3] == ["Perrin Auld, amused", "  Three pennies."]
    assert shown[-3:] == [
        "  now with Marta Thwaite (marta)",
        "> /persona perrin",
        "  now with Perrin Auld (perrin)",
    ]
    assert log(runtime, "perrin")[1] == ("player", "Across?")


def test_a_folder_of_ones_own_is_searched_here(runtime, personas):
    _, shown = talked(runtime, persona="perrin", personas=(personas,))
    assert shown[0] == "  Perrin Auld, ferryman"


def test_again_reads_the_persona_from_disk_anew(runtime, personas):
    class Edited(io.StringIO):
        """Edits the persona after the first line has been read."""

        def readline(self, limit: int = -1) -> str:
            line = super().readline(limit)
            if line.startswith("/again"):
                (personas / "perrin.toml").write_text(PERRIN.replace("Three", "Four"), "utf-8")
            return line

    shown = io.StringIO()
    Talk(runtime, Screen(shown), (personas,)).run("perrin", Edited("Hello.\n/again\n"))
    assert "  Four pennies." in shown.getvalue().splitlines()
    assert log(runtime, "perrin") == (("npc amused", "Four pennies."),)


def test_help_names_every_command(runtime):
    _, shown = talked(runtime, "/help", "/frobnicate")
    named = {match[1] for line in shown if (match := re.match(r"  (/[a-z]+)", line))}
    known = {word.strip() for word in shown[-1].removeprefix("hint: Known are ").split(",")}
    assert named == known
    assert {"/save", "/load", "/rewind", "/fork", "/state", "/event", "/choose", "/persona", "/quit", "/help"} <= named


def test_a_refused_line_is_told_and_the_talk_goes_on(runtime):
    status, shown = talked(runtime, "x" * 5000, "Still there?")
    assert status == 1
    assert "error: a line may hold 4096 characters, got 5000" in shown
    assert shown[-1].endswith(" s")


def test_an_unknown_persona_is_an_error(runtime):
    with pytest.raises(UnknownPersona):
        talked(runtime, persona="nobody-of-this-name")


class Impatient(Screen):
    """A player who presses Ctrl-C once they have seen some characters."""

    live = True

    def __init__(self, out: io.StringIO, patience: int) -> None:
        super().__init__(out)
        self.seen: list[str] = []
        self.patience = patience

    def begin(self, name: str, mood: str, action: str | None = None) -> None:
        self.seen.append("")
        super().begin(name, mood, action)

    def speech(self, text: str) -> None:
        if len(self.seen) == 2 and len(self.seen[1]) >= self.patience:
            raise KeyboardInterrupt
        self.seen[-1] += text
        super().speech(text)


def test_ctrl_c_cuts_the_line_and_what_was_seen_is_remembered():
    backend = FakeBackend(slots=256, end_bias=-60.0)
    with Runtime(open_stage=partial(fake_stage, Config(pace_tokens_per_s=25.0), backend)) as runtime:
        shown = io.StringIO()
        screen = Impatient(shown, 12)
        Talk(runtime, screen).run("marta", io.StringIO("Tell me everything.\n"))
        said = [text for kind, text in log(runtime) if kind.startswith("npc ")]
    assert said == screen.seen
    assert 12 <= len(said[1]) < 96  # letters, of a line that would have had 96
    assert "  cut; they remember it up to here" in shown.getvalue().splitlines()


def test_a_cut_before_the_first_word_leaves_nothing():
    with Runtime(open_stage=partial(fake_stage, Config(), FakeBackend(slots=256, end_bias=-60.0))) as runtime:
        shown = io.StringIO()
        talk = Talk(runtime, Screen(shown))
        talk.meet("marta")
        stream = runtime.stream("marta", "Hm?", pace=0.0)
        stream.result()
        talk._cut(0)
        assert shown.getvalue().splitlines()[-1] == "  cut before a word was said"


def test_a_talk_through_a_daemon_ends_with_it():
    with served() as daemon, Client.connect(daemon.endpoint, daemon.key) as client:
        status, shown = talked(client, "Good evening.")
        assert (status, shown[3]) == (0, "> Good evening.")
        talk = Talk(client, Screen(io.StringIO()))
        talk.meet("bram")
        daemon.server.stop()
        daemon.thread.join()
        daemon.server.close()
        with pytest.raises(ConnectionLost):
            talk._take("Anybody?")


def test_a_second_talk_in_a_session_goes_on_where_the_first_ended():
    with served() as daemon:
        with Client.connect(daemon.endpoint, daemon.key, "mine") as client:
            talked(client, "Good evening.")
            before = client.snapshot("marta")
        with Client.connect(daemon.endpoint, daemon.key, "mine") as client:
            shown = io.StringIO()
            talk = Talk(client, Screen(shown))
            talk.meet("marta")
            assert shown.getvalue() == "  Marta Thwaite goes on after 1 turn; /again starts over\n"
            assert client.snapshot("marta") == before
            talk._take("/again")
            assert client.list()[0].turns == 0


def test_the_command_talks_in_a_named_session(monkeypatch):
    sessions = []
    monkeypatch.setattr(Talk, "run", lambda talk, persona: sessions.append(talk.verbs.aio.session) or 0)
    with served() as daemon:
        call = ["talk", "--connect", daemon.endpoint, "--key", daemon.key]
        for more in ([], ["--session", "mine"]):
            assert CliRunner().invoke(app, call + more).exit_code == 0
    assert sessions == ["talk", "mine"]


@pytest.mark.parametrize(
    ("typed", "lines", "told"),
    [
        ([KeyboardInterrupt, KeyboardInterrupt, "never"], [], 1),
        ([KeyboardInterrupt, "Hello.", KeyboardInterrupt, "", KeyboardInterrupt, EOFError], ["Hello.", ""], 3),
        (["Hello.", EOFError, "never"], ["Hello."], 0),
    ],
    ids=["twice in a row", "lines between", "Ctrl-D"],
)
def test_one_ctrl_c_at_the_prompt_tells_how_to_leave_and_a_second_leaves(typed, lines, told, monkeypatch):
    """The first one left at once, with all that was not saved, though it was meant for a Reply that had just ended."""
    keys = iter(typed)

    def pressed(prompt: str) -> str:
        key = next(keys)
        if isinstance(key, str):
            return key
        raise key

    monkeypatch.setattr("builtins.input", pressed)
    notes: list[str] = []
    assert list(_prompt(notes.append)) == lines
    assert notes == ["  /quit leaves, and so does Ctrl-C once more"] * told


# ---- the command itself


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("talk"), bits=8).path


def command(bundle: Path) -> list[str]:
    return [sys.executable, "-m", "npc_runtime", "talk", "bram", "--seed", "3", "--bundle", str(bundle)]


def test_the_command_reads_a_pipe_that_is_not_utf_8(bundle):
    piped = b"Good evening.\n\xff\xfe?\n/state\n"
    done = subprocess.run(command(bundle), input=piped, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode("utf-8")
    assert "> Good evening.\n" in shown
    assert "> \ufffd\ufffd?\n" in shown
    assert re.search(r"^  digest +[0-9a-f]{16}$", shown, re.MULTILINE)
    assert "\x1b" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_ctrl_c_cuts_and_ctrl_d_leaves(bundle):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(bundle), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_own_terminal
    )
    os.close(theirs)
    seen = bytearray()
    try:
        _until(ours, seen, rb"\n\x1b\[1m> \x1b\[0m$")
        os.write(ours, b"Tell me everything.\n")
        _until(ours, seen, rb"everything.*Bram Nuttall[^\n]*\n  [^\n]{4}")
        os.write(ours, b"\x03")
        _until(ours, seen, rb"remember it up to here.*spoken in.*> \x1b\[0m$")
        _asleep(process.pid)
        os.write(ours, b"\x03")
        _until(ours, seen, rb"/quit leaves, and so does Ctrl-C once more.*> \x1b\[0m$")
        os.write(ours, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _asleep(pid: int) -> None:
    """Waits until the process waits: readline loses a Ctrl-C that comes between its prompt and its read."""
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text("utf-8").rpartition(")")[2].split()[0] != "S":
        os.sched_yield()


def _until(terminal: int, seen: bytearray, pattern: bytes) -> None:
    """Reads until what was seen so far matches."""
    while not re.search(pattern, seen, re.DOTALL):
        if not select.select([terminal], [], [], 30)[0]:
            raise AssertionError(f"{pattern!r} did not come; seen: {bytes(seen)!r}")
        seen += os.read(terminal, 4096)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    class Endless:
        def readline(self, limit: int) -> str:
            return "\0" * limit

    with pytest.raises(TooLarge, match="a line of input may hold 65536 characters"):
        list(_piped(Endless()))


def test_a_line_too_long_is_refused_and_the_talk_goes_on() -> None:
    lines = list(_piped(io.StringIO("hello\n" + "a" * 200_000 + "\n" + "b" * 65536 + "\nbye\n")))
    assert [line[:1] for line in lines] == ["h", "a", "b", "b"]
    assert [len(line) for line in lines] == [6, 65536, 65536, 4]


def test_a_line_too_long_is_told_in_the_words_of_the_prompt(runtime):
    _, shown = talked(runtime, "a" * 5000, "a" * 200_000, "/event " + "a" * 5000)
    errors = [line for line in shown if line.startswith("error: ")]
    limit = "error: a line may hold 4096 characters, got"
    assert errors == [f"{limit} 5000", f"{limit} 65536 or more", f"{limit} 5000"]
    assert shown.count("hint: Shorten it, or say it in several lines") == 3
