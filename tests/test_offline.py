"""A player's machine is left alone: nothing is written to the home folder, nobody is called.

onnxruntime's official builds from 1.29 on write a device id and upload events unless told not to before
their first import; found when a file of theirs appeared among a daemon's open files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from bundles import tiny_bundle

if TYPE_CHECKING:
    from pathlib import Path

TALK = """
import os, sys
from npc_runtime import Runtime
with Runtime(sys.argv[1]) as game:
    game.spawn("smith", "marta")
    game.say("smith", "Hello.", max_tokens=3)
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")] if os.path.isdir("/proc/self/fd") else []
    print(sum(os.path.exists(link) and os.readlink(link).startswith("socket:") for link in links))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle").path


def test_a_talking_character_writes_nothing_home_and_opens_no_socket(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    places = dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "XDG_CACHE_HOME"), str(home))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ORT_") and k != "CI"} | places
    done = subprocess.run(
        [sys.executable, "-c", TALK, str(folder)], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
    assert done.stdout.split() == ["0"]
