"""Config: what its file, the environment and the command line may say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import pytest

from npc_runtime.config import Config, load_config
from npc_runtime.errors import ConfigError


class BytesPath:
    """A path-like whose path is bytes, as os.fspath allows."""

    def __fspath__(self) -> bytes:
        return b"journal"


def test_each_source_wins_over_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "npc.toml"
    path.write_text("burst = 4\nthreads = 2\nmax_npcs = 9\n", "utf-8")
    config = load_config(path, {"NPC_RUNTIME_THREADS": "3", "NPC_RUNTIME_MAX_NPCS": "10"}, max_npcs=11, bits=None)
    assert (config.burst, config.threads, config.max_npcs, config.bits) == (4, 3, 11, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"burst = ", "cannot be read as TOML"),
        (b"burst = '\xff'", "cannot be read as TOML"),
        (b"burst = " + b"9" * 5000, "cannot be read as TOML"),
        (b"burst = " + b"[" * 20_000 + b"]" * 20_000, "cannot be read as TOML"),
        (b"burst = " + b"[" * 200 + b"]" * 200, "must be of type int, got a list of 1$"),
        (b"bursts = 8", "`bursts` in .* is not an option"),
    ],
    ids=["cut off", "not UTF-8", "endless number", "too deep", "a list", "unknown"],
)
def test_a_file_that_is_no_configuration_is_refused_by_its_path(tmp_path: Path, text: bytes, expected: str) -> None:
    """Lists as deep as Python's stack came out as a RecursionError, and the fault's text was as long as they."""
    path = tmp_path / "npc.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(path, {})
    assert str(path) in caught.value.text
    assert len(caught.value.text) < 1000


def test_folders_may_be_paths_of_any_kind_and_are_kept_as_text(tmp_path: Path) -> None:
    """They were refused: must be of type str, got a PosixPath."""
    folder = str(tmp_path / "journal")
    for config in (
        Config(journal=Path(folder), save_dir=PurePath(folder)),
        replace(Config(), journal=Path(folder), save_dir=Path(folder)),
        load_config(None, {"NPC_RUNTIME_JOURNAL": folder}, save_dir=Path(folder)),
    ):
        assert (config.journal, config.save_dir) == (folder, folder)
        assert config == Config(journal=folder, save_dir=folder)


def test_no_folder_holds_a_null_character() -> None:
    for name in ("save_dir", "journal"):
        with pytest.raises(ConfigError, match=rf"`{name}` must not hold a null character, got 'a\\x00b'"):
            Config(**{name: "a\0b"})


@pytest.mark.parametrize("name", ["journal", "save_dir"])
def test_an_empty_folder_on_the_command_line_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` on the command line must name a folder, got ''"):
        load_config(None, {}, **{name: ""})
    assert load_config(None, {f"NPC_RUNTIME_{name.upper()}": ""}) == Config()


@pytest.mark.parametrize("wrong", [5, None, b"journal", BytesPath()], ids=["number", "None", "bytes", "path of bytes"])
def test_what_is_no_path_is_no_folder(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="`journal` must be of type str, got"):
        Config(journal=wrong)
