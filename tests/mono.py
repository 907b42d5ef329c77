"""Mono for the tests of bindings/unity: fetched once into the user's cache, and what was compiled with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgpack
import pytest

ROOT = Path(__file__).resolve().parent.parent
UNITY = ROOT / "bindings" / "unity"
PACKAGE = UNITY / "com.npcruntime.client"
FETCH_S = 150


@lru_cache(maxsize=1)
def _fetched() -> tuple[Path | None, str]:
    """The folder with `mono`, `csc9` and `nunit`, or why there is none."""
    command = ["bash", str(UNITY / "tools~" / "get-mono")]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if run.returncode:
        return None, run.stderr.strip()[-300:]
    return Path(run.stdout.strip().splitlines()[-1]).parent, ""


def prefix() -> Path:
    """Where Mono lies; skips the test where it cannot be had, and fails it in CI."""
    found, why = _fetched()
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"Mono could not be had: {why}")
        pytest.skip(f"Mono could not be had: {why}")
    return found


def run(command: list[str], *, timeout_s: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in the repository's root with our package importable."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": tempfile.gettempdir(), **variables}
    pipe = subprocess.PIPE
    return subprocess.run(
        command, cwd=ROOT, env=environ, stdout=pipe, stderr=pipe, text=True, timeout=timeout_s, check=False
    )


class Built:
    """The package and everything that tests it, compiled: warnings are errors, nullable is on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nunit = str(prefix() / "nunit.d" / "nunit.framework.dll")

    def compile(
        self, name: str, sources: list[Path], *references: str, kind: str = "library", docs: bool = False
    ) -> Path:
        """Compiles to NAME, referring to what was compiled before by name."""
        out = self.folder / name
        told = [f"-r:{self.folder / item if '/' not in item else item}" for item in references]
        paper = [f"-doc:{out.with_suffix('.xml')}"] if docs else []
        options = [f"-target:{kind}", "-debug:portable", "-warnaserror", "-nullable:enable", *paper, f"-out:{out}"]
        command = [str(prefix() / "csc9"), *options, *told, *map(str, sorted(sources))]
        try:
            done = run(command, timeout_s=60)
        except (
            subprocess.TimeoutExpired
        ):  # the old .NET that carries the compiler was seen to hang once on a busy machine
            done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    def test(self, name: str, **variables: str) -> str:
        """Runs an assembly's NUnit tests; what the runner said."""
        variables.setdefault("NPC_RUNTIME_VECTORS", str(ROOT / "bindings" / "vectors"))
        done = run([str(prefix() / "nunit"), str(self.folder / name)], **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def program(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a compiled program."""
        return run([str(prefix() / "mono"), "--debug", str(self.folder / name), *arguments], **variables)

    def probe(self, *arguments: str, **variables: str) -> Any:
        """Runs the probe; its result."""
        done = self.program("NpcRuntime.Probe.exe", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        return msgpack.unpackb(bytes.fromhex(done.stdout.strip()))


def daemon_command() -> list[str]:
    """How the tests call npc-runtime."""
    return [sys.executable, "-m", "npc_runtime"]
