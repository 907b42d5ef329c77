"""The language model in torch, for training and for GPUs: Mamba-1 (arXiv 2312.00752) on npc_kernels.

Letters as in ModelConfig: D d_model, E d_inner, N d_state, K d_conv, R dt_rank, V vocabulary; b rows of a batch, L
tokens. A state-spaces checkpoint loads when the prefix `backbone.` is dropped from its names.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from npc_kernels import add_rms_norm, causal_conv1d, linear_cross_entropy, selective_scan
from torch import Tensor, nn

from npc_runtime.model.rounding import straight_through

if TYPE_CHECKING:
    from npc_runtime.model.config import ModelConfig


class MambaState(NamedTuple):
    """The memory of b rows, fp32: `conv` (layers, b, K-1, E) and `ssm` (layers, b, N, E)."""

    conv: Tensor
    ssm: Tensor

    def detach(self) -> MambaState:
        """The same memory, through which no gradient flows."""
        return MambaState(self.conv.detach(), self.ssm.detach())


class RMSNorm(nn.Module):
    """The weight of a norm; the computing is `add_rms_norm`'s."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Mixer(nn.Module):
    """One selective state-space mixer (figure 3 of the paper)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        D, E, N, R = config.d_model, config.d_inner, config.d_state, config.dt_rank
        self.in_proj = nn.Linear(D, 2 * E, bias=False)
        self.conv1d = nn.Conv1d(E, E, config.d_conv, groups=E)
        self.x_proj = nn.Linear(E, R + 2 * N, bias=False)
        self.dt_proj = nn.Linear(R, E)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, N + 1, dtype=torch.float32)).repeat(E, 1))
        self.D = nn.Parameter(torch.ones(E))
        self.out_proj = nn.Linear(E, D, bias=False)
        self.quantization: tuple[int, int] | None = None
        self._initialise()

    def _initialise(self) -> None:
        """As the official code: softplus(dt_bias) log-uniform in [1e-3, 0.1], out_proj smaller in deep models."""
        bound = self.config.dt_rank**-0.5
        with torch.no_grad():
            self.dt_proj.weight.uniform_(-bound, bound)
            log_dt = torch.rand(self.config.d_inner) * (math.log(0.1) - math.log(1e-3)) + math.log(1e-3)
            dt = log_dt.exp().clamp(min=1e-4)
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
            self.out_proj.weight /= math.sqrt(self.config.n_layer)

    def forward(
        self, u: Tensor, conv: Tensor | None, ssm: Tensor | None, seq_idx: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give (output, new conv state, new ssm state); u and output (b, L, D)."""
        N, R = self.config.d_state, self.config.dt_rank
        # Two products instead of one: x and z come out contiguous, and so do their gradients.
        w_x, w_z = self._matrix(self.in_proj).chunk(2)
        x, z = F.linear(u, w_x), F.linear(u, w_z)  # (b, L, E)
        x, conv = causal_conv1d(x, self.conv1d.weight.squeeze(1), self.conv1d.bias, conv, seq_idx)
        dt, B, C = torch.split(F.linear(x, self._matrix(self.x_proj)), [R, N, N], -1)
        dt = F.linear(dt, self.dt_proj.weight)  # (b, L, E); the scan adds the bias
        A = -torch.exp(self.A_log.float())
        y, ssm = selective_scan(x, dt, A, B, C, self.D, z, self.dt_proj.bias, ssm, seq_idx)
        return F.linear(y, self._matrix(self.out_proj)), conv, ssm

    def _matrix(self, linear: nn.Linear) -> Tensor:
        return linear.weight if self.quantization is None else straight_through(linear.weight, *self.quantization)


class Block(nn.Module):
    """A norm and a mixer on the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.mixer = Mixer(config)


class Mamba(nn.Module):
    """A Mamba-1 language model with tied embeddings; the residual stream is fp32, also under autocast."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm_f = RMSNorm(config.d_model)
        self.quantization: tuple[int, int] | None = None
        self.dropout = 0.0
        """Share of each branch's features that training drops before they join the residual stream."""

    def forward(
        self, tokens: Tensor, state: MambaState | None = None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, MambaState]:
        """Give the logits (b, L, V) for what follows each of the tokens (b, L), and the state after the last.

        `state` is what went before; `seq_idx` (b, L) int32 marks packed documents (see selective_scan).
        """
        hidden, state = self.hidden(tokens, state, seq_idx)
        return F.linear(hidden, self.head()), state

    def hidden(
        self, tokens: Tensor, state: MambaState | None = None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, MambaState]:
        """Give what the head multiplies, (b, L, D), and the state after the last token."""
        dtype = self._dtype(tokens.device.type)
        residual = F.embedding(tokens, self._embedding()).float()
        branch: Tensor | None = None
        convs, ssms = [], []
        for i, layer in enumerate(self.blocks()):
            normed, residual = add_rms_norm(branch, residual, layer.norm.weight, self.config.norm_eps, dtype)
            conv, ssm = (None, None) if state is None else (state.conv[i], state.ssm[i])
            branch, conv, ssm = layer.mixer(normed, conv, ssm, seq_idx)
            branch = F.dropout(branch, self.dropout, self.training)
            convs.append(conv)
            ssms.append(ssm)
        normed, _ = add_rms_norm(branch, residual, self.norm_f.weight, self.config.norm_eps, dtype)
        return normed, MambaState(torch.stack(convs), torch.stack(ssms))

    def blocks(self) -> list[Block]:
        """Give the layers, with their type."""
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def head(self) -> Tensor:
        """The output matrix (V, D): the embedding, rounded when weights are quantised."""
        weight = self.embedding.weight
        return weight if self.quantization is None else straight_through(weight, *self.quantization)

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        weights: Tensor,
        state: MambaState | None = None,
        seq_idx: Tensor | None = None,
    ) -> Tensor:
        """Give the weighted mean of the cross-entropies; tokens, targets (int64) and weights are (b, L).

        The logits of all tokens never exist at once on a GPU.
        """
        hidden, _ = self.hidden(tokens, state, seq_idx)
        weights = weights.flatten().float()
        total = linear_cross_entropy(hidden.flatten(0, 1), self.head(), targets.flatten(), weights)
        return total / weights.sum().clamp(min=1e-6)

    def empty_state(self, rows: int) -> MambaState:
        """Give the memory of rows that have perceived nothing."""
        c, device = self.config, self.embedding.weight.device
        return MambaState(
            torch.zeros(c.n_layer, rows, c.d_conv - 1, c.d_inner, device=device),
            torch.zeros(c.n_layer, rows, c.d_state, c.d_inner, device=device),
        )

    def quantize_weights(self, bits: int | None, block: int = 32) -> None:
        """Compute from now on with weights rounded as a Bundle of `bits` (4 or 8) stores them; None ends that.

        in_proj, x_proj, out_proj and the head get `bits`, the embedding's lookup 8; gradients pass straight through.
        """
        if bits not in (4, 8, None):
            raise ValueError(f"`bits` must be 4, 8 or None, got {bits!r}")
        self.quantization = None if bits is None else (bits, block)
        for layer in self.blocks():
            layer.mixer.quantization = self.quantization

    def _embedding(self) -> Tensor:
        weight = self.embedding.weight
        return weight if self.quantization is None else straight_through(weight, 8, self.quantization[1])

    def _dtype(self, device: str) -> torch.dtype:
        """What the matrix products compute in."""
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.embedding.weight.dtype
