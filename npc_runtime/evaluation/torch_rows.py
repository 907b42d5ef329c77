"""Rows on the torch model: what a training run is evaluated with, hundreds of conversations at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)

from npc_runtime.model.mamba import MambaState
from npc_runtime.sampling import FAILED, pick_from_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from npc_runtime.model.mamba import Mamba
    from npc_runtime.sampling import Draw

_TOKENS = 1 << 18
"""Tokens of one forward pass when many prompts are read."""


class TorchRows:
    """States of all rows side by side, computed as the model stands (see `Mamba.quantize_weights`)."""

    most = 512

    def __init__(self, model: Mamba) -> None:
        self._model, self._device = model, model.embedding.weight.device
        with torch.no_grad():
            self._head = model.head().detach().float()
        self._state = model.empty_state(0)

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Reads all prompts at once, those of like length together."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        parts: list[list[int]] = [[]]
        for row in order:
            if parts[-1] and (len(parts[-1]) + 1) * len(prompts[row]) > _TOKENS:
                parts.append([])
            parts[-1].append(row)
        states = [self._read_padded([prompts[row] for row in part]) for part in parts]
        back = torch.from_numpy(np.argsort(np.concatenate(parts))).to(self._device)
        joined = (torch.cat(parts, 1)[:, back] for parts in zip(*states, strict=True))
        self._state = MambaState(*joined)

    def read(self, texts: Sequence[Sequence[int]]) -> None:
        """Reads token by token, all rows in step; rows that have no more stay as they are."""
        for at in range(max(map(len, texts), default=0)):
            self._feed([text[at] if at < len(text) else None for text in texts])

    def step(self, draws: Sequence[Draw | None]) -> list[int]:
        """Feeds and draws; the rule is that of sampling.py."""
        hidden = self._feed([None if draw is None else draw.token for draw in draws])
        with torch.no_grad():
            logits = F.linear(hidden.float(), self._head).cpu().numpy()
        return [
            FAILED if draw is None else pick_from_logits(draw, row) for draw, row in zip(draws, logits, strict=True)
        ]

    def score(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Each prompt by itself, from nothing."""
        scores = []
        for prompt in prompts:
            tokens = torch.tensor([prompt], device=self._device)
            with torch.no_grad(), self._cast():
                hidden, _ = self._model.hidden(tokens[:, :-1])
            with torch.no_grad():
                known = F.log_softmax(F.linear(hidden[0].float(), self._head), -1)
                scores.append([float(x) for x in known.gather(1, tokens[0, 1:, None])[:, 0].cpu()])
        return scores

    def _cast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda")

    def _read_padded(self, prompts: Sequence[Sequence[int]]) -> MambaState:
        """Padding stands in front as a document of its own, so that each State begins anew after it."""
        length = max(map(len, prompts))
        tokens, seq_idx = np.zeros((len(prompts), length), np.int64), np.zeros((len(prompts), length), np.int32)
        for row, prompt in enumerate(prompts):
            tokens[row, length - len(prompt) :] = prompt
            seq_idx[row, length - len(prompt) :] = 1
        with torch.no_grad(), self._cast():
            _, state = self._model.hidden(self._to_device(tokens), None, self._to_device(seq_idx))
        return state

    def _feed(self, tokens: Sequence[int | None]) -> Tensor:
        """Hidden (B, D) after one token each; None leaves a row's State as it was."""
        fed = self._to_device(np.asarray([[0 if token is None else token] for token in tokens], np.int64))
        active = self._to_device(np.asarray([token is not None for token in tokens]))
        with torch.no_grad(), self._cast():
            hidden, state = self._model.hidden(fed, self._state)
        if all(token is not None for token in tokens):
            self._state = state
        else:
            kept = (torch.where(active[None, :, None, None], *pair) for pair in zip(state, self._state, strict=True))
            self._state = MambaState(*kept)
        return hidden[:, 0]

    def _to_device(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(values).to(self._device)
