"""Which backend is chosen: the GPU's where it can run, and what is missing where it cannot."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from bundles import tiny_bundle

from npc_runtime import backends
from npc_runtime.backends import choose, gpu_missing
from npc_runtime.config import Config
from npc_runtime.errors import BackendUnavailable, BudgetExceeded

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that looks as if it had NVIDIA's driver."""
    monkeypatch.setattr(backends, "_has_driver", lambda: True)


def test_without_a_driver_torch_is_not_even_imported() -> None:
    code = "import sys, npc_runtime.backends as b; b._DRIVER = (); b._has_driver = lambda: False; "
    code += "print(b.gpu_missing(), 'torch' in sys.modules, 'triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "no NVIDIA GPU False False\n"


def test_the_driver_is_told_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(backends, "_DRIVER", (str(tmp_path / "nvidiactl"),))
    assert not backends._has_driver()
    (tmp_path / "nvidiactl").touch()
    assert backends._has_driver()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert not backends._has_driver()
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "nvcuda.dll").touch()
    assert backends._has_driver()


@pytest.mark.parametrize("library", ["torch", "triton"])
def test_a_gpu_without_its_libraries_says_what_to_install(
    library: str, driver: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == library else object())
    told = f"an NVIDIA GPU, but no {library}: pip install '.[gpu]' in the folder of npc-runtime's source"
    assert gpu_missing() == told
    bundle = tiny_bundle(tmp_path)
    with pytest.raises(BackendUnavailable, match=f"cannot run here: an NVIDIA GPU, but no {library}"):
        choose("cuda", bundle, Config())
    backend, reason = choose("auto", bundle, Config(state_budget_mb=1))
    assert backend.name == "onnx"
    assert reason.startswith(f"the CPU ({told}); 4-bit weights")


def test_a_driver_without_a_card_is_no_gpu(driver: None) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has an NVIDIA GPU")
    pytest.importorskip("triton")
    assert gpu_missing() == f"torch {torch.__version__} sees no NVIDIA GPU"


def test_budget_and_batch_of_a_cpu_when_nobody_set_them(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    backend, _ = choose("onnx", bundle, Config())
    assert (backend.slots, backend.max_batch) == (512 * 2**20 // bundle.spec.nbytes, 8)
    backend, _ = choose("reference", bundle, Config(state_budget_mb=1, max_batch=3))
    assert (backend.slots, backend.max_batch) == (2**20 // bundle.spec.nbytes, 3)


@pytest.mark.parametrize("budget", [10**9, 10**15])
@pytest.mark.parametrize("name", ["onnx", "reference"])
def test_a_budget_beyond_this_machine_is_told_of(tmp_path: Path, name: str, budget: int) -> None:
    with pytest.raises(BudgetExceeded, match="this machine has no memory for 1,000"):
        choose(name, tiny_bundle(tmp_path), Config(state_budget_mb=budget))
