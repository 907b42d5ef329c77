"""The doctor finds a sound backend sound, and every kind of broken one broken."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundles import tiny_bundle

from npc_runtime import doctor
from npc_runtime.backends.reference import ReferenceBackend, ReferenceBatch, ReferenceModel
from npc_runtime.config import Config
from npc_runtime.doctor import delivery, install, memory, speech
from npc_runtime.doctor.check import CHECKS, Check, Finding
from npc_runtime.doctor.page import examine_on
from npc_runtime.doctor.patient import Patient, open_patient
from npc_runtime.errors import BadInput
from npc_runtime.model.config import ModelConfig
from npc_runtime.state import State
from npc_runtime.tokenizer import CONTROL
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.bundle import Bundle
    from npc_runtime.sampling import Draw

CONFIG = Config(state_budget_mb=16)
SMALL = ModelConfig(d_model=32, n_layer=1, vocab_size=320)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("doctor"), bits=32, config=SMALL)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer tokens than on a player's machine: the same checks."""
    monkeypatch.setattr(memory, "LATE_TOKENS", 800)
    monkeypatch.setattr(speech, "REPLIES", 16)


def make(kind: type[ReferenceBackend], bundle: Bundle, config: Config) -> ReferenceBackend:
    weights = {name: bundle.dense(name) for name in dense_shapes(bundle.config, bundle.tied)}
    return kind(ReferenceModel(weights, bundle.config), config.state_budget_mb * 2**20 // bundle.spec.nbytes)


def patient(bundle: Bundle, kind: type[ReferenceBackend] = ReferenceBackend) -> Patient:
    return Patient(
        bundle, CONFIG, "reference", lambda model, config: (make(kind, model, config), "a test"), stock=False
    )


def failed(bundle: Bundle, kind: type[ReferenceBackend], *names: str) -> set[str]:
    return {result.check.name for result in doctor.examine(patient(bundle, kind), names) if not result.finding.passed}


def test_a_sound_backend_passes_every_check_that_is_not_about_speed(bundle):
    names = [check.name for check in CHECKS.values() if not check.timed]
    found = doctor.examine(open_patient(bundle, CONFIG, "reference"), names)
    assert {result.check.name: result.finding.figure for result in found if not result.finding.passed} == {}
    assert {result.check.promise for result in found} == {1, 2, 3, 4, 5, 6, 7}


def test_the_speed_check_measures_both_ends(bundle, monkeypatch):
    monkeypatch.setattr(memory, "LATE_TOKENS", 400)
    [result] = doctor.examine(patient(bundle), ["constant-time"])
    assert result.finding.figures["tokens"] == [50, 400]
    assert min(result.finding.figures["ms_per_token"]) > 0
    assert result.finding.figures["ratio"] > 0


class Forgetful(ReferenceBackend):
    """Loses the convolution part when a State is written."""

    def write(self, slot: int, state: State) -> None:
        damaged = state.copy()
        damaged.conv[:] = 0
        super().write(slot, damaged)


class Rounding(ReferenceBackend):
    """Keeps States at half precision."""

    def keep(self, slot: int, memory: Any) -> None:
        super().keep(slot, memory)
        self.store[slot] = self.store[slot].astype(np.float16)


class Leaky(ReferenceBackend):
    """Does not clear a Slot."""

    def clear(self, slot: int) -> None:
        """Leaves what was there."""


class Residue(ReferenceBackend):
    """Copies all but the last value of a Slot."""

    def copy(self, source: int, target: int) -> None:
        self.store[target, :-1] = self.store[source, :-1]


class Stubborn(ReferenceBackend):
    """Keeps a bit of what was there when a State is written over it."""

    def write(self, slot: int, state: State) -> None:
        kept = self.store[slot, 3]
        super().write(slot, state)
        if abs(kept) > 100:
            self.store[slot, 3] += np.float32(1e-3)


class Restless(ReferenceBackend):
    """Reads a chunk of more than eight tokens as if its last one were not there."""

    def prefill(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        super().prefill(slots, tokens[:-1] if len(tokens) > 8 else tokens)


class Crosstalk(ReferenceBackend):
    """Lets every row see what the row before it was fed."""

    def open(self, slots: Sequence[int]) -> ReferenceBatch:
        backend = self

        class Batch(ReferenceBatch):
            def step(self, draws: Sequence[Draw | None]) -> list[int]:
                for row, draw in enumerate(draws[1:], 1):
                    before = draws[row - 1]
                    if draw is not None and before is not None:
                        mixed = backend.model.recurrent(before.token, self._memories[row])[1]
                        self._memories[row] = mixed
                return super().step(draws)

        return Batch(self, slots)


class Hasty(ReferenceBackend):
    """Forgets the row's SSM part when it takes more than one chunk to read a text."""

    def prefill(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        if len(tokens) == 17:
            for slot in slots:
                self.store[slot, self.spec.conv_size :] = 0
        super().prefill(slots, tokens)


class Wrong(ReferenceBackend):
    """Computes with other weights than the Bundle's."""

    def __init__(self, model: ReferenceModel, slots: int, max_batch: int = 8) -> None:
        super().__init__(model, slots, max_batch)
        model._layers[0]["D"] = model._layers[0]["D"] * 1.5


class Impostor(ReferenceBackend):
    """Speaks for the player: draws `<player>` in the middle of speech."""

    def open(self, slots: Sequence[int]) -> ReferenceBatch:
        player = CONTROL.index("<player>") + 1

        class Batch(ReferenceBatch):
            def step(self, draws: Sequence[Draw | None]) -> list[int]:
                tokens = super().step(draws)
                speaks = [draw is not None and draw.allowed is None and draw.position == 9 for draw in draws]
                return [player if wrong else token for wrong, token in zip(speaks, tokens, strict=True)]

        return Batch(self, slots)


class Moody(ReferenceBackend):
    """Ignores which moods and actions are allowed."""

    def open(self, slots: Sequence[int]) -> ReferenceBatch:
        class Batch(ReferenceBatch):
            def step(self, draws: Sequence[Draw | None]) -> list[int]:
                return super().step([draw and replace(draw, allowed=None) for draw in draws])

        return Batch(self, slots)


BROKEN = [
    (Forgetful, {"save-and-load", "ways-back", "cut", "whole-line"}),
    (Rounding, {"cut", "whole-line"}),
    (Leaky, {"no-leak"}),
    (Stubborn, {"no-leak"}),
    (Restless, {"chunks"}),
    (Crosstalk, {"batch", "crowd"}),
    (Wrong, {"reference"}),
    (Hasty, {"scheduling"}),
    (Impostor, {"typed-replies"}),
]
QUICK = {"save-and-load", "chunks", "batch", "reference", "no-leak", "cut", "whole-line"}


@pytest.mark.parametrize(("kind", "expected"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_backend_fails_the_checks_that_are_about_it_and_no_other(bundle, kind, expected):
    assert failed(bundle, kind, *(QUICK | expected)) == expected


def test_a_copy_that_leaves_a_trace_is_counted_in_bits(bundle):
    [result] = doctor.examine(patient(bundle, Residue), ["no-leak"])
    assert not result.finding.passed
    assert result.finding.figures["differing_bits"] > 0


def test_more_threads_than_processors_are_found(bundle, monkeypatch):
    monkeypatch.setattr(install, "processors", lambda: 0)
    [result] = doctor.examine(patient(bundle), ["threads"])
    assert not result.finding.passed


def test_a_journal_that_forgets_is_found(bundle, monkeypatch, tmp_path):
    kill = os.kill

    def forget(pid, number):
        kill(pid, number)
        for segment in tmp_path.glob("*.segment"):
            segment.unlink()

    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda: nullcontext(str(tmp_path)))
    monkeypatch.setattr("os.kill", forget)
    [result] = doctor.examine(open_patient(bundle, CONFIG, "reference"), ["journal"])
    assert not result.finding.passed
    assert "unknown_npc" in result.finding.figure


def test_moods_that_are_not_allowed_fail_typed_replies(bundle):
    assert failed(bundle, Moody, "typed-replies") == {"typed-replies"}


def test_a_daemon_that_computes_otherwise_fails_the_wire_check(bundle):
    other = Patient(bundle, CONFIG, "reference", lambda model, config: (make(Wrong, model, config), "a test"))
    [result] = doctor.examine(other, ["wire"])
    assert not result.finding.passed
    assert result.finding.figures["replies_equal"] is False
    assert result.finding.figures["intruder_refused"] is True


def test_a_talking_process_that_imports_a_forbidden_module_is_found(bundle, monkeypatch):
    monkeypatch.setattr(install, "FORBIDDEN", ("torch", "numpy"))
    [result] = doctor.examine(patient(bundle), ["no-torch"])
    assert not result.finding.passed
    assert result.finding.figures["forbidden"] == ["numpy"]


def test_an_unexpected_requirement_is_found(bundle, monkeypatch):
    asked = {
        "npc-runtime": ["numpy>=1.26", "Left.Pad (>2)", "torch; extra == 'gpu'", "old; python_version < '3.10'"],
        "numpy": [],
    }
    monkeypatch.setattr(install.metadata, "requires", asked.get)
    [result] = doctor.examine(patient(bundle), ["dependencies"])
    assert not result.finding.passed
    assert result.finding.figures["asked"] == ["left-pad", "numpy"]
    assert result.finding.figures["unexpected"] == ["left-pad"]


def test_too_little_memory_is_found(bundle, monkeypatch):
    monkeypatch.setattr(install, "free_memory_mb", lambda: 15)
    [result] = doctor.examine(patient(bundle), ["memory"])
    assert not result.finding.passed


def test_memory_that_cannot_be_had_is_found(bundle):
    greedy = open_patient(bundle, Config(state_budget_mb=10**9), "onnx")
    [result] = doctor.examine(greedy, ["memory"])
    assert not result.finding.passed
    assert result.finding.figures["budget_mb"] == 10**9
    assert greedy.reason.startswith("onnx: this machine has no memory")


def test_a_lossy_precision_that_drifts_too_far_is_found(bundle, monkeypatch):
    def coarse(state: State, precision: str) -> State:
        return State(state.spec, np.round(state.vector * 0.9, 1)) if precision == "int8" else state

    monkeypatch.setattr(memory, "round_trip", coarse)
    [result] = doctor.examine(patient(bundle), ["small-saves"])
    assert not result.finding.passed
    assert result.finding.figures["share_of_spread"]["fp16"] == 0


def test_a_damaged_save_that_is_taken_is_found(bundle, monkeypatch):
    monkeypatch.setattr(delivery, "_damaged", lambda data: [data[:-1], data])
    [result] = doctor.examine(patient(bundle), ["damaged-saves"])
    assert not result.finding.passed
    assert result.finding.figures == {"tried": 2, "refused": 1}


def test_a_save_that_grows_is_found(bundle, monkeypatch):
    monkeypatch.setattr(memory, "LOG_ENTRIES", 1)  # so that the log of the early save is not full
    monkeypatch.setattr(memory, "LATE_TOKENS", 600)
    [result] = doctor.examine(patient(bundle), ["constant-size"])
    assert not result.finding.passed
    assert result.finding.figures["growth_bytes"] > memory.COUNTER_BYTES


def test_what_a_check_raises_fails_that_check_and_no_other(bundle, monkeypatch):
    def defect(patient: Patient) -> Finding:
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(CHECKS, "defect", Check("defect", 1, "It raises", defect))
    found = {r.check.name: r.finding for r in doctor.examine(patient(bundle), ["defect", "memory"])}
    assert found["memory"].passed
    assert not found["defect"].passed
    assert "ZeroDivisionError('oh')" in found["defect"].figure


def test_unknown_checks_and_names_taken_are_refused(bundle):
    with pytest.raises(BadInput, match="no check `nope`; known are"):
        doctor.examine(patient(bundle), ["memory", "nope"])
    with pytest.raises(ValueError, match="`memory` is registered"):
        doctor.check("memory", 1, "Twice")(lambda patient: Finding(True, "", ""))


def test_the_page_names_promise_figure_and_the_bound_that_was_missed(bundle, capsys):
    report = examine_on(patient(bundle, Wrong), ["memory", "reference"])
    shown = capsys.readouterr().out
    assert f"tiny 1, {bundle.config.parameters:,} parameters, 32-bit weights; reference: a test" in shown
    assert "2. Constant cost" in shown
    assert "FAIL The backend computes what the definition does" in shown
    assert "allowed: at most 2e-05 of the spread" in shown
    assert "1 of 2 checks hold" in shown
    assert report["passed"] is False


def test_the_report_is_plain_json(bundle, capsys):
    report = examine_on(patient(bundle), ["chunks", "batch", "memory"], shown=False)
    assert capsys.readouterr().out == ""
    again = json.loads(json.dumps(report))
    assert again["passed"] is True
    assert again["bundle"] == {"name": "tiny", "bits": 32, "hash": bundle.hash}
    assert [item["name"] for item in again["checks"]] == ["memory", "chunks", "batch"]
    assert all({"promise", "claim", "figure", "bound", "figures", "seconds"} <= item.keys() for item in again["checks"])
