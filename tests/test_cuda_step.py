"""The step of a batch: two ways that agree, and the one that mixes no rows is taken."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import CONFIG, ODD, tiny_bundle

torch = pytest.importorskip("torch")

from npc_runtime.backends import cuda_step  # noqa: E402
from npc_runtime.backends.cuda import CudaBackend  # noqa: E402
from npc_runtime.backends.cuda_step import choose_step, composed_step, fused_step, probe_store  # noqa: E402


@pytest.fixture(scope="module", params=[CONFIG, ODD], ids=["even", "odd"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CudaBackend:
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundles"), 32, request.param)
    return CudaBackend(bundle, 4, 4, torch.float32, device="cpu")


def test_both_ways_give_the_same_step(backend: CudaBackend) -> None:
    tokens, slots = torch.tensor([5, 9, 7, 300]), torch.tensor([2, -1, 0, 1])
    made = []
    for step in (fused_step, composed_step):
        store = probe_store(backend.store)
        logits = step(tokens, slots, store, backend.weights)
        made.append((logits[slots >= 0], store.conv[:, :3], store.ssm[:, :3]))
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_fused_step_is_taken_where_it_mixes_no_rows(backend: CudaBackend) -> None:
    assert choose_step(backend.store, backend.weights, 4) == (fused_step, True)
    assert backend.fused


@pytest.mark.parametrize("part", ["logits", "state"])
def test_a_step_that_mixes_rows_is_found_out(backend: CudaBackend, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def mixing(tokens: Any, slots: Any, store: Any, weights: Any) -> Any:
        logits = fused_step(tokens, slots, store, weights)
        mixed = logits if part == "logits" else store.ssm
        mixed += 1e-6 * (len(tokens) > 3)
        return logits

    monkeypatch.setattr(cuda_step, "fused_step", mixing)
    monkeypatch.setattr(cuda_step, "composed_step", fused_step)  # on a CPU only row by row is sure
    assert choose_step(backend.store, backend.weights, 2) == (mixing, True)
    assert choose_step(backend.store, backend.weights, 4) == (fused_step, True)
    monkeypatch.setattr(cuda_step, "composed_step", mixing)
    assert choose_step(backend.store, backend.weights, 4) == (mixing, False)
