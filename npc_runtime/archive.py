"""Archive: Npcs to bytes and files and back. Files are read and written on one side thread."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_runtime import save, wire
from npc_runtime.checks import shown
from npc_runtime.errors import BadInput, BudgetExceeded, NpcError, SaveError, TooLarge, UnknownNpc
from npc_runtime.npc import Mark, Npc
from npc_runtime.persona import persona_from, to_mapping
from npc_runtime.pool import Point
from npc_runtime.prompt import Head, clean
from npc_runtime.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from npc_runtime.backends.base import Backend
    from npc_runtime.bundle import Bundle
    from npc_runtime.cast import Cast, Role
    from npc_runtime.persona import Persona
    from npc_runtime.prompt import Piece
    from npc_runtime.scheduler import Scheduler
    from npc_runtime.session import Session
    from npc_runtime.turn import Outcome

SUFFIX = ".npcsave"
MAX_SAVE_BYTES = 8 * 2**30
_SAVE_BUDGETS = 4
"""State budgets that a save to be loaded may take: it is read into memory whole."""
MAX_PATH = 4096
"""Characters of a file's path."""


class Archive:
    """Answers snapshot, restore, save and load for every Session."""

    def __init__(self, bundle: Bundle, backend: Backend, cast: Cast, scheduler: Scheduler) -> None:
        self.bundle, self.backend, self.cast, self.scheduler = bundle, backend, cast, scheduler
        self._disk = ThreadPoolExecutor(1, "npc-runtime-disk")
        self._open: list[tuple[Future[Any], Callable[[Any], None], Callable[[NpcError], None]]] = []

    def serve(self, session: Session) -> None:
        """Gives a Session its verbs of bytes and files."""
        session.add_verb(wire.Snapshot, lambda request, emit: self._snapshot(session, request, emit))
        session.add_verb(wire.Restore, lambda request, emit: self._restore(session, request, emit))
        session.add_verb(wire.Save, lambda request, emit: self._save(session, request, emit))
        session.add_verb(wire.Load, lambda request, emit: self._load(session, request, emit))

    def settle(self) -> bool:
        """Answers for file work that has ended; True while some has not."""
        for item in list(self._open):
            future, done, failed = item
            if not future.done():
                continue
            self._open.remove(item)
            try:
                done(future.result())
            except NpcError as error:
                failed(error)
            except Exception as error:  # a defect ends its own request, not the Tick of all
                failed(NpcError(f"the request failed: {error!r:.200}"))
        return bool(self._open)

    def close(self) -> None:
        """Waits for file work under way and answers for it."""
        self._disk.shutdown(wait=True)
        self.settle()

    # ---- out

    def record(self, npc: Npc) -> save.NpcRecord:
        """The Npc at rest, as a save holds it."""
        current = npc.timeline.current
        if current is None:
            raise SaveError(f"`{npc.id}` has no State yet")
        mark = current.mark
        return save.NpcRecord(
            id=npc.id,
            persona=to_mapping(npc.persona),
            persona_digest=npc.persona.digest(),
            seed=npc.seed,
            turns=mark.turns,
            tokens=mark.tokens,
            recent=mark.recent,
            log=mark.log,
            state=self.backend.read(current.slot),
        )

    def _snapshot(self, session: Session, request: wire.Snapshot, emit: Callable[[wire.Event], None]) -> None:
        npc = session.npc(request.npc)
        data = save.encode([self.record(npc)], self.bundle.name, self.bundle.hash)
        emit(wire.Event(request.id, "ok", {**session.describe(npc), "data": data}))

    def _save(self, session: Session, request: wire.Save, emit: Callable[[wire.Event], None]) -> None:
        path = self.path(request.path)
        names = list(session.npcs) if request.npcs is None else list(dict.fromkeys(request.npcs))
        records = [self.record(session.npc(name)) for name in names]

        def write() -> int:
            data = save.encode(records, self.bundle.name, self.bundle.hash)
            save.write_atomic(path, data)
            return len(data)

        def done(size: int) -> None:
            emit(wire.Event(request.id, "ok", {"path": str(path), "npcs": names, "bytes": size}))

        self._later(write, done, request.id, emit)

    def _later(
        self, work: Callable[[], Any], done: Callable[[Any], None], id: int, emit: Callable[[wire.Event], None]
    ) -> None:
        self._open.append((self._disk.submit(work), done, lambda error: emit(wire.error_event(id, error))))

    def path(self, text: str) -> Path:
        """The file a request names: inside `save_dir` when that is set, else any absolute `*.npcsave`."""
        folder = self.scheduler.config.save_dir
        if len(text) > MAX_PATH:  # the system would refuse it too, and its error say it all again
            raise TooLarge(f"`path` may hold {MAX_PATH} characters, got {len(text)}")
        path = Path(text)
        if "\0" in text:
            raise BadInput(f"`path` must not hold a null character, got {shown(text)}")
        if path.suffix != SUFFIX:
            raise BadInput(f"`path` must name a `*{SUFFIX}` file, got `{text:.120}`")
        if not folder:
            if not path.is_absolute():
                raise BadInput(f"`path` must be absolute, got `{text:.120}`")
            return path
        root = Path(folder).resolve()
        inside = (root / path).resolve()
        if not inside.is_relative_to(root):
            raise BadInput(f"`path` must lie inside the daemon's save_dir, got `{text:.120}`")
        return inside

    # ---- in

    def revive(self, record: save.NpcRecord, persona: Persona, name: str) -> Npc:
        """The Npc that a record of this Bundle holds, its State in a Slot; it is nobody's yet."""
        if record.state is None:
            raise SaveError(f"the save holds no State for `{record.id}`")
        npc = Npc(name, persona, record.seed)
        slot = self.scheduler.take_slot()
        npc.timeline.current = Point(slot, Mark(record.turns, record.tokens, record.recent, record.log))
        self.backend.write(slot, record.state)
        return npc

    def _restore(self, session: Session, request: wire.Restore, emit: Callable[[wire.Event], None]) -> None:
        saved = self._decode(request.data, request.rebuild)
        if len(saved.records) != 1:
            raise SaveError(f"a snapshot holds one Npc, this one holds {len(saved.records)}")

        def done(loaded: list[Npc]) -> None:
            emit(wire.Event(request.id, "ok", {**session.describe(loaded[0]), "rebuilt": self._foreign(saved)}))

        _Arrival(self, session, saved, {saved.records[0].id: request.npc}, request, emit, done).start()

    def _load(self, session: Session, request: wire.Load, emit: Callable[[wire.Event], None]) -> None:
        path = self.path(request.path)

        def done(loaded: list[Npc]) -> None:
            npcs = [{**session.describe(npc), "rebuilt": foreign} for npc in loaded]
            emit(wire.Event(request.id, "ok", {"npcs": npcs, "rebuilt": [n.id for n in loaded] if foreign else []}))

        foreign = False

        def arrive(saved: save.SaveFile) -> None:
            nonlocal foreign
            foreign = self._foreign(saved)
            names = {record.id: record.id for record in saved.records}
            for name in request.npcs or ():
                if name not in names:
                    raise UnknownNpc(f"the save holds no Npc `{name:.80}`", "The save holds: " + ", ".join(names)[:400])
            chosen = names if request.npcs is None else {name: name for name in request.npcs}
            _Arrival(self, session, saved, chosen, request, emit, done).start()

        def read() -> save.SaveFile:
            return self._decode(save.read(path, self._max_bytes), request.rebuild)

        self._later(read, arrive, request.id, emit)

    @property
    def _max_bytes(self) -> int:
        """Of a save: only some of its Npcs may be wanted, so it may hold more States than there is room for."""
        return min(
            MAX_SAVE_BYTES, _SAVE_BUDGETS * self.scheduler.config.state_budget_mb * 2**20 + save.MAX_HEADER_BYTES
        )

    def _decode(self, data: bytes, rebuild: bool) -> save.SaveFile:
        if rebuild:
            return save.decode(data, self.bundle.spec, None)
        return save.decode(data, self.bundle.spec, self.bundle.hash, self.bundle.name)

    def _foreign(self, saved: save.SaveFile) -> bool:
        return saved.bundle_hash != self.bundle.hash


