"""npc_kernels: the selective scan and the causal convolution of Mamba, with states in and out.

Each operation has a Triton path for NVIDIA GPUs and a plain PyTorch definition, its `_ref`, which CPU tensors take.
The mathematics and the memory layouts are in `kernels/README.md`.
"""

from npc_kernels.causal_conv import causal_conv1d
from npc_kernels.reference import causal_conv1d_ref, selective_scan_ref
from npc_kernels.selective_scan import selective_scan

__all__ = ["causal_conv1d", "causal_conv1d_ref", "selective_scan", "selective_scan_ref"]
