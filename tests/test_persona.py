"""Personas: what is written is what is read, what is wrong is told in full, what is shipped is good."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from npc_runtime import persona as persona_module
from npc_runtime.checks import MOST_FAULTS
from npc_runtime.errors import NpcError, PersonaError, UnknownPersona
from npc_runtime.persona import (
    ACTIONS,
    FIELDS,
    MAX_FILE_BYTES,
    MOODS,
    SAMPLE_FIELDS,
    SAMPLING_FIELDS,
    Persona,
    Sample,
    bundled_folder,
    check_persona,
    find_persona,
    list_personas,
    load_persona,
    persona_from,
    to_mapping,
)
from npc_runtime.prompt import clean, persona_lines
from npc_runtime.sampling import Sampling

ROOT = Path(__file__).parent.parent
README = (ROOT / "personas" / "README.md").read_text("utf-8")
SMALL = 'name = "Perrin"\nrole = "ferryman"\n'
SHIPPED = sorted(path.stem for path in (ROOT / "personas").glob("*.toml"))


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(content: str | bytes, name: str = "perrin.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def told(error: NpcError, path: Path) -> str:
    return str(error).replace(f"`{path}`", "FILE")


# ---- reading


def test_the_readme_example_loads_with_every_field(write: Any) -> None:
    example = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert example
    persona = load_persona(write(example[1]))
    assert persona.name == "Perrin Auld"
    assert persona.traits == ("slow", "stubborn", "fond of his ferry")
    assert persona.knows[1] == "his ferry is called the Patient Anne"
    assert persona.samples[1] == Sample(
        "take me over", "Pennies first. Then the river. Then the other side.", action="row"
    )
    assert persona.sampling == Sampling(temperature=0.6, max_tokens=64)
    empty = Persona("", "")
    assert [f.name for f in fields(Persona) if getattr(persona, f.name) == getattr(empty, f.name)] == []


def test_two_fields_are_enough(write: Any) -> None:
    assert load_persona(write(SMALL)) == Persona("Perrin", "ferryman")


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(write: Any) -> None:
    assert load_persona(write("\ufeff" + SMALL.replace("\n", "\r\n"))) == Persona("Perrin", "ferryman")


def test_texts_over_several_lines_become_one(write: Any) -> None:
    persona = load_persona(write(SMALL + 'voice = """\n  long pauses,\n  river talk\n"""'))
    assert persona.voice == "long pauses, river talk"


def test_a_studio_may_name_its_own_moods_and_no_actions(write: Any) -> None:
    persona = load_persona(write(SMALL + 'moods = ["sleepy", "seasick"]\nactions = []\nopening_mood = "sleepy"'))
    assert persona.moods == ("sleepy", "seasick")
    assert persona.actions == ()


def test_a_table_and_back_is_the_same_persona() -> None:
    persona = replace(load_persona(bundled_folder() / "marta.toml"), sampling=Sampling(0.5, 0.8, 0.1, 40))
    table = to_mapping(persona)
    assert persona_from(table, "the save") == persona
    assert persona_from(table, "the save").digest() == persona.digest()
    assert list(table) == list(FIELDS)
    assert table["samples"][1]["action"] == "trade"


def test_a_persona_made_in_python_is_checked_as_a_file_is() -> None:
    assert check_persona(Persona("Perrin ", "ferry\nman")) == Persona("Perrin", "ferry man")
    with pytest.raises(PersonaError) as caught:
        check_persona(Persona("Perrin", "ferryman", moods=()))
    expected = "`moods` must be a list of 1 to 24, each a word of 1 to 24 letters a to z, got a list of 0"
    assert str(caught.value) == f"persona 'Perrin': {expected}"


# ---- digests


def test_the_digest_is_stable() -> None:
    """A changed digest makes every cached persona State and every save's persona another one."""
    persona = Persona("Perrin", "ferryman", samples=(Sample("hi", "Pennies."),))
    assert persona.digest() == "fa8569e1244cd3625ee0520154fe543cee64c8f412272f36f6089af240613ccf"


