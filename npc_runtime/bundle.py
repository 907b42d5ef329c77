"""Bundle: a model folder of weights, tokenizer, config and card; loaded, verified, written.

bundle.json          names, sizes and a SHA-256 of every other file; its own hash is the Bundle's
weights.safetensors  see weights.py for the tensors
tokenizer.model or tokenizer.json
CARD.md              what the model is, from which data, under which license
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_runtime import container
from npc_runtime.container import ContainerFault, Entry
from npc_runtime.description import CARD, DESCRIPTION, FORMAT, TOKENIZERS, WEIGHTS, Claim, read_description
from npc_runtime.errors import BundleError, reason
from npc_runtime.state import StateSpec
from npc_runtime.tokenizer import Tokenizer, load_tokenizer
from npc_runtime.weights import (
    BITS,
    dense_shapes,
    dequantize,
    from_bfloat16,
    quantize,
    store,
    stored_bits,
    stored_entries,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from npc_runtime.model.config import ModelConfig
    from npc_runtime.sampling import Sampling

__all__ = ["Bundle", "bundle_names", "default_bundle_path", "dequantize", "find_bundle", "quantize", "write_bundle"]

MAX_HEADER_BYTES = 4 * 1024 * 1024
_READ = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A model folder, read. Tensors are mapped from disk, so that opening costs no copy of them."""

    path: Path
    name: str
    version: str
    license: str
    config: ModelConfig
    layout: str
    """`control-1` or `plain`, see prompt.py."""
    bits: int
    """4, 8, 16 or 32: of the matrices, see weights.py."""
    block: int
    tokenizer_path: Path
    hash: str
    """SHA-256 of the canonical JSON of bundle.json, hence of everything: it names the model in a Save."""
    sampling: Sampling

    @classmethod
    def load(cls, path: Path | str, verify: bool = True) -> Bundle:
        """Opens a folder. `verify` hashes every file and looks for values that are not finite.

        Without it sizes, names and shapes are still checked. Raises BundleError.
        """
        folder = Path(path)
        described = read_description(folder)
        for name, claim in described.files.items():
            _check_file(folder / name, claim, verify)
        bundle = cls(
            path=folder,
            name=described.name,
            version=described.version,
            license=described.license,
            config=described.config,
            layout=described.layout,
            bits=described.bits,
            block=described.block,
            tokenizer_path=folder / described.tokenizer,
            hash=described.hash,
            sampling=described.sampling,
        )
        bundle._check_weights(verify)
        return bundle

    @property
    def spec(self) -> StateSpec:
        """Shape of this model's States."""
        c = self.config
        return StateSpec(c.n_layer, c.d_inner, c.d_state, c.d_conv)

    @property
    def weights_path(self) -> Path:
        """weights.safetensors, which `offsets` point into."""
        return self.path / WEIGHTS

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read on first use."""
        tokenizer = load_tokenizer(self.tokenizer_path)
        if tokenizer.vocab_size > self.config.vocab_size:
            raise BundleError(
                f"`{self.tokenizer_path}` has {tokenizer.vocab_size} tokens, the model only {self.config.vocab_size}"
            )
        # Rows that pad an embedding stand for no text; SentencePiece would even fail to decode them.
        tokenizer.special |= frozenset(range(tokenizer.vocab_size, self.config.vocab_size))
        return tokenizer

    @cached_property
    def _data(self) -> memoryview:
        try:
            with self.weights_path.open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise BundleError(f"`{self.weights_path}` cannot be read: {reason(error)}") from error

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        try:
            return container.read_header(self._data, MAX_HEADER_BYTES).entries
        except ContainerFault as fault:
            raise BundleError(f"`{self.weights_path}` is not a safetensors file: {fault}") from fault

    def offsets(self) -> dict[str, Entry]:
        """(offset, nbytes, dtype, shape) of every stored tensor; offsets count from the start of `weights_path`."""
        return dict(self._entries)

    def tensor(self, name: str) -> NDArray[Any]:
        """A stored tensor as it lies on disk, read-only and not copied; BF16 comes as its uint16 bits."""
        if name not in self._entries:
            raise BundleError(f"`{self.weights_path}` holds no tensor `{name}`")
        return container.array(self._data, self._entries[name])

    def let_go(self) -> None:
        """Hands mapped pages back to the system, for whoever has read what it needs; they come back when read."""
        mapped = self._data.obj
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    @property
    def tied(self) -> bool:
        """True when no output matrix is stored and the embedding serves as one."""
        return "head" not in self._entries

    def dense(self, name: str) -> NDArray[np.float32]:
        """A weight as float32, dequantised; `head` is the embedding when tied."""
        name = "embedding" if name == "head" and self.tied else name
        raw = self.tensor(name)
        stored = stored_bits(name, self.bits)
        if stored == 32:
            return raw
        if stored == 16:
            return from_bfloat16(raw)
        columns = dense_shapes(self.config, tied=False)[name][1]
        return dequantize(raw, self.tensor(f"{name}.scale"), stored, columns)

    def _check_weights(self, values: bool) -> None:
        expected = stored_entries(self.config, self.bits, self.block, self.tied)
        found = self._entries
        if missing := expected.keys() - found.keys():
            raise BundleError(f"`{self.weights_path}` lacks {len(missing)} tensors, such as `{min(missing)}`")
        if extra := found.keys() - expected.keys():
            raise BundleError(f"`{self.weights_path}` holds {len(extra)} unknown tensors, such as `{min(extra):.80}`")
        for name, entry in expected.items():
            if found[name][2:] != entry[2:]:
                raise BundleError(
                    f"`{name}` in `{self.weights_path}` must be {entry.dtype} {entry.shape}, "
                    f"got {found[name].dtype} {found[name].shape}"
                )
            if values and entry.dtype != "U8" and not container.finite(self.tensor(name), entry.dtype):
                raise BundleError(f"`{name}` in `{self.weights_path}` holds NaN or infinity")


def default_bundle_path() -> Path:
    """The Bundle used when none is named: NPC_RUNTIME_BUNDLE (a name or a folder), else the shipped one."""
    return find_bundle(os.environ.get("NPC_RUNTIME_BUNDLE") or "default")


def find_bundle(name: str) -> Path:
    """The folder of a Bundle named by its path, or by its folder's name among the shipped ones.

    Raises BundleError listing what was found.
    """
    for folder in (Path(name), _shipped() / name):
        if os.path.isfile(folder / DESCRIPTION):
            return folder
    known = ", ".join(bundle_names()) or "none"
    raise BundleError(
        f"no Bundle `{name}`: neither that folder nor a shipped Bundle of that name holds a {DESCRIPTION}; "
        f"shipped: {known}"
    )


def bundle_names() -> list[str]:
    """Names of the Bundles shipped with the package."""
    return sorted(path.parent.name for path in _shipped().glob(f"*/{DESCRIPTION}"))


def _shipped() -> Path:
    return Path(__file__).parent / "bundles"


def _check_file(path: Path, claim: Claim, verify: bool) -> None:
    if not path.is_file():
        raise BundleError(f"`{path}` is missing")
    size = path.stat().st_size
    if size != claim.bytes:
        what = "truncated" if size < claim.bytes else "not the file described"
        raise BundleError(f"`{path}` is {what}: {claim.bytes} bytes were expected, it has {size}")
    if verify and _hash_file(path) != claim.sha256:
        raise BundleError(f"`{path}` was changed: its SHA-256 is not the one in {DESCRIPTION}")


def _hash_file(path: Path) -> str:
    # Read into one buffer, not mapped: mapped pages would count as resident memory of the daemon.
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def write_bundle(
    path: Path | str,
    name: str,
    config: ModelConfig,
    tensors: Mapping[str, NDArray[np.float32]],
    bits: int,
    tokenizer_path: Path | str,
    layout: str,
    license: str,
    card: str,
    version: str = "1",
    block: int = 32,
    sampling: Sampling | None = None,
) -> Bundle:
    """Writes a folder from dense weights (names of weights.py; `head` only when untied) and loads it.

    Everything is written and verified beside `path` and renamed; a Bundle that stood there is
    replaced, any other folder refused. Raises BundleError and leaves `path` as it was.
    """
    target = Path(path)
    if os.path.exists(target) and not os.path.isfile(target / DESCRIPTION):
        raise BundleError(f"`{target}` exists and is not a Bundle", "Choose a folder that does not exist yet")
    if bits not in BITS:
        raise BundleError(f"`bits` must be one of {', '.join(map(str, BITS))}, got {bits}")
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    tokenizer = Path(tokenizer_path)
    described: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "license": license,
        "model": asdict(config),
        "layout": layout,
        "weights": {"bits": bits, "block": block},
        "tokenizer": TOKENIZERS[1] if tokenizer.suffix == ".json" else TOKENIZERS[0],
        "sampling": {} if sampling is None else asdict(sampling),
    }
    try:
        beside.mkdir(parents=True)
        _write_weights(beside / WEIGHTS, _stored(config, tensors, bits, block))
        shutil.copyfile(tokenizer, beside / described["tokenizer"])
        (beside / CARD).write_bytes(card.encode())  # no line ends of the system's own: the hash is everywhere the same
        named = (WEIGHTS, described["tokenizer"], CARD)
        described["files"] = {
            item: {"sha256": _hash_file(beside / item), "bytes": (beside / item).stat().st_size} for item in named
        }
        (beside / DESCRIPTION).write_bytes(json.dumps(described, indent=2).encode() + b"\n")
        Bundle.load(beside)
        _put_in_place(beside, target)
    except OSError as error:
        raise BundleError(
            f"`{target}` could not be written: {reason(error)}", "Check the folder and free disk space"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Bundle.load(target, verify=False)


def _put_in_place(beside: Path, target: Path) -> None:
    if not target.exists():
        beside.rename(target)
        return
    older = beside.with_name(beside.name + ".old")
    target.rename(older)
    try:
        beside.rename(target)
    except OSError:
        older.rename(target)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _stored(
    config: ModelConfig, tensors: Mapping[str, NDArray[np.float32]], bits: int, block: int
) -> list[tuple[str, str, NDArray[Any]]]:
    shapes = dense_shapes(config, tied="head" not in tensors)
    if wrong := shapes.keys() ^ tensors.keys():
        raise BundleError(f"the weights must be exactly those of the model; look at `{min(wrong)}`")
    found: list[tuple[str, str, NDArray[Any]]] = []
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise BundleError(f"`{name}` must have shape {shape}, got {tensors[name].shape}")
        found += store(name, tensors[name], bits, block)
    if bits <= 8 and "head" not in tensors:
        found += store("head", tensors["embedding"], bits, block)
    # Whole cache lines first, then wide types: every tensor is aligned though the format allows no gaps.
    return sorted(found, key=lambda item: (item[2].nbytes % container.ALIGN != 0, -item[2].itemsize))


def _write_weights(path: Path, stored: list[tuple[str, str, NDArray[Any]]]) -> None:
    with path.open("wb") as file:
        file.write(container.write_header([(name, dtype, item.shape) for name, dtype, item in stored], {}))
        for _, _, item in stored:
            file.write(item.data)
