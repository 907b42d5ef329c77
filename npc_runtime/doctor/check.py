"""Check: one thing the doctor proves on this machine, and Finding: what it measured. One registry holds them all."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from npc_runtime.errors import NpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from npc_runtime.doctor.patient import Patient

PROMISES = {
    1: "The save is the mind",
    2: "Constant cost",
    3: "Same answer however it was computed",
    4: "What was heard is what is remembered",
    5: "Typed replies",
    6: "No torch for players",
    7: "Nothing is lost, nobody walks in",
}
"""The promises of DESIGN, by number."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check measured (`figure`) and what it allows (`bound`), in words; `figures` hold the same as numbers."""

    passed: bool
    figure: str
    bound: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to prove. `timed` checks judge speed, which a machine under load may fail without fault."""

    name: str
    promise: int
    claim: str
    measure: Callable[[Patient], Finding]
    timed: bool = False

    def run(self, patient: Patient) -> Result:
        """Measures; whatever is raised is a failure of this check and of no other."""
        begun = time.perf_counter()
        try:
            finding = self.measure(patient)
        except Exception as error:  # the doctor reports defects, it does not stop at the first
            finding = Finding(False, _told(error), "no error", {"error": _told(error)})
        return Result(self, finding, time.perf_counter() - begun)


@dataclass(frozen=True, slots=True)
class Result:
    """A check and its Finding; `seconds` is how long it took."""

    check: Check
    finding: Finding
    seconds: float

    def to_mapping(self) -> dict[str, Any]:
        """The result for programs."""
        check, finding = self.check, self.finding
        return {
            "name": check.name,
            "promise": check.promise,
            "claim": check.claim,
            "passed": finding.passed,
            "figure": finding.figure,
            "bound": finding.bound,
            "figures": dict(finding.figures),
            "seconds": round(self.seconds, 3),
        }


CHECKS: dict[str, Check] = {}
"""Every check by name, in the order they run."""


def check(name: str, promise: int, claim: str, timed: bool = False) -> Callable[[Measure], Measure]:
    """Registers a function as a check."""

    def register(measure: Measure) -> Measure:
        if name in CHECKS:
            raise ValueError(f"a check named `{name}` is registered already")
        CHECKS[name] = Check(name, promise, claim, measure, timed)
        return measure

    return register


def _told(error: Exception) -> str:
    return f"{error.code}: {error.text}" if isinstance(error, NpcError) else f"defect: {error!r:.300}"


if TYPE_CHECKING:
    Measure = Callable[[Patient], Finding]