@pytest.mark.parametrize("field", list(FIELDS))
def test_the_digest_follows_every_field(field: str) -> None:
    changed: dict[str, Any] = {"samples": (Sample("hi", "Pennies."),), "sampling": Sampling(0.1)}
    kind = FIELDS[field].expected
    value = changed.get(field, ("row",) if kind.startswith("a list") else "row")
    persona = Persona("Perrin", "ferryman")
    assert replace(persona, **{field: value}).digest() != persona.digest()


# ---- what is wrong

LONG_LIST = "[" + '"a",' * 25 + "]"
MANY_FACTS = "[" + f'"{"k" * 240}",' * 24 + "]"
SAMPLES = '[[samples]]\nplayer = "hi"\nnpc = "Pennies."\n'
WORDS = "a word of 1 to 24 letters a to z"
FACTS = "a list of up to 24, each text of 1 to 240 characters"

WRONG: dict[str, tuple[str, str]] = {
    "no name": ('role = "ferryman"', "FILE: `name` is missing; it must be text of 1 to 64 characters"),
    "no role": ('name = "Perrin"', "FILE: `role` is missing; it must be text of 1 to 120 characters"),
    "empty name": (SMALL.replace("Perrin", " "), "FILE: `name` must be text of 1 to 64 characters, got ' '"),
    "long name": (
        SMALL.replace("Perrin", "P" * 65),
        "FILE: `name` must be text of 1 to 64 characters, got 65 characters",
    ),
    "name a number": ('name = 7\nrole = "x"', "FILE: `name` must be text of 1 to 64 characters, got 7"),
    "name a date": ('name = 1979-05-27\nrole = "x"', "FILE: `name` must be text of 1 to 64 characters, got a date"),
    "near field": (SMALL + 'trait = ["slow"]', "FILE: 'trait' is not a field; did you mean `traits`?"),
    "capital field": (SMALL + 'Voice = "slow"', "FILE: 'Voice' is not a field; did you mean `voice`?"),
    "strange field": (
        SMALL + "hp = 20",
        "FILE: 'hp' is not a field; the fields are name, role, traits, voice, knows, wants, setting, moods, actions, "
        "opening, opening_mood, samples, fallbacks, sampling",
    ),
    "traits a text": (
        SMALL + 'traits = "slow, sly"',
        "FILE: `traits` must be a list of up to 8, each text of 1 to 60 characters, got 'slow, sly'",
    ),
    "comma in trait": (
        SMALL + 'traits = ["slow, sly"]',
        "FILE: `traits` item 1 must not hold `,`, which parts one item from the next; make it two items",
    ),
    "voice too long": (
        SMALL + f'voice = "{"v" * 301}"',
        "FILE: `voice` must be text of up to 300 characters, got 301 characters",
    ),
    "too many facts": (SMALL + f"knows = {LONG_LIST}", f"FILE: `knows` must be {FACTS}, got a list of 25"),
    "fact too long": (
        SMALL + f'knows = ["a", "{"k" * 241}"]',
        "FILE: `knows` item 2 must be text of 1 to 240 characters, got 241 characters",
    ),
    "two facts in one": (
        SMALL + 'knows = ["a; b"]',
        "FILE: `knows` item 1 must not hold `;`, which parts one item from the next; make it two items",
    ),
    "empty fact": (SMALL + 'knows = [""]', "FILE: `knows` item 1 must be text of 1 to 240 characters, got ''"),
    "control character": (
        SMALL + 'wants = "a \\u0007 bell"',
        "FILE: `wants` must not hold control or invisible characters, got U+0007",
    ),
    "mood with a capital": (SMALL + 'moods = ["Sad"]', f"FILE: `moods` item 1 must be {WORDS}, got 'Sad'"),
    "no moods": (SMALL + "moods = []", f"FILE: `moods` must be a list of 1 to 24, each {WORDS}, got a list of 0"),
    "mood twice": (
        SMALL + 'moods = ["sad", "sad"]',
        "FILE: `moods` must name each word once, got `sad` more than once",
    ),
    "action a phrase": (SMALL + 'actions = ["run away"]', f"FILE: `actions` item 1 must be {WORDS}, got 'run away'"),
    "unknown opening mood": (
        SMALL + 'opening = "Hm."\nopening_mood = "wry"\nmoods = ["happy", "wary"]',
        "FILE: `opening_mood` must be one of the persona's moods (happy, wary), got `wry`; did you mean `wary`?",
    ),
    "opening mood not allowed": (
        SMALL + 'opening = "Hm."\nmoods = ["happy"]',
        "FILE: `opening_mood` must be one of the persona's moods (happy), got `neutral`",
    ),
    "sample mood": (
        SMALL + 'moods = ["neutral"]\n' + SAMPLES + SAMPLES + 'mood = "sad"',
        "FILE: `samples` item 2, `mood` must be one of the persona's moods (neutral), got `sad`",
    ),
    "sample action": (
        SMALL + "actions = []\n" + SAMPLES + 'action = "trade"',
        "FILE: `samples` item 1, `action` must be one of the persona's actions (none), got `trade`",
    ),
    "sample without answer": (
        SMALL + '[[samples]]\nplayer = "hi"',
        "FILE: `samples` item 1, `npc` is missing; it must be text of 1 to 400 characters",
    ),
    "sample near field": (
        SMALL + SAMPLES + 'moood = "sad"',
        "FILE: `samples` item 1, 'moood' is not a field; did you mean `mood`?",
    ),
    "samples a table": (
        SMALL + '[samples]\nplayer = "hi"\nnpc = "Pennies."\n',
        "FILE: `samples` must be a list of up to 8, each a table of `player`, `npc`, `mood`, `action`, got a table",
    ),
    "field below samples": (
        SMALL + SAMPLES + 'wants = "rain"',
        "FILE: `wants` stands below [[samples]] and so belongs to it; write it above the first [table]",
    ),
    "field below sampling": (
        SMALL + '[sampling]\nfallbacks = ["Hm."]',
        "FILE: `fallbacks` stands below [sampling] and so belongs to it; write it above the first [table]",
    ),
    "too many samples": (
        SMALL + SAMPLES * 9,
        "FILE: `samples` must be a list of up to 8, each a table of `player`, `npc`, `mood`, `action`, got a list of 9",
    ),
    "too many fallbacks": (
        SMALL + f"fallbacks = {LONG_LIST}",
        "FILE: `fallbacks` must be a list of up to 8, each text of 1 to 240 characters, got a list of 25",
    ),
    "hot": (
        SMALL + "[sampling]\ntemperature = 9",
        "FILE: `sampling`, `temperature` must be a number from 0 to 5, got 9",
    ),
    "not a number": (
        SMALL + "[sampling]\ntop_p = nan",
        "FILE: `sampling`, `top_p` must be a number from 0.01 to 1, got nan",
    ),
    "endless speech": (
        SMALL + "[sampling]\nmax_tokens = 100000",
        "FILE: `sampling`, `max_tokens` must be a whole number from 1 to 512, got 100000",
    ),
    "too much of everything": (
        SMALL + f"knows = {MANY_FACTS}\n" + (SAMPLES.replace("Pennies.", "é" * 200)) * 7,
        "FILE: all texts together must be at most 8192 bytes of UTF-8, got 8588; the longest is `knows` with 5760",
    ),
    "not TOML": ("name = Perrin", "FILE is not TOML: Invalid value (at line 1, column 8)"),
    "a field twice": (SMALL + 'name = "Odd"', "FILE is not TOML: Cannot overwrite a value (at end of document)"),
    "nested without end": ("a = " + "[" * 60_000, "FILE is not a persona: lists or tables are nested too deep"),
    "a key without end": (".".join("a" * 30_000) + " = 1", "FILE is not a persona: a line holds more than 512 dots"),
    "a key within the limit": (
        ".".join("a" * 512) + " = 1",
        "FILE: 'a' is not a field; the fields are name, role, traits, voice, knows, wants, setting, moods, actions, "
        "opening, opening_mood, samples, fallbacks, sampling",
    ),
    "too large": (SMALL + "#" * MAX_FILE_BYTES, "FILE must be at most 65536 bytes, got more"),
    "empty": ("", "FILE: `name` is missing; it must be text of 1 to 64 characters"),
}


