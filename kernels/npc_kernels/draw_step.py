"""draw_step: from logits to the next token of every row, on the device, and everything a row needs to go on by itself.

The rule is a sampler of the usual kind (the `k` highest logits, repetition control, temperature, top-p) in fp64, with
one uniform number a draw from Philox4x32-10 (Salmon et al., SC 2011), a pure function of (seed, turn, position); or
the ids of a trie's node instead of the highest logits. Ties fall to the lowest id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from npc_kernels._check import check_tensor

if TYPE_CHECKING:
    from torch import Tensor

FIELDS = (
    "slot",
    "token",
    "node",
    "ban",
    "ban_next",
    "end",
    "left",
    "seed",
    "turn",
    "position",
    "cursor",
    "temperature",
    "top_p",
    "repetition",
)
"""Rows of `Rows.table`, int64; the last three are the bits of fp64 numbers."""
FLOATS = 3
FAILED, IDLE = -1, -2
"""In place of a token: the logits were not finite, or nobody can be chosen; the row was not live."""


class Rows(NamedTuple):
    """What each of B rows needs for its next draw, and what becomes of it. Everything moves on in place.

    slot: negative means idle. token: fed next, and replaced by what is drawn. node: place in a trie, whose ids alone
    may be drawn; -1 in free speech. ban: the set of ids that may not be drawn in free speech; ban_next: the set that
    replaces it after a token that is not `blank`, or -1. end: the id that ends free speech. left: draws of free speech
    until the row ends. cursor: where in `recent` the next token goes.
    """

    table: Tensor
    """(len(FIELDS), B) int64."""
    recent: Tensor
    """(B, W) int32: the window of repetition control, -1 where empty, written round and round."""
    out: Tensor
    """(T, B) int64: row `step` is written."""
    step: Tensor
    """(1) int64: counts the steps."""

    def field(self, name: str) -> Tensor:
        """Give one field of every row, (B), int64 or fp64."""
        row = self.table[FIELDS.index(name)]
        return row.view(torch.float64) if FIELDS.index(name) >= len(FIELDS) - FLOATS else row


class Tables(NamedTuple):
    """What rows point into."""

    allowed: Tensor
    """(nodes, M) int64: ids that may follow a node of a trie, -1 where there are fewer."""
    follow: Tensor
    """(nodes, M) int64: the node behind each, -1 where a sequence ends and free speech begins."""
    banned: Tensor
    """(sets, V) bool."""
    blank: Tensor
    """(V) bool: ids after which a row with `ban_next` stops, for its owner to decide."""


def draw_step(logits: Tensor, rows: Rows, tables: Tables, k: int) -> None:
    """Draw one token for every live row and move `rows` on; the drawn ids are `rows.out[step]`.

    logits (B, V) fp32. A row turns idle (slot -1) when it fails, ends, has no draws left, or draws a blank id while
    `ban_next` waits. Only operations on the current stream: a CUDA graph may capture it. CPU tensors take
    `draw_step_ref`. Raises ValueError when the logits do not fit.
    """
    check_tensor("logits", logits, 2)
    if logits.shape[0] != rows.table.shape[1] or logits.dtype != torch.float32:
        raise ValueError(f"`logits` must be float32 of {rows.table.shape[1]} rows, got {logits.dtype} {logits.shape}")
    if logits.device.type == "cpu":
        draw_step_ref(logits, rows, tables, k)
        return
    from npc_kernels.draw_step_triton import draw

    draw(logits.contiguous(), rows, tables, k)


def draw_step_ref(logits: Tensor, rows: Rows, tables: Tables, k: int) -> None:
    """Draw by plain operations; arguments and results as `draw_step`."""
    node = rows.field("node")
    free = node < 0
    ids, values, sound = _candidates(logits, rows, tables, k)
    chosen = _chosen(ids, values, rows, free)
    live = rows.field("slot") >= 0
    failed = ~sound | (chosen < 0)
    token = torch.where(failed, FAILED, chosen)
    rows.out.index_copy_(0, rows.step, torch.where(live, token, IDLE)[None])
    rows.step.add_(1)
    at = (tables.allowed[node.clamp(min=0)] == token[:, None]).int().argmax(1)
    follow = tables.follow[node.clamp(min=0)].gather(1, at[:, None])[:, 0]
    _move_on(rows, tables, token, live, torch.where(free, node, follow), free)


def _candidates(logits: Tensor, rows: Rows, tables: Tables, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (B, M), -1 where there are fewer, their logits, and whether these are finite (B)."""
    node, most = rows.field("node"), tables.allowed.shape[1]
    masked = logits.masked_fill(tables.banned[rows.field("ban")], float("-inf"))
    values, ids = (part[:, :k] for part in masked.sort(dim=1, descending=True, stable=True))
    ids = torch.where(values > float("-inf"), ids, -1)
    pad = (0, most - ids.shape[1])
    ids, values = torch.nn.functional.pad(ids, pad, value=-1), torch.nn.functional.pad(values, pad)
    named = tables.allowed[node.clamp(min=0)]
    theirs = logits.gather(1, named.clamp(min=0))
    sound = torch.where(node < 0, torch.isfinite(logits).all(1), (torch.isfinite(theirs) | (named < 0)).all(1))
    return torch.where((node < 0)[:, None], ids, named), torch.where((node < 0)[:, None], values, theirs), sound


