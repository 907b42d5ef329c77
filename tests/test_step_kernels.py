"""The kernels of the decode step against their definitions (test_kernels runs this under Triton's interpreter too)."""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from npc_kernels import conv_step, decode_step, norm_linear, norm_linear_ref, state_step  # noqa: E402
from step_cases import Arguments, conv_step_inputs, state_step_inputs, step_weights  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run under the interpreter by test_kernels")

if INTERPRETED:
    from kernel_cases import BOUNDS, poisoned_empty, rms_ratio
    from npc_kernels import conv_step_ref, decode_step_ref, product_triton, state_step_ref, step_triton

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def compare(
    run: Callable[..., Tensor], reference: Callable[..., Tensor], inputs: Arguments, dtype: torch.dtype
) -> None:
    """Result and store against the definition, outputs poisoned; slots that nobody named keep their bits."""
    before, store = inputs["store"], [inputs["store"].clone() for _ in range(2)]
    with poisoned_empty():
        found = run(**(inputs | {"store": store[0]}))
    expected = reference(**(inputs | {"store": store[1]}))
    assert rms_ratio(found, expected) < BOUNDS[dtype]
    assert rms_ratio(store[0], store[1]) < BOUNDS[before.dtype]
    slots = inputs["slots"]
    idle = torch.ones(before.shape[0], dtype=torch.bool)
    idle[slots[slots >= 0].long()] = False
    assert torch.equal(store[0][idle], before[idle])
    assert not found[slots < 0].any()


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("shape", "bias"), [((5, 35, 4), True), ((2, 64, 2), False)], ids=str)
def test_conv_step(shape: tuple[int, int, int], bias: bool, dtype: torch.dtype) -> None:
    compare(step_triton.conv, conv_step_ref, conv_step_inputs(*shape, dtype, dtype, bias=bias), dtype)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(5, 35, 16, 0), (3, 130, 4, 3)], ids=str)
