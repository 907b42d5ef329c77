"""The torch model on a CPU: whole = in chunks = packed; gradients flow; names and rounding are the Bundle's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from npc_runtime.model.config import ModelConfig  # noqa: E402
from npc_runtime.model.mamba import Mamba  # noqa: E402
from npc_runtime.model.rounding import rounded, straight_through  # noqa: E402
from npc_runtime.weights import dequantize, quantize  # noqa: E402

CONFIG = ModelConfig(d_model=32, n_layer=2, vocab_size=50, d_state=8)


@pytest.fixture
def model() -> Mamba:
    torch.manual_seed(0)
    return Mamba(CONFIG)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape)


@pytest.mark.parametrize("cut", [1, 2, 5, 12])
def test_whole_equals_in_chunks(model: Mamba, cut: int) -> None:
    line = tokens(2, 13)
    whole, state = model(line)
    first, between = model(line[:, :cut])
    second, after = model(line[:, cut:], between)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.conv, state.conv, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.ssm, state.ssm, rtol=1e-5, atol=1e-6)


def test_whole_equals_token_by_token(model: Mamba) -> None:
    line, state, steps = tokens(1, 9), model.empty_state(1), []
    whole, _ = model(line)
    for t in range(line.shape[1]):
        logits, state = model(line[:, t : t + 1], state)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-6)


def test_packed_equals_separate_documents(model: Mamba) -> None:
    documents = [tokens(1, length) for length in (4, 1, 2, 6)]
    numbers = torch.cat([torch.full((1, d.shape[1]), i) for i, d in enumerate(documents)], 1).int()
    packed, state = model(torch.cat(documents, 1), seq_idx=numbers)
    apart = [model(document) for document in documents]
    torch.testing.assert_close(packed, torch.cat([logits for logits, _ in apart], 1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state.conv, apart[-1][1].conv)
    torch.testing.assert_close(state.ssm, apart[-1][1].ssm, rtol=1e-5, atol=1e-6)


def test_every_weight_has_a_gradient_and_the_loss_falls(model: Mamba) -> None:
    line = tokens(4, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model.loss(line[:, :-1], line[:, 1:], torch.ones(4, 11))
        loss.backward()
        assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_the_loss_is_the_weighted_mean(model: Mamba) -> None:
    line, weights = tokens(2, 7), torch.rand(2, 6)
    weights[0, :3] = 0
    logits, _ = model(line[:, :-1])
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), line[:, 1:].flatten(), reduction="none")
    expected = (each * weights.flatten()).sum() / weights.sum()
    torch.testing.assert_close(model.loss(line[:, :-1], line[:, 1:], weights), expected)
    assert model.loss(line[:, :-1], line[:, 1:], torch.zeros(2, 6)) == 0


def test_gradients_reach_the_state_before(model: Mamba) -> None:
    line, before = tokens(1, 6), model.empty_state(1)
    before.conv.requires_grad_()
    before.ssm.requires_grad_()
    logits, _ = model(line, before)
    logits.sum().backward()
    assert before.conv.grad is not None
    assert before.ssm.grad is not None


def test_bfloat16_autocast_keeps_the_state_in_fp32(model: Mamba) -> None:
    line = tokens(2, 8)
    exact, _ = model(line)
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = model(line)
    assert (logits.dtype, state.conv.dtype, state.ssm.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert (logits.float() - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


def test_names_are_those_of_state_spaces_without_the_prefix(model: Mamba) -> None:
    mixer = ["in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"]
    layer = ["norm.weight", *(f"mixer.{name}" for name in [*mixer, "A_log", "D", "out_proj.weight"])]
    expected = {"embedding.weight", "norm_f.weight"} | {f"layers.{i}.{name}" for i in range(2) for name in layer}
    weights = dict(model.named_parameters())
    assert set(weights) == expected == set(model.state_dict())
    assert weights["layers.0.mixer.conv1d.weight"].shape == (CONFIG.d_inner, 1, CONFIG.d_conv)
    assert weights["layers.0.mixer.A_log"].shape == (CONFIG.d_inner, CONFIG.d_state)
    assert sum(weight.numel() for weight in weights.values()) == CONFIG.parameters


def test_initial_steps_lie_where_the_official_code_puts_them(model: Mamba) -> None:
    step = torch.nn.functional.softplus(model.layers[0].mixer.dt_proj.bias)
    assert step.min() >= 0.99e-3
    assert step.max() <= 0.101
    torch.testing.assert_close(-torch.exp(model.layers[0].mixer.A_log)[0], -torch.arange(1.0, 9.0))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [64, 40], ids=["whole-blocks", "odd"])
def test_rounding_is_the_bundles(bits: int, columns: int) -> None:
    matrix = torch.randn(6, columns)
    matrix[1] = 0
    stored = dequantize(*quantize(matrix.numpy(), bits), bits, columns)
    np.testing.assert_array_equal(rounded(matrix, bits).numpy(), stored)


def test_quantised_weights_compute_rounded_and_learn(model: Mamba) -> None:
    line = tokens(2, 8)
    plain, _ = model(line)
    model.quantize_weights(4)
    coarse, _ = model(line)
    assert not torch.equal(plain, coarse)
    twin = Mamba(CONFIG)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        for layer in twin.layers:
            for linear in (layer.mixer.in_proj, layer.mixer.x_proj, layer.mixer.out_proj):
                linear.weight.copy_(rounded(linear.weight, 4))
        hidden = torch.nn.functional.linear(_hidden_with_8_bit_lookup(twin, line), rounded(model.embedding.weight, 4))
    torch.testing.assert_close(hidden, coarse)
    model.loss(line[:, :-1], line[:, 1:], torch.ones(2, 7)).backward()
    assert all(weight.grad is not None for weight in model.parameters())
    model.quantize_weights(None)
    torch.testing.assert_close(model(line)[0], plain)
    with pytest.raises(ValueError, match="`bits` must be 4, 8 or None, got 3"):
        model.quantize_weights(3)


def _hidden_with_8_bit_lookup(model: Mamba, line: torch.Tensor) -> torch.Tensor:
    model.embedding.weight.copy_(rounded(model.embedding.weight, 8))
    return model.hidden(line)[0]


def test_straight_through_passes_the_gradient_on() -> None:
    weight = torch.randn(4, 32, requires_grad=True)
    gradient = torch.randn(4, 32)
    straight_through(weight, 4).backward(gradient)
    torch.testing.assert_close(weight.grad, gradient)
