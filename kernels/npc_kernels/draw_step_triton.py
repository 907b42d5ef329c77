"""Drawing a token for every row on an NVIDIA GPU: one Triton program a row."""

# Triton's kernels are not Python: their arguments have no Python types.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment,var-annotated"

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from npc_kernels.draw_step import Rows, Tables

WHOLE = 16384
"""Largest vocabulary whose logits one program holds in registers; a wider one is read again for every look at it."""
CHUNK = 8192
"""Logits of a wider one that are looked at together."""


@triton.jit
def _float_at(key):
    """The float at a place in the order of floats, which whole numbers count: -0.0 and 0.0 lie side by side."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _key_of(x):
    """The place of a float in the order of floats."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)


@triton.jit
def _top(
    logits_ptr, banned_ptr, ids_ptr, values_ptr, V, K: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
    SPREAD: tl.constexpr,
):  # fmt: skip
    """Write the K highest logits, and at most WIDE, lowest ids first; how many, and how many of all are not finite.

    A threshold is sought that K to WIDE logits reach: first SPREAD deviations above the mean, then by halving what is
    left of the order of floats. Where equal logits leave none, the halving ends at the K-th and ties are cut by id.
    """
    offs = tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + offs, mask=offs < V, other=0.0)
    unsound = BLOCK - tl.sum((tl.abs(x) < float("inf")).to(tl.int32), 0)
    live = (offs < V) & (tl.load(banned_ptr + offs, mask=offs < V, other=1) == 0) & (tl.abs(x) < float("inf"))
    known = tl.where(live, x, 0.0)
    many = tl.maximum(tl.sum(live.to(tl.int32), 0), 1).to(tl.float32)
    mean = tl.sum(known, 0) / many
    deviation = tl.sqrt(tl.maximum(tl.sum(known * known, 0) / many - mean * mean, 0.0))
    x = tl.where(live, x, -float("inf"))
    low, high = _key_of(tl.full((), -float("inf"), tl.float32)), _key_of(tl.max(x, 0)) + 1
    middle = tl.minimum(tl.maximum(_key_of(mean + SPREAD * deviation), low + 1), high - 1)
    reached = tl.full((), BLOCK, tl.int32)  # by `low`
    while (high - low > 1) & (reached > WIDE):
        count = tl.sum((x >= _float_at(middle.to(tl.int32))).to(tl.int32), 0)
        low, high = tl.where(count >= K, middle, low), tl.where(count >= K, high, middle)
        reached = tl.where(count >= K, count, reached)
        middle = (low + high) >> 1
    edge = _float_at(low.to(tl.int32))
    at_edge = live & (x == edge)
    room = tl.where(reached > WIDE, K - tl.sum((x > edge).to(tl.int32), 0), WIDE)
    taken = (x > edge) | (at_edge & (tl.cumsum(at_edge.to(tl.int32), 0) <= room))
    place = tl.cumsum(taken.to(tl.int32), 0) - 1
    tl.store(ids_ptr + place, offs, mask=taken)
    tl.store(values_ptr + place, x + 0.0, mask=taken)
    return tl.sum(taken.to(tl.int32), 0), unsound


@triton.jit
def _chunk(logits_ptr, banned_ptr, at, V, CHUNK: tl.constexpr):
    """Ids from `at` on, their logits, -inf for those that cannot be drawn, and how many are not finite."""
    offs = at + tl.arange(0, CHUNK)
    x = tl.load(logits_ptr + offs, mask=offs < V, other=0.0)
    finite = tl.abs(x) < float("inf")
    live = finite & (offs < V) & (tl.load(banned_ptr + offs, mask=offs < V, other=1) == 0)
    return offs, tl.where(live, x, -float("inf")), CHUNK - tl.sum(finite.to(tl.int32), 0)


