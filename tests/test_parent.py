from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from npc_runtime.errors import ConfigError
from npc_runtime.parent import Parent, watch_birth

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its stdin is closed."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_living_process_is_not_gone_until_it_is() -> None:
    with sleeper() as process:
        parent = Parent(process.pid)
        assert not parent.gone()
        process.kill()
        while not parent.gone():  # still a zombie: nobody has waited for it
            pass
    assert parent.gone(), "and stays so"


def test_a_process_that_never_was_is_gone() -> None:
    with sleeper() as process:
        pid = process.pid
    assert Parent(pid).gone()


@pytest.mark.parametrize("pid", [0, -1])
def test_no_process_has_such_an_id(pid: int) -> None:
    with pytest.raises(ConfigError, match="id of a process"):
        Parent(pid)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_where_no_handle_can_be_had_the_start_time_tells() -> None:
    with sleeper() as process:
        gone = watch_birth(process.pid)
        assert not gone()
        process.kill()
        while not gone():
            pass
    assert gone()


def test_a_later_process_of_the_same_id_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    births = iter(["100", "100", "250"])
    monkeypatch.setattr("npc_runtime.parent._birth", lambda pid: next(births))
    gone = watch_birth(4711)
    assert [gone(), gone()] == [False, True]
