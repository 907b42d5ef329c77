"""Doctor: the promises of DESIGN proved on this machine, each by a check that measures.

A check is a function under `check(...)` in one of the modules here: that is all it takes to add one.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

from npc_runtime import __version__
from npc_runtime.doctor import delivery, devices, forms, install, leaks, memory, speech  # noqa: F401  # each registers its checks
from npc_runtime.doctor.check import CHECKS, PROMISES, Check, Finding, Result, check
from npc_runtime.doctor.patient import Patient, open_patient
from npc_runtime.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "CHECKS",
    "PROMISES",
    "Check",
    "Finding",
    "Patient",
    "Result",
    "check",
    "examine",
    "open_patient",
    "report",
    "selected",
]


def selected(names: Sequence[str] = ()) -> list[Check]:
    """The named checks (none named: all) in the order of the promises. Raises BadInput for a name that no check has."""
    if unknown := set(names) - CHECKS.keys():
        raise BadInput(f"there is no check `{min(unknown)}`; known are {', '.join(CHECKS)}")
    found = [check for check in CHECKS.values() if not names or check.name in names]
    return sorted(found, key=lambda check: check.promise)


def examine(
    patient: Patient, names: Sequence[str] = (), on_result: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Runs the selected checks; each result is told as it comes. Raises BadInput for a name that no check has."""
    results = []
    for each in selected(names):
        results.append(each.run(patient))
        on_result(results[-1])
    return results


def report(patient: Patient, results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """All that was found, for programs."""
    return {
        "passed": all(result.finding.passed for result in results),
        "version": __version__,
        "bundle": {"name": patient.bundle.name, "bits": patient.bundle.bits, "hash": patient.bundle.hash},
        "backend": patient.reason,
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 2),
        "checks": [result.to_mapping() for result in results],
    }
