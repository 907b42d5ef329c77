"""State: the fixed-size memory of one Npc, and StateSpec, its shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StateSpec:
    """Shapes of a State: per layer a convolution part (K-1, E) and an SSM part (N, E), channels last."""

    n_layer: int
    d_inner: int
    d_state: int
    d_conv: int

    @property
    def conv_shape(self) -> tuple[int, int, int]:
        """(layers, K-1, E): the last K-1 inputs of each causal convolution."""
        return (self.n_layer, self.d_conv - 1, self.d_inner)

    @property
    def ssm_shape(self) -> tuple[int, int, int]:
        """(layers, N, E): the hidden state h of each selective scan."""
        return (self.n_layer, self.d_state, self.d_inner)

    @property
    def conv_size(self) -> int:
        """Floats in the convolution part of all layers."""
        return self.n_layer * (self.d_conv - 1) * self.d_inner

    @property
    def size(self) -> int:
        """Floats in a whole State."""
        return self.conv_size + self.n_layer * self.d_state * self.d_inner

    @property
    def nbytes(self) -> int:
        """Bytes of a live State (fp32)."""
        return 4 * self.size


class State:
    """One fp32 vector holding every layer's convolution part, then every layer's SSM part.

    `conv` (layers, K-1, E) and `ssm` (layers, N, E) are views of `vector`, so that copying a
    State is one memory copy.
    """

    __slots__ = ("conv", "spec", "ssm", "vector")

    def __init__(self, spec: StateSpec, vector: Float32) -> None:
        if vector.shape != (spec.size,) or vector.dtype != np.float32:
            raise ValueError(f"a State of this model is float32 ({spec.size},), got {vector.dtype} {vector.shape}")
        self.spec = spec
        self.vector = vector
        self.conv: Float32 = vector[: spec.conv_size].reshape(spec.conv_shape)
        self.ssm: Float32 = vector[spec.conv_size :].reshape(spec.ssm_shape)

    @classmethod
    def zeros(cls, spec: StateSpec) -> State:
        """The State of someone who has perceived nothing."""
        return cls(spec, np.zeros(spec.size, np.float32))

    @classmethod
    def of(cls, spec: StateSpec, conv: Float32, ssm: Float32) -> State:
        """A State from its two parts, copied."""
        return cls(spec, np.concatenate([conv.reshape(-1), ssm.reshape(-1)]).astype(np.float32, copy=False))

    def copy(self) -> State:
        """An independent State with the same bits."""
        return State(self.spec, self.vector.copy())

    def finite(self) -> bool:
        """True when no value is NaN or infinite."""
        return bool(np.isfinite(self.vector).all())

    def digest(self) -> str:
        """SHA-256 of the bytes: equal digests mean bit-equal States."""
        return hashlib.sha256(self.vector.tobytes()).hexdigest()

    def equals(self, other: State) -> bool:
        """Bit equality (so -0.0 differs from 0.0, and NaN equals itself)."""
        return self.spec == other.spec and self.vector.tobytes() == other.vector.tobytes()

    def layers(self) -> Iterator[tuple[Float32, Float32]]:
        """(conv (K-1, E), ssm (N, E)) of each layer, views."""
        return zip(self.conv, self.ssm, strict=True)
