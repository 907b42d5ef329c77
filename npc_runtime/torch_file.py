"""TorchFile: the tensors in a checkpoint that torch.save wrote, read without torch and without unpickling.

Such a file is a zip of `data.pkl`, which tells names, shapes and storages, and of the storages'
bytes. The description is read by a small machine over `pickletools.genops` that knows plain
values, dicts and torch's two tensor builders as data; nothing named in the file is ever imported
or called, so a hostile file can at worst be refused.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npc_runtime.checks import shown
from npc_runtime.container import DTYPES
from npc_runtime.errors import BundleError, reason

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_DESCRIPTION_BYTES = 4 * 1024 * 1024
MAX_OPERATIONS = 200_000
"""Opcodes of a description; a model of 64 layers takes some 30,000."""
_STORAGES = {
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch DoubleStorage": "F64",
    "torch LongStorage": "I64",
}
_VALUES = frozenset(("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"))
_PUT, _GET = frozenset(("BINPUT", "LONG_BINPUT")), frozenset(("BINGET", "LONG_BINGET"))


class Tensor(NamedTuple):
    """Values and the dtype's safetensors name; BF16 as its uint16 bits."""

    values: NDArray[Any]
    dtype: str


class _Name(str):
    """A `module name` that the file mentions; only ever compared."""


class _Mark:
    """Where a tuple, list or dict under construction begins on the stack."""


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """Tensors by name. Raises BundleError for anything but a zip of plain tensors."""
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            found = _Machine(archive, _root(archive), size).run()
    except (zipfile.BadZipFile, OSError, EOFError) as error:  # EOFError: a member that claims more than there is
        raise BundleError(
            f"`{path}` is not a torch checkpoint in zip format: {reason(error):.200}",
            "Save it again with a recent torch, best as model.safetensors",
        ) from error
    # What the machine and genops raise when opcodes and stack do not fit each other.
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, struct.error) as error:
        raise BundleError(
            f"`{path}` holds more than plain tensors: {error!s:.200}", "Save its state_dict as model.safetensors"
        ) from error
    return found


def _root(archive: zipfile.ZipFile) -> str:
    roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError("exactly one data.pkl was expected")
    order = f"{roots[0]}byteorder"
    if order in archive.namelist() and _stored(archive, order, 16) != b"little":
        raise ValueError("only little-endian storages are known")
    return roots[0]


def _stored(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    info = archive.getinfo(name)
    # torch stores without compression; a compressed entry may be a bomb.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
        raise ValueError(f"`{name}` is compressed or larger than {limit} bytes")
    return archive.read(name)


class _Machine:
    def __init__(self, archive: zipfile.ZipFile, root: str, size: int) -> None:
        self._archive = archive
        self._root = root
        self._size = self._left = size
        """Bytes of the file, and how many of them storages may still take: members can lie over each other."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, Tensor] = {}

    def run(self) -> dict[str, Tensor]:
        description = _stored(self._archive, f"{self._root}data.pkl", MAX_DESCRIPTION_BYTES)
        for count, (opcode, argument, _) in enumerate(pickletools.genops(description)):
            if count == MAX_OPERATIONS:
                raise ValueError(f"more than {MAX_OPERATIONS} operations")
            self._step(opcode.name, argument)
        (result,) = self._stack
        if not isinstance(result, dict) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in result.items()
        ):
            raise ValueError("a map from names to tensors was expected")
        # A tied head shares its bytes with the embedding; more sharing makes gigabytes of a small file.
        if sum(tensor.values.nbytes for tensor in result.values()) > 2 * self._size:
            raise ValueError("its tensors are more than twice its bytes")
        return result

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _PUT:
            self._memo[argument] = stack[-1]
        elif name in _GET:
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(_Name(argument))
        elif name == "MARK":
            stack.append(_Mark())
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._marked() if name == "TUPLE" else self._pop(int(name[-1]))))
        elif name in ("SETITEM", "SETITEMS"):
            items = self._marked() if name == "SETITEMS" else self._pop(2)
            if not all(isinstance(key, str) for key in items[::2]):
                raise ValueError("a name that is no text")  # nested tuples take for ever to hash
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name in ("APPEND", "APPENDS"):
            stack[-1].extend(self._marked() if name == "APPENDS" else self._pop(1))
        elif name == "BINPERSID":
            stack.append(self._storage(*stack.pop()))
        elif name == "REDUCE":
            builder, arguments = self._pop(2)
            stack.append(self._build(builder, arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of the dict (`_metadata`), of no use here
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"the operation {name} is not allowed")

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise ValueError("values are missing")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def _marked(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(item := self._stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _build(self, builder: object, arguments: Any) -> Any:
        named = str(builder) if isinstance(builder, _Name) else ""
        if named == "collections OrderedDict" and not arguments:
            return {}
        if named == "torch._utils _rebuild_tensor_v2":
            return _view(*arguments[:4])
        if named == "torch._utils _rebuild_parameter":
            return arguments[0]
        raise ValueError(f"`{named or type(builder).__name__}` is not part of a plain tensor")

    def _storage(self, kind: object, type_name: object, key: object, _device: object, count: object) -> Tensor:
        dtype = _STORAGES.get(type_name) if isinstance(type_name, _Name) else None
        if kind != "storage" or dtype is None or type(count) is not int or not isinstance(key, str):
            raise ValueError(f"a storage {shown(type_name)} is not known")
        if key not in self._storages:
            data = _stored(self._archive, f"{self._root}data/{key}", min(count * DTYPES[dtype].itemsize, self._left))
            self._left -= len(data)
            self._storages[key] = Tensor(np.frombuffer(data, DTYPES[dtype], count), dtype)
        return self._storages[key]


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """The tensor that strides over a storage, bounds checked."""
    if not isinstance(storage, Tensor):
        raise TypeError("a tensor without storage")
    numbers = (offset, *shape, *strides)
    if (
        not all(type(number) is int and number >= 0 for number in numbers)
        or len(shape) != len(strides)
        or len(shape) > 8
    ):
        raise ValueError("a tensor's offset, shape and strides must be whole numbers")
    size = storage.values.size
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > size or (math.prod(shape) and last >= size):
        raise ValueError(f"a tensor of shape {shape!s:.80} reaches beyond its storage of {size}")
    item = storage.values.itemsize
    view = np.lib.stride_tricks.as_strided(storage.values[offset:], shape, [item * stride for stride in strides])
    return Tensor(view, storage.dtype)
