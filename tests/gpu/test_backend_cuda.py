"""The GPU backend on an NVIDIA GPU: the cases of the CPU, graphs and all, and what only a GPU shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU here", allow_module_level=True)

from backend_cases import TOKENS, Cases, draw, reference, relative_error, start  # noqa: E402
from bundles import CONFIG, ODD, tiny_bundle  # noqa: E402
from draw_cases import clone, logits, rows, tables  # noqa: E402
from npc_kernels import draw_step, draw_step_ref, row_linear, row_linear_ref  # noqa: E402
from npc_kernels.row_linear_triton import TILES, multiply  # noqa: E402

from npc_runtime.backends import choose  # noqa: E402
from npc_runtime.backends.cuda import CudaBackend  # noqa: E402
from npc_runtime.backends.onnx import OnnxBackend  # noqa: E402
from npc_runtime.bundle import Bundle, find_bundle  # noqa: E402
from npc_runtime.config import Config  # noqa: E402
from npc_runtime.sampling import TOP_K  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

WIDE = CONFIG.__class__(d_model=128, n_layer=2, vocab_size=320)
KINDS = {
    "bf16": (8, CONFIG, torch.bfloat16),
    "fp32": (32, CONFIG, torch.float32),
    "bf16-wide": (4, WIDE, torch.bfloat16),
    "fp32-odd": (8, ODD, torch.float32),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def backend(request: pytest.FixtureRequest, folder: Path) -> CudaBackend:
    bits, config, dtype = request.param
    return CudaBackend(tiny_bundle(folder, bits, config, name=f"tiny-{config.d_model}"), 16, 8, dtype)


class TestOnTheGpu(Cases):
    """Every case of backend_cases.py."""


# RMS ratio to the definition in fp64 over the same weights.
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.03}


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("config", [CONFIG, ODD], ids=["even", "odd"])
def test_close_to_the_reference(folder: Path, dtype: Any, config: Any) -> None:
    bundle = tiny_bundle(folder, 8, config, name=f"near-{config.d_model}")
    backend, exact = CudaBackend(bundle, 1, 8, dtype), reference(bundle)
    tokens = np.random.default_rng(5).integers(0, config.vocab_size, 100).tolist()
    backend.prefill([0], tokens[:60])
    for token in tokens[60:]:
        backend.prefill([0], [token])
    found = backend.bucket(1).logits[0].cpu().numpy()
    expected, memory = exact.parallel(tokens, exact.empty())
    state = backend.read(0)
    errors = [relative_error(found, expected[-1]), relative_error(state.ssm, memory.ssm)]
    errors.append(relative_error(state.conv, memory.conv))
    print(f"{dtype} {config.d_model}: logits, ssm, conv {errors}")
    assert max(errors) < BOUNDS[dtype]


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.load(find_bundle("default"), verify=False)


def test_the_shipped_model_at_every_size_of_batch(shipped: Bundle) -> None:
    backend = CudaBackend(shipped, 16, 8192)
    assert backend.exact_batches


def test_a_state_moves_between_cpu_and_gpu(shipped: Bundle) -> None:
    """A life begun on one goes on on the other: the bits travel, and what is said next is as likely there."""
    gpu, cpu = CudaBackend(shipped, 4, 8), OnnxBackend(shipped, 4, 32)
    text = shipped.tokenizer.encode("Good evening. My name is Corvane, and I carry letters for the mill. Is it far?")
    for one, other in ((gpu, cpu), (cpu, gpu)):
        one.clear(0)
        one.prefill([0], text)
        other.write(1, one.read(0))
        assert other.read(1).equals(one.read(0))
        here, there = one.score(0, text), other.score(1, text)
        share = float(np.sqrt(np.mean((here - there) ** 2)) / here.std())
        print(f"{one.name} to {other.name}: {share:.4f} of the spread")
        assert share < 0.02


def test_choose_takes_the_gpu(shipped: Bundle) -> None:
    backend, reason = choose("auto", shipped, Config(state_budget_mb=2000))
    assert (backend.name, backend.slots) == ("cuda", 2000 * 2**20 // shipped.spec.nbytes)
    assert reason.startswith("an NVIDIA GPU: NVIDIA ")
    backend.close()


def test_growing_keeps_states_and_graphs(folder: Path) -> None:
    backend = CudaBackend(tiny_bundle(folder, 8, name="grow"), 5000, 8)
    start(backend, [0, 1])
    backend.copy(0, 200)
    batch = backend.open([1])
    batch.step([draw(5)])
    backend.clear(4000)
    batch.step([draw(6)])
    batch.close()
    start(backend, [3])
    backend.write(3, backend.read(200))
    backend.prefill([3], TOKENS[1:7])
    backend.prefill([200], TOKENS[1:7])
    assert backend.read(3).equals(backend.read(200))
    start(backend, [1001])
    backend.clear(5)
    backend.prefill([5], TOKENS[1:7])
    for token in (5, 6):
        backend.prefill([5], [token])
    assert backend.read(1).equals(backend.read(5))
    assert backend.store.generation > 1


@pytest.mark.parametrize("vocabulary", [70, 8192, 50280])
def test_the_kernel_draws_as_its_definition(vocabulary: int) -> None:
    torch.manual_seed(0)
    where, given = tables(vocabulary, "cuda"), rows(500, vocabulary, "cuda")
    expected = clone(given)
    for _ in range(3):
        x = logits(500, vocabulary, "cuda")
        draw_step(x, given, where, TOP_K)
        draw_step_ref(x, expected, where, TOP_K)
    assert torch.equal(given.out, expected.out)
    live = (expected.out[:3] >= 0).all(0)
    assert live.sum() > 50
    assert torch.equal(given.table[:, live], expected.table[:, live])
    assert torch.equal(given.recent[live], expected.recent[live])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2048, 512), (64, 1024), (1024, 32), (50280, 768), (33, 40)], ids=str)
def test_rows_of_a_product_are_their_own(dtype: Any, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    columns, depth = shape
    x, weight = torch.randn(3000, depth).cuda().to(dtype), torch.randn(columns, depth).cuda().to(dtype)
    one = row_linear(x[:1], weight, torch.float32)
    expected = (x[:300].double() @ weight.double().t()).float()
    assert (row_linear(x[:300], weight, torch.float32) - expected).square().mean().sqrt() < 2e-6 * depth
    assert row_linear_ref(x[:2].cpu(), weight.cpu(), torch.float32).shape == (2, columns)
    for count in (2, 17, 64, 65, 300, 3000):
        assert torch.equal(row_linear(x[:count], weight, torch.float32)[:1], one), count
        assert torch.equal(
            row_linear(x[3000 - count :], weight, torch.float32)[-1:], row_linear(x[-1:], weight, torch.float32)
        )
    if dtype == torch.bfloat16:
        for tile in TILES:
            assert torch.equal(multiply(x[:200], weight, torch.float32, tile)[:1], one), tile


@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_life_of_two_thousand_steps(folder: Path, state_dtype: Any) -> None:
    bundle = tiny_bundle(folder, 8, name="life")
    backend, exact = CudaBackend(bundle, 2, 8, torch.float32, state_dtype), reference(bundle)
    tokens = np.random.default_rng(6).integers(0, CONFIG.vocab_size, 2000).tolist()
    for token in tokens:
        backend.prefill([0], [token])
    backend.prefill([1], tokens)
    _, memory = exact.parallel(tokens, exact.empty())
    errors = [relative_error(backend.read(slot).ssm, memory.ssm) for slot in (0, 1)]
    print(f"{state_dtype}: stepped, read {errors}")
    assert errors[0] < (1e-4 if state_dtype == torch.float32 else 0.03)
    assert errors[1] < (1e-4 if state_dtype == torch.float32 else 0.01)
