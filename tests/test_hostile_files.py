"""A seeded share of the hostile files; `python tests/hostile/files.py --count 20000` tries them all."""

from __future__ import annotations

import os
import random
import sys

import pytest
from hostile import files, mutations, specimens

from npc_runtime.errors import NpcError

COUNT = 800


def test_a_share_of_the_hostile_files_is_refused_or_harmless() -> None:
    results = list(files.run(random.Random(4).sample(range(20_000), COUNT), seed=1, jobs=min(2, os.cpu_count() or 1)))
    # Seconds are told, not asserted: a test must not fail because the machine had no time.
    text, _ = files.report(results)
    assert [result for result in results if result.fault and not result.fault.startswith("took ")] == [], text
    assert {result.kind for result in results} == specimens.SPECIMENS.keys()
    for kind in specimens.SPECIMENS:
        assert any(result.outcome not in ("same", "other") for result in results if result.kind == kind), text


def test_every_file_cut_short_is_refused() -> None:
    for kind, specimen in specimens.SPECIMENS.items():
        for step in (1, mutations.STEPS // 2, mutations.STEPS - 1):
            made, _ = specimen.spoil(random.Random(step), specimen.good(), step)
            assert made != specimen.good(), kind


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by Linux alone")
def test_the_bench_tells_what_takes_too_much_or_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bench that could not see a fault would prove nothing."""
    monkeypatch.setattr(files, "_limit_memory", lambda: None)
    bench = files.Bench(1, str(tmp_path_factory.mktemp("bench")))

    def tried(use: object) -> files.Result:
        spoil = lambda rng, good, step: ({"x": b"y"}, False)  # noqa: E731
        bench.specimens = {kind: specimens.Specimen("x", dict, spoil, use) for kind in specimens.SPECIMENS}  # type: ignore[arg-type]
        return bench.try_case(0)

    def bad(error: Exception) -> object:
        def use(*given: object) -> str:
            raise error

        return use

    assert tried(bad(NpcError("x"))).fault
    assert tried(bad(KeyError("x"))).outcome == "KeyError"
    assert "was accepted" in tried(lambda *given: "other").fault
    assert tried(lambda *given: "same").fault == ""
    assert "exec" in tried(lambda *given: exec("1") or "same").fault
    assert "open /etc/hostname" in tried(lambda *given: open("/etc/hostname").close() or "same").fault
    assert "MiB" in tried(lambda *given: "same" if bytearray(files.MEMORY * 2) else "").fault
