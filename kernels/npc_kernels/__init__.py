"""npc_kernels: the operations of a Mamba language model, with states in and out.

Each operation has a Triton path for NVIDIA GPUs and a plain PyTorch definition, its `_ref`, which CPU tensors take.
The mathematics and the memory layouts are in `kernels/README.md`.
"""

from npc_kernels.causal_conv import causal_conv1d
from npc_kernels.conv_step import conv_step
from npc_kernels.cross_entropy import linear_cross_entropy
from npc_kernels.decode_step import decode_step
from npc_kernels.draw_step import FAILED, FIELDS, IDLE, Rows, Tables, draw_step, draw_step_ref
from npc_kernels.norm_linear import norm_linear
from npc_kernels.reference import (
    add_rms_norm_ref,
    causal_conv1d_ref,
    conv_step_ref,
    decode_step_ref,
    linear_cross_entropy_ref,
    norm_linear_ref,
    selective_scan_ref,
    state_step_ref,
)
from npc_kernels.rms_norm import add_rms_norm
from npc_kernels.row_linear import row_linear, row_linear_ref
from npc_kernels.selective_scan import selective_scan
from npc_kernels.state_step import state_step
from npc_kernels.step_weights import LayerWeights, StepWeights

__all__ = [
    "FAILED",
    "FIELDS",
    "IDLE",
    "LayerWeights",
    "Rows",
    "StepWeights",
    "Tables",
    "add_rms_norm",
    "add_rms_norm_ref",
    "causal_conv1d",
    "causal_conv1d_ref",
    "conv_step",
    "conv_step_ref",
    "decode_step",
    "decode_step_ref",
    "draw_step",
    "draw_step_ref",
    "linear_cross_entropy",
    "linear_cross_entropy_ref",
    "norm_linear",
    "norm_linear_ref",
    "row_linear",
    "row_linear_ref",
    "selective_scan",
    "selective_scan_ref",
    "state_step",
    "state_step_ref",
]