class _Arrival:
    """Brings the Npcs of a save into a Session: every one or none."""

    def __init__(
        self,
        archive: Archive,
        session: Session,
        saved: save.SaveFile,
        names: dict[str, str],
        request: wire.Restore | wire.Load,
        emit: Callable[[wire.Event], None],
        done: Callable[[list[Npc]], None],
    ) -> None:
        self.archive, self.session, self.request, self.emit, self.done = archive, session, request, emit, done
        self.records = [record for record in saved.records if record.id in names]
        self.names = names
        self.foreign = saved.bundle_hash != archive.bundle.hash
        self.npcs: list[Npc] = []
        self.left = len(self.records)
        self.error: NpcError | None = None

    def start(self) -> None:
        """Checks everything, then places States, or reads the stored turns again when the Bundle is another."""
        self._check()
        personas = [persona_from(record.persona, f"the save's `{record.id}`") for record in self.records]
        if not self.records:
            self.done([])
        for record, persona in zip(self.records, personas, strict=True):
            if self.foreign:
                self._rebuild(record, persona)
            else:
                self._place(record, persona)

    def _check(self) -> None:
        """Raises before anything has changed."""
        fresh = 0
        for record in self.records:
            name = self.names[record.id]
            self.session.check_free(name, self.request.replace)
            fresh += name not in self.session.npcs
        if fresh > self.archive.scheduler.room:
            room = self.archive.scheduler.room
            raise BudgetExceeded(f"{fresh} Npcs would be new and the state budget has room for {room}")

    def _place(self, record: save.NpcRecord, persona: Persona) -> None:
        self._arrived(self.archive.revive(record, persona, self.names[record.id]))

    def _rebuild(self, record: save.NpcRecord, persona: Persona) -> None:
        """Reads persona and stored turns anew; what lay further back than the log is lost, and the answer says so."""
        npc = Npc(self.names[record.id], persona, record.seed)
        cast, scheduler = self.archive.cast, self.archive.scheduler
        tokens = tuple(
            token for kind, text in _after_opening(record, persona) for token in _turn(cast, persona, kind, text)
        )

        def ready(role: Role) -> None:
            if role.timeline.current is None:
                return
            slot = scheduler.pool.hold(role.timeline.current.slot)
            mark = Mark(record.turns, role.tokens + len(tokens), (), record.log)
            npc.timeline.current = Point(slot, mark)
            scheduler.submit(Turn(npc.timeline, tokens, _Rereading(self, npc, mark)))

        cast.play(persona, ready, self._failed)

    def _arrived(self, npc: Npc) -> None:
        self.npcs.append(npc)
        self._settle()

    def _failed(self, error: NpcError) -> None:
        self.error = error
        self._settle()

    def _settle(self) -> None:
        self.left -= 1
        if self.left:
            return
        try:
            if self.error is None:
                self._check()  # a rebuild takes time, and the Session may have changed meanwhile
        except NpcError as error:
            self.error = error
        if self.error is not None:
            for npc in self.npcs:
                npc.timeline.clear(self.archive.scheduler.pool)
            self.emit(wire.error_event(self.request.id, self.error))
            return
        for npc in self.npcs:
            self.session.add(npc)
        self.done(self.npcs)


