"""Importer: a Mamba-1 checkpoint made elsewhere into a Bundle.

Two layouts are known: state-spaces (`config.json` with d_model and n_layer) and Hugging Face's
MambaForCausalLM (model_type `mamba`); weights as safetensors or torch zip files, whole or sharded.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime import container
from npc_runtime.bundle import Bundle, write_bundle
from npc_runtime.description import TOKENIZERS, model_config
from npc_runtime.errors import BundleError, reason
from npc_runtime.tokenizer import CONTROL, load_tokenizer
from npc_runtime.torch_file import Tensor, read_torch_file
from npc_runtime.weights import dense_shapes, from_bfloat16

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from npc_runtime.model.config import ModelConfig

MAX_CONFIG_BYTES = 1024 * 1024
MAX_INDEX_BYTES = MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_PADDING = 1024
"""Rows by which an embedding may exceed the vocabulary it was made for."""
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PARTS = {
    "in_proj": "mixer.in_proj.weight",
    "conv_weight": "mixer.conv1d.weight",
    "conv_bias": "mixer.conv1d.bias",
    "x_proj": "mixer.x_proj.weight",
    "dt_proj": "mixer.dt_proj.weight",
    "dt_bias": "mixer.dt_proj.bias",
    "A_log": "mixer.A_log",
    "D": "mixer.D",
    "out_proj": "mixer.out_proj.weight",
    "norm": "norm.weight",
}


@dataclass(frozen=True, slots=True)
class _Source:
    """A checkpoint's sizes in our words, `vocab_size` not yet padded, and what differs between layouts."""

    sizes: dict[str, Any]
    embedding: str
    conv_bias: bool
    tied: bool
    origin: str


def import_checkpoint(
    source: Path | str,
    target: Path | str,
    bits: int = 8,
    name: str | None = None,
    license: str = "unknown",
    tokenizer: Path | str | None = None,
    version: str = "1",
    block: int = 32,
) -> Bundle:
    """Writes the Bundle `target` from the checkpoint folder `source`.

    `tokenizer` is needed where the folder holds none, as state-spaces' do (theirs is GPT-NeoX's).
    Raises BundleError for anything that is not Mamba-1 as DESIGN describes it.
    """
    folder = Path(source)
    found = _read_source(folder)
    tensors = _read_tensors(folder)
    config = _model_config(found, tensors, folder)
    weights = _rename(found, tensors, config, folder)
    tokenizer_path = _tokenizer_path(folder, tokenizer)
    named = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "imported"
    return write_bundle(
        target,
        name=named,
        config=config,
        tensors=weights,
        bits=bits,
        tokenizer_path=tokenizer_path,
        layout=_layout(tokenizer_path, config),
        license=license,
        card=_card(named, found, config, bits, license),
        version=version,
        block=block,
    )


def _read_json(path: Path, limit: int) -> dict[str, Any]:
    try:
        _check_plain(path)
        with path.open("rb") as file:
            text = file.read(limit + 1)
        if len(text) > limit:
            raise ValueError(f"it holds more than {limit} bytes")
        values = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"`{path}` cannot be read: {reason(error)}", "Name the folder of a Mamba-1 checkpoint"
        ) from error
    if not isinstance(values, dict):
        raise BundleError(f"`{path}` must hold a JSON object, got {type(values).__name__}")
    return values


def _read_source(folder: Path) -> _Source:
    path = folder / "config.json"
    values = _read_json(path, MAX_CONFIG_BYTES)
    kind = values.get("model_type")
    if kind == "mamba":
        return _hugging_face(values, path)
    if kind is None and {"d_model", "n_layer", "vocab_size"} <= values.keys():
        return _state_spaces(values, path)
    raise BundleError(
        f"`{path}` describes {'model_type ' + repr(kind) if kind else 'no model that is known'}; "
        "only Mamba-1 in the state-spaces layout or Hugging Face's model_type 'mamba' can be imported"
    )


def _refuse(path: Path, found: dict[str, tuple[object, object]]) -> None:
    for key, (value, wanted) in found.items():
        if value != wanted:
            raise BundleError(f"`{path}`: a model with `{key}` {value!r:.60} is not supported, only {wanted!r}")


