"""Our safetensors container against the format's own library."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from npc_runtime.container import ALIGN, ContainerFault, array, finite, read_header, read_json, write_header

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "empty": np.zeros((0, 5), np.float16),
    "b": np.array([[1], [255]], np.uint8),
    "c": np.array([-1, 1], np.int8),
}
SPELLED = {"float32": "F32", "float16": "F16", "uint8": "U8", "int8": "I8"}


def pack(metadata: dict[str, str]) -> bytes:
    listed = [(name, SPELLED[value.dtype.name], value.shape) for name, value in TENSORS.items()]
    return write_header(listed, metadata) + b"".join(value.tobytes() for value in TENSORS.values())


def test_the_library_reads_what_we_write() -> None:
    data = pack({"made by": "us — ünïcode"})
    read = load(data)
    assert read.keys() == TENSORS.keys()
    assert all(np.array_equal(read[name], value) for name, value in TENSORS.items())
    assert (8 + int.from_bytes(data[:8], "little")) % ALIGN == 0


def test_we_read_what_the_library_writes() -> None:
    data = memoryview(save(TENSORS, {"who": "library"}))
    header = read_header(data, 4096)
    assert header.metadata == {"who": "library"}
    assert header.entries.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        found = array(data, header.entries[name])
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert np.array_equal(found, value)


def test_equal_content_has_equal_bytes() -> None:
    assert pack({"b": "1", "a": "2"}) == pack({"b": "1", "a": "2"})


@pytest.mark.parametrize("cut", [0, 7, 8, 40, -1])
def test_a_cut_container_is_refused(cut: int) -> None:
    with pytest.raises(ContainerFault):
        read_header(memoryview(pack({})[:cut]), 4096)


def test_a_long_header_is_refused_before_it_is_read() -> None:
    data = pack({"story": "x" * 5000})
    read_header(memoryview(data), 10_000)
    with pytest.raises(ContainerFault, match="allowed are 4096"):
        read_header(memoryview(data), 4096)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'{"a":1,"a":2}', b'{"a":Infinity}', b'{"a":"\xff"}', b'{"a":' + b"9" * 5000]
)
def test_json_that_is_not_one_plain_object_is_refused(text: bytes) -> None:
    with pytest.raises(ContainerFault):
        read_json(text)


def test_finite_knows_bfloat16() -> None:
    assert finite(np.array([0x3F80, 0xFF7F], np.uint16), "BF16")
    assert not finite(np.array([0x3F80, 0x7F80], np.uint16), "BF16")
    assert not finite(np.array([0xFFC0], np.uint16), "BF16")
    assert not finite(np.array([1, np.nan], np.float32), "F32")
    assert finite(np.array([255], np.uint8), "U8")


def test_sizes_of_thousands_of_digits_are_refused_with_a_text() -> None:
    """Their product has more digits than Python prints, so that the error's text was itself an error."""
    size = 10**4000
    entry = {"a": {"dtype": "F32", "shape": [size, size], "data_offsets": [0, 4]}}
    text = json.dumps(entry).encode()
    with pytest.raises(ContainerFault, match="needs whole numbers"):
        read_header(memoryview(len(text).to_bytes(8, "little") + text + bytes(4)), 1 << 20)
