"""A tokenizer.json whose parts are bounded is let in; one that could run wild is refused before the library sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hostile.mutations import TOKENIZER_ATTACKS
from hostile.specimens import tokenizer_json

from npc_runtime.errors import BundleError
from npc_runtime.prompt import PlainLayout
from npc_runtime.tokenizer import JsonTokenizer, SentencePieceTokenizer

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tokenizers")
TEXT = "Who goes there? <|end|>" + "a" * 60
LEFT_OUT = ("padding", "truncation", "post_processor")


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(tokenizer_json()) | changes), "utf-8")
    return path


def test_a_byte_level_tokenizer_reads_and_writes_any_text(tmp_path: Path) -> None:
    tokenizer = JsonTokenizer(written(tmp_path))
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert (tokenizer.vocab_size, tokenizer.special) == (259, {258})
    assert 258 not in ids


@pytest.mark.parametrize("attack", range(len(TOKENIZER_ATTACKS)), ids=lambda n: f"{TOKENIZER_ATTACKS[n][0]}-{n}")
def test_what_could_run_wild_is_refused_or_left_out(tmp_path: Path, attack: int) -> None:
    """Chains grew a line to gigabytes, padding to any length, and a panic in Rust ended the daemon's loop."""
    field, value = TOKENIZER_ATTACKS[attack]
    path = written(tmp_path, **{field: value})
    try:
        tokenizer = JsonTokenizer(path)
    except BundleError:
        return
    ids = tokenizer.encode(TEXT)
    assert len(ids) <= len(TEXT)
    assert max(ids) < tokenizer.vocab_size
    assert field not in LEFT_OUT or tokenizer.decode(ids) == TEXT


@pytest.mark.parametrize("field", ["normalizer", "decoder"])
def test_a_few_short_replacements_are_let_in(tmp_path: Path, field: str) -> None:
    tokenizer = JsonTokenizer(
        written(tmp_path, **{field: {"type": "Replace", "pattern": {"String": "x"}, "content": "y"}})
    )
    assert tokenizer.encode("x")


def test_ids_with_gaps_count_up_to_the_highest(tmp_path: Path) -> None:
    model = json.loads(tokenizer_json())["model"]
    model["vocab"]["zz"] = 5000
    assert JsonTokenizer(written(tmp_path, model=model)).vocab_size == 5001


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text("utf-8")[:-1] + ', "padding": null}', "utf-8")
    with pytest.raises(BundleError, match="a key is repeated"):
        JsonTokenizer(path)


def test_a_tokenizer_without_words_for_the_template_makes_no_plain_layout(tmp_path: Path) -> None:
    model = {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}
    tokenizer = JsonTokenizer(written(tmp_path, model=model))
    with pytest.raises(BundleError, match="cannot tell the words of a persona apart"):
        PlainLayout(tokenizer).heads(("sad", "wary"), ())


def test_a_sentencepiece_model_that_is_not_text_is_refused(tmp_path: Path) -> None:
    from bundles import tokenizer_bytes

    path = tmp_path / "tokenizer.model"
    path.write_bytes(tokenizer_bytes().replace(b"<player>", b"\xff\xfe\xfd\xfcyer>"))
    with pytest.raises(BundleError, match="is not a SentencePiece model"):
        SentencePieceTokenizer(path)
