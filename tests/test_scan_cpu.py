"""The CPU's scan against the reference: values, final states and every gradient."""

from __future__ import annotations

import pytest
import torch
from npc_kernels import selective_scan_ref
from npc_kernels.selective_scan_cpu import selective_scan_cpu

torch.set_num_threads(1)  # tiny products: threads would only wait for each other
NAMES = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state")


def inputs(batch: int, length: int, channels: int, states: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(length)
    shapes = [(batch, length, channels)] * 2 + [(channels, states)] + [(batch, length, states)] * 2
    shapes += [(channels,), (batch, length, channels), (channels,), (batch, states, channels)]
    made = [torch.randn(shape, generator=g) for shape in shapes]
    made[2] = -made[2].abs() - 0.1
    return [tensor.requires_grad_() for tensor in made]


@pytest.mark.parametrize("length", [1, 5, 64, 130])
@pytest.mark.parametrize("packed", [False, True])
def test_the_scan_and_its_gradients_are_the_reference_s(length: int, packed: bool) -> None:
    seq_idx = (torch.arange(length) // 29).int().repeat(2, 1) if packed else None
    found = []
    for scan in (selective_scan_ref, selective_scan_cpu):
        given = inputs(2, length, 6, 4)
        y, state = scan(*given, seq_idx)
        weight = torch.linspace(-1, 1, y.numel()).view_as(y)
        ((y * weight).sum() + (state * state).sum()).backward()
        found.append([y, state, *(tensor.grad for tensor in given)])
    for name, one, two in zip(("y", "state", *NAMES), *found, strict=True):
        torch.testing.assert_close(two, one, rtol=2e-5, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_optional_arguments_may_be_left_out() -> None:
    given = inputs(1, 9, 4, 2)[:5]
    for one, two in zip(selective_scan_ref(*given), selective_scan_cpu(*given), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
