"""From logits to a token: the counter-based RNG against its published vectors, the rule by distribution and by case."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from npc_runtime.sampling import (
    FAILED,
    TOP_K,
    Draw,
    Sampling,
    philox,
    pick,
    pick_from_logits,
    pick_from_top,
    uniform,
)

HOT = Sampling(temperature=1.0, top_p=1.0, repetition=0.0)
COLD = Sampling(temperature=0.0)


def draw(sampling: Sampling = HOT, position: int = 0, **more: Any) -> Draw:
    return Draw(token=0, sampling=sampling, seed=more.pop("seed", 11), turn=2, position=position, **more)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_published_words(counter: str, key: str, words: str) -> None:
    """Known-answer vectors of Random123 (kat_vectors, philox4x32 10)."""
    c, k, expected = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    assert list(philox(tuple(c), tuple(k))) == expected  # type: ignore[arg-type]


def test_uniform_is_a_pure_function_of_its_counter() -> None:
    assert uniform(1, 2, 3) == uniform(1, 2, 3)
    assert len({uniform(s, t, p) for s in range(4) for t in range(4) for p in range(4)}) == 64
    assert uniform(2**64 + 5, 1, 1) == uniform(5, 1, 1)
    assert uniform(1 << 40, 0, 0) != uniform(0, 0, 0)
    assert uniform(0, 1 << 40, 0) != uniform(0, 0, 0)


def test_uniform_is_uniform() -> None:
    values = np.array([uniform(3, turn, position) for turn in range(20) for position in range(500)])
    counts = np.histogram(values, 20, (0, 1))[0]
    assert 0 <= values.min() <= values.max() < 1
    assert ((counts - 500) ** 2 / 500).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001


def frequencies(
    sampling: Sampling, ids: list[int], logits: list[float], count: int = 6000, **more: Any
) -> Counter[int]:
    return Counter(pick(draw(sampling, position, **more), ids, logits) for position in range(count))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_by_their_probability(temperature: float) -> None:
    ids, logits = [7, 3, 9, 1], [1.0, 0.5, 0.0, -1.0]
    found = frequencies(replace(HOT, temperature=temperature), ids, logits)
    weights = np.exp(np.array(logits) / temperature)
    expected = 6000 * weights / weights.sum()
    observed = np.array([found[token] for token in ids])
    assert ((observed - expected) ** 2 / expected).sum() < 16.3  # 3 degrees of freedom, p = 0.001


def test_top_p_keeps_the_smallest_head_that_reaches_it() -> None:
    ids, logits = [5, 6, 7, 8], [math.log(p) for p in (0.5, 0.3, 0.15, 0.05)]
    assert set(frequencies(replace(HOT, top_p=0.49), ids, logits, 300)) == {5}
    assert set(frequencies(replace(HOT, top_p=0.79), ids, logits, 300)) == {5, 6}
    assert set(frequencies(replace(HOT, top_p=0.81), ids, logits, 300)) == {5, 6, 7}
    assert set(frequencies(replace(HOT, top_p=0.0), ids, logits, 300)) == {5}
    assert set(frequencies(HOT, ids, logits, 2000)) == {5, 6, 7, 8}


def test_a_cut_head_keeps_its_proportions() -> None:
    ids, logits = [5, 6, 7], [math.log(p) for p in (0.5, 0.3, 0.2)]
    found = frequencies(replace(HOT, top_p=0.7), ids, logits)
    assert found[5] / 6000 == pytest.approx(0.5 / 0.8, abs=0.02)


def test_temperature_0_takes_the_likeliest_and_of_equals_the_lowest_id() -> None:
    assert pick(draw(COLD), [9, 4, 6], [1.0, 2.0, 2.0]) == 4


def test_each_earlier_use_costs_repetition() -> None:
    ids, logits = [1, 2], [1.0, 0.5]
    rule = replace(COLD, repetition=0.3)
    assert pick(draw(rule, recent=(1,)), ids, logits) == 1
    assert pick(draw(rule, recent=(1, 8, 1)), ids, logits) == 2
    assert pick(draw(rule, recent=(1, 1, 2)), ids, logits) == 1
    assert pick(draw(replace(rule, repetition=0.0), recent=(1, 1)), ids, logits) == 1


def test_allowed_ids_are_not_penalised() -> None:
    rule = replace(COLD, repetition=5.0)
    assert pick(draw(rule, allowed=(1, 2), recent=(1, 1)), [1, 2], [1.0, 0.5]) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_fail(bad: float) -> None:
    assert pick(draw(), [1, 2, 3], [1.0, bad, 0.0]) == FAILED
    assert pick(draw(), [1, 2], [bad, bad]) == FAILED
    assert pick(draw(), [1, 2], [math.inf, -math.inf]) == FAILED
    row = np.zeros(100, np.float32)
    row[70] = bad
    assert pick_from_logits(draw(), row) == FAILED
    assert pick_from_logits(draw(allowed=(3, 70)), row) == FAILED


def test_no_candidates_fail() -> None:
    assert pick(draw(), [], []) == FAILED
    assert pick_from_logits(draw(banned=frozenset(range(4))), np.zeros(4, np.float32)) == FAILED


def test_one_candidate_is_taken() -> None:
    assert pick(draw(allowed=(8,)), [8], [-3.0]) == 8


def naive(asked: Draw, logits: np.ndarray) -> int:
    """The rule of the module's docstring, word by word."""
    ids = asked.allowed if asked.allowed is not None else [i for i in range(len(logits)) if i not in asked.banned]
    best = sorted(ids, key=lambda i: (-float(logits[i]), i))
    best = best if asked.allowed is not None else best[:TOP_K]
    penalty = asked.sampling.repetition if asked.allowed is None else 0.0
    value = {i: float(logits[i]) - penalty * asked.recent.count(i) for i in best}
    best.sort(key=lambda i: (-value[i], i))
    if asked.sampling.temperature <= 0:
        return best[0]
    weights = [math.exp((value[i] - value[best[0]]) / asked.sampling.temperature) for i in best]
    head = 1
    while sum(weights[:head]) < asked.sampling.top_p * sum(weights) and head < len(best):
        head += 1
    target = uniform(asked.seed, asked.turn, asked.position) * sum(weights[:head])
    for i in range(head):
        if sum(weights[: i + 1]) > target:
            return best[i]
    return best[head - 1]


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"banned": frozenset({0, 3, 17, 44})},
        {"allowed": (2, 5, 90)},
        {"recent": (4, 4, 9, 30, 31, 31, 31)},
        {"banned": frozenset(range(30, 95)), "recent": (1, 2, 2)},
    ],
    ids=["free", "banned", "allowed", "recent", "few left"],
)
@pytest.mark.parametrize("sampling", [Sampling(), HOT, replace(HOT, temperature=0.4, top_p=0.6), COLD], ids=str)
def test_the_rule_word_by_word(rules: dict[str, Any], sampling: Sampling) -> None:
    rng = np.random.default_rng(5)
    for position in range(40):
        logits = np.round(rng.standard_normal(100) * 2, 1).astype(np.float32)  # rounded, so that some are equal
        asked = draw(sampling, position, **rules)
        assert pick_from_logits(asked, logits) == naive(asked, logits)


def test_whole_logits_and_the_best_of_them_agree() -> None:
    rng = np.random.default_rng(6)
    for position in range(50):
        logits = rng.standard_normal(500).astype(np.float32)
        asked = draw(Sampling(), position, banned=frozenset(rng.integers(0, 500, 20).tolist()), recent=(3, 3, 4))
        best = np.lexsort((np.arange(500), -logits))[: TOP_K + 20]
        assert pick_from_top(asked, best.tolist(), logits[best].tolist()) == pick_from_logits(asked, logits)


def test_equal_logits_at_the_edge_fall_to_the_lowest_ids() -> None:
    logits = np.zeros(200, np.float32)
    found = {pick_from_logits(draw(HOT, position), logits) for position in range(600)}
    assert found == set(range(TOP_K))
