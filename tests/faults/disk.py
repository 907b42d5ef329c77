"""Disks that are full or closed: saves and journals answer with typed errors, and nothing that was there is lost.

As root the disk is a tmpfs of a few hundred kilobytes; otherwise, and in the tests, files are limited in size.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
from typing import TYPE_CHECKING, Any

from fakes import fake_stage

from npc_runtime import wire
from npc_runtime.config import Config
from npc_runtime.doctor.patient import Game
from npc_runtime.errors import JournalFailed, SaveFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PERSONA = {"name": "Marta", "role": "innkeeper", "opening": "Come in!"}
NOBODY = 65534


@contextlib.contextmanager
def tmpfs(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of that size, for root."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def small_files(most: int) -> Iterator[None]:
    """Every file of this process ends at `most` bytes: writing on fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run(folder: Path, rounds: int, seed: int, bundle: str = "") -> dict[str, int]:
    """Fills a small disk at random moments of saving and of keeping a journal, and empties it again."""
    if os.geteuid() != 0:
        return {"lost": 1, "needs_root": 1}
    rng = random.Random(seed)
    found = {"saves": 0, "saves_failed": 0, "turns": 0, "turns_failed": 0, "healed": 0, "lost": 0}
    for number in range(rounds):
        with tmpfs(folder / f"disk-{number}", 400) as disk:
            _save_round(disk, rng, found)
        with tmpfs(folder / f"journal-{number}", 400) as disk:
            _journal_round(disk, rng, found)
    return found


def _fill(disk: Path, rng: random.Random) -> Path:
    """Leaves between nothing and 12 kB free."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    left = rng.randrange(0, 12_000)
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - left)))
    return ballast


def _save_round(disk: Path, rng: random.Random, found: dict[str, int]) -> None:
    with Game(fake_stage(Config(pace_tokens_per_s=0))) as game:
        game.spawn(*(f"npc-{i}" for i in range(8)))
        path, ballast = disk / "one.npcsave", disk / "ballast"
        for _ in range(6):
            if rng.random() < 0.5:
                ballast = _fill(disk, rng)
            before = path.read_bytes() if path.exists() else None
            game.say("npc-0", "Hello.")
            try:
                game.ask(wire.Save(path=str(path)))
                found["saves"] += 1
            except SaveFailed:
                found["saves_failed"] += 1
                found["lost"] += (path.read_bytes() if path.exists() else None) != before
                found["lost"] += any(disk.glob(".*.part"))
            ballast.unlink(missing_ok=True)
        game.ask(wire.Save(path=str(path)))
        game.ask(wire.Load(path=str(path), replace=True))


def _journal_round(disk: Path, rng: random.Random, found: dict[str, int]) -> None:
    config = Config(journal=str(disk / "journal"), pace_tokens_per_s=0)
    acknowledged: dict[str, int] = {}
    with Game(fake_stage(config)) as game:
        game.spawn("marta", "tom")
        for _ in range(8):
            ballast = _fill(disk, rng) if rng.random() < 0.4 else disk / "ballast"
            _turn(game, rng.choice(("marta", "tom")), acknowledged, found)
            ballast.unlink(missing_ok=True)
            found["healed"] += _heal(game)
        game.session.close = lambda keep: None  # type: ignore[method-assign]  # as a kill does: nothing is tidied
    with Game(fake_stage(config)) as again:
        turns = {npc.id: npc.mark.turns for npc in again.session.npcs.values()}
        found["lost"] += sum(turns.get(npc, 0) < count for npc, count in acknowledged.items()) + (len(turns) != 2)


def _turn(game: Game, npc: str, acknowledged: dict[str, int], found: dict[str, int]) -> None:
    try:
        game.say(npc, "Hello.")
        found["turns"] += 1
        acknowledged[npc] = game.session.npcs[npc].mark.turns
    except JournalFailed:
        found["turns_failed"] += 1


def _heal(game: Game) -> bool:
    """With room again the next try succeeds."""
    scribe: Any = game.stage.scribe
    failed = scribe.failure is not None
    scribe.flush()
    if scribe.failure is not None:
        raise scribe.failure
    return failed


# ---- folders that are closed to us


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The folder while it may only be read, and this process is somebody to whom that applies: root it is not."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
