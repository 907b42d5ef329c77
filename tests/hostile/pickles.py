"""Pickles: torch checkpoints by hand, sound ones and such as would run, hang or fill the machine of who unpickles."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

_FLOATS = b"ctorch\nFloatStorage\n"
_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def checkpoint(tensors: Mapping[str, Any]) -> bytes:
    """What torch.save writes of a state_dict of float tensors, made without torch."""
    items, storages = b"", {}
    for number, (name, value) in enumerate(tensors.items()):
        items += _text(name) + tensor(str(number), value.size, 0, value.shape)
        storages[f"archive/data/{number}"] = np.ascontiguousarray(value, np.float32).tobytes()
    return zipped({"archive/data.pkl": b"\x80\x02}(" + items + b"u.", "archive/byteorder": b"little", **storages})


def tensor(key: str, count: int, offset: int, shape: tuple[int, ...]) -> bytes:
    """The opcodes of one tensor over a storage of `count` floats."""
    strides = [int(np.prod(shape[place + 1 :])) for place in range(len(shape))]
    storage = b"(" + _text("storage") + _FLOATS + _text(key) + _text("cpu") + _number(count) + b"tQ"
    made = storage + _number(offset) + _tuple(shape) + _tuple(strides)
    return _TENSOR + b"(" + made + b"\x89ccollections\nOrderedDict\n)RtR"


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return made.getvalue()


def _text(text: str) -> bytes:
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def _number(value: int) -> bytes:
    value %= 2**2000  # a LONG1 holds at most 255 bytes
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def _tuple(values: Any) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"


class Call:
    """Unpickled, it would run a command."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self._made = (what, arguments)

    def __reduce__(self) -> Any:
        return self._made


def attack(rng: Random, good: bytes) -> bytes:
    """A checkpoint with one attack in it, in an otherwise sound zip."""
    what = rng.choice(ATTACKS)
    return what(rng, members(good))


def _described(inside: dict[str, bytes], description: bytes) -> bytes:
    return zipped(inside | {"archive/data.pkl": description})


def _calls(rng: Random, inside: dict[str, bytes]) -> bytes:
    made = rng.choice((eval, exec, open, getattr, __import__, print))
    value = rng.choice((Call(made, "__import__('os').getpid()"), {"weight": Call(made, "x", "w")}))
    return _described(inside, pickle.dumps(value, rng.choice((0, 1, 2, 3, 4, 5))))


def _doubled(rng: Random, inside: dict[str, bytes]) -> bytes:
    """A tuple of twice a tuple of twice ...: a few bytes that take for ever to hash, compare or print."""
    bomb = b")" + b"2\x86" * 60  # DUP, TUPLE2
    memo = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60
    uses = (b"}%sK\x01s.", b"(X\x07\x00\x00\x00storage%sX\x01\x00\x00\x000K\x01K\x01tQ.", b"}X\x01\x00\x00\x00a%ss.")
    end = (b"(%stR.", b"%s.", b"c%s\n(tR.", b"ctorch._utils\n_rebuild_tensor_v2\n(%sK\x00%s)tR.")
    use = rng.choice((*uses, *end))
    return _described(inside, b"\x80\x02" + use.replace(b"%s", rng.choice((bomb, memo))))


def _shapes(rng: Random, inside: dict[str, bytes]) -> bytes:
    huge = (0, 1, 2, 2**31, 2**62, 2**63, 2**64, 2**900)
    shape = tuple(rng.choice(huge) for _ in range(rng.choice((0, 1, 2, 3, 8, 9, 200))))
    made = tensor("0", rng.choice((0, 1, 16, *huge)), rng.choice((0, 1, *huge)), shape)
    return _described(inside, b"\x80\x02}" + _text(rng.choice(("weight", "backbone.norm_f.weight"))) + made + b"s.")


def _shared(rng: Random, inside: dict[str, bytes]) -> bytes:
    """Thousands of tensors that are all the same bytes."""
    floats = 65536
    items = b"".join(_text(f"w{number}") + tensor("big", floats, 0, (256, 256)) for number in range(2000))
    return zipped(inside | {"archive/data.pkl": b"\x80\x02}(" + items + b"u.", "archive/data/big": bytes(4 * floats)})


def _deep(rng: Random, inside: dict[str, bytes]) -> bytes:
    depth = rng.choice((500, 5000, 200_000))
    made = rng.choice((b"]" * depth + b"a" * (depth - 1), b")" + b"\x85" * depth, b"(" * depth, b"}" * depth))
    return _described(inside, b"\x80\x02" + made + b".")


def _long(rng: Random, inside: dict[str, bytes]) -> bytes:
    """A description of megabytes of tiny operations or of one huge number."""
    made = rng.choice((
        b"N" * 1_000_000, b"K\x01" * 500_000, b"}" + b"K\x01K\x02s" * 200_000, b"L" + b"9" * 100_000 + b"L\n",
        b"\x8b" + (900_000).to_bytes(4, "little") + b"\x7f" * 900_000, b"I" + b"9" * 50_000 + b"\n",
        b"X" + (2**31 - 1).to_bytes(4, "little") + b"x", b"\x8e" + (2**62).to_bytes(8, "little"), b"F1e999\n",
    ))  # fmt: skip
    return _described(inside, b"\x80\x02" + made + b".")


def _compressed(rng: Random, inside: dict[str, bytes]) -> bytes:
    """Members that unpack to far more than they are."""
    name = rng.choice(("archive/data.pkl", "archive/byteorder", "archive/data/0", "archive/version"))
    return zipped(inside | {name: bytes(50_000_000)}, rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))


def _named(rng: Random, inside: dict[str, bytes]) -> bytes:
    """Member names that lead elsewhere, many roots, none, or endless ones."""
    root = rng.choice(("../", "/etc/", "a" * 5000 + "/", "", "archive/../", "C:\\"))
    if rng.random() < 0.3:
        return zipped(inside | {f"{root}{n}/data.pkl": b"}." for n in range(rng.choice((1, 3000)))})
    return zipped({root + name.rpartition("archive/")[2]: data for name, data in inside.items()})


def _lying(rng: Random, inside: dict[str, bytes]) -> bytes:
    """A directory whose sizes, places or methods are not those of the members."""
    made = bytearray(zipped(inside))
    at = made.find(b"PK\x01\x02")
    for _ in range(rng.choice((1, 2, 4))):
        field, size = rng.choice(((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)))
        value = rng.choice((0, 1, 8, 12, 14, 99, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)) & (256**size - 1)
        made[at + field : at + field + size] = value.to_bytes(size, "little")
        at = made.find(b"PK\x01\x02", at + 4) if rng.random() < 0.7 else at
    return bytes(made)


ATTACKS: tuple[Callable[[Random, dict[str, bytes]], bytes], ...] = (
    _calls, _doubled, _shapes, _shapes, _shared, _deep, _long, _compressed, _named, _lying, _lying,
)  # fmt: skip