def _hugging_face(values: dict[str, Any], path: Path) -> _Source:
    hidden, expand = values.get("hidden_size", 768), values.get("expand", 2)
    # Sizes are checked later; the product of two numbers of 4000 digits could not even be shown.
    whole = all(type(size) is int and 0 < size < 2**31 for size in (hidden, expand))
    inner = values.get("intermediate_size")
    _refuse(path, {
        "use_bias": (values.get("use_bias", False), False),
        "hidden_act": (values.get("hidden_act", "silu"), "silu"),
        "intermediate_size": (inner, expand * hidden if whole and inner is not None else inner),
    })  # fmt: skip
    sizes = {
        "d_model": hidden,
        "n_layer": values.get("num_hidden_layers", 32),
        "vocab_size": values.get("vocab_size", 50280),
        "d_state": values.get("state_size", 16),
        "d_conv": values.get("conv_kernel", 4),
        "expand": expand,
        "dt_rank": values.get("time_step_rank", "auto"),
        "norm_eps": values.get("layer_norm_epsilon", 1e-5),
    }
    return _Source(
        sizes,
        "backbone.embeddings.weight",
        bool(values.get("use_conv_bias", True)),
        bool(values.get("tie_word_embeddings", True)),
        "Hugging Face MambaForCausalLM",
    )


def _state_spaces(values: dict[str, Any], path: Path) -> _Source:
    ssm = values.get("ssm_cfg") or {}
    if not isinstance(ssm, dict):
        raise BundleError(f"`ssm_cfg` in `{path}` must be a table, got {ssm!r:.60}")
    _refuse(path, {
        "ssm_cfg.layer": (ssm.get("layer", "Mamba1"), "Mamba1"),
        "ssm_cfg.bias": (ssm.get("bias", False), False),
        "rms_norm": (values.get("rms_norm", True), True),
        "d_intermediate": (values.get("d_intermediate", 0), 0),
        "attn_layer_idx": (values.get("attn_layer_idx") or [], []),
        "bidirectional": (values.get("bidirectional", False), False),
    })  # fmt: skip
    sizes = {
        "d_model": values["d_model"],
        "n_layer": values["n_layer"],
        "vocab_size": values["vocab_size"],
        "d_state": ssm.get("d_state", 16),
        "d_conv": ssm.get("d_conv", 4),
        "expand": ssm.get("expand", 2),
        "dt_rank": ssm.get("dt_rank", "auto"),
        "norm_eps": values.get("norm_epsilon", 1e-5),
    }
    return _Source(
        sizes,
        "backbone.embedding.weight",
        bool(ssm.get("conv_bias", True)),
        bool(values.get("tie_embeddings", True)),
        "state-spaces",
    )


