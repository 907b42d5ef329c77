"""Random rows that draw, on whatever device is asked for."""

from __future__ import annotations

import torch
from npc_kernels import FIELDS, IDLE, Rows, Tables
from torch import Tensor

NODES, WIDTH, WINDOW, SETS = 12, 64, 64, 5


def tables(vocabulary: int, device: str = "cpu") -> Tables:
    """Nodes of 1 to WIDTH ids, some leading on, some into speech; sets from none to nearly all."""
    allowed = torch.full((NODES, WIDTH), -1)
    follow = torch.full((NODES, WIDTH), -1)
    for node in range(NODES):
        count = min(vocabulary, 1 + node * node // 2)
        allowed[node, :count] = torch.randperm(vocabulary)[:count].sort().values
        follow[node, :count] = torch.randint(-1, NODES, (count,))
    share = torch.tensor([0.0, 0.1, 0.5, 0.99, 1.0])[:, None]
    banned = torch.rand(SETS, vocabulary) < share
    return Tables(*(t.to(device) for t in (allowed, follow, banned, torch.rand(vocabulary) < 0.3)))


def rows(count: int, vocabulary: int, device: str = "cpu", steps: int = 4) -> Rows:
    """Rows at every stage, some idle, with every kind of rule."""
    whole = {
        "slot": torch.randint(-1, 6, (count,)),
        "token": torch.randint(0, vocabulary, (count,)),
        "node": torch.randint(-NODES, NODES, (count,)).clamp(min=-1),
        "ban": torch.randint(0, SETS - 1, (count,)),
        "ban_next": torch.randint(-3, SETS, (count,)).clamp(min=-1),
        "end": torch.randint(0, min(vocabulary, 30), (count,)),
        "left": torch.randint(1, 5, (count,)),
        "seed": torch.randint(-(1 << 62), 1 << 62, (count,)),
        "turn": torch.randint(0, 1 << 40, (count,)),
        "position": torch.randint(0, 300, (count,)),
        "cursor": torch.randint(0, WINDOW, (count,)),
    }
    rules = [
        torch.tensor([0.0, 0.4, 0.7, 1.3]).double()[torch.randint(0, 4, (count,))],
        torch.tensor([0.3, 0.9, 1.0]).double()[torch.randint(0, 3, (count,))],
        torch.tensor([0.0, 0.3, 2.0]).double()[torch.randint(0, 3, (count,))],
    ]
    table = torch.stack([whole[name] for name in FIELDS[:-3]] + [rule.view(torch.int64) for rule in rules])
    recent = torch.randint(-1, vocabulary, (count, WINDOW), dtype=torch.int32)
    out = torch.full((steps, count), IDLE - 1)
    return Rows(*(t.to(device) for t in (table, recent, out, torch.zeros(1, dtype=torch.int64))))


def logits(count: int, vocabulary: int, device: str = "cpu") -> Tensor:
    """Logits with equal ones among them, and a few rows that are not finite."""
    made = (torch.randn(count, vocabulary) * 3 * 8).round() / 8
    made[::3] = torch.randn_like(made[::3]) * 3
    made[:, :30] += 4  # so that rows end, too
    for row in range(4, count, 11):
        made[row, torch.randint(0, vocabulary, (1,))] = float(("nan", "inf", "-inf")[row % 3])
    return made.to(device)


def clone(given: Rows) -> Rows:
    """An independent copy."""
    return Rows(*(tensor.clone() for tensor in given))
