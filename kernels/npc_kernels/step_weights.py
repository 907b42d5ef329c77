"""StepWeights: a model's weights laid out for decoding one token a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class LayerWeights(NamedTuple):
    """One layer. Shapes as in the model; `conv_weight` and `A` too lie transposed, channels side by side."""

    norm: Tensor
    """(D) fp32."""
    in_proj: Tensor
    """(2E, D): the rows of x, then of z."""
    conv_weight: Tensor
    """(E, K) fp32."""
    conv_bias: Tensor
    """(E) fp32."""
    x_proj: Tensor
    """(R + 2N, E): the rows of delta's low rank, of B, of C."""
    dt_proj: Tensor
    """(E, R), lying transposed."""
    dt_proj_rows: Tensor
    """(E, R), the same."""
    dt_bias: Tensor
    """(E) fp32."""
    A: Tensor
    """(E, N) fp32: -exp(A_log)."""
    D: Tensor
    """(E) fp32."""
    out_proj: Tensor
    """(D, E)."""


class StepWeights(NamedTuple):
    """A whole model. The matrices share one dtype, bf16 or fp32, which is what the products compute in."""

    embedding: Tensor
    """(V, D), looked up."""
    layers: list[LayerWeights]
    norm_f: Tensor
    """(D) fp32."""
    head: Tensor
    """(V, D), multiplied; the embedding itself when they are tied."""
    eps: float

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], n_layer: int, eps: float, dtype: torch.dtype = torch.bfloat16
    ) -> StepWeights:
        """Lay out dense tensors named `embedding`, `head` (absent when tied), `norm_f` and `layers.{i}.` + a name.

        The names of a layer are LayerWeights' fields, with `A_log` in the place of `A`. Devices stay as they are.
        """
        embedding = tensors["embedding"].to(dtype).contiguous()
        head = tensors["head"].to(dtype).contiguous() if "head" in tensors else embedding
        layers = [_layer(tensors, f"layers.{i}.", dtype) for i in range(n_layer)]
        return cls(embedding, layers, tensors["norm_f"].float(), head, eps)


def _layer(tensors: Mapping[str, Tensor], prefix: str, dtype: torch.dtype) -> LayerWeights:
    def matrix(name: str) -> Tensor:
        return tensors[prefix + name].to(dtype).contiguous()

    def vector(name: str) -> Tensor:
        return tensors[prefix + name].float().contiguous()

    return LayerWeights(
        norm=vector("norm"),
        in_proj=matrix("in_proj"),
        conv_weight=vector("conv_weight").t().contiguous().t(),
        conv_bias=vector("conv_bias"),
        x_proj=matrix("x_proj"),
        dt_proj=matrix("dt_proj").t().contiguous().t(),
        dt_proj_rows=matrix("dt_proj"),
        dt_bias=vector("dt_bias"),
        A=-torch.exp(vector("A_log")).t().contiguous().t(),
        D=vector("D"),
        out_proj=matrix("out_proj"),
    )
