"""Choose how the selective scan is launched on an NVIDIA GPU: every candidate checked, then timed; winners last.

    python kernels/bench/sweep_scan.py [--seconds 120] [--dry]

Run from the repository root. Helper processes first compile every candidate and compare results and gradients with the
definition, twice, in one pass and in chunks; only those that are right and keep their bits are timed. `--dry` goes
through all of it on a CPU with tiny shapes, under Triton's interpreter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from sweep import COPY_GB_S, DEVICE, DRY, Clock  # isort: skip (sets the path and the interpreter)

import npc_kernels.selective_scan_triton as scan
import torch
from npc_kernels import selective_scan_ref
from npc_kernels._scan_plans import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WORKERS = 1 if DRY else 14
CHOSEN = scan.forward_plan, scan.chunk_plan, scan.backward_plan
BOUND = 2e-2 if DRY else 6e-3
"""Largest RMS error of a result or gradient, relative to the definition's: bf16 inputs, bf16 saved states.

The interpreter cuts what it stores as bf16 instead of rounding it.
"""


class Setup(NamedTuple):
    """One way to launch the scan; None stands for what the package chooses."""

    name: str
    forward: Plan | None = None
    chunk: Plan | None = None
    backward: Plan | None = None


class Case(NamedTuple):
    """Something to be fast at, with the time of mamba_ssm 2.3.2 (ms) and the goal as a ratio to it."""

    shape: tuple[int, int, int]
    chunk_lens: tuple[int, ...]
    training: bool
    anchor: float
    goal: float


def staged(steps: int, channels: int, stages: int, registers: int | None = None) -> Plan:
    return Plan(steps, registers, 0, 0, channels, stages)


FORWARD = [
    Setup("default"),
    Setup("last timed", Plan(8, 168, 1, 1), Plan(4, None, 0, 0)),
    Setup("staged, 2 lanes", staged(8, 16, 4), staged(8, 16, 4)),
    Setup("staged, 1 lane", staged(8, 32, 4), staged(8, 32, 4)),
    Setup("staged, 4 lanes", staged(8, 8, 4), staged(8, 8, 4)),
    Setup("staged, 2 lanes, 3 stages", staged(8, 16, 3), staged(8, 16, 3)),
    Setup("staged, 1 lane, 3 stages", staged(8, 32, 3), staged(8, 32, 3)),
    Setup("staged, 2 lanes, 16 steps", staged(16, 16, 3), staged(16, 16, 3)),
]
BACKWARD = [
    Setup("default"),
    Setup("staged, 1 lane", backward=staged(4, 32, 3)),
    Setup("staged, 2 lanes", backward=staged(4, 16, 3)),
    Setup("staged, 1 lane, 4 stages", backward=staged(4, 32, 4)),
    Setup("staged, 2 lanes, 168 registers", backward=staged(4, 16, 3, 168)),
    Setup("staged, 1 lane, 2 stages", backward=staged(4, 32, 2)),
]
CASES = [
    Case((16, 1024, 2048), (2048, 1024, 512), False, 0.590, 1.8),
    Case((8, 2048, 2048), (2048, 1024, 512), False, 0.590, 1.8),
    Case((8, 2048, 2048), (2048, 1024, 512), True, 2.88, 2.0),
    Case((64, 1024, 2048), (2048,), False, 2.30, 1.8),
    Case((64, 1024, 2048), (2048,), True, 11.3, 2.0),
    Case((1, 2048, 2**14), (512, 256, 1024), False, 0.723, 1.5),
    Case((1, 2048, 2**17), (512, 2048, 1024), False, 5.90, 1.5),
    Case((1, 1024, 2**20), (512, 4096, 1024), False, 22.8, 1.5),
    Case((1, 2048, 2**14), (512, 256), True, 3.64, 2.0),
]
if DRY:
    FORWARD, BACKWARD = FORWARD[:3], BACKWARD[:2]
    CASES = [Case((1, 32, 16), (16, 8), training, 1.0, 2.0) for training in (False, True)]


def apply(setup: Setup, backward_chunk: int | None = None) -> None:
    """Make the package launch the scan so."""

    def forward_plan(warps: int, saving: bool) -> Plan:
        plan = setup.forward or CHOSEN[0](warps, saving)
        odd = plan.stages == 0 or plan.steps % scan.SAVE_EVERY
        return plan._replace(steps=min(plan.steps, scan.SAVE_EVERY)) if saving and odd else plan

    scan.forward_plan = forward_plan
    scan.chunk_plan = lambda warps: setup.chunk or CHOSEN[1](warps)
    scan.backward_plan = lambda warps: (setup.backward or CHOSEN[2](warps))._replace(chunk_len=backward_chunk)


def inputs_of(b: int, channels: int, length: int) -> dict[str, Tensor]:
    """Inputs of a scan with an initial state, steps small as in a model."""

    def rows(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(*shape, device=DEVICE).to(dtype)

    f32 = torch.float32
    return {
        "x": rows(b, length, channels), "dt": rows(b, length, channels) - 1,
        "A": -torch.arange(1.0, 17.0, device=DEVICE).repeat(channels, 1),
        "B": rows(b, length, 16), "C": rows(b, length, 16), "D": rows(channels, dtype=f32),
        "z": rows(b, length, channels), "dt_bias": rows(channels, dtype=f32) - 3,
        "initial_state": rows(b, 16, channels, dtype=f32),
    }  # fmt: skip


def run(inputs: dict[str, Tensor], chunk_len: int) -> tuple[Tensor, Tensor]:
    made: tuple[Tensor, Tensor] = scan.SelectiveScan.apply(*inputs.values(), None, chunk_len)
    return made


def gradients(function: Callable[..., tuple[Tensor, Tensor]], inputs: dict[str, Tensor]) -> list[Tensor]:
    """Results and gradients of a scan."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    results = function(leaves)
    torch.manual_seed(1)
    seeds = [torch.randn(result.shape, device=DEVICE).to(result.dtype) for result in results]  # whatever the strides
    return [*results, *torch.autograd.grad(results, list(leaves.values()), seeds)]


