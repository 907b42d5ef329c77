"""The GPU backend on CPU tensors: the kernels' definitions for the kernels, no graphs; all else is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundles import CONFIG, ODD, tiny_bundle

torch = pytest.importorskip("torch")

from backend_cases import Cases, reference, relative_error  # noqa: E402

from npc_runtime.backends.cuda import CudaBackend  # noqa: E402
from npc_runtime.bench_crowd import crowd  # noqa: E402
from npc_runtime.config import Config  # noqa: E402
from npc_runtime.doctor import Patient, examine  # noqa: E402
from npc_runtime.stage import Stage  # noqa: E402
from npc_runtime.state import State  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"4": (4, CONFIG), "8-odd": (8, ODD)}
torch.set_num_threads(1)


def make(folder: Path, bits: int, config: Any, slots: int = 16, **more: Any) -> CudaBackend:
    bundle = tiny_bundle(folder, bits, config, name=f"tiny-{config.d_model}")
    return CudaBackend(bundle, slots, max_batch=8, **({"device": "cpu", "dtype": torch.float32} | more))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def backend(request: pytest.FixtureRequest, folder: Path) -> CudaBackend:
    return make(folder, *request.param)


class TestOnTheCpu(Cases):
    """Every case of backend_cases.py."""


# RMS ratio to the definition in fp64 over the same weights: rounding alone, and that of bf16 matrices and activations.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.03}


@pytest.mark.parametrize("config", [CONFIG, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_close_to_the_reference(folder: Path, dtype: Any, tied: bool, config: Any) -> None:
    bundle = tiny_bundle(folder, 8, config, tied, name=f"near-{config.d_model}-{tied}")
    backend, exact = CudaBackend(bundle, 1, 8, dtype, device="cpu"), reference(bundle)
    tokens = np.random.default_rng(5).integers(0, config.vocab_size, 100).tolist()
    backend.prefill([0], tokens[:60])
    for token in tokens[60:]:
        backend.prefill([0], [token])
    logits, memory = exact.parallel(tokens, exact.empty())
    state = backend.read(0)
    assert relative_error(backend.bucket(1).logits[0].numpy(), logits[-1]) < BOUNDS[dtype]
    assert relative_error(state.ssm, memory.ssm) < BOUNDS[dtype]
    assert relative_error(state.conv, memory.conv) < BOUNDS[dtype]


def test_a_half_precision_store_keeps_what_it_can(folder: Path) -> None:
    backend = make(folder, 32, CONFIG, state_dtype=torch.bfloat16)
    whole = make(folder, 32, CONFIG)
    tokens = [token % 300 for token in range(7, 900, 13)]
    for one in (backend, whole):
        one.prefill([3], tokens)
    ratio = relative_error(backend.read(3).ssm, whole.read(3).ssm)
    assert 0 < ratio < 4e-3


def test_slots_are_allocated_as_they_come_into_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npc_runtime.backends.cuda_store.FIRST", 2)
    backend = make(folder, 32, CONFIG, slots=21)
    state = State(backend.spec, np.random.default_rng(1).standard_normal(backend.spec.size, dtype=np.float32))
    sizes = []
    for slot in range(21):
        backend.clear(slot)
        backend.write(slot, State(backend.spec, state.vector * slot))
        sizes.append(backend.store.slots)
    assert sizes == [2, 2, 4, 4] + [8] * 4 + [21] * 13
    assert backend.store.generation == 4
    for slot in range(21):
        assert backend.read(slot).equals(State(backend.spec, state.vector * slot))
    with pytest.raises(ValueError, match="Slots are from 0 to 20, got 21"):
        backend.clear(21)


def test_closing_frees_the_store(folder: Path) -> None:
    backend = make(folder, 32, CONFIG)
    backend.close()
    assert backend.store.ssm.numel() == 0


def test_the_doctor_finds_it_sound(folder: Path) -> None:
    """Every promise, through the real Session and scheduler, which ask this backend for many rows together."""
    bundle = tiny_bundle(folder, 8, CONFIG.__class__(d_model=32, n_layer=1, vocab_size=320), name="doctor")

    def open_backend(bundle: Any, config: Config) -> tuple[CudaBackend, str]:
        return CudaBackend(bundle, 4000, config.max_batch or 8, device="cpu"), "a test"

    patient = Patient(bundle, Config(), "cuda", open_backend, stock=False)
    names = ("crowd", "scheduling", "no-leak", "devices", "save-and-load", "cut")
    found = examine(patient, names)
    assert {result.check.name: result.finding.figure for result in found if not result.finding.passed} == {}
    assert len(found) == len(names)


def test_a_crowd_talks_through_the_scheduler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle(folder, 8, CONFIG.__class__(d_model=32, n_layer=1, vocab_size=320), name="crowd")
    monkeypatch.setattr("npc_runtime.bench_crowd.MAX_TOKENS", 5)
    config = Config(pace_tokens_per_s=0.0, rewind_turns=0)
    stage = Stage(bundle, CudaBackend(bundle, 4000, 8, device="cpu"), "a test", config)
    found = crowd(stage, 12, 1.0, 0.1)
    stage.close()
    assert found["tokens_per_s"] > 0
    assert found["replies"] > 0
    assert [name for name in ("first_ms", "token_ms", "wait_ms") if len(found[name]) == 3]