def hinted(error: PersonaError, path: Path) -> str:
    more = len(error.faults) - 1
    told = f"{more} more fault{'s' if more > 1 else ''}: `npc-runtime persona check {path}` tells all"
    return told if more else PersonaError.hint


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_in_a_file_is_told_in_full(case: str, write: Any) -> None:
    content, text = WRONG[case]
    path = write(content)
    with pytest.raises(PersonaError) as caught:
        load_persona(path)
    assert told(caught.value, path) == text
    assert caught.value.hint == hinted(caught.value, path)


MANY_FAULTS = """
rol = "ferryman"
traits = ["slow", "sly, wry", ""]
voice = 7
opening = "Hm."
opening_mood = "wry"
actions = ["row", "Dive"]

[[samples]]
player = "hi"
npc = "Pennies."
mood = "cross"
wants = "rain"

[[samples]]
player = "take me over"
mood = "sleepy"
action = "swim"

[sampling]
temperature = 9
top_p = 2
"""


def test_all_faults_of_a_file_are_told_each_with_its_place(write: Any) -> None:
    """And no second one for the same cause: `swim` may be among the actions once their list is mended."""
    path = write(MANY_FAULTS)
    with pytest.raises(PersonaError) as caught:
        load_persona(path)
    assert [fault.replace(f"`{path}`", "FILE").split(", got")[0] for fault in caught.value.faults] == [
        "FILE: `wants` stands below [[samples]] and so belongs to it; write it above the first [table]",
        "FILE: 'rol' is not a field; did you mean `role`?",
        "FILE: `name` is missing; it must be text of 1 to 64 characters",
        "FILE: `role` is missing; it must be text of 1 to 120 characters",
        "FILE: `traits` item 2 must not hold `,`, which parts one item from the next; make it two items",
        "FILE: `traits` item 3 must be text of 1 to 60 characters",
        "FILE: `voice` must be text of up to 300 characters",
        f"FILE: `actions` item 2 must be {WORDS}",
        "FILE: `samples` item 2, `npc` is missing; it must be text of 1 to 400 characters",
        "FILE: `sampling`, `temperature` must be a number from 0 to 5",
        "FILE: `sampling`, `top_p` must be a number from 0.01 to 1",
        *(f"FILE: {place} must be one of the persona's moods ({', '.join(MOODS)})" for place in (
            "`opening_mood`", "`samples` item 1, `mood`", "`samples` item 2, `mood`",
        )),
    ]  # fmt: skip
    assert caught.value.text == caught.value.faults[0]
    assert caught.value.hint == hinted(caught.value, path) != PersonaError.hint


