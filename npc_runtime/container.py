"""The safetensors container, read strictly and written in one fixed way (github.com/huggingface/safetensors, format).

The library of that name is not used to read: it gives no byte offsets, and to write it shuffles
the metadata, so that equal Saves would differ in bytes. Tests hold both against it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16: its bits
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
ALIGN = 64
"""Bytes that the data begins on: a cache line, so that mapped matrices are aligned."""
MAX_DIMS = 8
_LARGEST = 2**63 - 1
"""A number of more digits than Python will print would make an error of the error's text."""


class ContainerFault(ValueError):
    """The bytes are not the container they claim to be; callers name the file and raise their own error."""


class Entry(NamedTuple):
    """Where a tensor lies: `offset` in bytes from the start of the file, `dtype` as safetensors spells it."""

    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]


class Header(NamedTuple):
    """What a container holds, in the order of the data."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def write_header(tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """Length and header for (name, dtype, shape) in the order their data will follow."""
    fields: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, dtype, shape in tensors:
        start, end = end, end + math.prod(shape) * DTYPES[dtype].itemsize
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)
    return len(text).to_bytes(8, "little") + text


def read_header(data: memoryview, max_header: int) -> Header:
    """Entries of a whole container; every data byte must belong to exactly one tensor.

    Raises ContainerFault for anything else, `max_header` bytes of header exceeded included.
    """
    if len(data) < 8:
        raise ContainerFault(f"a header needs 8 bytes, got {len(data)}")
    length = int.from_bytes(data[:8], "little")
    if length > max_header or 8 + length > len(data):
        raise ContainerFault(
            f"a header of {length} bytes cannot be: the file has {len(data)}, allowed are {max_header}"
        )
    fields = read_json(bytes(data[8 : 8 + length]))
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ContainerFault("`__metadata__` must map text to text")
    placed = sorted((_entry(name, value) for name, value in fields.items()), key=lambda item: item[1][:2])
    return Header(_cover(placed, 8 + length, len(data)), metadata)


def read_json(text: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8, repeated keys refused. Raises ContainerFault."""
    try:
        value = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ContainerFault(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ContainerFault(f"a JSON object was expected, got {type(value).__name__}")
    return value


def array(data: memoryview, entry: Entry) -> NDArray[Any]:
    """The tensor as a view of `data`, not a copy."""
    dtype = DTYPES[entry.dtype]
    flat = np.frombuffer(data, dtype, entry.nbytes // dtype.itemsize, entry.offset)
    return flat.reshape(entry.shape)


def finite(values: NDArray[Any], dtype: str) -> bool:
    """True when a tensor of that safetensors dtype holds no NaN and no infinity."""
    if dtype == "BF16":
        return not bool(((values & 0x7F80) == 0x7F80).any())
    return bool(np.isfinite(values).all())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ContainerFault("a key is repeated")
    return made


def _no_constant(name: str) -> object:
    raise ContainerFault(f"{name} is not JSON")


def _whole(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= _LARGEST for value in values)


def _entry(name: str, value: object) -> tuple[str, Entry]:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ContainerFault(f"tensor `{name:.80}` must have dtype, shape and data_offsets")
    dtype, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ContainerFault(f"tensor `{name:.80}` has the unknown dtype {dtype!r:.40}")
    if not _whole(shape) or len(shape) > MAX_DIMS or not _whole(span) or len(span) != 2:
        raise ContainerFault(f"tensor `{name:.80}` needs whole numbers, none enormous, as shape and data_offsets")
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    if span[1] - span[0] != nbytes:
        raise ContainerFault(f"tensor `{name:.80}` of shape {shape} needs {nbytes} bytes, got {span[1] - span[0]}")
    return name, Entry(span[0], nbytes, dtype, tuple(shape))


def _cover(placed: list[tuple[str, Entry]], start: int, size: int) -> dict[str, Entry]:
    """Entries with offsets from the start of the file; refuses gaps, overlaps and bytes left over."""
    entries: dict[str, Entry] = {}
    end = start
    for name, entry in placed:
        if start + entry.offset != end:
            raise ContainerFault(
                f"tensor `{name:.80}` must begin at byte {end - start} of the data, not {entry.offset}"
            )
        entries[name] = entry._replace(offset=end)
        end += entry.nbytes
    if end != size:
        raise ContainerFault(f"the tensors end at byte {end}, the file at {size}")
    return entries
