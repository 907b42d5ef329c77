"""The selective scan on an NVIDIA GPU: every dtype and path, odd sizes, repeatability, long runs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU here", allow_module_level=True)

from kernel_cases import (  # noqa: E402
    assert_close,
    errors,
    leaf,
    rms_ratio,
    scan_inputs,
)
from npc_kernels import (  # noqa: E402
    add_rms_norm,
    add_rms_norm_ref,
    linear_cross_entropy,
    linear_cross_entropy_ref,
    selective_scan,
    selective_scan_ref,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [
    (1, 1, 40, 16),
    (2, 64, 64, 16),
    (3, 203, 96, 16),
    (1, 65, 33, 16),
    (2, 127, 257, 8),
    (1, 64, 32, 1),
    (1, 9, 64, 64),
]
ABSENT = ["", "seq_idx", "z", "D dt_bias", "initial_state", "D z dt_bias initial_state seq_idx"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("chunk_len", [None, 64], ids=["one-pass", "chunked"])
def test_against_the_definition(dtype: torch.dtype, shape: tuple[int, int, int, int], chunk_len: int | None) -> None:
    inputs = scan_inputs(*shape, dtype, "cuda")
    found = errors(lambda **named: selective_scan(**named, chunk_len=chunk_len), selective_scan_ref, inputs)
    assert_close(found, dtype)


@pytest.mark.parametrize("without", ABSENT)
@pytest.mark.parametrize("chunk_len", [None, 64], ids=["one-pass", "chunked"])
def test_optional_arguments(without: str, chunk_len: int | None) -> None:
    inputs = scan_inputs(2, 130, 64, 16, torch.bfloat16, "cuda", without)
    found = errors(lambda **named: selective_scan(**named, chunk_len=chunk_len), selective_scan_ref, inputs)
    assert_close(found, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("without", ["", "seq_idx z"])
@pytest.mark.parametrize("chunk_len", [None, 64], ids=["one-pass", "chunked"])
def test_staged_inputs(dtype: torch.dtype, without: str, chunk_len: int | None) -> None:
    """The kernels that copy their inputs to shared memory, also from rows that lie apart; bits that stay."""
    inputs = scan_inputs(2, 192, 64, 16, dtype, "cuda", without)
    both = leaf(torch.randn(2, 192, 128), dtype, "cuda")
    inputs["x"] = both[..., :64]
    if inputs["z"] is not None:
        inputs["z"] = both[..., 64:]
    run = lambda **named: selective_scan(**named, chunk_len=chunk_len)  # noqa: E731
    assert_close(errors(run, selective_scan_ref, inputs), dtype)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(run(**inputs), run(**inputs), strict=True))


def test_a_sequence_keeps_its_bits_in_every_batch() -> None:
    """Alone, among two and among many: one kernel, whatever the number of warps."""
    inputs = scan_inputs(70, 128, 256, 16, torch.bfloat16, "cuda", "seq_idx")
    rows = ("x", "dt", "B", "C", "z", "initial_state")
    with torch.no_grad():
        whole = selective_scan(**inputs, chunk_len=64)
        for count in (1, 2, 33):
            part = inputs | {name: inputs[name][:count] for name in rows}
            for found, expected in zip(selective_scan(**part, chunk_len=64), whole, strict=True):
                assert torch.equal(found, expected[:count])


def test_rows_that_lie_apart() -> None:
    """x and z as the halves of one tensor, dt transposed: read where they are, or copied."""
    inputs = scan_inputs(2, 70, 64, 16, torch.float32, "cuda", "seq_idx")
    both = leaf(torch.randn(2, 70, 128), device="cuda")
    inputs["x"], inputs["z"] = both[..., :64], both[..., 64:]
    inputs["dt"] = leaf(torch.randn(2, 64, 70), device="cuda").transpose(1, 2)
    assert_close(errors(selective_scan, selective_scan_ref, inputs), torch.float32)


def test_final_state_alone_and_output_alone() -> None:
    inputs = scan_inputs(1, 70, 64, 16, torch.float32, "cuda")
    alone = errors(lambda **named: selective_scan(**named)[1], lambda **named: selective_scan_ref(**named)[1], inputs)
    del alone["dC"], alone["dD"], alone["dz"]  # nothing of theirs reaches the state
    assert_close(alone, torch.float32)
    assert_close(errors(selective_scan, selective_scan_ref, inputs, final_grad=False), torch.float32)


@pytest.mark.parametrize("chunk_len", [None, 64], ids=["one-pass", "chunked"])
def test_the_same_bits_every_time(chunk_len: int | None) -> None:
    inputs = scan_inputs(4, 512, 256, 16, torch.bfloat16, "cuda")
    leaves = [value for value in inputs.values() if value is not None and value.requires_grad]
    made = []
    for _ in range(3):
        y, state = selective_scan(**inputs, chunk_len=chunk_len)
        made.append([y, state, *torch.autograd.grad([y, state], leaves, [torch.ones_like(y), torch.ones_like(state)])])
    for again in made[1:]:
        assert all(torch.equal(first, second) for first, second in zip(made[0], again, strict=True))


def test_two_thousand_single_steps_equal_one_scan() -> None:
    inputs = scan_inputs(2, 2000, 64, 16, torch.float32, "cuda", "seq_idx")
    with torch.no_grad():
        whole, final = selective_scan(**inputs)
        state, steps = inputs["initial_state"], []
        rows = ("x", "dt", "B", "C", "z")
        for t in range(2000):
            step = inputs | {name: inputs[name][:, t : t + 1] for name in rows} | {"initial_state": state}
            y, state = selective_scan(**step)
            steps.append(y)
    assert rms_ratio(torch.cat(steps, 1), whole) < 1e-6
    assert rms_ratio(state, final) < 1e-6


def test_long_sequences_split_by_themselves() -> None:
    inputs = scan_inputs(1, 20000, 64, 16, torch.float32, "cuda", "seq_idx")
    with torch.no_grad():
        whole, final = selective_scan(**inputs)
        first, between = selective_scan(
            **{k: v[:, :9999] if k in ["x", "dt", "B", "C", "z"] else v for k, v in inputs.items() if v is not None}
        )
        rest = {k: v[:, 9999:] if k in ["x", "dt", "B", "C", "z"] else v for k, v in inputs.items() if v is not None}
        second, after = selective_scan(**(rest | {"initial_state": between}))
    assert rms_ratio(torch.cat([first, second], 1), whole) < 1e-5
    assert rms_ratio(after, final) < 1e-5


@pytest.mark.parametrize("width", [33, 512, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_add_rms_norm(width: int, dtype: torch.dtype) -> None:
    inputs = {"branch": leaf(torch.randn(3, 50, width), dtype, "cuda")}
    inputs |= {
        "residual": leaf(torch.randn(3, 50, width), device="cuda"),
        "weight": leaf(torch.randn(width), device="cuda"),
    }
    found = errors(
        lambda **named: add_rms_norm(**named, dtype=dtype),
        lambda **named: tuple(o.to(d) for o, d in zip(add_rms_norm_ref(**named), (dtype, torch.float32), strict=True)),
        inputs,
    )
    assert_close(found, dtype)


@pytest.mark.parametrize("vocabulary", [50, 8192, 50280])
def test_linear_cross_entropy(vocabulary: int) -> None:
    inputs = {
        "hidden": leaf(torch.randn(300, 64), device="cuda"),
        "weight": leaf(torch.randn(vocabulary, 64) / 8, device="cuda"),
    }
    inputs |= {
        "targets": torch.randint(0, vocabulary, (300,), device="cuda"),
        "weights": torch.rand(300, device="cuda"),
    }
    assert_close(errors(linear_cross_entropy, linear_cross_entropy_ref, inputs), torch.float32)