def test_a_table_of_nothing_but_faults_is_refused_as_soon_as_any(write: Any) -> None:
    tables: list[dict[str, Any]] = [
        {str(number): 1 for number in range(50_000)},
        {"samples": [{"name": "x"}] * 50_000},
        {"name": "x", "role": "y", "samples": [{"mood": "odd"}] * 50_000},
    ]
    for table in tables:
        with pytest.raises(PersonaError) as caught:
            persona_from(table, "the request")
        assert 2 <= len(caught.value.faults) <= 3 * MOST_FAULTS
        assert len(caught.value.text) < 500


def test_a_number_without_end_is_refused(write: Any) -> None:
    path = write("name = " + "9" * 60_000)
    with pytest.raises(PersonaError, match=r"is not TOML|must be text"):  # Python before 3.10.7 reads it
        load_persona(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'name = "P\xe9rrin"', "FILE must be UTF-8 text, got 0xe9 at byte 9"),
        (SMALL.encode("utf-16"), "FILE must be UTF-8 text, got 0xff at byte 0"),
    ],
    ids=["latin", "utf-16"],
)
def test_other_encodings_are_refused(content: bytes, text: str, write: Any) -> None:
    path = write(content)
    with pytest.raises(PersonaError) as caught:
        load_persona(path)
    assert told(caught.value, path) == text


