"""npc_kernels: the operations of a Mamba language model, with states in and out.

Each operation has a Triton path for NVIDIA GPUs and a plain PyTorch definition, its `_ref`, which CPU tensors take.
The mathematics and the memory layouts are in `kernels/README.md`.
"""

from npc_kernels.causal_conv import causal_conv1d
from npc_kernels.cross_entropy import linear_cross_entropy
from npc_kernels.reference import add_rms_norm_ref, causal_conv1d_ref, linear_cross_entropy_ref, selective_scan_ref
from npc_kernels.rms_norm import add_rms_norm
from npc_kernels.selective_scan import selective_scan

__all__ = [
    "add_rms_norm",
    "add_rms_norm_ref",
    "causal_conv1d",
    "causal_conv1d_ref",
    "linear_cross_entropy",
    "linear_cross_entropy_ref",
    "selective_scan",
    "selective_scan_ref",
]
