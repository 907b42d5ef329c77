"""Runtime: the verbs in process, for Python games, tools and tests. No daemon, no socket.

One worker thread owns the Stage and drives its Ticks; requests reach it by a queue. Every method may be
called from any thread.
"""

from __future__ import annotations

import atexit
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_runtime import errors, wire
from npc_runtime.checks import shown
from npc_runtime.config import Config
from npc_runtime.verbs import Blocking, Verbs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from npc_runtime.pending import Pending
    from npc_runtime.session import Session
    from npc_runtime.stage import Stage


class Worker(Verbs):
    """The verbs of one Session on a thread of its own."""

    def __init__(self, open_stage: Callable[[], Stage], session: str) -> None:
        """Opens the Stage on the new thread, where it stays; raises what that raised."""
        super().__init__()
        self._open_stage, self._name = open_stage, session
        self._changed = threading.Condition()
        self._inbox: list[tuple[wire.Request, Pending[Any]]] = []
        self._open: dict[int, Pending[Any]] = {}
        self._stage: Stage | None = None
        self._failure: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="npc-runtime", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._stage is not None or self._failure is not None)
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    @property
    def stage(self) -> Stage:
        """The Stage; only its unchanging facts (bundle, reason, config) may be read from other threads."""
        if self._stage is None:
            raise errors.ShuttingDown("the Runtime did not open")
        return self._stage

    def close(self) -> None:
        """Cuts what is under way, frees the backend and ends the thread. More than once is harmless."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _send(self, request: wire.Request, pending: Pending[Any]) -> None:
        with self._changed:
            if not self._closing:
                self._inbox.append((request, pending))
                self._changed.notify_all()
                return
        pending.fail(errors.ShuttingDown("the Runtime is closed", "Open another Runtime and load the last save"))

    # ---- the worker's thread

    def _run(self) -> None:
        try:
            stage = self._open_stage()
            session = stage.session(self._name)
        except BaseException as error:  # whoever constructs the Runtime must hear of everything
            self._tell(failure=error)
            return
        self.relative_paths = bool(stage.config.save_dir)
        self._tell(stage=stage)
        try:
            self._loop(stage, session)
            session.cancel_all()
            stage.close()
        finally:
            self._fail_open(errors.ShuttingDown("the Runtime was closed before the request was answered"))

    def _tell(self, stage: Stage | None = None, failure: BaseException | None = None) -> None:
        with self._changed:
            self._stage, self._failure = stage, failure
            self._changed.notify_all()

    def _loop(self, stage: Stage, session: Session) -> None:
        wait: float | None = 0.0
        while True:
            for request, pending in self._next(wait):
                self._handle(stage, session, request, pending)
            if self._closing:
                return
            wait = self._tick(stage, session)

    def _next(self, wait: float | None) -> list[tuple[wire.Request, Pending[Any]]]:
        with self._changed:
            if wait != 0.0 and not self._inbox and not self._closing:
                self._changed.wait(wait)
            arrived, self._inbox = self._inbox, []
        return arrived

    def _handle(self, stage: Stage, session: Session, request: wire.Request, pending: Pending[Any]) -> None:
        self._open[request.id] = pending
        emit = partial(self._emit, pending)
        if isinstance(request, wire.Stats):
            emit(wire.Event(request.id, "ok", stage.stats()))
            return
        try:
            session.handle(request, emit)
        except Exception as error:  # a defect in one request ends that request, not the Runtime
            self._open.pop(request.id, None)
            pending.fail(_defect(error))

    def _emit(self, pending: Pending[Any], event: wire.Event) -> None:
        if event.last:
            self._open.pop(event.id, None)
        pending.feed(event)

    def _tick(self, stage: Stage, session: Session) -> float | None:
        try:
            return stage.tick()
        except Exception as error:
            self._fail_open(_defect(error))
            session.cancel_all()
            return None

    def _fail_open(self, error: errors.NpcError) -> None:
        with self._changed:
            left = [pending for _, pending in self._inbox]
            self._inbox.clear()
        for pending in (*self._open.values(), *left):
            pending.fail(error)
        self._open.clear()


class Runtime(Blocking):
    """Characters in this very process. Close it, or use `with`; the verbs to await are under `aio`."""

    def __init__(
        self,
        bundle: str | Path | None = None,
        backend: str = "auto",
        config: Config | None = None,
        personas: Sequence[str | Path] = (),
        *,
        open_stage: Callable[[], Stage] | None = None,
    ) -> None:
        """bundle: a Bundle's folder or name (None: the default one). backend: `auto`, `onnx`, `cuda`, `reference`.

        personas: folders searched for persona files before the shipped ones. open_stage: makes the Stage
        instead, on the Runtime's thread. Raises BundleError, ConfigError or BackendUnavailable.
        """
        if config is not None and not isinstance(config, Config):
            raise errors.ConfigError(f"`config` must be a Config, got {shown(config)}")
        self.aio: Worker = Worker(open_stage or partial(_open, bundle, config or Config(), backend, personas), "")
        atexit.register(self.close)

    @property
    def config(self) -> Config:
        """The limits in force."""
        return self.aio.stage.config

    @property
    def backend(self) -> str:
        """Which backend computes, and why that one."""
        return f"{self.aio.stage.backend.name}: {self.aio.stage.reason}"

    def close(self) -> None:
        """Ends what is under way and frees the backend. More than once is harmless."""
        atexit.unregister(self.close)
        self.aio.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _open(bundle: str | Path | None, config: Config, backend: str, personas: Sequence[str | Path]) -> Stage:
    from npc_runtime.stage import open_stage

    return open_stage(bundle, config, backend, [Path(folder) for folder in personas])


def _defect(error: Exception) -> errors.NpcError:
    defect = errors.NpcError(f"the request failed: {error!r:.200}")
    defect.__cause__ = error
    return defect
