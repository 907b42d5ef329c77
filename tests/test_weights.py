"""Block quantisation and bfloat16 against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from npc_runtime.errors import BundleError
from npc_runtime.model.config import ModelConfig
from npc_runtime.weights import dense_shapes, dequantize, from_bfloat16, quantize, stored_entries, to_bfloat16


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


def test_codes_by_hand() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :6] = [4.0, -1.0, 0.5, -0.25, 3.5, -4.0]
    codes, scale = quantize(row, 4)
    assert scale.tolist() == [[0.5]]  # of 4 and -4, equally large, the negative decides: -4 / -8
    assert codes[0, 0, :3].tolist() == [15 | 6 << 4, 9 | 8 << 4, 15 | 0 << 4]
    assert set(codes[0, 0, 3:].tolist()) == {8 | 8 << 4}
    assert dequantize(codes, scale, 4, 6).tolist() == [[3.5, -1.0, 0.5, 0.0, 3.5, -4.0]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("columns", [1, 31, 32, 33, 64, 200])
def test_error_is_within_half_a_step_but_for_the_far_end(bits: int, block: int, columns: int) -> None:
    source = matrix(7, columns)
    codes, scale = quantize(source, bits, block)
    blocks = -(-columns // block)
    assert (codes.dtype, codes.shape) == (np.uint8, (7, blocks, block * bits // 8))
    assert (scale.dtype, scale.shape) == (np.float32, (7, blocks))
    step = np.repeat(np.abs(scale), block, axis=1)[:, :columns]
    back = dequantize(codes, scale, bits, columns)
    assert back.shape == source.shape
    clipped = source / np.where(step == 0, 1, np.repeat(scale, block, axis=1)[:, :columns]) > 2 ** (bits - 1) - 1
    assert (np.abs(back - source) <= np.where(clipped, 1.0, 0.5) * step * (1 + 1e-5)).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_of_a_block_is_kept_and_a_second_pass_changes_nothing(bits: int) -> None:
    source = matrix(5, 64)
    codes, scale = quantize(source, bits)
    back = dequantize(codes, scale, bits, 64)
    largest = np.abs(source).reshape(5, 2, 32).argmax(2)[..., None]
    kept = [np.take_along_axis(values.reshape(5, 2, 32), largest, 2) for values in (source, back)]
    assert np.array_equal(*kept)
    again = dequantize(*quantize(back, bits), bits, 64)
    assert np.array_equal(again, back)


def test_slabs_do_not_show() -> None:
    source = matrix(900, 700)  # more than one slab of rows
    codes, scale = quantize(source, 8)
    one = [quantize(source[i : i + 1], 8) for i in (0, 373, 374, 375, 899)]
    assert all(np.array_equal(codes[i], c[0]) for i, (c, _) in zip((0, 373, 374, 375, 899), one, strict=True))
    assert np.array_equal(scale[374], one[2][1][0])


def test_zeros_and_the_smallest_numbers_stay_finite() -> None:
    source = np.zeros((3, 32), np.float32)
    source[1, 3], source[2] = 1e-45, 2e-44
    back = dequantize(*quantize(source, 8), 8, 32)
    assert np.isfinite(back).all()
    assert not back[0].any()
    assert np.abs(back).max() <= 2e-43


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    source = matrix(4, 40)
    source[2, 39] = bad
    with pytest.raises(BundleError, match="finite"):
        quantize(source, 8)


@pytest.mark.parametrize(("bits", "block"), [(3, 32), (16, 32), (4, 0), (4, 8), (8, 48)])
def test_unknown_bits_and_blocks_are_refused(bits: int, block: int) -> None:
    with pytest.raises(BundleError, match="4 or 8 bits"):
        quantize(matrix(2, 32), bits, block)


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8, -3.14159, 0.0, -0.0, 1e-40], np.float32)
    expected = [1.0, 1.0, 1.0, 1 + 2**-6, -3.140625, 0.0, -0.0]
    back = from_bfloat16(to_bfloat16(values))
    assert back[:7].tolist() == expected
    assert np.signbit(back[6])
    rng = matrix(100, 100)
    assert (np.abs(from_bfloat16(to_bfloat16(rng)) - rng) <= np.abs(rng) * 2**-8).all()


def test_shapes_count_as_many_weights_as_the_config() -> None:
    config = ModelConfig(d_model=40, n_layer=3, vocab_size=100, d_state=8, d_conv=3, dt_rank=5)
    assert sum(int(np.prod(shape)) for shape in dense_shapes(config).values()) == config.parameters
    assert dense_shapes(config, tied=False)["head"] == (100, 40)
    assert "head" not in dense_shapes(config)


def test_stored_names_by_bits() -> None:
    config = ModelConfig(d_model=32, n_layer=1, vocab_size=10)
    full = stored_entries(config, 32, 32, tied=True)
    assert {entry.dtype for entry in full.values()} == {"F32"}
    half = stored_entries(config, 16, 32, tied=True)
    assert {name for name, entry in half.items() if entry.dtype == "BF16"} == {
        "embedding",
        "layers.0.in_proj",
        "layers.0.x_proj",
        "layers.0.out_proj",
    }
    assert "head" not in half
    assert stored_entries(config, 8, 32, tied=True) == stored_entries(config, 8, 32, tied=False)
    assert stored_entries(config, 4, 32, tied=True)["layers.0.in_proj"][1:] == (128 * 16, "U8", (128, 1, 16))
