"""The causal convolution on an NVIDIA GPU: every dtype, number of taps, odd sizes, borders of documents."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU here", allow_module_level=True)

from kernel_cases import assert_close, conv_inputs, errors, leaf, rms_ratio  # noqa: E402
from npc_kernels import causal_conv1d, causal_conv1d_ref  # noqa: E402

SHAPES = [
    (1, 1, 40, 4),
    (2, 2, 64, 4),
    (2, 200, 130, 4),
    (3, 64, 128, 4),
    (1, 65, 257, 4),
    (2, 129, 64, 3),
    (2, 70, 64, 2),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", ["silu", None])
def test_against_the_definition(dtype: torch.dtype, shape: tuple[int, int, int, int], activation: str | None) -> None:
    inputs = conv_inputs(*shape, dtype, "cuda")
    found = errors(
        lambda **named: causal_conv1d(**named, activation=activation),
        lambda **named: causal_conv1d_ref(**named, activation=activation),
        inputs,
    )
    assert_close(found, dtype)


@pytest.mark.parametrize("without", ["seq_idx", "bias", "initial_state", "bias initial_state seq_idx"])
def test_optional_arguments(without: str) -> None:
    inputs = conv_inputs(2, 130, 64, 4, torch.bfloat16, "cuda", without)
    assert_close(errors(causal_conv1d, causal_conv1d_ref, inputs), torch.bfloat16)
    assert_close(errors(causal_conv1d, causal_conv1d_ref, inputs, final_grad=False), torch.bfloat16)


def test_rows_that_lie_apart() -> None:
    inputs = conv_inputs(2, 70, 64, 4, torch.float32, "cuda")
    inputs["x"] = leaf(torch.randn(2, 70, 128), device="cuda")[..., 64:]
    assert_close(errors(causal_conv1d, causal_conv1d_ref, inputs), torch.float32)
    inputs["x"] = leaf(torch.randn(2, 64, 70), device="cuda").transpose(1, 2)
    assert_close(errors(causal_conv1d, causal_conv1d_ref, inputs), torch.float32)


def test_single_steps_equal_one_pass() -> None:
    inputs = conv_inputs(2, 100, 64, 4, torch.float32, "cuda", "seq_idx")
    with torch.no_grad():
        whole, final = causal_conv1d(**inputs)
        state, steps = inputs["initial_state"], []
        for t in range(100):
            y, state = causal_conv1d(**(inputs | {"x": inputs["x"][:, t : t + 1], "initial_state": state}))
            steps.append(y)
    assert rms_ratio(torch.cat(steps, 1), whole) < 1e-6
    assert torch.equal(state, final)


def test_the_same_bits_every_time() -> None:
    inputs = conv_inputs(4, 512, 256, 4, torch.bfloat16, "cuda")
    leaves = [value for value in inputs.values() if value is not None and value.requires_grad]
    made = []
    for _ in range(3):
        y, state = causal_conv1d(**inputs)
        made.append([y, state, *torch.autograd.grad([y, state], leaves, [torch.ones_like(y), torch.ones_like(state)])])
    for again in made[1:]:
        assert all(torch.equal(first, second) for first, second in zip(made[0], again, strict=True))


def test_more_taps_than_the_kernel_has_are_refused() -> None:
    with pytest.raises(ValueError, match="`weight` must have 2 to 4 taps on a GPU"):
        causal_conv1d(torch.randn(1, 5, 8, device="cuda"), torch.randn(8, 5, device="cuda"))
