"""The kernels against their definitions, run by Triton's interpreter on a CPU (the real grid is in tests/gpu)."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from npc_kernels import add_rms_norm, causal_conv1d, linear_cross_entropy, selective_scan  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by test_under_the_interpreter in a process of its own")

if INTERPRETED:
    from kernel_cases import assert_close, conv_inputs, errors, leaf, scan_inputs
    from npc_kernels import selective_scan_triton
    from npc_kernels.causal_conv_triton import CausalConv
    from npc_kernels.cross_entropy_triton import LinearCrossEntropy
    from npc_kernels.reference import (
        add_rms_norm_ref,
        causal_conv1d_ref,
        linear_cross_entropy_ref,
        selective_scan_ref,
    )
    from npc_kernels.rms_norm_triton import AddRMSNorm
    from npc_kernels.selective_scan_triton import SelectiveScan

    torch.set_num_threads(1)


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_under_the_interpreter() -> None:
    """Triton decides at its import whether to interpret, hence a process of its own."""
    files = [__file__, str(Path(__file__).with_name("test_step_kernels.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= 60, done.stdout


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@interpreted
@pytest.mark.parametrize("chunk", [0, 8], ids=["one-pass", "chunked"])
@pytest.mark.parametrize(
    ("without", "shape"),
    [
        ("", (1, 10, 35, 4)),
        ("D", (2, 17, 3, 2)),
        ("seq_idx", (1, 9, 33, 2)),
        ("D z dt_bias initial_state seq_idx", (1, 17, 5, 2)),
        ("z initial_state", (2, 8, 3, 1)),
        ("D dt_bias seq_idx", (1, 1, 32, 4)),
    ],
)
def test_scan(without: str, shape: tuple[int, int, int, int], chunk: int) -> None:
    inputs = scan_inputs(*shape, without=without)
    found = errors(lambda **named: SelectiveScan.apply(*named.values(), chunk), selective_scan_ref, inputs)
    assert_close(found, torch.float32)


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_scan_in_half_precision(dtype: torch.dtype) -> None:
    inputs = scan_inputs(1, 9, 33, 2, dtype)
    found = errors(lambda **named: SelectiveScan.apply(*named.values(), 0), selective_scan_ref, inputs)
    assert_close(found, dtype)


@interpreted
def test_scan_without_a_gradient_for_the_final_state() -> None:
    inputs = scan_inputs(1, 7, 3, 2)
    run = lambda **named: SelectiveScan.apply(*named.values(), 0)  # noqa: E731
    assert_close(errors(run, selective_scan_ref, inputs, final_grad=False), torch.float32)


@interpreted
@pytest.mark.parametrize(("without", "chunk"), [("", 8), ("seq_idx", 8), ("z D", 0)])
def test_scan_by_the_staged_kernels(without: str, chunk: int) -> None:
    """The order of groups and their places; the copies themselves need a GPU."""
    inputs = scan_inputs(1, 16, 32, 16, without=without)
    found = errors(lambda **named: SelectiveScan.apply(*named.values(), chunk), selective_scan_ref, inputs)
    assert_close(found, torch.float32)


@interpreted
def test_what_is_not_staged() -> None:
    """Rows off the borders of 16 bytes, and lengths with a remainder."""
    inputs = scan_inputs(1, 8, 32, 16)
    launch = selective_scan_triton._Launch(inputs["x"], 16, 0, True, True)
    assert launch.staged(8, 4, inputs["x"], None) == {"STEPS": 8, "STAGES": 4}
    assert not launch.staged(8, 4, torch.randn(1, 8, 33)[..., 1:])
    assert not launch.staged(16, 4, inputs["x"])


@interpreted
def test_scan_of_rows_that_lie_apart() -> None:
    """x and z as the two halves of one tensor, B and C as parts of another: read where they are."""
    inputs = scan_inputs(2, 9, 5, 2, without="seq_idx")
    both, row = leaf(torch.randn(2, 9, 10)), leaf(torch.randn(2, 9, 7))
    inputs["x"], inputs["z"] = both[..., :5], both[..., 5:]
    inputs["B"], inputs["C"] = row[..., 3:5], row[..., 5:]
    found = errors(lambda **named: SelectiveScan.apply(*named.values(), 0), selective_scan_ref, inputs)
    assert_close(found, torch.float32)


@interpreted
@pytest.mark.parametrize("silu", [True, False], ids=["silu", "plain"])
@pytest.mark.parametrize(
    ("without", "shape"),
    [
        ("", (1, 67, 130, 4)),
        ("", (2, 1, 3, 4)),
        ("seq_idx", (2, 2, 3, 4)),
        ("", (1, 66, 5, 3)),
        ("initial_state", (1, 9, 5, 2)),
        ("bias initial_state seq_idx", (1, 130, 5, 4)),
    ],
)
def test_conv(without: str, shape: tuple[int, int, int, int], silu: bool) -> None:
    inputs = conv_inputs(*shape, without=without)
    found = errors(
        lambda **named: CausalConv.apply(*named.values(), silu),
        lambda **named: causal_conv1d_ref(*named.values(), "silu" if silu else None),
        inputs,
    )
    assert_close(found, torch.float32)


@interpreted
@pytest.mark.parametrize("branch", [True, False], ids=["branch", "alone"])
def test_norm(branch: bool) -> None:
    inputs = {"branch": leaf(torch.randn(2, 3, 20)) if branch else None, "residual": leaf(torch.randn(2, 3, 20))}
    inputs["weight"] = leaf(torch.randn(20))
    found = errors(lambda **named: AddRMSNorm.apply(*named.values(), 1e-5, torch.float32), add_rms_norm_ref, inputs)
    assert_close(found, torch.float32)


@interpreted
def test_loss() -> None:
    inputs = {"hidden": leaf(torch.randn(5, 8)), "weight": leaf(torch.randn(19, 8))}
    inputs |= {"targets": torch.randint(0, 19, (5,)), "weights": torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0])}
    found = errors(lambda **named: LinearCrossEntropy.apply(*named.values()), linear_cross_entropy_ref, inputs)
    assert_close(found, torch.float32)


def scan_arguments() -> dict[str, torch.Tensor]:
    rows, few = torch.zeros(2, 3, 8), torch.zeros(2, 3, 4)
    return {"x": rows, "dt": rows, "A": torch.zeros(8, 4), "B": few, "C": few}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 8)}, "`x` must have 3 dimensions, got shape (3, 8)"),
        ({"x": torch.zeros(2, 3, 8).int()}, "`x` must be float32, bfloat16 or float16, got torch.int32"),
        ({"x": torch.zeros(2, 0, 8)}, "`x` must hold at least one token, got shape (2, 0, 8)"),
        ({"A": torch.zeros(8, 3)}, "`A` must have a power of two of states a channel, got shape (8, 3)"),
        ({"A": torch.zeros(4, 4)}, "`A` must have shape (8, 4), got (4, 4)"),
        ({"dt": torch.zeros(2, 3, 4)}, "`dt` must have shape (2, 3, 8), got (2, 3, 4)"),
        ({"C": torch.zeros(2, 3, 8)}, "`C` must have shape (2, 3, 4), got (2, 3, 8)"),
        ({"D": torch.zeros(4)}, "`D` must have shape (8,), got (4,)"),
        ({"initial_state": torch.zeros(2, 8, 4)}, "`initial_state` must have shape (2, 4, 8), got (2, 8, 4)"),
        ({"initial_state": torch.zeros(2, 4, 8).half()}, "`initial_state` must be torch.float32, got torch.float16"),
        ({"seq_idx": torch.zeros(2, 3)}, "`seq_idx` must be torch.int32, got torch.float32"),
        ({"z": torch.zeros(2, 3, 8, device="meta")}, "`z` must be on cpu like `x`, got meta"),
        ({"chunk_len": 100}, "`chunk_len` must be a positive multiple of 64, got 100"),
    ],
)
def test_scan_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        selective_scan(**(scan_arguments() | change))


def test_conv_refuses() -> None:
    x, weight = torch.zeros(2, 3, 8), torch.zeros(8, 4)
    with pytest.raises(ValueError, match=r"^`weight` must have shape \(8, 4\), got \(6, 4\)$"):
        causal_conv1d(x, torch.zeros(6, 4))
    with pytest.raises(ValueError, match=r"^`initial_state` must have shape \(2, 3, 8\), got \(2, 4, 8\)$"):
        causal_conv1d(x, weight, initial_state=torch.zeros(2, 4, 8))
    with pytest.raises(ValueError, match=r"^`activation` must be 'silu' or None, got 'relu'$"):
        causal_conv1d(x, weight, activation="relu")


def test_norm_and_loss_refuse() -> None:
    with pytest.raises(ValueError, match=r"^`residual` must be torch\.float32, got torch\.float16$"):
        add_rms_norm(None, torch.zeros(2, 3, 8).half(), torch.zeros(8))
    with pytest.raises(ValueError, match=r"^`targets` must be torch\.int64, got torch\.int32$"):
        linear_cross_entropy(torch.zeros(5, 8), torch.zeros(9, 8), torch.zeros(5).int(), torch.zeros(5))


def test_cpu_tensors_take_the_definition() -> None:
    y, state = selective_scan(**scan_arguments())
    assert (y.shape, state.shape, state.dtype) == ((2, 3, 8), (2, 4, 8), torch.float32)
    y, state = causal_conv1d(torch.ones(2, 3, 8), torch.ones(8, 4), activation=None)
    assert y[0, :, 0].tolist() == [1, 2, 3]
    assert state.shape == (2, 3, 8)
