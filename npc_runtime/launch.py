"""Daemon: a child process that serves, started and stopped by a client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from npc_runtime.errors import ConnectionLost, reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import IO

TAIL_LINES = 20
"""Lines of the daemon's stderr kept to explain why it ended."""
_MAX_LINE = 64 * 1024
_OWN_WORDS = "What the daemon said is in the text above; mend that and start it again"
_STOP_S = 8.0


class Daemon:
    """A daemon of our own. `ready` is its ready line: endpoint, key, pid, bundle, backend."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.ready: Mapping[str, Any] = {}
        self._said: deque[str] = deque(maxlen=TAIL_LINES)
        self._lines: Queue[bytes] = Queue(maxsize=1)
        self._threads = [
            threading.Thread(target=self._read_out, name="npc-runtime-stdout", daemon=True),
            threading.Thread(target=self._read_err, name="npc-runtime-stderr", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def start(cls, command: Sequence[str], options: Sequence[str], timeout_s: float) -> Daemon:
        """Starts `command serve --parent PID options` and waits for its ready line; `command` may be empty.

        Raises ConnectionLost with the last lines of the daemon's stderr.
        """
        call = [*(command or (sys.executable, "-m", "npc_runtime")), "serve", "--parent", str(os.getpid()), *options]
        apart: dict[str, Any] = {"start_new_session": True}  # a Ctrl-C meant for us must not end the daemon
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, **apart)
        except OSError as error:
            raise ConnectionLost(f"the daemon could not be started as `{call[0]}`: {reason(error)}") from error
        daemon = cls(process)
        try:
            daemon.ready = daemon._wait(timeout_s)
        except BaseException:
            daemon.stop(0.0)
            raise
        return daemon

    def _wait(self, timeout_s: float) -> Mapping[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except Empty:
            raise ConnectionLost(f"the daemon was not ready within {timeout_s:g} s{self.tail()}", _OWN_WORDS) from None
        try:
            ready = json.loads(line)
            return {"endpoint": ready["endpoint"], "key": ready["key"], **ready}
        except (ValueError, KeyError, TypeError, RecursionError):
            status = None if line else self._status()
            how = "said something else than a ready line" if status is None else f"ended with status {status}"
            raise ConnectionLost(f"the daemon {how}{self.tail()}", _OWN_WORDS) from None

    def tail(self) -> str:
        """The last lines of the daemon's stderr, after a colon and a line break; empty when it said nothing."""
        return ":\n" + "\n".join(self._said) if self._said else ""

    def _read_out(self) -> None:
        """Takes the ready line (an empty one when the daemon ends without), then reads on so it is never blocked."""
        with _open(self.process.stdout) as out:
            self._lines.put(out.readline(_MAX_LINE))
            while out.read(_MAX_LINE):
                pass

    def _read_err(self) -> None:
        with _open(self.process.stderr) as err:
            while line := err.readline(_MAX_LINE):
                self._said.append(line.decode("utf-8", "replace").rstrip())

    def stop(self, grace_s: float = _STOP_S) -> int:
        """Ends the daemon: by its own leave within `grace_s`, then by force. Its exit status."""
        if not self._ends(grace_s):
            self.process.terminate()
            if not self._ends(max(grace_s, 0.5)):
                self.process.kill()
        for thread in self._threads:
            thread.join(_STOP_S)
        return self.process.wait()

    def _status(self) -> int | None:
        """The exit status of a daemon that has closed its stdout, after all that it had to say on stderr."""
        self._ends(_STOP_S)
        self._threads[1].join(_STOP_S)
        return self.process.poll()

    def _ends(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def serve_options(bundle: str | Path | None, backend: str, personas: Sequence[str | Path]) -> list[str]:
    """The options of `npc-runtime serve` for these."""
    chosen = [] if bundle is None else ["--bundle", str(bundle)]
    return [*chosen, "--backend", backend, *(part for folder in personas for part in ("--personas", str(folder)))]


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ConnectionLost("the daemon's output is not connected")
    return stream
