"""Drawing on a device: the ids of the NumPy sampler; kernels under the interpreter as their definitions."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from draw_cases import SETS, WINDOW, clone, logits, rows, tables  # noqa: E402
from npc_kernels import FAILED, FIELDS, IDLE, draw_step, draw_step_ref, row_linear, row_linear_ref  # noqa: E402

from npc_runtime.sampling import TOP_K, Draw, Sampling, pick_from_logits  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by test_under_the_interpreter in a process of its own")
plain = pytest.mark.skipif(INTERPRETED, reason="has been run by the process that started this one")


@plain
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_under_the_interpreter() -> None:
    """Triton decides at its import whether to interpret, hence a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= 6, done.stdout


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@plain
@pytest.mark.parametrize("vocabulary", [70, 400, 5000])
def test_the_ids_are_those_of_the_sampler_on_the_host(vocabulary: int) -> None:
    """The same rules, seeds and logits, ties and bans among them: not one id differs."""
    count = 600
    x, given, where = logits(count, vocabulary), rows(count, vocabulary), tables(vocabulary)
    before = clone(given)
    draw_step(x, given, where, TOP_K)
    drawn, kinds = given.out[0].tolist(), set()
    for row in range(count):
        fields = {name: before.field(name)[row].item() for name in FIELDS}
        if fields["slot"] < 0:
            assert drawn[row] == IDLE
            continue
        head = where.allowed[int(fields["node"])].tolist() if fields["node"] >= 0 else None
        asked = Draw(
            token=0,
            sampling=Sampling(fields["temperature"], fields["top_p"], fields["repetition"]),
            seed=int(fields["seed"]) % (1 << 64),
            turn=int(fields["turn"]),
            position=int(fields["position"]),
            allowed=None if head is None else tuple(i for i in head if i >= 0),
            banned=frozenset(where.banned[int(fields["ban"])].nonzero()[:, 0].tolist()),
            recent=tuple(before.recent[row].tolist()),
        )
        assert drawn[row] == pick_from_logits(asked, x[row].numpy()), (row, asked)
        kinds.add((head is None, drawn[row] == FAILED, asked.sampling.temperature > 0))
    assert len(kinds) >= 5
    assert {kind[1] for kind in kinds} == {True, False}


@plain
def test_what_becomes_of_a_row() -> None:
    """A row that ends, fails or must be looked at is idle; any other goes on with what it drew."""
    count, vocabulary = 600, 70
    x, given, where = logits(count, vocabulary), rows(count, vocabulary), tables(vocabulary)
    before = clone(given)
    draw_step(x, given, where, TOP_K)
    assert given.step.item() == 1
    ended = set()
    for row in range(count):
        was, now = ({name: r.field(name)[row].item() for name in FIELDS} for r in (before, given))
        token = int(given.out[0, row])
        if token == IDLE:
            assert now["slot"] == -1
            continue
        free, early = was["node"] < 0, was["ban_next"] >= 0
        blank = bool(where.blank[max(token, 0)])
        over = [token == FAILED] + [
            free and reason for reason in (token == was["end"], was["left"] == 1, early and blank)
        ]
        ended.add(tuple(over))
        assert now["slot"] == (-1 if any(over) else was["slot"])
        if token == FAILED:
            continue
        assert (now["token"], now["position"], now["left"]) == (token, was["position"] + 1, was["left"] - free)
        assert given.recent[row, int(was["cursor"])] == token
        assert now["cursor"] == (was["cursor"] + 1) % WINDOW
        settled = free and early and not blank
        assert (now["ban"], now["ban_next"]) == ((was["ban_next"], -1) if settled else (was["ban"], was["ban_next"]))
        if not free:
            place = where.allowed[int(was["node"])].tolist().index(token)
            assert now["node"] == where.follow[int(was["node"]), place]
    assert {(True, False, False, False), (False, True, False, False), (False, False, True, False)} <= ended
    assert (False, False, False, True) in ended


@plain
def test_logits_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="`logits` must be float32 of 5 rows"):
        draw_step(logits(4, 70), rows(5, 70), tables(70), TOP_K)


@interpreted
@pytest.mark.parametrize(("vocabulary", "chunk"), [(70, 0), (900, 0), (900, 256), (70, 32)])
def test_the_kernel_draws_as_its_definition(vocabulary: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a row is too wide to be held and is read in chunks."""
    from npc_kernels import draw_step_triton
    from npc_kernels.draw_step_triton import draw

    if chunk:
        monkeypatch.setattr(draw_step_triton, "WHOLE", chunk)
        monkeypatch.setattr(draw_step_triton, "CHUNK", chunk)
    where, given = tables(vocabulary), rows(60, vocabulary)
    expected = clone(given)
    for _ in range(3):
        x = logits(60, vocabulary)
        draw(x, given, where, TOP_K)
        draw_step_ref(x, expected, where, TOP_K)
    assert torch.equal(given.out, expected.out)
    live = (expected.out[:3] >= 0).all(0)
    assert live.sum() >= 10
    assert torch.equal(given.table[:, live], expected.table[:, live])
    assert torch.equal(given.field("slot"), expected.field("slot"))
    assert torch.equal(given.recent[live], expected.recent[live])
    assert SETS > 1


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 40, 33), (70, 17, 64)], ids=str)
def test_row_linear(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    """Not in bf16, whose bits the interpreter multiplies as whole numbers."""
    from npc_kernels.row_linear_triton import multiply

    count, columns, depth = shape
    x, weight = torch.randn(count, depth).to(dtype), torch.randn(columns, depth).to(dtype)
    made = multiply(x, weight, torch.float32)
    assert torch.allclose(made, row_linear_ref(x, weight, torch.float32), rtol=1e-5, atol=1e-5)
    assert torch.equal(multiply(x[:1], weight, torch.float32), made[:1])


@plain
def test_row_linear_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="`weight` must have shape"):
        row_linear(torch.zeros(2, 3), torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"`weight` must be torch\.float32"):
        row_linear(torch.zeros(2, 3), torch.zeros(4, 3).bfloat16())
