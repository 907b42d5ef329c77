"""Writes a Bundle's weights as GGUF, so that llama.cpp can be measured on the very same numbers.

Our 4-bit and 8-bit codes are those of Q4_0 and Q8_0 with blocks of 32, apart from the scales,
which GGUF rounds to fp16. Needs the optional package `gguf`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime.errors import BackendUnavailable, BundleError, install_hint
from npc_runtime.weights import quantize, stored_bits

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from npc_runtime.bundle import Bundle

GGUF_NAMES = {
    "norm": "attn_norm.weight",
    "in_proj": "ssm_in.weight",
    "conv_weight": "ssm_conv1d.weight",
    "conv_bias": "ssm_conv1d.bias",
    "x_proj": "ssm_x.weight",
    "dt_proj": "ssm_dt.weight",
    "dt_bias": "ssm_dt.bias",
    "A_log": "ssm_a",
    "D": "ssm_d",
    "out_proj": "ssm_out.weight",
}
"""Tensors of a layer, ours to llama.cpp's (architecture `mamba`)."""
BLOCK = 32


def export_gguf(bundle: Bundle, path: Path, bits: int) -> None:
    """Writes `path` with matrices at `bits` (4, 8 or 32); raises BundleError unless blocks are 32 wide."""
    try:
        import gguf
    except ImportError as error:
        text = "comparing with llama.cpp needs the package `gguf`, which is not installed"
        raise BackendUnavailable(text, install_hint("bench")) from error

    if bits < 32 and bundle.block != BLOCK:
        raise BundleError(f"GGUF's Q4_0 and Q8_0 have blocks of {BLOCK}, this Bundle of {bundle.block}")
    writer = gguf.GGUFWriter(path, "mamba")
    _add_sizes(writer, bundle)
    for name, target in _names(bundle):
        values, kind = _encoded(bundle, name, bits, gguf.GGMLQuantizationType)
        writer.add_tensor(target, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: Any, bundle: Bundle) -> None:
    c = bundle.config
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(c.d_model)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(c.n_layer)
    writer.add_ssm_conv_kernel(c.d_conv)
    writer.add_ssm_inner_size(c.d_inner)
    writer.add_ssm_state_size(c.d_state)
    writer.add_ssm_time_step_rank(c.dt_rank)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("no_vocab")


def _names(bundle: Bundle) -> list[tuple[str, str]]:
    names = [("embedding", "token_embd.weight"), ("norm_f", "output_norm.weight"), ("head", "output.weight")]
    for i in range(bundle.config.n_layer):
        names += [(f"layers.{i}.{ours}", f"blk.{i}.{theirs}") for ours, theirs in GGUF_NAMES.items()]
    return names


def _encoded(bundle: Bundle, name: str, bits: int, kinds: Any) -> tuple[NDArray[Any], Any]:
    own = stored_bits(name, bits)
    if own == 32:
        dense = bundle.dense(name)
        return (-np.exp(dense) if name.endswith("A_log") else np.ascontiguousarray(dense)), kinds.F32
    if stored_bits(name, bundle.bits) == own and not (name == "head" and bundle.tied):
        codes, scale = bundle.tensor(name), bundle.tensor(f"{name}.scale")
    else:
        codes, scale = quantize(bundle.dense(name), own, BLOCK)
    values = _q4_0(codes) if own == 4 else (codes - np.uint8(128))
    blocks = np.concatenate([scale.astype(np.float16)[..., None].view(np.uint8), values.view(np.uint8)], axis=2)
    return blocks.reshape(len(blocks), -1), kinds.Q4_0 if own == 4 else kinds.Q8_0


def _q4_0(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Neighbours in a byte (ours) to element i beside element i + 16 (theirs)."""
    flat = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], BLOCK)
    return np.asarray(flat[..., :16] | flat[..., 16:] << 4)