@triton.jit
def _top_of_chunks(
    logits_ptr, banned_ptr, ids_ptr, values_ptr, V, K: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr,
    SPREAD: tl.constexpr,
):  # fmt: skip
    """As `_top`, of a row that is read in chunks, over and over: the cache keeps it."""
    unsound, many = tl.full((), 0, tl.int32), tl.full((), 0, tl.int32)
    total, squares = tl.full((), 0.0, tl.float32), tl.full((), 0.0, tl.float32)
    highest = tl.full((), -float("inf"), tl.float32)
    for at in range(0, V, CHUNK):
        _, x, bad = _chunk(logits_ptr, banned_ptr, at, V, CHUNK)
        known = tl.where(x > -float("inf"), x, 0.0)
        unsound += bad
        many += tl.sum((x > -float("inf")).to(tl.int32), 0)
        total += tl.sum(known, 0)
        squares += tl.sum(known * known, 0)
        highest = tl.maximum(highest, tl.max(x, 0))
    count = tl.maximum(many, 1).to(tl.float32)
    mean = total / count
    deviation = tl.sqrt(tl.maximum(squares / count - mean * mean, 0.0))
    low, high = _key_of(tl.full((), -float("inf"), tl.float32)), _key_of(highest) + 1
    middle = tl.minimum(tl.maximum(_key_of(mean + SPREAD * deviation), low + 1), high - 1)
    reached = tl.full((), WIDE + 1, tl.int32)  # by `low`, at least
    while (high - low > 1) & (reached > WIDE):
        threshold = _float_at(middle.to(tl.int32))
        found = tl.full((), 0, tl.int32)
        for at in range(0, V, CHUNK):
            _, x, _ = _chunk(logits_ptr, banned_ptr, at, V, CHUNK)
            found += tl.sum((x >= threshold).to(tl.int32), 0)
        low, high = tl.where(found >= K, middle, low), tl.where(found >= K, high, middle)
        reached = tl.where(found >= K, found, reached)
        middle = (low + high) >> 1
    edge = _float_at(low.to(tl.int32))
    above = tl.full((), 0, tl.int32)
    if reached > WIDE:
        for at in range(0, V, CHUNK):
            _, x, _ = _chunk(logits_ptr, banned_ptr, at, V, CHUNK)
            above += tl.sum((x > edge).to(tl.int32), 0)
    room = tl.where(reached > WIDE, K - above, WIDE)
    taken_before, ties_before = tl.full((), 0, tl.int32), tl.full((), 0, tl.int32)
    for at in range(0, V, CHUNK):
        offs, x, _ = _chunk(logits_ptr, banned_ptr, at, V, CHUNK)
        at_edge = (x == edge) & (x > -float("inf"))
        taken = (x > edge) | (at_edge & (ties_before + tl.cumsum(at_edge.to(tl.int32), 0) <= room))
        place = taken_before + tl.cumsum(taken.to(tl.int32), 0) - 1
        tl.store(ids_ptr + place, offs, mask=taken)
        tl.store(values_ptr + place, x + 0.0, mask=taken)
        taken_before += tl.sum(taken.to(tl.int32), 0)
        ties_before += tl.sum(at_edge.to(tl.int32), 0)
    return taken_before, unsound


@triton.jit
def _uniform(seed, turn, position):
    """As `draw_step.uniform`, of scalars."""
    c0, c1, c2 = position & 0xFFFFFFFF, turn & 0xFFFFFFFF, (turn >> 32) & 0xFFFFFFFF
    c3 = c0 * 0
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0 = ((product1 >> 32) & 0xFFFFFFFF) ^ c1 ^ k0
        c2 = ((product0 >> 32) & 0xFFFFFFFF) ^ c3 ^ k1
        c1, c3 = product1 & 0xFFFFFFFF, product0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return ((c0 << 21) | (c1 >> 11)).to(tl.float64) * (1.0 / 9007199254740992.0)


@triton.jit
def _ranks(keys, there, WIDE: tl.constexpr):
    """How many come before each by rising key; of equal keys the earlier, whose id is lower, comes first."""
    at = tl.arange(0, WIDE)
    before = (keys[None, :] < keys[:, None]) | ((keys[None, :] == keys[:, None]) & (at[None, :] < at[:, None]))
    return tl.sum((before & there[None, :]).to(tl.int32), 1)


@triton.jit
def _chosen(ids, values, there, used, temperature, top_p, target, WIDE: tl.constexpr):
    """The drawn id of the candidates that are `there`, `used` so much less likely."""
    count = tl.sum(there.to(tl.int32), 0)
    minus = tl.where(there, used - values.to(tl.float64), 1e300)
    rank = _ranks(minus, there, WIDE)
    scale = 1.0 / tl.where(temperature > 0, temperature, 1.0)
    weight = tl.where(there, tl.exp((tl.min(minus, 0) - minus) * scale), 0.0)
    heads = tl.sum(tl.where(rank[None, :] <= rank[:, None], weight[None, :], 0.0), 1)
    last = tl.sum((there & (heads < top_p * tl.sum(weight, 0))).to(tl.int32), 0)
    last = tl.minimum(last, count - 1)
    edge = target * tl.sum(tl.where(there & (rank == last), heads, 0.0), 0)
    place = tl.minimum(tl.sum((there & (heads <= edge)).to(tl.int32), 0), last)
    place = tl.where(temperature > 0, place, 0)
    return tl.sum(tl.where(there & (rank == place), ids, 0), 0)


