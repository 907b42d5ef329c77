"""The bad files kept in tests/hostile, and those its script makes today: each refused, each for its own reason."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from npc_runtime.bundle import Bundle
from npc_runtime.errors import BundleError, NpcError, SaveError, SaveMismatch
from npc_runtime.importer import import_checkpoint
from npc_runtime.save import decode, read

KEPT = Path(__file__).parent / "hostile"
MAKE: dict[str, Any] = runpy.run_path(str(KEPT / "make.py"))

SAVES: dict[str, tuple[type[NpcError], str]] = {
    "empty": (SaveError, "does not begin as a save does"),
    "truncated": (SaveError, "digest does not fit"),
    "bit-flipped": (SaveError, "digest does not fit"),
    "bytes-behind": (SaveError, "digest does not fit"),
    "long-header": (SaveError, "digest does not fit"),
    "pickle": (SaveError, "does not begin as a save does"),
    "future": (SaveError, "`version` must be 1, got '2'"),
    "deep": (SaveError, "`npcs` is not JSON"),
    "twins": (SaveError, "an id occurs twice"),
    "system-turn": (SaveError, "smith: log"),
    "endless-id": (SaveError, "`id` must be 1 to 128"),
    "nan": (SaveError, "holds NaN or infinity"),
    "overlap": (SaveError, "must begin at byte"),
    "terabyte": (SaveError, "its tensors must be"),
    "other-bundle": (SaveMismatch, r"`Old Tavern` \(e{12}\), and `tavern`"),
}
BUNDLES: dict[str, str] = {
    "truncated": r"weights\.safetensors` is truncated",
    "tampered": r"weights\.safetensors` was changed",
    "no-weights": r"weights\.safetensors` is missing",
    "future": "must have `format` 1, got 2",
    "path-up": "not a plain name",
    "tokenizer-elsewhere": "`tokenizer` .* must be one of",
    "huge-model": "`vocab_size` .* whole number from 1 to",
    "long-header": "a header of 4611686018427387904 bytes cannot be",
    "nan": "holds NaN or infinity",
    "tensor-missing": "lacks 1 tensors",
    "overlap": "must begin at byte",
}


@pytest.fixture(scope="module", params=["kept", "made now"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "kept":
        return KEPT
    made = tmp_path_factory.mktemp("hostile")
    MAKE["make"](made)
    return made


def test_every_file_is_told_of(folder: Path) -> None:
    assert {path.stem for path in (folder / "saves").iterdir()} == SAVES.keys()
    assert {path.name for path in (folder / "bundles").iterdir()} == BUNDLES.keys()


@pytest.mark.parametrize("name", SAVES)
def test_a_bad_save_is_refused(folder: Path, name: str) -> None:
    kind, text = SAVES[name]
    with pytest.raises(kind, match=text):
        decode(read(folder / "saves" / f"{name}.npcsave", 10**6), MAKE["SPEC"], MAKE["HASH"], "tavern")


def test_the_save_they_were_made_from_is_good() -> None:
    assert decode(MAKE["good_save"](), MAKE["SPEC"], MAKE["HASH"]).records[0].id == "smith"


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bad_bundle_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(BundleError, match=BUNDLES[name]):
        Bundle.load(folder / "bundles" / name)


def test_a_checkpoint_that_would_run_code_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="holds more than plain tensors"):
        import_checkpoint(folder / "checkpoints" / "runs-code", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
