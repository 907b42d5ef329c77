"""The CPU backend: the same bits whichever way they were computed, close to the definition, and unharmed by faults."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundles import CONFIG, ODD, tiny_bundle

from npc_runtime.backends import choose
from npc_runtime.backends.onnx import CHUNK, OnnxBackend
from npc_runtime.backends.onnx_graph import build
from npc_runtime.backends.reference import ReferenceModel
from npc_runtime.config import Config
from npc_runtime.errors import BackendError, BackendUnavailable, ConfigError
from npc_runtime.sampling import FAILED, Draw, Sampling, pick_from_logits
from npc_runtime.state import State, StateSpec
from npc_runtime.weights import dense_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from npc_runtime.bundle import Bundle
    from npc_runtime.model.config import ModelConfig

RNG = np.random.default_rng(3)
TOKENS = RNG.integers(0, CONFIG.vocab_size, 150).tolist()
KINDS = {"4": (4, CONFIG), "8": (8, CONFIG), "32": (32, CONFIG), "4-odd": (4, ODD), "8-odd": (8, ODD)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def backend(request: pytest.FixtureRequest, folder: Path) -> OnnxBackend:
    bits, config = request.param
    return OnnxBackend(tiny_bundle(folder, bits, config, name=f"tiny-{config.d_model}"), slots=16)


def draw(token: int, position: int = 0, temperature: float = 0.0, **more: Any) -> Draw:
    return Draw(token, Sampling(temperature=temperature), seed=7, turn=1, position=position, **more)


def start(backend: OnnxBackend, slots: Sequence[int]) -> None:
    """Gives Slots different pasts, none of them empty."""
    for slot in slots:
        backend.clear(slot)
        backend.prefill([slot], TOKENS[slot : slot + 5 + slot])


def feed(backend: OnnxBackend, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Steps a Batch through given tokens, one list per row; logits (steps, rows, V)."""
    batch = backend.open(slots)
    logits = []
    for tokens in zip(*rows, strict=True):
        batch.step([draw(token) for token in tokens])
        logits.append(batch._work.logits[: len(slots)].copy())
    batch.close()
    return np.stack(logits)


def logits_of_prefill(backend: OnnxBackend, slot: int, tokens: Sequence[int]) -> np.ndarray:
    work = backend.borrow()
    work.load(0, backend.store[slot])
    logits = np.zeros((len(tokens), backend.vocab_size), np.float32)
    work.read(0, np.asarray(tokens, np.int64), logits)
    backend.give_back(work)
    return logits


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("cuts", [[], [1], [2, 3], [64], [7, 77, 78]], ids=str)
def test_chunks_give_the_bits_of_steps(backend: OnnxBackend, cuts: list[int]) -> None:
    start(backend, [0, 0])
    backend.copy(0, 1)
    for first, last in zip([0, *cuts], [*cuts, len(TOKENS)], strict=True):
        backend.prefill([0], TOKENS[first:last])
    feed(backend, [1], [TOKENS])
    assert backend.read(0).equals(backend.read(1))


def test_logits_of_prefill_are_those_of_steps(backend: OnnxBackend) -> None:
    start(backend, [2])
    together = logits_of_prefill(backend, 2, TOKENS[:60])
    stepped = feed(backend, [2], [TOKENS[:60]])
    assert same_bits(together, stepped[:, 0])


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 7, 8])
def test_a_batch_gives_the_bits_of_each_row_alone(backend: OnnxBackend, rows: int) -> None:
    slots = list(range(rows))
    said = [TOKENS[row * 10 : row * 10 + 6] for row in slots]
    start(backend, slots)
    together = feed(backend, slots, said)
    states = [backend.read(slot) for slot in slots]
    start(backend, slots)
    for row, slot in enumerate(slots):
        assert same_bits(feed(backend, [slot], [said[row]])[:, 0], together[:, row])
        assert backend.read(slot).equals(states[row])
    assert backend.exact_batches