# Were V known to divide by 16, loads would be wide and the stores of `_top` would exchange whole rows to follow them.
@triton.jit(do_not_specialize=["V"])
def _draw_kernel(
    logits_ptr, table_ptr, rules_ptr, recent_ptr, out_ptr, step_ptr,
    allowed_ptr, follow_ptr, banned_ptr, blank_ptr, ids_ptr, values_ptr, V,
    ROWS: tl.constexpr, K: tl.constexpr, NODE: tl.constexpr, WIDE: tl.constexpr, WINDOW: tl.constexpr,
    BLOCK: tl.constexpr, SPREAD: tl.constexpr, IN_CHUNKS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDE)
    out_at = out_ptr + tl.load(step_ptr) * ROWS + row
    fields = table_ptr + row
    if tl.load(fields) < 0:
        tl.store(out_at, -2)
        return
    node = tl.load(fields + 2 * ROWS)
    free = node < 0
    if free:
        its_logits, its_banned = logits_ptr + row * V, banned_ptr + tl.load(fields + 3 * ROWS) * V
        its_ids, its_values = ids_ptr + row * WIDE, values_ptr + row * WIDE
        if IN_CHUNKS:
            count, unsound = _top_of_chunks(its_logits, its_banned, its_ids, its_values, V, K, WIDE, BLOCK, SPREAD)
        else:
            count, unsound = _top(its_logits, its_banned, its_ids, its_values, V, K, WIDE, BLOCK, SPREAD)
        tl.debug_barrier()
        ids = tl.load(ids_ptr + row * WIDE + at, mask=at < count, other=-1).to(tl.int64)
        values = tl.load(values_ptr + row * WIDE + at, mask=at < count, other=0.0)
        there = at < count
        there &= _ranks(-values, there, WIDE) < K
    else:
        ids = tl.load(allowed_ptr + node * NODE + at, mask=at < NODE, other=-1)
        there = ids >= 0
        values = tl.load(logits_ptr + row * V + ids, mask=there, other=0.0) + 0.0
        unsound = WIDE - tl.sum((tl.abs(values) < float("inf")).to(tl.int32), 0)
    values = tl.where(tl.abs(values) < float("inf"), values, 0.0)
    recent = tl.load(recent_ptr + row * WINDOW + tl.arange(0, WINDOW)).to(tl.int64)
    uses = tl.sum((ids[:, None] == recent[None, :]).to(tl.int32), 1)
    repetition = tl.where(free, tl.load(rules_ptr + 2 * ROWS + row), 0.0)
    position = tl.load(fields + 9 * ROWS)
    target = _uniform(tl.load(fields + 7 * ROWS), tl.load(fields + 8 * ROWS), position)
    chosen = _chosen(
        ids, values, there, uses.to(tl.float64) * repetition, tl.load(rules_ptr + row), tl.load(rules_ptr + ROWS + row),
        target, WIDE,
    )  # fmt: skip
    failed = (unsound > 0) | (tl.sum(there.to(tl.int32), 0) == 0)
    token = tl.where(failed, -1, chosen)
    safe = tl.where(failed, 0, chosen)
    tl.store(out_at, token)
    follow = tl.load(follow_ptr + tl.where(free, 0, node) * NODE + at, mask=at < NODE, other=-1)
    onward = tl.where(free, node, tl.sum(tl.where(ids == token, follow, 0), 0))
    # ---- what becomes of the row
    following = tl.load(fields + 4 * ROWS)
    left = tl.load(fields + 6 * ROWS) - free.to(tl.int64)
    early = following >= 0
    pause = early & (tl.load(blank_ptr + safe) != 0)
    over = free & ((token == tl.load(fields + 5 * ROWS)) | (left <= 0) | pause)
    settled = free & early & (pause == 0)
    cursor = tl.load(fields + 10 * ROWS)
    tl.debug_barrier()  # every thread has read the row before any thread changes it
    tl.store(recent_ptr + row * WINDOW + cursor, token.to(tl.int32))
    tl.store(fields, tl.where(failed | over, -1, tl.load(fields)))
    tl.store(fields + ROWS, safe)
    tl.store(fields + 2 * ROWS, onward)
    tl.store(fields + 3 * ROWS, tl.where(settled, following, tl.load(fields + 3 * ROWS)))
    tl.store(fields + 4 * ROWS, tl.where(settled, -1, following))
    tl.store(fields + 6 * ROWS, left)
    tl.store(fields + 9 * ROWS, position + 1)
    tl.store(fields + 10 * ROWS, (cursor + 1) % WINDOW)


def draw(logits: Tensor, rows: Rows, tables: Tables, k: int) -> None:
    """`draw_step` on tensors already checked."""
    count, vocabulary = logits.shape
    node, in_chunks = tables.allowed.shape[1], vocabulary > WHOLE
    block = CHUNK if in_chunks else triton.next_power_of_2(vocabulary)
    wide = triton.next_power_of_2(max(k, node))
    ids = torch.empty(count, wide, dtype=torch.int32, device=logits.device)
    values = torch.empty(count, wide, dtype=torch.float32, device=logits.device)
    # A normal row's threshold for one and a half times k; where it is wrong, the halving goes on from there.
    spread = NormalDist().inv_cdf(1 - min(1.5 * k / vocabulary, 0.5))
    # 128 registers, the most that let two programs of 8 warps share a multiprocessor, suffice without spills.
    warps = max(4, min(32, block // 1024))
    _draw_kernel[(count,)](
        logits, rows.table, rows.table[-3:].view(torch.float64), rows.recent, rows.out, rows.step,
        tables.allowed, tables.follow, tables.banned.view(torch.uint8), tables.blank.view(torch.uint8), ids, values,
        vocabulary, ROWS=count, K=k, NODE=node, WIDE=wide, WINDOW=rows.recent.shape[1], BLOCK=block, SPREAD=spread,
        IN_CHUNKS=in_chunks, num_warps=warps, maxnreg=128 if warps <= 16 else None,
    )  # fmt: skip
    rows.step.add_(1)