class _Rereading:
    """Listens to the Turn that reads a foreign save's stored turns."""

    def __init__(self, arrival: _Arrival, npc: Npc, mark: Mark) -> None:
        self._arrival, self._npc, self._mark = arrival, npc, mark

    def begin(self) -> None:
        """Reading depends on nothing before it."""

    def piece(self, piece: Piece) -> None:
        """Reading yields no speech."""

    def commit(self, outcome: Outcome) -> Mark:
        """The mark from the save."""
        return self._mark

    def done(self, outcome: Outcome) -> None:
        """This Npc is back; the bare persona before it is no point to rewind to."""
        while self._npc.timeline.past:
            self._npc.timeline.forget_oldest(self._arrival.archive.scheduler.pool)
        self._arrival._arrived(self._npc)

    def fail(self, error: NpcError) -> None:
        """This Npc could not be rebuilt, so none is loaded."""
        self._npc.timeline.clear(self._arrival.archive.scheduler.pool)
        self._arrival._failed(error)


def _after_opening(record: save.NpcRecord, persona: Persona) -> Sequence[tuple[str, str]]:
    """The stored turns without the opening, which belongs to what the persona's State has read."""
    first = record.log[:1]
    opened = bool(first and persona.opening and first[0][1] == clean(persona.opening))
    return record.log[1:] if opened else record.log


def _turn(cast: Cast, persona: Persona, kind: str, text: str) -> tuple[int, ...]:
    """The tokens of one stored turn."""
    layout = cast.layout
    if kind == "player":
        return layout.player(text)
    if kind == "event":
        return layout.event(text)
    _, mood, *action = kind.split(" ")
    head = Head(mood, action[0] if action else None)
    return (*layout.cue(persona), *layout.head(head), *layout.speech(text), *layout.end)
