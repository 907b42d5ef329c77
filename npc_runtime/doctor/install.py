"""Promise 6: no torch for players. And what this machine gives: memory, and an installation that is whole."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from npc_runtime.backends import free_memory_mb
from npc_runtime.doctor.check import Finding, check
from npc_runtime.doctor.patient import LINES, PERSONA
from npc_runtime.errors import BudgetExceeded

if TYPE_CHECKING:
    from npc_runtime.doctor.patient import Patient

FORBIDDEN = ("torch", "triton", "transformers", "tensorflow", "jax")
ALLOWED = {"numpy", "onnxruntime", "sentencepiece", "safetensors", "msgpack", "pyzmq", "typer", "rich", "tomli"}
"""What the CPU install may ask for itself; what those need in turn is theirs."""
THREADS_SLACK = 0.5
"""Processors that Python and the system may take beside the backend's threads."""
_TALK = """
import json, sys
from npc_runtime import cli, client, server
from npc_runtime.runtime import Runtime
bundle, backend, persona, line = json.loads(sys.argv[1])
with Runtime(bundle, backend) as runtime:
    runtime.spawn("odalys", persona, seed=7)
    runtime.say("odalys", line, max_tokens=4)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@check("no-torch", 6, "A character speaks on the CPU without torch being imported")
def no_torch(patient: Patient) -> Finding:
    """A fresh process that loads the Bundle and talks; the modules it has imported by then."""
    backend = patient.backend if patient.backend in ("onnx", "reference") else "onnx"
    asked = json.dumps([str(patient.bundle.path), backend, PERSONA, LINES[0]])
    done = subprocess.run([sys.executable, "-c", _TALK, asked], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return Finding(False, f"the process failed: {done.stderr.strip()[-200:]}", "a Reply, no torch")
    modules = json.loads(done.stdout.splitlines()[-1])
    found = [name for name in FORBIDDEN if name in modules]
    figure = f"{len(modules)} modules imported by a talking process, {', '.join(found) or 'no torch'} among them"
    return Finding(not found, figure, "a Reply, no torch", {"modules": len(modules), "forbidden": found})


@check("dependencies", 6, "The CPU install asks for a short list of packages")
def dependencies(patient: Patient) -> Finding:
    """The requirements of the installed distribution, extras apart, and all that they need in turn."""
    try:
        asked = _required("npc-runtime")
    except metadata.PackageNotFoundError:
        return Finding(True, "not installed as a package (run from a checkout)", "the list of DESIGN", {})
    closure = _closure(asked)
    extra = sorted(asked - ALLOWED) + sorted(closure & set(FORBIDDEN))
    figures = {"asked": sorted(asked), "all": sorted(closure), "unexpected": extra}
    figure = f"asks for {len(asked)} packages ({', '.join(sorted(asked))}), {len(closure)} with what they need"
    return Finding(not extra, figure, "the list of DESIGN, no torch", figures)


@check("memory", 2, "This machine has room for the state budget")
def memory(patient: Patient) -> Finding:
    """Free memory against what the daemon may use for States, and what one Npc costs."""
    try:
        opened = patient.game()
    except BudgetExceeded as error:
        figures: dict[str, Any] = {"free_mb": free_memory_mb(), "budget_mb": patient.config.state_budget_mb}
        return Finding(False, str(error), "more than the budget", figures)
    with opened as game:
        state, budget = patient.bundle.spec.nbytes, game.stage.scheduler.budget_mb
        ask = getattr(game.backend, "free_memory_mb", free_memory_mb)  # a GPU has memory of its own
        free = ask()
    each = state * (1 + patient.config.rewind_turns)
    figures = {"free_mb": free, "budget_mb": budget, "state_bytes": state, "npc_bytes_with_rewind": each}
    rest = f"{state:,} bytes a State, {each:,} with every rewind point; budget {budget} MB"
    if free is None:
        return Finding(True, f"free memory unknown; {rest}", "more than the budget", figures)
    return Finding(free >= budget, f"{free:,} MB free; {rest}", "more than the budget", figures)


@check("threads", 2, "The backend computes on the threads it was given, and the machine has them")
def threads(patient: Patient) -> Finding:
    """Processor time over wall time of one Reply, which is how many processors were at work."""
    given, there = patient.config.threads, processors()
    with patient.game() as game:
        game.spawn("odalys")
        name, begun, spent = game.backend.name, time.perf_counter(), time.process_time()
        for text in LINES[:3]:
            game.say("odalys", text)
        busy = (time.process_time() - spent) / (time.perf_counter() - begun)
    figures = {"threads": given, "processors": there, "busy": round(busy, 2)}
    figure = f"{given} of {there} processors asked for, {busy:.2f} at work in a Reply"
    within = name != "onnx" or busy <= given + THREADS_SLACK  # the others do not take the option
    bound = f"at most {given + THREADS_SLACK:g} at work, as many processors as asked for"
    return Finding(given <= there and within, figure, bound, figures)


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _required(package: str) -> set[str]:
    """Packages that an installed package asks for on this Python, extras apart, by normalised name."""
    names = set()
    for requirement in metadata.requires(package) or ():
        name, _, marker = requirement.partition(";")
        older = re.search(r"python_version\s*<\s*['\"]3\.(\d+)", marker)
        if "extra ==" not in marker and (older is None or sys.version_info[1] < int(older[1])):
            names.add(re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", name.strip())[0]).lower())
    return names


def _closure(names: set[str]) -> set[str]:
    """`names` and all that they need and that is installed, which is what markers of other systems come to."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        try:
            left += _required(name)
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
    return found