@pytest.mark.parametrize("value", [None, [], "marta", 7], ids=repr)
def test_only_a_table_is_a_persona(value: Any) -> None:
    with pytest.raises(PersonaError, match=r"^the save: a persona must be a table of its fields, got "):
        persona_from(value, "the save")


def test_a_folder_is_not_a_persona(tmp_path: Path) -> None:
    with pytest.raises(PersonaError) as caught:
        load_persona(tmp_path)
    assert told(caught.value, tmp_path) == "FILE must be a file, got a folder"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "perrin.toml"
    os.mkfifo(path)
    with pytest.raises(PersonaError) as caught:
        load_persona(path)
    assert told(caught.value, path) == "FILE must be a plain file, got a device or pipe"


def test_a_file_that_may_not_be_read_says_so(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(SMALL)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(persona_module.os, "open", refuse)
    with pytest.raises(PersonaError) as caught:
        load_persona(path)
    assert told(caught.value, path) == "FILE cannot be read: Permission denied"


# ---- finding


def test_a_name_is_found_in_the_users_folder_first(write: Any, tmp_path: Path) -> None:
    write(SMALL, "marta.toml")
    assert find_persona("marta").name == "Marta Thwaite"
    assert find_persona("marta", [tmp_path]).name == "Perrin"
    assert find_persona("bram", [tmp_path]).name == "Bram Nuttall"


def test_of_two_folders_the_first_wins(write: Any, tmp_path: Path) -> None:
    write(SMALL, "a/perrin.toml")
    write(SMALL.replace("Perrin", "Odd"), "b/perrin.toml")
    assert find_persona("perrin", [tmp_path / "a", tmp_path / "b"]).name == "Perrin"
    assert find_persona("perrin", [tmp_path / "b", tmp_path / "a"]).name == "Odd"


def test_an_edited_file_is_another_persona_at_once(write: Any, tmp_path: Path) -> None:
    path = write(SMALL)
    before = find_persona("perrin", [tmp_path])
    stamp = path.stat()
    write(SMALL.replace("ferryman", "boatman "))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = find_persona("perrin", [tmp_path])
    assert (before.role, after.role) == ("ferryman", "boatman")
    assert before.digest() != after.digest()


def test_a_path_must_look_like_one(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(SMALL, "zzz.toml")
    monkeypatch.chdir(tmp_path)
    for given in (path, str(path), "zzz.toml", "./zzz.toml"):
        assert find_persona(given).name == "Perrin"
    with pytest.raises(UnknownPersona) as caught:
        find_persona("zzz")
    assert str(caught.value) == "there is no persona `zzz` in the bundled personas"


def test_an_unknown_name_suggests_a_near_one(tmp_path: Path) -> None:
    with pytest.raises(UnknownPersona) as caught:
        find_persona("martha", [tmp_path])
    assert str(caught.value) == (
        f"there is no persona `martha` in `{tmp_path}` or the bundled personas; did you mean `marta`?"
    )


@pytest.mark.parametrize("name", ["", "two words", "märta", ".", "..", "marta\n", "C:marta", "m" * 65, "mar\x00ta"])
def test_a_name_is_plain(name: str) -> None:
    with pytest.raises(UnknownPersona, match=r"^a persona's name must be 1 to 64 letters, digits, `-` or `_`, got '"):
        find_persona(name)


@pytest.mark.parametrize("path", ["no/marta.toml", "../marta", "..\\marta"])
def test_a_path_that_leads_nowhere_says_so(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownPersona) as caught:
        find_persona(path)
    assert str(caught.value) == f"there is no persona file `{Path(path)}`"


def test_a_path_with_a_null_byte_is_refused() -> None:
    with pytest.raises(PersonaError, match=r"^there can be no persona file 'marta\\x00\.toml': embedded null byte$"):
        find_persona("./marta\x00.toml")


def test_a_link_out_of_the_folder_is_no_persona_of_it(write: Any, tmp_path: Path) -> None:
    outside = write(SMALL, "outside/perrin.toml")
    inside = write(SMALL, "inside/odd.toml").parent
    try:
        (inside / "stolen.toml").symlink_to(outside)
        (inside / "again.toml").symlink_to(inside / "odd.toml")
        (inside / "nowhere.toml").symlink_to(inside / "nothing.toml")
    except OSError:
        pytest.skip("this system lets nobody make links")
    ours = [name for name in list_personas([inside]) if name not in SHIPPED]
    assert ours == ["again", "odd"]
    with pytest.raises(UnknownPersona):
        find_persona("stolen", [inside])


def test_listing_reads_nothing_and_passes_over_what_no_name_can_find(write: Any, tmp_path: Path) -> None:
    write("not TOML", "broken.toml")
    write(SMALL, "two words.toml")
    (tmp_path / "folder.toml").mkdir()
    found = list_personas([tmp_path, tmp_path / "missing"])
    assert list(found) == sorted([*SHIPPED, "broken"])
    assert found["broken"] == tmp_path / "broken.toml"


def test_the_installed_package_holds_the_personas_beside_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "npc_runtime"
    monkeypatch.setattr(persona_module, "__file__", str(package / "persona.py"))
    monkeypatch.setattr(persona_module.resources, "files", lambda _: package)
    assert bundled_folder() == package / "personas"


# ---- what is shipped


def test_there_are_many_and_they_are_listed() -> None:
    assert len(SHIPPED) >= 14
    assert list(list_personas()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_persona_is_whole(name: str) -> None:
    persona = find_persona(name)
    assert 5 <= len(persona.knows) <= 9
    assert 2 <= len(persona.samples) <= 4
    assert 2 <= len(persona.fallbacks) <= 3
    assert all((persona.traits, persona.voice, persona.wants, persona.setting, persona.opening))
    assert set(persona.moods) <= set(MOODS)
    assert set(persona.actions) <= set(ACTIONS)
    assert name == name.lower()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_persona_is_written_as_the_model_was_taught(name: str) -> None:
    """Plain ASCII with straight quotes, facts without a full stop, answers of a game's length."""
    persona = find_persona(name)
    lines = [persona.opening, *persona.fallbacks, *(sample.npc for sample in persona.samples)]
    texts = [*persona_lines(persona), *lines, *(sample.player for sample in persona.samples)]
    assert [text for text in texts if not text.isascii() or clean(text) != text] == []
    assert [fact for fact in persona.knows if fact.endswith(".") or len(fact) > 90] == []
    assert [line for line in lines if line[-1] not in ".!?" or len(line.split()) > 25] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_no_shipped_sample_tells_who_the_player_is(name: str) -> None:
    """Samples lie in the State as earlier Turns; a name told there would be remembered."""
    told_of_self = re.compile(r"\b(my name|i'm|i am|im|call me|my)\b", re.IGNORECASE)
    assert [sample.player for sample in find_persona(name).samples if told_of_self.search(sample.player)] == []


# ---- the README


def test_the_readme_tells_every_field_and_its_limit() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", README, re.MULTILINE)
    checks = [*FIELDS.items(), *SAMPLE_FIELDS.items(), *SAMPLING_FIELDS.items()]
    assert sorted(rows) == sorted((name, check.expected) for name, check in checks)


def test_the_readme_tells_the_defaults() -> None:
    assert f"Moods: {', '.join(MOODS)}." in README
    assert re.sub(r" \([^)]*\)", "", README).count(f"Actions: {', '.join(ACTIONS)}.") == 1
    sampling = Sampling()
    for text in (
        f"{sampling.temperature:g} is the default",
        f"default {sampling.top_p:g}",
        f"default {sampling.repetition:g}",
        f"default {sampling.max_tokens}",
    ):
        assert text in README


def test_the_readme_lists_whom_it_ships() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", README, re.MULTILINE)
    assert rows == [(name, f"{(p := find_persona(name)).name}, {p.role}") for name in SHIPPED]
