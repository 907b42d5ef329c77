"""The reference is the definition: its two forms agree, and a model of one channel agrees with school arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from npc_runtime.backends.reference import Memory, ReferenceBackend, ReferenceModel, rms_norm, softplus
from npc_runtime.model.config import ModelConfig
from npc_runtime.sampling import FAILED, Draw, Sampling
from npc_runtime.state import State, StateSpec

CONFIG = ModelConfig(d_model=16, n_layer=3, vocab_size=40, d_state=4, dt_rank=2)
TOKENS = [3, 17, 9, 0, 39, 21, 5, 5, 30, 12, 1]


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    d, e, n, r = config.d_model, config.d_inner, config.d_state, config.dt_rank
    shapes = {
        "norm": (d,), "in_proj": (2 * e, d), "conv_weight": (e, config.d_conv), "conv_bias": (e,),
        "x_proj": (r + 2 * n, e), "dt_proj": (e, r), "dt_bias": (e,), "A_log": (e, n), "D": (e,), "out_proj": (d, e),
    }  # fmt: skip
    weights = {"embedding": rng.normal(size=(config.vocab_size, d)), "norm_f": rng.normal(size=d)}
    for i in range(config.n_layer):
        weights |= {f"layers.{i}.{name}": rng.normal(size=shape) * 0.3 for name, shape in shapes.items()}
    return weights


@pytest.fixture(scope="module")
def model() -> ReferenceModel:
    return ReferenceModel(random_weights(CONFIG), CONFIG, np.float64)


def some_memory(model: ReferenceModel) -> Memory:
    """A memory that is not empty, so that forms which ignore it are found out."""
    return model.parallel([7, 2, 8, 31], model.empty())[1]


def step_by_step(model: ReferenceModel, tokens: list[int], memory: Memory) -> tuple[np.ndarray, Memory]:
    rows = []
    for token in tokens:
        logits, memory = model.recurrent(token, memory)
        rows.append(logits)
    return np.stack(rows), memory


def test_recurrent_equals_parallel(model: ReferenceModel) -> None:
    start = some_memory(model)
    logits, after = model.parallel(TOKENS, start)
    stepped, stepped_after = step_by_step(model, TOKENS, start)
    np.testing.assert_allclose(stepped, logits, rtol=0, atol=1e-10)
    np.testing.assert_allclose(stepped_after.conv, after.conv, rtol=0, atol=1e-10)
    np.testing.assert_allclose(stepped_after.ssm, after.ssm, rtol=0, atol=1e-10)


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 10, 11])
def test_chunks_equal_the_whole(model: ReferenceModel, cut: int) -> None:
    start = some_memory(model)
    logits, after = model.parallel(TOKENS, start)
    first, middle = model.parallel(TOKENS[:cut], start)
    second, end = model.parallel(TOKENS[cut:], middle)
    np.testing.assert_allclose(np.concatenate([first, second]), logits, rtol=0, atol=1e-10)
    np.testing.assert_allclose(end.conv, after.conv, rtol=0, atol=1e-10)
    np.testing.assert_allclose(end.ssm, after.ssm, rtol=0, atol=1e-10)


def test_the_initial_memory_matters_and_is_not_changed(model: ReferenceModel) -> None:
    start = some_memory(model)
    before = start.ssm.copy()
    told, _ = model.parallel(TOKENS, start)
    fresh, _ = model.parallel(TOKENS, model.empty())
    assert np.abs(told - fresh).max() > 1e-3
    np.testing.assert_array_equal(start.ssm, before)


def test_fp32_agrees_with_fp64(model: ReferenceModel) -> None:
    single = ReferenceModel(random_weights(CONFIG), CONFIG, np.float32)
    logits, _ = single.parallel(TOKENS, single.empty())
    exact, _ = model.parallel(TOKENS, model.empty())
    assert logits.dtype == np.float32
    assert np.sqrt(np.mean((logits - exact) ** 2)) < 1e-5 * exact.std()


def test_one_channel_by_hand() -> None:
    """D = E = N = R = 1, K = 2, one layer, V = 2: every number worked out with `math`, two tokens long."""
    config = ModelConfig(d_model=1, n_layer=1, vocab_size=2, d_state=1, d_conv=2, expand=1, norm_eps=0.25)
    names = {
        "embedding": [[0.5], [-2.0]], "norm_f": [3.0], "layers.0.norm": [2.0], "layers.0.in_proj": [[0.7], [1.1]],
        "layers.0.conv_weight": [[0.4, -0.9]], "layers.0.conv_bias": [0.2], "layers.0.x_proj": [[0.6], [1.5], [-0.8]],
        "layers.0.dt_proj": [[1.3]], "layers.0.dt_bias": [-0.5], "layers.0.A_log": [[0.3]], "layers.0.D": [0.9],
        "layers.0.out_proj": [[-1.7]],
    }  # fmt: skip
    model = ReferenceModel({k: np.array(v) for k, v in names.items()}, config, np.float64)

    def silu(v: float) -> float:
        return v / (1 + math.exp(-v))

    last, h, expected = 0.0, 0.0, []
    for u in (-2.0, 0.5):
        normed = u / math.sqrt(u * u + 0.25) * 2.0
        x_in, z = 0.7 * normed, 1.1 * normed
        x = silu(0.4 * last - 0.9 * x_in + 0.2)
        last = x_in
        delta = math.log(1 + math.exp(1.3 * 0.6 * x - 0.5))
        h = math.exp(-math.exp(0.3) * delta) * h + delta * 1.5 * x * x
        out = u + -1.7 * (-0.8 * x * h + 0.9 * x) * silu(z)
        final = out / math.sqrt(out * out + 0.25) * 3.0
        expected.append([0.5 * final, -2.0 * final])

    logits, memory = model.parallel([1, 0], model.empty())
    np.testing.assert_allclose(logits, expected, rtol=1e-12)
    assert memory.ssm[0, 0, 0] == pytest.approx(h, rel=1e-12)
    assert memory.conv[0, 0, 0] == pytest.approx(last, rel=1e-12)


def test_an_untied_head_is_used() -> None:
    weights = random_weights(CONFIG)
    tied = ReferenceModel(weights, CONFIG, np.float64)
    untied = ReferenceModel(weights | {"head": 2 * weights["embedding"]}, CONFIG, np.float64)
    np.testing.assert_allclose(untied.recurrent(3, untied.empty())[0], 2 * tied.recurrent(3, tied.empty())[0])


def test_pieces_at_their_limits() -> None:
    assert softplus(np.array([1000.0, -1000.0, 0.0])).tolist() == [1000.0, 0.0, math.log(2)]
    assert np.isfinite(rms_norm(np.zeros(4), np.ones(4), 1e-5)).all()


@pytest.fixture
def backend() -> ReferenceBackend:
    return ReferenceBackend(ReferenceModel(random_weights(CONFIG), CONFIG), slots=4)


def draw(token: int, position: int, **changes: object) -> Draw:
    return Draw(token, Sampling(temperature=0.0), seed=1, turn=0, position=position, **changes)  # type: ignore[arg-type]


def test_a_burst_leaves_the_state_that_prefill_leaves(backend: ReferenceBackend) -> None:
    backend.prefill([0, 1], TOKENS)
    batch = backend.open([0])
    token, said = 4, []
    for position in range(5):
        said.append(token)
        [token] = batch.step([draw(token, position)])
    batch.close()
    backend.prefill([1], said)
    np.testing.assert_allclose(backend.read(0).vector, backend.read(1).vector, rtol=1e-4, atol=1e-5)


def test_release_writes_back_and_the_others_go_on(backend: ReferenceBackend) -> None:
    backend.prefill([0, 1], TOKENS[:4])
    batch = backend.open([0, 1])
    batch.step([draw(3, 0), draw(4, 0)])
    assert batch.step([None, draw(5, 1)])[0] == FAILED
    released = backend.read(0)
    batch.step([None, draw(6, 2)])
    batch.close()
    backend.prefill([2], [*TOKENS[:4], 3])
    np.testing.assert_allclose(released.vector, backend.read(2).vector, rtol=1e-4, atol=1e-5)
    assert backend.read(0).equals(released)
    assert not backend.read(1).equals(released)


def test_a_row_of_nan_fails_alone(backend: ReferenceBackend) -> None:
    broken = State.zeros(backend.spec)
    broken.vector[:] = np.nan
    backend.write(0, broken)
    batch = backend.open([0, 1])
    tokens = batch.step([draw(3, 0), draw(3, 0)])
    batch.close()
    assert tokens[0] == FAILED
    assert 0 <= tokens[1] < CONFIG.vocab_size


def test_score_is_the_log_probability_and_changes_nothing(backend: ReferenceBackend) -> None:
    backend.prefill([0], TOKENS[:3])
    before = backend.read(0)
    scores = backend.score(0, [4, 9, 2])
    logits, _ = backend.model.parallel([4, 9], backend.memory(backend.store[0]))
    expected = [
        row[token] - math.log(np.exp(row.astype(float)).sum()) for row, token in zip(logits, [9, 2], strict=True)
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert backend.read(0).equals(before)
    assert backend.score(0, [4]).shape == (0,)


def test_slots_are_copied_cleared_and_checked(backend: ReferenceBackend) -> None:
    backend.prefill([0], TOKENS)
    backend.copy(0, 3)
    assert backend.read(3).equals(backend.read(0))
    backend.clear(3)
    assert not backend.read(3).vector.any()
    with pytest.raises(ValueError, match="State of this model"):
        backend.write(0, State.zeros(StateSpec(1, 2, 3, 4)))
