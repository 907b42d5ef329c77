"""Random cases for the kernels and their comparison with the definitions, on whatever device is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from npc_kernels import add_rms_norm_ref, causal_conv1d_ref, linear_cross_entropy_ref, selective_scan_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor

Inputs = dict[str, "Tensor | None"]

# RMS of the error over RMS of the value. Sums run in another order than the definition's (1e-5); results in half
# precision are rounded once (2^-9 and 2^-12, and the interpreter truncates: twice that); dB and dC of half-precision
# inputs pass through tf32.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 6e-3, torch.float16: 1e-3}


def poisoned_empty() -> AbstractContextManager[None]:
    """While this lasts torch.empty and its kin give NaN, so that an element never written is found out."""
    from contextlib import contextmanager

    @contextmanager
    def patch() -> Iterator[None]:
        saved = torch.empty, torch.empty_like

        def filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def made(*args: object, **kwargs: object) -> Tensor:
                tensor = make(*args, **kwargs)
                return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

            return made

        torch.empty, torch.empty_like = filled(saved[0]), filled(saved[1])
        try:
            yield
        finally:
            torch.empty, torch.empty_like = saved

    return patch()


def rms_ratio(actual: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of the expected value."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).square().mean().sqrt() / (expected.square().mean().sqrt() + 1e-30))


def leaf(tensor: Tensor, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """Make a leaf that wants a gradient."""
    return tensor.to(device, dtype).detach().requires_grad_()


def documents(b: int, L: int, device: str, share: float = 0.15) -> Tensor:
    """Document numbers that change at random places."""
    return (torch.rand(b, L) < share).int().cumsum(1).int().to(device)


def scan_inputs(
    b: int, L: int, E: int, N: int, dtype: torch.dtype = torch.float32, device: str = "cpu", without: str = ""
) -> Inputs:
    """Inputs of a scan; `without` names the optional ones left out."""
    inputs: Inputs = {
        "x": leaf(torch.randn(b, L, E), dtype, device),
        "dt": leaf(torch.randn(b, L, E) * 2 - 1, dtype, device),
        "A": leaf(-torch.rand(E, N) * 4 - 0.05, device=device),
        "B": leaf(torch.randn(b, L, N), dtype, device),
        "C": leaf(torch.randn(b, L, N), dtype, device),
        "D": leaf(torch.randn(E), device=device),
        "z": leaf(torch.randn(b, L, E), dtype, device),
        "dt_bias": leaf(torch.randn(E) - 1, device=device),
        "initial_state": leaf(torch.randn(b, N, E), device=device),
        "seq_idx": documents(b, L, device),
    }
    return inputs | dict.fromkeys(without.split())


def conv_inputs(
    b: int, L: int, E: int, K: int, dtype: torch.dtype = torch.float32, device: str = "cpu", without: str = ""
) -> Inputs:
    """Inputs of a convolution; `without` names the optional ones left out."""
    inputs: Inputs = {
        "x": leaf(torch.randn(b, L, E), dtype, device),
        "weight": leaf(torch.randn(E, K), device=device),
        "bias": leaf(torch.randn(E), device=device),
        "initial_state": leaf(torch.randn(b, K - 1, E), device=device),
        "seq_idx": documents(b, L, device, 0.3),
    }
    return inputs | dict.fromkeys(without.split())


def errors(
    run: Callable[..., tuple[Tensor, Tensor] | Tensor],
    reference: Callable[..., tuple[Tensor, Tensor] | Tensor],
    inputs: Inputs,
    final_grad: bool = True,
) -> dict[str, float]:
    """RMS ratio of each result and of each gradient, outputs poisoned with NaN beforehand."""
    leaves = {name: value for name, value in inputs.items() if value is not None and value.requires_grad}
    made: list[list[Tensor]] = []
    grads_out: list[Tensor] = []
    for function in (reference, run):
        with poisoned_empty():
            result = function(**inputs)
            outputs = [result] if isinstance(result, torch.Tensor) else list(result)
            if not grads_out:
                grads_out = [torch.randn_like(output) for output in outputs]
            wanted = len(outputs) if final_grad else 1
            grads = torch.autograd.grad(outputs[:wanted], list(leaves.values()), grads_out[:wanted], allow_unused=True)
        made.append(
            [*outputs, *(torch.zeros_like(v) if g is None else g for v, g in zip(leaves.values(), grads, strict=True))]
        )
    names = [*(f"result{i}" for i in range(len(made[0]) - len(leaves))), *(f"d{name}" for name in leaves)]
    for name, expected, actual in zip(names, *made, strict=True):
        assert actual.shape == expected.shape, name
        assert actual.dtype == expected.dtype, name
    return {name: rms_ratio(actual, expected) for name, expected, actual in zip(names, *made, strict=True)}


def assert_close(found: dict[str, float], dtype: torch.dtype) -> None:
    """Fail with the names and ratios that pass the bound of a dtype."""
    wrong = {name: ratio for name, ratio in found.items() if not ratio < BOUNDS[dtype]}
    assert not wrong, f"RMS ratio above {BOUNDS[dtype]}: {wrong}, of {found}"


__all__ = [
    "BOUNDS",
    "add_rms_norm_ref",
    "assert_close",
    "causal_conv1d_ref",
    "conv_inputs",
    "errors",
    "leaf",
    "linear_cross_entropy_ref",
    "poisoned_empty",
    "rms_ratio",
    "scan_inputs",
    "selective_scan_ref",
]
