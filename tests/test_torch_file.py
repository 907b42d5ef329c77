"""torch.save's files, read without torch; hostile ones refused without running anything."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from npc_runtime.errors import BundleError
from npc_runtime.torch_file import read_torch_file

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")


def test_tensors_come_back_as_torch_saved_them(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    saved = OrderedDict(
        whole=base,
        turned=base.T,
        part=base[1:3, 2:5],
        half=base.half(),
        brain=base.bfloat16(),
        double=base.double(),
        number=torch.tensor(3.5),
        empty=torch.zeros(0, 4),
        parameter=torch.nn.Parameter(base + 1),
        count=torch.tensor([2**40]),
    )
    torch.save(saved, tmp_path / "model.bin")
    read = read_torch_file(tmp_path / "model.bin")
    assert read.keys() == saved.keys()
    for name, value in saved.items():
        values = value.detach().view(torch.int16) if name == "brain" else value.detach()
        assert read[name].values.shape == tuple(value.shape)
        assert np.array_equal(read[name].values, values.numpy().view(read[name].values.dtype))
    assert [read[name].dtype for name in ("whole", "half", "brain", "double", "count")] == [
        "F32", "F16", "BF16", "F64", "I64"
    ]  # fmt: skip


def write_zip(path: Path, described: bytes, compression: int = zipfile.ZIP_STORED, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", described)
        for name, data in files.items():
            archive.writestr(f"archive/{name}", data)
    return path


def record(text: str) -> None:
    """What a hostile checkpoint would call; `ran` shows whether it came to pass."""
    ran.append(text)


ran: list[str] = []


class Runs:
    def __reduce__(self) -> Any:
        return (record, ("ran",))


class Opens:
    def __reduce__(self) -> Any:
        return (eval, ("__import__('os').getcwd()",))


@pytest.mark.parametrize("value", [Runs(), Opens(), {"a": Opens()}, {"a": 1}, [1], {1: 2}, 5, {"a": {"b": 1}}])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_file_that_would_call_something_is_refused(tmp_path: Path, value: Any, protocol: int) -> None:
    path = write_zip(tmp_path / "model.bin", pickle.dumps(value, protocol))
    with pytest.raises(BundleError, match="holds more than plain tensors"):
        read_torch_file(path)
    assert ran == []


@pytest.mark.parametrize(
    "described",
    [
        b"",
        b".",
        b"}",
        b"\x80\x02}R.",
        b"\x80\x02(",
        b"u.",
        b"Q.",
        b"\x80\x02}s.",
        b"cos\nsystem\n(tR.",
        b"\x80\x02h\x05.",
    ],
)
def test_opcodes_that_do_not_fit_are_refused(tmp_path: Path, described: bytes) -> None:
    with pytest.raises(BundleError):
        read_torch_file(write_zip(tmp_path / "model.bin", described))


def test_every_changed_byte_of_the_description_is_survived(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3, 2)}, tmp_path / "good.bin")
    with zipfile.ZipFile(tmp_path / "good.bin") as archive:
        described, storage = archive.read("good/data.pkl"), archive.read("good/data/0")
    refused = 0
    for at in range(len(described)):
        for flip in (0x01, 0x80, 0xFF):
            bad = described[:at] + bytes([described[at] ^ flip]) + described[at + 1 :]
            path = write_zip(tmp_path / "bad.bin", bad, **{"data/0": storage})
            try:
                read_torch_file(path)
            except BundleError:
                refused += 1
    assert refused > len(described)


def test_a_compressed_entry_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "model.bin", b"\x80\x02" + b"N" * 10_000_000 + b".", zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="is compressed"):
        read_torch_file(path)


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(BundleError, match="zip format"):
        read_torch_file(tmp_path / "model.bin")


def test_the_old_format_of_torch_is_refused_with_advice(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(BundleError, match="zip format") as caught:
        read_torch_file(tmp_path / "old.bin")
    assert "safetensors" in caught.value.hint


def doubled(times: int = 60) -> bytes:
    """A tuple of twice a tuple of twice ...: it takes for ever to hash, compare or print."""
    return b")q\x00" + b"h\x00h\x00\x86q\x00" * times


@pytest.mark.parametrize(
    "described",
    [
        b"\x80\x02}" + doubled() + b"K\x01s.",
        b"\x80\x02(X\x07\x00\x00\x00storage" + doubled() + b"X\x01\x00\x00\x000K\x01K\x01tQ.",
        b"\x80\x02" + b"N" * 300_000 + b".",
    ],
    ids=["name", "storage", "endless"],
)
def test_a_description_that_would_take_for_ever_is_refused(tmp_path: Path, described: bytes) -> None:
    with pytest.raises(BundleError, match="holds more than plain tensors"):
        read_torch_file(write_zip(tmp_path / "model.bin", described, **{"data/0": bytes(64)}))


def test_a_byte_order_that_unpacks_to_megabytes_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "model.bin", b"}.")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/byteorder", bytes(10_000_000))
    with pytest.raises(BundleError, match="is compressed or larger than 16 bytes"):
        read_torch_file(path)


def test_tensors_of_one_storage_are_no_more_than_a_tied_head_needs(tmp_path: Path) -> None:
    weight = torch.zeros(1000)
    torch.save({"embedding": weight, "head": weight}, tmp_path / "tied.bin")
    assert read_torch_file(tmp_path / "tied.bin").keys() == {"embedding", "head"}
    torch.save({f"w{n}": weight for n in range(20)}, tmp_path / "many.bin")
    with pytest.raises(BundleError, match="more than twice its bytes"):
        read_torch_file(tmp_path / "many.bin")


def test_a_member_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "model.bin", b"}.")
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 20 : at + 28] = (1_000_000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(BundleError, match="not a torch checkpoint"):
        read_torch_file(path)
