"""ModelConfig: the sizes of a Mamba-1 model (arXiv 2312.00752, section 3.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes in the letters of the paper: D d_model, E d_inner, N d_state, K d_conv, R dt_rank, V vocabulary."""

    d_model: int
    n_layer: int
    vocab_size: int
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int = 0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layer", "vocab_size", "d_state", "d_conv", "expand"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}")
        if self.dt_rank == 0:
            object.__setattr__(self, "dt_rank", math.ceil(self.d_model / 16))

    @property
    def d_inner(self) -> int:
        """E: channels of the convolution and the scan."""
        return self.expand * self.d_model

    @property
    def parameters(self) -> int:
        """Number of weights, tied embeddings counted once."""
        e, d, n, r = self.d_inner, self.d_model, self.d_state, self.dt_rank
        layer = 2 * e * d + e * (self.d_conv + 1) + (r + 2 * n) * e + e * r + e + e * n + e + d * e + d
        return self.vocab_size * d + self.n_layer * layer + d