def test_one_event_to_many_gives_the_bits_of_each_alone(backend: OnnxBackend) -> None:
    start(backend, [0, 1, 2])
    backend.copy(1, 5)
    backend.prefill([0, 1, 2], TOKENS[:20])
    backend.prefill([5], TOKENS[:20])
    assert backend.read(1).equals(backend.read(5))
    assert not backend.read(0).equals(backend.read(1))


def reference(bundle: Bundle) -> ReferenceModel:
    """In fp64, over the same weights: what the codes stand for."""
    names = dense_shapes(bundle.config, bundle.tied)
    return ReferenceModel({name: bundle.dense(name) for name in names}, bundle.config, np.float64)


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - exact) ** 2)) / exact.std())


@pytest.mark.parametrize("config", [CONFIG, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("bits", "bound"), [(32, 1e-5), (8, 0.05), (4, 0.05)])
def test_close_to_the_reference(folder: Path, bits: int, bound: float, tied: bool, config: ModelConfig) -> None:
    """fp32 differs by rounding alone; at 8 and 4 bits onnxruntime rounds activations to 8 bits per 32."""
    bundle = tiny_bundle(folder, bits, config, tied, name=f"near-{config.d_model}-{tied}")
    backend, exact = OnnxBackend(bundle, slots=1), reference(bundle)
    tokens = [token % config.vocab_size for token in TOKENS]
    prompt = logits_of_prefill(backend, 0, tokens[:64])
    backend.prefill([0], tokens[:64])
    steps = feed(backend, [0], [tokens[64:128]])[:, 0]
    expected, memory = exact.parallel(tokens[:128], exact.empty())
    assert relative_error(np.concatenate([prompt, steps]), expected) < bound
    assert relative_error(backend.read(0).ssm, memory.ssm) < bound


def test_large_time_steps_stay_finite_and_right(folder: Path) -> None:
    """onnxruntime's Sigmoid is 0 below -18, whose logarithm would poison the State: hence the Clip and the Min."""
    bundle = tiny_bundle(folder, 32, name="steps")
    exact = reference(bundle)
    for layer in exact._layers:
        layer["dt_bias"] = np.linspace(-30, 60, len(layer["dt_bias"]))
    backend = OnnxBackend(_with_dt_bias(bundle, np.linspace(-30, 60, CONFIG.d_inner)), slots=1)
    logits = logits_of_prefill(backend, 0, TOKENS[:40])
    expected, _ = exact.parallel(TOKENS[:40], exact.empty())
    assert relative_error(logits, expected) < 1e-3


def _with_dt_bias(bundle: Bundle, bias: np.ndarray) -> Any:
    class Changed:
        def __getattr__(self, name: str) -> Any:
            return getattr(bundle, name)

        def dense(self, name: str) -> np.ndarray:
            return bias.astype(np.float32) if name.endswith("dt_bias") else bundle.dense(name)

    return Changed()


@pytest.mark.parametrize("stored", [8, 16, 32])
def test_weights_can_be_requantised(folder: Path, stored: int) -> None:
    bundle = tiny_bundle(folder, stored, name="again")
    backend = OnnxBackend(bundle, slots=1, bits=4)
    expected, _ = reference(bundle).parallel(TOKENS[:8], reference(bundle).empty())
    assert backend.bits == 4
    assert relative_error(logits_of_prefill(backend, 0, TOKENS[:8]), expected) < 0.5
    if stored == 32:
        direct = OnnxBackend(tiny_bundle(folder, 4, name="again"), slots=1)
        assert same_bits(logits_of_prefill(backend, 0, TOKENS[:8]), logits_of_prefill(direct, 0, TOKENS[:8]))


def test_the_bundle_decides_the_bits_when_none_are_asked_for(folder: Path) -> None:
    assert OnnxBackend(tiny_bundle(folder, 16, name="bits"), slots=1).bits == 32
    assert OnnxBackend(tiny_bundle(folder, 8, name="bits"), slots=1).bits == 8


def test_matrices_stay_in_the_bundles_file(folder: Path) -> None:
    bundle = tiny_bundle(folder, 8, name="mapped")
    model = build(bundle, 8)
    for name in ("layers.1.in_proj", "layers.0.out_proj", "head", "embedding"):
        assert bundle.tensor(name).tobytes()[:64] not in model


def test_score_is_the_log_probability_and_changes_nothing(backend: OnnxBackend) -> None:
    start(backend, [0])
    before = backend.read(0)
    tokens = [TOKENS[i % 90] for i in range(CHUNK + 30)]  # over the edge of a chunk
    scores = backend.score(0, tokens)
    logits = feed(backend, [0], [tokens[:-1]])[:, 0].astype(np.float64)
    expected = logits[np.arange(len(tokens) - 1), tokens[1:]] - np.log(np.exp(logits).sum(axis=1))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    backend.write(0, before)
    assert backend.score(0, tokens[:1]).shape == (0,)
    assert backend.score(0, []).shape == (0,)
    assert backend.read(0).equals(before)


def test_a_released_row_keeps_its_state_and_the_others_go_on(backend: OnnxBackend) -> None:
    start(backend, [0, 1, 2])
    for slot in (0, 1, 2):
        backend.copy(slot, slot + 3)
    batch = backend.open([0, 1, 2])
    batch.step([draw(5), draw(6), draw(7)])
    assert batch.step([None, draw(8), draw(9)])[0] == FAILED
    assert batch.step([None, draw(10), draw(11)])[0] == FAILED
    assert batch.step([None, None, draw(12)])[:2] == [FAILED, FAILED]
    assert batch.step([None, None, None]) == [FAILED] * 3
    batch.close()
    for slot, said in ((3, [5]), (4, [6, 8, 10]), (5, [7, 9, 11, 12])):
        backend.prefill([slot], said)
        assert backend.read(slot - 3).equals(backend.read(slot))


def test_closing_twice_writes_and_gives_back_once(backend: OnnxBackend) -> None:
    start(backend, [0, 1])
    batch = backend.open([0])
    batch.step([draw(5)])
    batch.close()
    said = backend.read(0)
    batch.close()
    assert backend.read(0).equals(said)
    one, two = backend.open([0]), backend.open([1])
    assert one._work is not two._work
    one.close()
    two.close()


def test_two_batches_and_a_prefill_do_not_disturb_each_other(backend: OnnxBackend) -> None:
    start(backend, [0, 1, 2])
    for slot in (0, 1, 2):
        backend.copy(slot, slot + 3)
    one, two = backend.open([0]), backend.open([1])
    one.step([draw(5)])
    backend.prefill([2], TOKENS[:9])
    two.step([draw(6)])
    one.close()
    two.close()
    for slot, said in ((3, [5]), (4, [6]), (5, TOKENS[:9])):
        backend.prefill([slot], said)
        assert backend.read(slot - 3).equals(backend.read(slot))


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"banned": frozenset(range(300))},
        {"allowed": (3, 50, 200)},
        {"allowed": (9,)},
        {"recent": tuple(range(100)) * 9},
        {"temperature": 1.5, "banned": frozenset({1, 2, 3})},
    ],
    ids=["free", "most banned", "allowed", "forced", "recent", "hot"],
)
def test_tokens_are_drawn_as_from_whole_logits(backend: OnnxBackend, rules: dict[str, Any]) -> None:
    for position in range(8):
        start(backend, [0, 1])
        asked = draw(TOKENS[position], position, **rules)
        batch = backend.open([0, 1])
        picked = batch.step([asked, asked])
        expected = [pick_from_logits(asked, batch._work.logits[row]) for row in (0, 1)]
        batch.close()
        assert picked == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["conv", "ssm"])
