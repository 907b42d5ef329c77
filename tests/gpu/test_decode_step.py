"""One token a row on an NVIDIA GPU: dtypes, odd sizes, slots, padding, and bits that no batch changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU here", allow_module_level=True)

from kernel_cases import BOUNDS, poisoned_empty, rms_ratio  # noqa: E402
from npc_kernels import (  # noqa: E402
    causal_conv1d,
    conv_step,
    conv_step_ref,
    decode_step,
    decode_step_ref,
    norm_linear,
    norm_linear_ref,
    selective_scan,
    state_step,
    state_step_ref,
)
from npc_kernels.decode_step import few_layer, many_layer, middle_layer  # noqa: E402
from step_cases import Arguments, conv_step_inputs, state_step_inputs, step_weights  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def compare(
    run: Callable[..., Tensor], reference: Callable[..., Tensor], inputs: Arguments, dtype: torch.dtype
) -> None:
    """Result and store against the definition; slots that nobody named keep their bits."""
    before, store = inputs["store"], [inputs["store"].clone() for _ in range(2)]
    with poisoned_empty():
        found = run(**(inputs | {"store": store[0]}))
    expected = reference(**(inputs | {"store": store[1]}))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert rms_ratio(found, expected) < BOUNDS[dtype]
    rounded = inputs.get("dt_weight") is not None  # dt, which a product then makes in its own dtype
    assert rms_ratio(store[0], store[1]) < max(BOUNDS[before.dtype], BOUNDS[dtype] if rounded else 0.0)
    slots = inputs["slots"]
    idle = torch.ones(before.shape[0], dtype=torch.bool, device="cuda")
    idle[slots[slots >= 0].long()] = False
    assert torch.equal(store[0][idle], before[idle])
    assert not found[slots < 0].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("store", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 64, 4), (5, 1000, 4), (3, 33, 3), (600, 1024, 4), (2, 64, 2)], ids=str)
def test_conv_step(dtype: torch.dtype, store: torch.dtype, shape: tuple[int, int, int]) -> None:
    compare(conv_step, conv_step_ref, conv_step_inputs(*shape, dtype, store, "cuda"), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("store", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 64, 16, 0), (5, 1000, 16, 32), (7, 33, 4, 3), (600, 1024, 16, 0)], ids=str)
def test_state_step(dtype: torch.dtype, store: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    compare(state_step, state_step_ref, state_step_inputs(*shape, dtype, store, "cuda"), dtype)


def test_slots_of_other_integers_and_rows_that_lie_apart() -> None:
    inputs = state_step_inputs(6, 128, 16, 8, torch.bfloat16, torch.float32, "cuda")
    inputs["slots"] = inputs["slots"].long()
    inputs["A"] = inputs["A"].contiguous()
    inputs["x"] = torch.randn(128, 6, device="cuda").bfloat16().t()
    inputs["store"] = torch.randn(9, 3, 16, 128, device="cuda")[:, 1]
    compare(state_step, state_step_ref, inputs, torch.bfloat16)


@pytest.mark.parametrize("run", ["conv", "state"])
def test_refuses_a_store_that_lies_apart_within_a_slot(run: str) -> None:
    conv = run == "conv"
    inputs = conv_step_inputs(2, 64, 4, device="cuda") if conv else state_step_inputs(2, 64, 16, device="cuda")
    inputs["store"] = torch.empty_like(inputs["store"].transpose(1, 2).contiguous()).transpose(1, 2)
    with pytest.raises(ValueError, match="`store` must be contiguous within a slot"):
        (conv_step if conv else state_step)(**inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 512, 2048), (20, 96, 50), (130, 512, 777), (3, 1536, 768)], ids=str)
def test_norm_linear(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    rows, width, features = shape
    residual, norm = torch.randn(rows, width, device="cuda"), torch.rand(width, device="cuda") + 0.5
    weight = (torch.randn(features, width, device="cuda") / width**0.5).to(dtype)
    with poisoned_empty():
        found = norm_linear(residual, norm, weight, dtype=torch.float32)
    assert rms_ratio(found, norm_linear_ref(residual, norm, weight)) < BOUNDS[dtype]


def stores(n_layer: int, size: int, E: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(n_layer, size, 3, E, device="cuda").to(dtype), torch.randn(n_layer, size, 16, E, device="cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layer", [few_layer, middle_layer, many_layer])
@pytest.mark.parametrize("sizes", [(512, 1), (512, 5), (768, 40), (512, 200), (40, 3)], ids=str)
def test_layer(layer: Callable[..., None], sizes: tuple[int, int], dtype: torch.dtype) -> None:
    """One layer's addition to the residual, against fp32 on the same weights."""
    width, rows = sizes
    weights = step_weights(width, 1, 64, dtype=dtype, device="cuda")
    conv, ssm = stores(1, rows + 2, 2 * width)
    slots = torch.randperm(rows + 2, device="cuda")[:rows].int()
    slots[1::4] = -1
    residual = torch.randn(rows, width, device="cuda")
    found, made = residual.clone(), (conv.clone(), ssm.clone())
    if layer is not few_layer and dtype == torch.float32:
        pytest.skip("fp32 weights take few_layer at every size")
    with poisoned_empty():
        layer(found, made[0][0], made[1][0], slots, weights.layers[0], weights.eps)
    whole = weights._replace(embedding=residual, norm_f=torch.ones(width, device="cuda"), head=torch.eye(width).cuda())
    logits = decode_step_ref(torch.arange(rows).cuda(), slots, conv, ssm, whole)
    live = slots >= 0
    normed = found / (found.square().mean(1, keepdim=True) + weights.eps).sqrt()
    bound = BOUNDS[dtype]
    assert rms_ratio(normed[live], logits[live]) < bound
    assert rms_ratio(made[0], conv) < bound
    assert rms_ratio(made[1], ssm) < bound
    assert torch.equal(found[~live], residual[~live])


