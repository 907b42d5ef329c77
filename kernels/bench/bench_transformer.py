"""Decode of a transformer of the same size against ours: prompt 2048, 128 more, B = 128, bf16, both in CUDA graphs.

    python kernels/bench/bench_transformer.py [--batch 128] [--out FOLDER]

The transformer has the sizes of Pythia-160m (12 layers of 768, 12 heads), a static cache of keys and values, and
scaled_dot_product_attention over exactly the tokens that are there on average, without mask or padding. Ours has 130M
parameters (24 layers of 768). Random weights. Nothing is timed before each agrees with its own full pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402, N812 (the usual name)
from torch import Tensor  # noqa: E402

from npc_runtime.bench import random_bundle  # noqa: E402
from npc_runtime.bench_cuda import MODEL_130M, RANDOM_BOUND, checked, copy_gb_s, machine, step_ms, timed_ms  # noqa: E402

PROMPT, MORE = 2048, 128
LAYERS, WIDTH, HEADS, VOCABULARY = 12, 768, 12, 50280
DEVICE = "cuda"


class Layer(NamedTuple):
    """One layer's matrices, bf16, (outputs, inputs)."""

    qkv: Tensor
    out: Tensor
    up: Tensor
    down: Tensor


class Transformer:
    """GPT-NeoX in shape: parallel attention and feed-forward, rotary positions over a quarter of a head."""

    def __init__(self, batch: int, length: int, dtype: torch.dtype = torch.bfloat16) -> None:
        torch.manual_seed(0)

        def matrix(rows: int, columns: int) -> Tensor:
            return (torch.randn(rows, columns, device=DEVICE) / columns**0.5).to(dtype)

        self.embedding, self.head = matrix(VOCABULARY, WIDTH), matrix(VOCABULARY, WIDTH)
        shapes = ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH))
        self.layers = [Layer(*(matrix(*shape) for shape in shapes)) for _ in range(LAYERS)]
        shape = (LAYERS, 2, batch, HEADS, length, WIDTH // HEADS)
        self.cache = torch.zeros(shape, device=DEVICE, dtype=dtype)
        quarter = WIDTH // HEADS // 4
        angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, quarter, 2) / quarter)
        self.cos, self.sin = (f(angles).repeat(1, 2).to(DEVICE, dtype) for f in (torch.cos, torch.sin))

    def step(self, tokens: Tensor, at: int) -> Tensor:
        """Logits (b, V) after tokens (b, L) at places `at` and on; they see all that the cache holds before."""
        b, L = tokens.shape
        x = self.embedding[tokens]
        for layer, cache in zip(self.layers, self.cache, strict=True):
            normed = F.layer_norm(x, (WIDTH,))
            q, k, v = F.linear(normed, layer.qkv).view(b, L, HEADS, 3, -1).permute(3, 0, 2, 1, 4)
            q, k = self._turned(q, at), self._turned(k, at)
            cache[0, :b, :, at : at + L], cache[1, :b, :, at : at + L] = k, v
            keys, values = cache[0, :b, :, : at + L], cache[1, :b, :, : at + L]
            mixed = F.scaled_dot_product_attention(q, keys, values, is_causal=L > 1)
            mixed = F.linear(mixed.transpose(1, 2).reshape(b, L, WIDTH), layer.out)
            x = x + mixed + F.linear(F.gelu(F.linear(normed, layer.up)), layer.down)
        return F.linear(F.layer_norm(x[:, -1], (WIDTH,)), self.head)

    def _turned(self, x: Tensor, at: int) -> Tensor:
        quarter = self.cos.shape[1]
        turn, keep = x[..., :quarter], x[..., quarter:]
        here = slice(at, at + x.shape[2])
        half = torch.cat([-turn[..., quarter // 2 :], turn[..., : quarter // 2]], -1)
        return torch.cat([turn * self.cos[here] + half * self.sin[here], keep], -1)


@torch.inference_mode()
def check() -> float:
    """Largest difference of logits between stepping and one full pass, as a share of their spread."""
    model = Transformer(2, 40)
    tokens = torch.randint(0, VOCABULARY, (2, 40), device=DEVICE)
    whole = model.step(tokens, 0)
    model.cache.zero_()
    model.step(tokens[:, :30], 0)
    for at in range(30, 40):
        stepped = model.step(tokens[:, at : at + 1], at)
    return float((stepped - whole).float().square().mean().sqrt() / whole.float().std())


@torch.inference_mode()
def transformer_ms(batch: int) -> tuple[float, float]:
    """ms of reading the prompt, and of a step at the middle of what follows, in a CUDA graph."""
    at = PROMPT + MORE // 2
    model = Transformer(batch, at + 1)
    prompt = torch.randint(0, VOCABULARY, (batch, PROMPT), device=DEVICE)
    part = max(1, batch // 4)

    def read() -> None:
        for first in range(0, batch, part):  # a quarter at a time: what is in between is large
            model.step(prompt[first : first + part], 0)

    read()
    reading = timed_ms(read, 3)
    model.cache.normal_()
    tokens = torch.zeros(batch, 1, dtype=torch.int64, device=DEVICE)

    def step() -> None:
        tokens.copy_(model.step(tokens, at).argmax(1, keepdim=True))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return reading, timed_ms(graph.replay, 30)


def our_ms(batch: int) -> tuple[float, float]:
    """The same of the GPU backend: reading, and a step from token to token, sampling included."""
    with tempfile.TemporaryDirectory() as folder:
        backend = checked(random_bundle(Path(folder) / "random", MODEL_130M, 16), print, RANDOM_BOUND)
        tokens = torch.randint(0, VOCABULARY, (batch, PROMPT)).tolist()
        taken = []
        for _ in range(3):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            backend.prefill_rows(list(range(batch)), tokens)
            torch.cuda.synchronize()
            taken.append(1e3 * (time.perf_counter() - begun))
        step = step_ms(backend, batch)
        backend.close()
    return min(taken), step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, help="sequences at once")
    parser.add_argument("--out", type=Path, default=None, help="folder for transformer.json")
    options = parser.parse_args()
    error, batch = check(), options.batch
    print(f"{machine()}; copy {copy_gb_s():.0f} GB/s; transformer stepped against whole: {error:.4f}, bound 0.03")
    if not error < 0.03:
        return 1
    reading, stepping = transformer_ms(batch)
    torch.cuda.empty_cache()
    our_reading, our_stepping = our_ms(batch)
    found = {
        "batch": batch,
        "transformer": {"read_ms": round(reading, 2), "step_ms": round(stepping, 4)},
        "ours": {"read_ms": round(our_reading, 2), "step_ms": round(our_stepping, 4)},
        "transformer_tokens_per_s": round(1e3 * batch / stepping),
        "our_tokens_per_s": round(1e3 * batch / our_stepping),
        "ratio_decode": round(stepping / our_stepping, 2),
        "ratio_with_prompt": round((reading + MORE * stepping) / (our_reading + MORE * our_stepping), 2),
    }
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "transformer.json").write_text(json.dumps(found))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