def test_a_broken_state_fails_alone(backend: OnnxBackend, part: str, value: float) -> None:
    start(backend, [0, 1])
    backend.copy(1, 2)
    broken = backend.read(0)
    getattr(broken, part)[0, 0, 3] = value
    backend.write(0, broken)
    batch = backend.open([0, 1])
    picked = [batch.step([draw(5, i), draw(6, i)]) for i in range(3)]
    batch.close()
    backend.prefill([2], [6, 6, 6])
    assert [row[0] for row in picked] == [FAILED] * 3
    assert all(row[1] != FAILED for row in picked)
    assert backend.read(1).equals(backend.read(2))


def test_a_failed_step_leaves_every_slot_as_it_was(backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    start(backend, [0, 1])
    before = [backend.read(0), backend.read(1)]
    batch = backend.open([0, 1])
    batch.step([draw(5), draw(6)])

    class Failing:
        def run_with_iobinding(self, binding: object) -> None:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(batch._work, "_session", Failing())
    with pytest.raises(BackendError, match="out of memory"):
        batch.step([draw(7), draw(8)])
    batch.close()
    assert [backend.read(slot).digest() for slot in (0, 1)] == [state.digest() for state in before]


def test_tokens_outside_the_vocabulary_are_refused(backend: OnnxBackend) -> None:
    start(backend, [0])
    before = backend.read(0)
    for tokens in ([3, backend.vocab_size], [-1, 3]):
        with pytest.raises(BackendError, match="tokens are from 0 to"):
            backend.prefill([0], tokens)
        with pytest.raises(BackendError, match="tokens are from 0 to"):
            backend.score(0, tokens)
        batch = backend.open([0])
        with pytest.raises(BackendError, match="tokens are from 0 to"):
            batch.step([draw(max(tokens, key=abs) if tokens[0] > 0 else -1)])
        batch.close()
    assert backend.read(0).equals(before)


def test_slots_are_copied_cleared_and_checked(backend: OnnxBackend) -> None:
    start(backend, [0])
    backend.copy(0, 9)
    assert backend.read(9).equals(backend.read(0))
    backend.clear(9)
    assert not backend.read(9).vector.any()
    with pytest.raises(ValueError, match="State of this model"):
        backend.write(0, State.zeros(StateSpec(1, 2, 3, 4)))
    with pytest.raises(ValueError, match="1 to 8 rows"):
        backend.open([])


def test_weights_that_are_gone_are_told_of(folder: Path) -> None:
    bundle = tiny_bundle(folder, 8, name="gone")
    bundle.offsets()
    bundle.weights_path.unlink()
    with pytest.raises(BackendError, match="cannot load `gone`"):
        OnnxBackend(bundle, slots=1)


def test_choose_names_backend_and_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npc_runtime.backends._DRIVER", ())
    bundle = tiny_bundle(folder, 4, name="choose")
    config = Config(state_budget_mb=1, max_batch=2)
    backend, reason = choose("auto", bundle, config)
    slots = 1024 * 1024 // bundle.spec.nbytes
    assert reason == f"the CPU (no NVIDIA GPU); 4-bit weights, 1 thread, {slots} Slots"
    assert (backend.name, backend.slots, backend.max_batch) == ("onnx", slots, 2)
    assert choose("onnx", bundle, Config(bits=8, threads=2))[1].startswith("asked for; 8-bit weights (stored at 4), 2")
    assert choose("reference", bundle, config)[0].name == "reference"
    with pytest.raises(BackendUnavailable, match="cannot run here: no NVIDIA GPU"):
        choose("cuda", bundle, config)
    with pytest.raises(ConfigError, match="must be one of auto"):
        choose("gpu", bundle, config)


def test_a_budget_too_small_for_two_states_is_told_of(folder: Path) -> None:
    bundle = tiny_bundle(folder, 4, name="choose")

    class Large:
        name = "large"
        spec = StateSpec(64, 4096, 16, 4)

    with pytest.raises(ConfigError, match="`state_budget_mb` must be at least 38"):
        choose("onnx", Large(), Config(state_budget_mb=20))  # type: ignore[arg-type]
    assert choose("onnx", bundle, Config(state_budget_mb=1))[0].slots >= 2


def test_neither_torch_nor_onnx_is_needed(folder: Path) -> None:
    bundle = tiny_bundle(folder, 4, name="clean")
    code = (
        "import sys; from npc_runtime.bundle import Bundle; from npc_runtime.backends.onnx import OnnxBackend\n"
        f"backend = OnnxBackend(Bundle.load({str(bundle.path)!r}), slots=2); backend.prefill([0], [1, 2, 3])\n"
        "print(sorted({'torch', 'onnx', 'npc_kernels'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
    assert done.stderr == ""
