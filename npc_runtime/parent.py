"""Parent: a process whose end is noticed, even when its pid is given to another process afterwards."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from npc_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


class Parent:
    """Watches a process by a handle that the system ties to that very process."""

    def __init__(self, pid: int) -> None:
        if pid < 1:
            raise ConfigError(f"the parent must be the id of a process, got {pid}")
        self.pid = pid
        self._gone = _watch(pid)

    def gone(self) -> bool:
        """True once the process has ended."""
        return self._gone()


def _ended() -> bool:
    return True


def _watch(pid: int) -> Callable[[], bool]:
    """A function that tells whether the process has ended; the handle lives as long as ours does."""
    if sys.platform == "win32":
        return _watch_windows(pid)
    if sys.platform == "darwin":
        return _watch_kqueue(pid)
    return _watch_linux(pid)


def _watch_linux(pid: int) -> Callable[[], bool]:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return _ended
    except (OSError, AttributeError):  # kernels before 5.3 and some sandboxes lack it
        return watch_birth(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda: bool(poll.poll(0))


def watch_birth(pid: int) -> Callable[[], bool]:
    """Compares the process's start time, so that a later process of the same pid is not taken for it."""
    birth = _birth(pid)

    def gone() -> bool:
        return birth is None or _birth(pid) != birth

    return gone


def _birth(pid: int) -> str | None:
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat); None for the dead and the undead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None if not _answers(pid) else "alive"
    return None if fields[0] in "ZX" else fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _watch_kqueue(pid: int) -> Callable[[], bool]:
    if sys.platform != "darwin":
        raise NotImplementedError
    queue = select.kqueue()
    exits = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
    try:
        queue.control([exits], 0, 0)
    except ProcessLookupError:
        return _ended
    seen = False

    def gone() -> bool:
        nonlocal seen
        seen = seen or bool(queue.control([], 1, 0))  # the event is delivered once
        return seen

    return gone


def _watch_windows(pid: int) -> Callable[[], bool]:
    if sys.platform != "win32":
        raise NotImplementedError
    import ctypes

    synchronize, signalled = 0x00100000, 0
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.OpenProcess.restype = ctypes.c_void_p
    kernel32.WaitForSingleObject.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    handle = kernel32.OpenProcess(synchronize, False, pid)
    if not handle:
        return _ended
    return lambda: bool(kernel32.WaitForSingleObject(handle, 0) == signalled)