@pytest.mark.parametrize("conv_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [512, 768])
def test_a_row_keeps_its_bits_in_every_batch(width: int, conv_dtype: torch.dtype) -> None:
    """Alone, among few and among thousands: logits and stores, bit for bit; padding rows change nothing."""
    weights = step_weights(width, 2, 999, dtype=torch.bfloat16, device="cuda")
    conv, ssm = stores(2, 8400, 2 * width, conv_dtype)
    tokens, slots = torch.randint(0, 999, (8300,), device="cuda"), torch.randperm(8400, device="cuda")[:8300].int()
    slots[5] = -1
    made = {}
    for rows in (1, 2, 16, 33, 64, 65, 256, 257, 500, 513, 1025, 2050, 8300):
        own = conv.clone(), ssm.clone()
        logits = decode_step(tokens[:rows], slots[:rows], *own, weights)
        made[rows] = logits, own[0][:, slots[:rows].clamp(min=0).long()], own[1][:, slots[:rows].clamp(min=0).long()]
    different = []
    for rows, (logits, *after) in made.items():
        whole, *whole_after = made[8300]
        live = slots[:rows] >= 0
        same = torch.equal(logits[live], whole[:rows][live])
        same &= all(torch.equal(a[:, live], b[:, :rows][:, live]) for a, b in zip(after, whole_after, strict=True))
        if not same:
            different.append((rows, rms_ratio(logits[live], whole[:rows][live])))
    assert not different


def test_the_same_bits_every_time_and_in_a_graph() -> None:
    weights = step_weights(512, 2, 999, dtype=torch.bfloat16, device="cuda")
    conv, ssm = stores(2, 40, 1024)
    tokens, slots = torch.randint(0, 999, (30,), device="cuda"), torch.randperm(40, device="cuda")[:30].int()
    eager = []
    for _ in range(3):
        own = conv.clone(), ssm.clone()
        eager.append((decode_step(tokens, slots, *own, weights), *own))
    own = conv.clone(), ssm.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = decode_step(tokens, slots, *own, weights)
    for held, value in zip(own, (conv, ssm), strict=True):
        held.copy_(value)
    graph.replay()
    for other in (*eager[1:], (logits, *own)):
        assert all(torch.equal(a, b) for a, b in zip(eager[0], other, strict=True))


@pytest.mark.parametrize(("b", "L"), [(2, 2000), (100, 100)])
def test_many_steps_equal_one_scan(b: int, L: int) -> None:
    """conv_step and state_step token by token, against causal_conv1d and selective_scan over the whole sequence."""
    E, N, K = 64, 16, 4
    x, dt, z = (torch.randn(b, L, E, device="cuda") for _ in range(3))
    B, C = (torch.randn(b, L, N, device="cuda") for _ in range(2))
    A, D, bias = -torch.rand(E, N, device="cuda") * 4, torch.randn(E, device="cuda"), torch.randn(E, device="cuda") - 2
    weight, slots = torch.randn(E, K, device="cuda"), torch.randperm(b + 3, device="cuda")[:b]
    conv, ssm = torch.zeros(b + 3, K - 1, E, device="cuda"), torch.zeros(b + 3, N, E, device="cuda")
    mixed, conv_state = causal_conv1d(x, weight)
    whole, state = selective_scan(mixed, dt, A, B, C, D, z, bias)
    steps = []
    for t in range(L):
        mixed_t = conv_step(x[:, t], conv, slots, weight)
        steps.append(state_step(ssm, slots, mixed_t, dt[:, t], bias, A, B[:, t], C[:, t], D, z[:, t]))
    assert rms_ratio(torch.stack(steps, 1), whole) < 1e-5
    assert rms_ratio(ssm[slots], state) < 1e-5
    assert torch.equal(conv[slots], conv_state)
