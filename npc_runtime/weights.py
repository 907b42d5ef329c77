"""Weights as a Bundle stores them: names and shapes, block quantisation, bfloat16.

Codes have the layout of onnxruntime's MatMulNBits: (rows, blocks, block * bits / 8), the low nibble
first at 4 bits, symmetric about a zero point of 8 or 128; the last block of a row is padded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npc_runtime.container import Entry
from npc_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from npc_runtime.model.config import ModelConfig

    Float32 = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

BITS = (4, 8, 16, 32)
MATRICES = ("in_proj", "x_proj", "out_proj", "embedding", "head")
"""Last parts of the names of the tensors that `bits` is about; the others are always F32."""
_SLAB = 1 << 18
"""Floats quantised at a time: what a core's cache holds, and a bound on temporary memory."""


def dense_shapes(config: ModelConfig, tied: bool = True) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by its dense name; `head` only when it is not the embedding."""
    e, n, r = config.d_inner, config.d_state, config.dt_rank
    layer = {
        "norm": (config.d_model,),
        "in_proj": (2 * e, config.d_model),
        "conv_weight": (e, config.d_conv),
        "conv_bias": (e,),
        "x_proj": (r + 2 * n, e),
        "dt_proj": (e, r),
        "dt_bias": (e,),
        "A_log": (e, n),
        "D": (e,),
        "out_proj": (config.d_model, e),
    }
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocab_size, config.d_model)}
    for i in range(config.n_layer):
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    shapes["norm_f"] = (config.d_model,)
    return shapes if tied else shapes | {"head": shapes["embedding"]}


def stored_bits(name: str, bits: int) -> int:
    """Bits of one tensor in a Bundle of `bits`; a looked-up embedding never has fewer than 8."""
    if name.rpartition(".")[2] not in MATRICES:
        return 32
    return 8 if name == "embedding" and bits == 4 else bits


def stored_entries(config: ModelConfig, bits: int, block: int, tied: bool) -> dict[str, Entry]:
    """What weights.safetensors must hold, by name; the offsets are not meant."""
    entries: dict[str, Entry] = {}
    for name, shape in dense_shapes(config, tied and bits > 8).items():
        own = stored_bits(name, bits)
        if own > 8:
            entries[name] = Entry(0, own // 8 * int(np.prod(shape)), "BF16" if own == 16 else "F32", shape)
            continue
        blocks = -(-shape[1] // block)
        codes = (shape[0], blocks, block * own // 8)
        entries[name] = Entry(0, codes[0] * codes[1] * codes[2], "U8", codes)
        entries[f"{name}.scale"] = Entry(0, 4 * shape[0] * blocks, "F32", (shape[0], blocks))
    return entries


def store(name: str, matrix: Float32, bits: int, block: int) -> Iterator[tuple[str, str, NDArray[np.generic]]]:
    """(name, safetensors dtype, array) of each tensor that a dense one is stored as."""
    own = stored_bits(name, bits)
    if own == 32:
        yield name, "F32", np.ascontiguousarray(matrix, np.float32)
    elif own == 16:
        yield name, "BF16", to_bfloat16(matrix)
    else:
        codes, scale = quantize(matrix, own, block)
        yield name, "U8", codes
        yield f"{name}.scale", "F32", scale


def quantize(matrix: Float32, bits: int, block: int = 32) -> tuple[Bytes, Float32]:
    """Codes (rows, blocks, block * bits / 8) and scales (rows, blocks) of a (rows, columns) matrix.

    The element of largest magnitude in a block gets the lowest code, so that it is kept exactly
    and its sign costs nothing. Raises BundleError when a value is not finite.
    """
    if bits not in (4, 8) or block < 16 or block & (block - 1):
        raise BundleError(f"quantisation needs 4 or 8 bits and a block of 16, 32, 64, ..., got {bits} and {block}")
    rows, columns = matrix.shape
    blocks = -(-columns // block)
    codes = np.empty((rows, blocks, block * bits // 8), np.uint8)
    scale = np.empty((rows, blocks), np.float32)
    step = max(1, _SLAB // max(columns, 1))
    for first in range(0, rows, step):
        part = np.zeros((min(step, rows - first), blocks * block), np.float32)
        part[:, :columns] = matrix[first : first + step]
        some = slice(first, first + step)
        codes[some], scale[some] = _quantize_blocks(part.reshape(len(part), blocks, block), bits)
    return codes, scale


def _quantize_blocks(values: Float32, bits: int) -> tuple[Bytes, Float32]:
    zero = 1 << (bits - 1)
    low, high = values.min(axis=2), values.max(axis=2)
    scale = np.where(-low >= high, low, high) / np.float32(-zero)
    if not np.isfinite(scale).all():
        raise BundleError("weights must be finite to be quantised, got NaN or infinity")
    scaled = values / np.where(scale == 0, np.float32(1), scale)[..., None]
    codes = np.clip(np.rint(scaled) + zero, 0, 2 * zero - 1).astype(np.uint8)
    return (codes[..., ::2] | codes[..., 1::2] << 4 if bits == 4 else codes), scale


def dequantize(codes: Bytes, scale: Float32, bits: int, columns: int) -> Float32:
    """The (rows, columns) matrix that codes and scales stand for."""
    rows, blocks, stored = codes.shape
    values = np.empty((rows, blocks, stored * 8 // bits), np.float32)
    if bits == 4:
        values[..., ::2] = codes & 15
        values[..., 1::2] = codes >> 4
    else:
        values[...] = codes
    values -= 1 << (bits - 1)
    values *= scale[..., None]
    return np.ascontiguousarray(values.reshape(rows, -1)[:, :columns])


def to_bfloat16(values: Float32) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16s, ties to even; values must be finite."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> Float32:
    """The floats that bfloat16 bits stand for, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
