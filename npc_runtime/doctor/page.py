"""Page: the doctor's findings for people, told while they are made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from npc_runtime.doctor import PROMISES, examine, report, selected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.doctor.check import Result
    from npc_runtime.doctor.patient import Patient


class Page:
    """One page: a heading per promise, a line per check with its figure, and the bound where it was missed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._promise = 0

    def begin(self, patient: Patient) -> None:
        """What is examined."""
        bundle = patient.bundle
        self._console.print(
            f"[bold]{escape(bundle.name)}[/bold] {escape(bundle.version)}, {bundle.config.parameters:,} parameters, "
            f"{bundle.bits}-bit weights; {escape(patient.reason)}"
        )

    def result(self, result: Result) -> None:
        """One check."""
        check, finding = result.check, result.finding
        if check.promise != self._promise:
            self._promise = check.promise
            self._console.print(f"\n[bold]{check.promise}. {PROMISES[check.promise]}[/bold]")
        mark = "[green]ok  [/green]" if finding.passed else "[bold red]FAIL[/bold red]"
        self._console.print(f"  {mark} {check.claim} [dim]({check.name}, {result.seconds:.1f} s)[/dim]")
        self._console.print(f"       {escape(finding.figure)}")
        if not finding.passed:
            self._console.print(f"       [red]allowed: {escape(finding.bound)}[/red]")

    def end(self, results: Sequence[Result], seconds: float) -> None:
        """How it came out."""
        good = sum(result.finding.passed for result in results)
        colour = "green" if good == len(results) else "bold red"
        self._console.print(f"\n[{colour}]{good} of {len(results)} checks hold[/{colour}], {seconds:.1f} s")


def examine_on(patient: Patient, names: Sequence[str] = (), shown: bool = True) -> dict[str, Any]:
    """Examines, on a page unless it is not to be shown, and returns the report for programs."""
    selected(names)  # a wrong name is told of before anything is examined
    page = Page(Console(highlight=False, soft_wrap=True, quiet=not shown))
    page.begin(patient)
    begun = time.perf_counter()
    results = examine(patient, names, page.result)
    seconds = time.perf_counter() - begun
    page.end(results, seconds)
    return report(patient, results, seconds)