def check(setup: Setup, channels: int) -> str:
    """Compile all that a setup launches; what is wrong with it, or nothing."""
    torch.manual_seed(0)
    length, short = (16, 8) if DRY else (256, 64)
    inputs = inputs_of(1, channels, length)
    expected = gradients(lambda leaves: selective_scan_ref(**leaves), inputs)
    for chunk_len, backward_chunk in ((length, length), (short, short), (length, short), (short, length)):
        apply(setup, backward_chunk)
        once, again = (gradients(lambda leaves, c=chunk_len: run(leaves, c), inputs) for _ in range(2))
        with torch.no_grad():
            once += run(inputs, chunk_len)
            again += run(inputs, chunk_len)
        for found, wanted in zip(once, [*expected, *expected[:2]], strict=True):
            error = float(rms(found.detach().double() - wanted.detach().double()) / rms(wanted.detach()))
            if not error < BOUND:
                return f"error {error:.1e} with chunks of {chunk_len}, {backward_chunk}"
        if not all(torch.equal(a, b) for a, b in zip(once, again, strict=True)):
            return f"other bits the second time with chunks of {chunk_len}, {backward_chunk}"
    return ""


def rms(t: Tensor) -> Tensor:
    return t.double().square().mean().sqrt()


def jobs() -> list[tuple[Setup, int]]:
    """Every candidate at every number of channels."""
    widths = sorted({case.shape[1] for case in CASES})
    return [(setup, width) for width in widths for setup in [*FORWARD, *BACKWARD[1:]]]


def work(part: int) -> None:
    """Check every WORKERS-th candidate; a line of JSON for each."""
    for setup, channels in jobs()[part::WORKERS]:
        try:
            wrong = check(setup, channels)
        except Exception as error:  # a candidate that does not compile loses, nothing more
            wrong = repr(error)[:300]
        print(json.dumps([setup.name, setup.backward is not None, channels, wrong]), flush=True)