def test_state_step(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    compare(step_triton.state, state_step_ref, state_step_inputs(*shape, dtype, dtype), dtype)


@interpreted
@pytest.mark.parametrize("layer", ["few_layer", "middle_layer", "many_layer"])
@pytest.mark.parametrize("width", [24, 80])
def test_layer(layer: str, width: int) -> None:
    """One layer's addition to the residual and what it leaves in the stores; padding rows leave nothing."""
    weights = step_weights(width, 1, width)
    weights = weights._replace(norm_f=torch.ones(width), head=torch.eye(width))
    conv, ssm = torch.randn(1, 7, 3, 2 * width), torch.randn(1, 7, 16, 2 * width)
    slots, residual = torch.tensor([5, -1, 0]), weights.embedding[:3].clone()
    made = conv.clone(), ssm.clone()
    with poisoned_empty():
        run = getattr(importlib.import_module("npc_kernels.decode_step"), layer)
        run(residual, made[0][0], made[1][0], slots, weights.layers[0], weights.eps)
    normed = residual / (residual.square().mean(1, keepdim=True) + weights.eps).sqrt()
    expected = decode_step_ref(torch.arange(3), slots, conv, ssm, weights)
    live = slots >= 0
    assert rms_ratio(normed[live], expected[live]) < 1e-5
    assert rms_ratio(made[0], conv) < 1e-5
    assert rms_ratio(made[1], ssm) < 1e-5
    assert torch.equal(residual[1], weights.embedding[1])


@interpreted
def test_products_of_few_and_many_rows() -> None:
    x, norm, weight = torch.randn(5, 300), torch.rand(300), torch.randn(70, 300)
    expected = norm_linear_ref(x, norm, weight, 1e-5)
    with poisoned_empty():
        few = step_triton.norm_linear(x, norm, weight, torch.empty(5, 70), 1e-5)
        normed, scale = step_triton.norm_factor(x, norm, 1e-5, torch.float32)
        many = product_triton.product(normed, weight, torch.empty(5, 70), scale)
    assert rms_ratio(few, expected) < 1e-5
    assert rms_ratio(many, expected) < 1e-5


@interpreted
@pytest.mark.parametrize("tile", [*product_triton.WIDENING, *product_triton.NARROWING] if INTERPRETED else [])
@pytest.mark.parametrize("shape", [(5, 300, 70), (19, 512, 40), (3, 24, 33)], ids=str)
def test_every_tile_of_a_product_sums_alike(tile: product_triton.Tile, shape: tuple[int, int, int]) -> None:
    rows, depth, features = shape
    x, weight, scale = torch.randn(rows, depth), torch.randn(features, depth), torch.rand(rows)
    before = torch.randn(rows, features)
    span = step_triton.quarter(depth)
    first = product_triton.launch(x, weight, before.clone(), product_triton.WIDENING[0], span, scale, True)
    with poisoned_empty():
        found = product_triton.launch(x, weight, before.clone(), tile, span, scale, True)
    assert rms_ratio(found, before + scale[:, None] * (x @ weight.t())) < 1e-5
    assert torch.equal(found, first)


@interpreted
@pytest.mark.parametrize(
    ("rows", "depth", "features", "expected"),
    [
        (128, 512, 2048, (64, 32)),
        (512, 512, 2048, (64, 64)),
        (8192, 512, 2048, (64, 128)),
        (128, 768, 50280, (64, 128)),
        (128, 1024, 512, (16, 32)),
        (512, 1024, 512, (64, 32)),
        (64, 1024, 64, (16, 32)),
        (8192, 1024, 64, (64, 64)),
    ],
)
def test_tile_for(rows: int, depth: int, features: int, expected: tuple[int, int]) -> None:
    assert product_triton.tile_for(rows, depth, features)[:2] == expected


@interpreted
def test_embed() -> None:
    table = torch.randn(9, 5)
    assert torch.equal(step_triton.embed(torch.tensor([3, 0, 3]), table), table[[3, 0, 3]])


def test_cpu_tensors_take_the_definition() -> None:
    """A whole step of two layers: the stores of the named slots move on, and token by token the logits follow them."""
    weights = step_weights(16, 2, 50)
    conv, ssm = torch.zeros(2, 4, 3, 32), torch.zeros(2, 4, 16, 32)
    tokens, slots = torch.tensor([1, 1, 2]), torch.tensor([3, 0, -1])
    first = decode_step(tokens, slots, conv, ssm, weights)
    assert first.shape == (3, 50)
    assert torch.equal(first[0], first[1])
    assert ssm[:, [0, 3]].any()
    assert not ssm[:, 1:3].any()
    second = decode_step(tokens, slots, conv, ssm, weights)
    assert not torch.equal(first[0], second[0])


def conv_arguments() -> Arguments:
    return {
        "x": torch.zeros(2, 8),
        "store": torch.zeros(5, 3, 8),
        "slots": torch.zeros(2).int(),
        "weight": torch.zeros(8, 4),
    }


def state_arguments() -> Arguments:
    rows, few = torch.zeros(2, 8), torch.zeros(2, 4)
    vector = torch.zeros(8)
    made = {"store": torch.zeros(5, 4, 8), "slots": torch.zeros(2).int(), "x": rows, "dt": rows, "dt_bias": vector}
    return made | {"A": torch.zeros(8, 4), "B": few, "C": few, "D": vector, "z": rows}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 8)}, "`x` must have 2 dimensions, got shape (2, 3, 8)"),
        ({"weight": torch.zeros(8, 1)}, "`weight` must have shape (8, 2), got (8, 1)"),
        ({"store": torch.zeros(5, 8, 3)}, "`store` must have shape (S, 3, 8), got (5, 8, 3)"),
        ({"store": torch.zeros(5, 3, 8).int()}, "`store` must be float32, bfloat16 or float16, got torch.int32"),
        (
            {"store": torch.zeros(5, 8, 3).transpose(1, 2)},
            "`store` must be contiguous within a slot, got strides (24, 1, 3)",
        ),
        ({"slots": torch.zeros(2)}, "`slots` must be (2) int32 or int64, got (2,) torch.float32"),
        ({"slots": torch.zeros(3).int()}, "`slots` must be (2) int32 or int64, got (3,) torch.int32"),
        ({"slots": torch.zeros(2, device="meta").int()}, "`slots` must be on cpu like the rows, got meta"),
        ({"bias": torch.zeros(4)}, "`bias` must have shape (8,), got (4,)"),
    ],
)
def test_conv_step_refuses(change: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        conv_step(**(conv_arguments() | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.zeros(8, 3)}, "`A` must have a power of two of states a channel, got shape (8, 3)"),
        ({"dt": torch.zeros(2, 3)}, "`dt` must have shape (2, 8), got (2, 3)"),
        ({"dt_weight": torch.zeros(8, 3)}, "`dt` must have shape (2, 3), got (2, 8)"),
        ({"B": torch.zeros(2, 8)}, "`B` must have shape (2, 4), got (2, 8)"),
        ({"D": torch.zeros(4)}, "`D` must have shape (8,), got (4,)"),
        ({"store": torch.zeros(5, 8, 4)}, "`store` must have shape (S, 4, 8), got (5, 8, 4)"),
    ],
)
def test_state_step_refuses(change: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        state_step(**(state_arguments() | change))


def test_norm_linear_refuses() -> None:
    with pytest.raises(ValueError, match=r"^`residual` must be torch\.float32, got torch\.float16$"):
        norm_linear(torch.zeros(2, 8).half(), torch.zeros(8), torch.zeros(4, 8))
    with pytest.raises(ValueError, match=r"^`weight` must have shape \(4, 8\), got \(4, 6\)$"):
        norm_linear(torch.zeros(2, 8), torch.zeros(8), torch.zeros(4, 6))