def _sorted(ids: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Order by rising key, equal keys by rising id."""
    ids, order = ids.sort(1)
    keys, again = keys.gather(1, order).sort(dim=1, stable=True)
    return ids.gather(1, again), keys


def _chosen(ids: Tensor, values: Tensor, rows: Rows, free: Tensor) -> Tensor:
    """The drawn ids (B), -1 where there are no candidates."""
    uses = (rows.recent[:, None, :] == ids[:, :, None]).sum(2) * free[:, None]
    minus = rows.field("repetition")[:, None] * uses - values.double()
    minus = torch.where(ids < 0, float("inf"), minus)
    ids, minus = _sorted(ids, minus)
    temperature = rows.field("temperature")
    scale = 1.0 / torch.where(temperature > 0, temperature, 1.0)
    heads = torch.exp((minus[:, :1] - minus) * scale[:, None]).cumsum(1)
    count = (ids >= 0).sum(1)
    last = (heads < (rows.field("top_p") * heads[:, -1])[:, None]).sum(1).minimum(count - 1).clamp(min=0)
    target = uniform(rows) * heads.gather(1, last[:, None])[:, 0]
    place = (heads <= target[:, None]).sum(1).minimum(last)
    return ids.gather(1, torch.where(temperature > 0, place, 0)[:, None])[:, 0]


def uniform(rows: Rows) -> Tensor:
    """One number in [0, 1) for each row, fp64: Philox4x32-10 at the counter (position, turn), keyed by the seed."""
    mask = 0xFFFFFFFF
    seed, turn, position = rows.field("seed"), rows.field("turn"), rows.field("position")
    c0, c1, c2, c3 = position & mask, turn & mask, (turn >> 32) & mask, torch.zeros_like(turn)
    k0, k1 = seed & mask, (seed >> 32) & mask
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            ((product1 >> 32) & mask) ^ c1 ^ k0,
            product1 & mask,
            ((product0 >> 32) & mask) ^ c3 ^ k1,
            product0 & mask,
        )
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return ((c0 << 21) | (c1 >> 11)).double() / float(1 << 53)


def _move_on(rows: Rows, tables: Tables, token: Tensor, live: Tensor, node: Tensor, free: Tensor) -> None:
    """Note the drawn token and decide whether the row goes on."""
    safe, early = token.clamp(min=0), rows.field("ban_next") >= 0
    speech = free & live
    left = rows.field("left") - speech.long()
    pause = early & tables.blank[safe]
    goes_on = live & (token >= 0) & ~(free & ((token == rows.field("end")) | (left <= 0) | pause))
    settled = speech & early & ~pause
    changes = {
        "node": node,
        "left": left,
        "ban": torch.where(settled, rows.field("ban_next"), rows.field("ban")),
        "ban_next": torch.where(settled, -1, rows.field("ban_next")),
        "slot": torch.where(goes_on, rows.field("slot"), -1),
        "token": safe,
        "position": rows.field("position") + 1,
        "cursor": (rows.field("cursor") + 1) % rows.recent.shape[1],
    }
    rows.recent.scatter_(1, rows.field("cursor")[:, None], token[:, None].int())
    for name, value in changes.items():
        rows.field(name).copy_(value)
