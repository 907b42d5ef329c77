"""A writer of ONNX models in protobuf's wire format: just the messages our graph needs.

The `onnx` package is not installed with the product: it weighs more than the rest and is needed
to write, not to run. Field numbers are those of onnx.proto (github.com/onnx/onnx, IR version 10).
"""

from __future__ import annotations

import struct
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FLOAT, UINT8, INT64, BOOL = 1, 2, 7, 9
"""Element types, TensorProto.DataType."""
_ELEMENT = {np.dtype("<f4"): FLOAT, np.dtype("u1"): UINT8, np.dtype("<i8"): INT64, np.dtype("?"): BOOL}
PAGE = 4096
_SMALL = [bytes([value]) for value in range(128)]
IR_VERSION = 10
OPSET = 21
MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators."""


def varint(value: int) -> bytes:
    """Base-128 encoding; negative numbers as 64-bit two's complement."""
    if 0 <= value < 128:
        return _SMALL[value]
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def whole(number: int, value: int) -> bytes:
    """A field of type int32, int64 or enum."""
    return varint(number << 3) + varint(value)


def chunk(number: int, value: bytes | str) -> bytes:
    """A field of type string, bytes or message."""
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def _attribute(name: str, value: object) -> bytes:
    if isinstance(value, Graph):
        field, kind = chunk(6, value.encode()), 5
    elif isinstance(value, float):
        field, kind = varint(2 << 3 | 5) + struct.pack("<f", value), 1
    elif isinstance(value, int):
        field, kind = whole(3, value), 2
    elif isinstance(value, (list, tuple)):
        field, kind = b"".join(whole(8, item) for item in value), 7
    else:
        raise TypeError(f"attribute `{name}` must be a graph, float, int or list of int, got {value!r}")
    return chunk(1, name) + field + whole(20, kind)


def _value_info(name: str, element: int, shape: Sequence[int | str] | None) -> bytes:
    dims = b"".join(chunk(1, chunk(2, dim) if isinstance(dim, str) else whole(1, dim)) for dim in shape or ())
    kind = whole(1, element) + (b"" if shape is None else chunk(2, dims))
    return chunk(1, name) + chunk(2, chunk(1, kind))


class Graph:
    """A graph under construction; `child` makes the body of an If or Scan, which sees this graph's names.

    With `given`, constants of more than a page are collected there by name instead of being written into
    the model, which onnxruntime would copy twice more while reading it; the session is handed them.
    """

    def __init__(
        self, name: str, numbers: Iterator[int] | None = None, given: dict[str, NDArray[Any]] | None = None
    ) -> None:
        self.name = name
        self.given = given
        self._numbers = count() if numbers is None else numbers
        self._parts: list[bytes] = []
        self._tensors: set[str] = set()

    def child(self, name: str) -> Graph:
        """An empty graph to be given as an attribute; names stay unique across both."""
        return Graph(name, self._numbers)

    def node(self, op: str, *inputs: str, domain: str = "", to: str = "", **attributes: Any) -> str:
        """Adds an operator with one output and returns the output's name, `to` or a new one."""
        return self.nodes(op, 1, *inputs, domain=domain, to=[to] if to else [], **attributes)[0]

    def nodes(
        self, op: str, outputs: int, *inputs: str, domain: str = "", to: Sequence[str] = (), **attributes: Any
    ) -> list[str]:
        """Adds an operator with several outputs; an empty name in `to` or `inputs` means left out."""
        number = next(self._numbers)
        names = list(to) or [f"{op}_{number}_{i}" for i in range(outputs)]
        body = b"".join(chunk(1, name) for name in inputs) + b"".join(chunk(2, name) for name in names)
        body += chunk(3, f"{op}_{number}") + chunk(4, op) + chunk(7, domain)
        body += b"".join(chunk(5, _attribute(key, value)) for key, value in attributes.items())
        self._parts.append(chunk(1, body))
        return names

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds a tensor with its values; a name already added is only named again."""
        array = np.ascontiguousarray(value)
        if self.given is not None and array.nbytes > PAGE:
            self.given[name] = array
            return self.external(name, _ELEMENT[array.dtype], array.shape, "given", 0, array.nbytes)
        if name in self._tensors:
            return name
        self._tensors.add(name)
        dims = b"".join(whole(1, size) for size in value.shape)
        tensor = dims + whole(2, _ELEMENT[array.dtype]) + chunk(8, name) + chunk(9, array.tobytes())
        self._parts.append(chunk(5, tensor))
        return name

    def external(self, name: str, element: int, shape: Sequence[int], location: str, offset: int, nbytes: int) -> str:
        """Adds a tensor whose values lie in a file beside the model; a name already added is only named again."""
        if name in self._tensors:
            return name
        self._tensors.add(name)
        dims = b"".join(whole(1, size) for size in shape)
        where = {"location": location, "offset": str(offset), "length": str(nbytes)}
        entries = b"".join(chunk(13, chunk(1, key) + chunk(2, value)) for key, value in where.items())
        self._parts.append(chunk(5, dims + whole(2, element) + chunk(8, name) + entries + whole(14, 1)))
        return name

    def input(self, name: str, element: int, shape: Sequence[int | str] | None = None) -> str:
        """Declares an input; without `shape` of any rank."""
        self._parts.append(chunk(11, _value_info(name, element, shape)))
        return name

    def output(self, name: str, element: int, shape: Sequence[int | str] | None = None) -> None:
        """Declares an output, the name of some node's output."""
        self._parts.append(chunk(12, _value_info(name, element, shape)))

    def encode(self) -> bytes:
        """GraphProto; the nodes stand in the order they were added, as ONNX demands of a sorted graph."""
        return chunk(2, self.name) + b"".join(self._parts)


def model(graph: Graph) -> bytes:
    """ModelProto over a finished graph."""
    opsets = chunk(8, chunk(1, "") + whole(2, OPSET)) + chunk(8, chunk(1, MICROSOFT) + whole(2, 1))
    return whole(1, IR_VERSION) + chunk(2, "npc-runtime") + chunk(7, graph.encode()) + opsets