def _model_config(found: _Source, tensors: dict[str, Tensor], folder: Path) -> ModelConfig:
    sizes = dict(found.sizes)
    if sizes["dt_rank"] == "auto" and type(sizes["d_model"]) is int:
        sizes["dt_rank"] = -(-sizes["d_model"] // 16)  # in whole numbers: a float overflows
    config = model_config(sizes, f"{folder / 'config.json'}, as our sizes")
    if found.embedding not in tensors or tensors[found.embedding].values.ndim != 2:
        raise BundleError(f"the weights in `{folder}` hold no matrix `{found.embedding}`")
    rows = tensors[found.embedding].values.shape[0]
    if not config.vocab_size <= rows < config.vocab_size + MAX_PADDING:
        raise BundleError(f"`{found.embedding}` has {rows} rows for the {config.vocab_size} tokens of the config")
    return model_config(sizes | {"vocab_size": rows}, str(folder))


def _rename(
    found: _Source, tensors: dict[str, Tensor], config: ModelConfig, folder: Path
) -> dict[str, NDArray[np.float32]]:
    """Our dense weights; every tensor of the checkpoint must be accounted for."""
    left = dict(tensors)
    head = left.pop("lm_head.weight", None)
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in dense_shapes(config).items():
        key = _key(name, found.embedding)
        if name.endswith("conv_bias") and not found.conv_bias:
            weights[name] = np.zeros(shape, np.float32)
        elif key in left:
            weights[name] = _dense(key, left.pop(key), shape)
        else:
            raise BundleError(f"the weights in `{folder}` hold no `{key}`")
    if not found.tied:
        if head is None:
            raise BundleError(f"the weights in `{folder}` hold no `lm_head.weight` and the config does not tie it")
        weights["head"] = _dense("lm_head.weight", head, dense_shapes(config)["embedding"])
    if left:
        raise BundleError(f"`{folder}` holds {len(left)} tensors that Mamba-1 does not have, such as `{min(left):.80}`")
    return weights


def _key(name: str, embedding: str) -> str:
    if name == "embedding":
        return embedding
    if name == "norm_f":
        return "backbone.norm_f.weight"
    _, layer, part = name.split(".")
    return f"backbone.layers.{layer}.{_PARTS[part]}"


def _dense(key: str, tensor: Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    values, dtype = tensor
    if dtype not in ("F64", "F32", "F16", "BF16"):
        raise BundleError(f"`{key}` must hold floats, got {dtype}")
    found = values.shape
    if key.endswith("conv1d.weight") and len(found) == 3 and found[1] == 1:
        found = (found[0], found[2])  # torch keeps a grouped convolution as (E, 1, K)
    if found != shape:
        raise BundleError(f"`{key}` must have shape {shape} by the config, got {values.shape}")
    dense = from_bfloat16(np.ascontiguousarray(values)) if dtype == "BF16" else values.astype(np.float32)
    return np.ascontiguousarray(dense.reshape(shape))


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if os.path.isfile(folder / whole):
            return _read_file(folder / whole)
        if os.path.isfile(folder / f"{whole}.index.json"):
            return _read_shards(folder, f"{whole}.index.json")
    raise BundleError(
        f"`{folder}` holds neither model.safetensors nor pytorch_model.bin, whole or with an index",
        "Name the folder of a Mamba-1 checkpoint",
    )


def _read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    places = _read_json(folder / index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) and _SHARD.fullmatch(v) for v in places.values()):
        raise BundleError(f"`weight_map` in `{folder / index}` must map tensors to plain file names")
    found: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        found |= _read_file(folder / shard)
    if wrong := found.keys() ^ places.keys():
        raise BundleError(f"the shards in `{folder}` do not hold what `{index}` says; look at `{min(wrong):.80}`")
    return found


def _check_plain(path: Path) -> None:
    """Refuses pipes and devices, whose opening could wait for ever."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise BundleError(f"`{path}` must be a plain file")


def _read_file(path: Path) -> dict[str, Tensor]:
    _check_plain(path)
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        entries = container.read_header(data, MAX_HEADER_BYTES).entries
    except (OSError, ValueError) as error:  # ContainerFault and mapping an empty file are ValueErrors
        raise BundleError(f"`{path}` is not a safetensors file: {reason(error)}") from error
    return {name: Tensor(container.array(data, entry), entry.dtype) for name, entry in entries.items()}


def _tokenizer_path(folder: Path, given: Path | str | None) -> Path:
    for path in [Path(given)] if given is not None else [folder / name for name in TOKENIZERS]:
        if os.path.isfile(path):
            return path
    raise BundleError(
        f"no tokenizer: `{given or folder}` {'is no file' if given else 'holds no ' + ' or '.join(TOKENIZERS)}",
        "Name one; checkpoints of state-spaces use the tokenizer.json of EleutherAI/gpt-neox-20b",
    )


def _layout(path: Path, config: ModelConfig) -> str:
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size > config.vocab_size:
        raise BundleError(f"`{path}` has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}")
    return "control-1" if all(tokenizer.control(symbol) is not None for symbol in CONTROL) else "plain"


def _card(name: str, found: _Source, config: ModelConfig, bits: int, license: str) -> str:
    return (
        f"# {name}\n\n"
        f"Imported by npc-runtime from a checkpoint in the {found.origin} layout, stored at {bits} bits.\n\n"
        f"- {config.parameters:,} parameters: {config.n_layer} layers, d_model {config.d_model}, "
        f"d_state {config.d_state}, {config.vocab_size} tokens\n"
        f"- license: {license}\n"
        "- training data and limits: see the card of the original checkpoint\n"
    )