class Sweep(Clock):
    """The run: its clock, who may take part, who won."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.right: set[tuple[str, bool, int]] = set()

    def check(self) -> None:
        """Have all candidates compiled and checked, in half of the time at most."""
        command = [sys.executable, __file__, *(["--dry"] if DRY else []), "--part"]
        running = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(WORKERS)]
        limit = self.started + (self.deadline - self.started) * (1.0 if DRY else 0.55)
        for process in running:
            try:
                lines = process.communicate(timeout=max(0.1, limit - time.time()))[0]
            except subprocess.TimeoutExpired:
                process.kill()
                lines = process.communicate()[0]
                self.say("a helper was stopped: what it had not checked is not timed")
            for line in lines.splitlines():
                if line.startswith("["):
                    name, backward, channels, wrong = json.loads(line)
                    if wrong:
                        self.say("WRONG", name, "backward" if backward else "forward", channels, wrong)
                    else:
                        self.right.add((name, backward, channels))
        self.say("right:", len(self.right), "of", len(jobs()))

    def candidates(self, setups: list[Setup], channels: int) -> list[Setup]:
        """Those that were right."""
        backward = setups is BACKWARD
        return [s for s in setups if s.name == "default" or (s.name, backward, channels) in self.right]

    def best(self, what: str, tries: list[tuple[str, Callable[[], object]]]) -> str:
        """Time what is to be tried; the name of the fastest."""
        times: dict[str, float] = {}
        for name, call in tries:
            if self.late() and times:
                break
            try:
                times[name] = milliseconds(call)
            except Exception as error:
                self.say(what, name, repr(error)[:200])
        ranked = sorted(times, key=lambda name: times[name])
        self.say(what, *(f"| {name} {times[name]:.3f}" for name in ranked))
        return ranked[0]

    def case(self, case: Case) -> None:
        """Choose the forward, in training the backward after it, and set the winner beside the anchor."""
        inputs = inputs_of(*case.shape)
        leaves = [value.requires_grad_(case.training) for value in inputs.values()]
        ways = {
            f"{setup.name}, chunks of {chunk_len}": (setup, chunk_len)
            for setup in self.candidates(FORWARD, case.shape[1])
            for chunk_len in case.chunk_lens
        }
        what = f"{case.shape} {'forward, saving' if case.training else 'forward'}"

        def forward(setup: Setup, chunk_len: int) -> tuple[Tensor, Tensor]:
            apply(setup)
            return run(inputs, chunk_len)

        won = self.best(what, [(name, lambda w=way: forward(*w)) for name, way in ways.items()])
        call: Any = lambda: forward(*ways[won])  # noqa: E731
        if case.training:
            setup, chunk_len = ways[won]
            y = forward(setup, chunk_len)[0]
            dy = torch.randn_like(y)

            def backward(y: Tensor, other: Setup, backward_chunk: int) -> tuple[Tensor, ...]:
                apply(setup._replace(backward=other.backward), backward_chunk)
                return torch.autograd.grad(y, leaves, dy, retain_graph=True)

            turns = {
                f"{other.name}, chunks of {length}": (other, length)
                for other in self.candidates(BACKWARD, case.shape[1])
                for length in case.chunk_lens
            }
            tries = [(name, lambda t=turn: backward(y, *t)) for name, turn in turns.items()]
            last = self.best(f"{case.shape} backward", tries)
            call = lambda: backward(forward(setup, chunk_len)[0], *turns[last])  # noqa: E731
            won = f"{won}; backward {last}"
        ms = milliseconds(call)
        ratio = case.anchor * COPY_GB_S / self.copy / ms
        kind = "forward+backward" if case.training else "forward"
        self.say(f"WINNER {case.shape} {kind}: {ms:.3f} ms, {ratio:.2f}x the anchor (goal {case.goal}): {won}")
        if not case.training and not DRY:  # without what the host adds to short calls
            from triton.testing import do_bench_cudagraph

            self.say("in a graph:", f"{float(do_bench_cudagraph(call, return_mode='median')):.3f} ms")


def milliseconds(call: Callable[[], object]) -> float:
    """Median of a call."""
    if DRY:
        begun = time.perf_counter()
        call()
        return (time.perf_counter() - begun) * 1e3
    from triton.testing import do_bench

    return float(do_bench(call, warmup=10, rep=40, return_mode="median"))


def sweep(seconds: float) -> None:
    """Check, time and name the winners."""
    this = Sweep(seconds)
    this.check()
    this.ceiling(milliseconds)
    for case in CASES:
        if this.late():
            this.say("no time for", case)
            continue
        try:
            this.case(case)
        except Exception as error:  # one shape that fails must not cost the others their times
            this.say("failed:", case, repr(error)[:300])
        if not DRY:
            torch.cuda.empty_cache()
    scan.forward_plan, scan.chunk_plan, scan.backward_plan = CHOSEN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="start nothing new after this many seconds")
    parser.add_argument("--dry", action="store_true", help="tiny shapes under the interpreter")
    parser.add_argument("--part", type=int, help="check one part of the candidates (a helper process)")
    options = parser.parse_args()
    if options.part is None:
        sweep(options.seconds)
    else:
        work(options.part)


if __name__ == "__main__":
    main()
