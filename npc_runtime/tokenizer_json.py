"""TokenizerJson: what a Hugging Face `tokenizer.json` may hold here.

The format is a small programming language: chains that grow a text a millionfold, expressions that backtrack
for ever, padding to a billion, sizes that make the library panic. Only parts whose cost is bounded by the text
are let in; what changes ids after the fact (padding, truncation, templates) is left out.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from npc_runtime.container import ContainerFault, read_json
from npc_runtime.errors import BundleError, reason

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 32 * 2**20
MAX_IDS = 2**20
_PARTS = {
    "normalizer": {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Prepend", "Replace", "Strip",
                   "StripAccents"},
    "pre_tokenizer": {"BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation",
                      "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"},
    "decoder": {"BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"},
}  # fmt: skip
_MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}
_MAX_PARTS, _MAX_REPLACES, _MAX_TEXT, _MAX_ADDED = 8, 2, 8, 4096
_SIMPLE = re.compile(r"[^()*+?{}]{1,64}")
"""Expressions without groups and repetition, whose search takes no longer than the text is."""


def read_tokenizer_json(path: Path) -> str:
    """The JSON of a tokenizer that no text can make run wild. Raises BundleError naming the part that could."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ContainerFault(f"it holds more than {MAX_BYTES} bytes")
        values = read_json(data)
        for field in _PARTS:
            _check_parts(field, values.get(field))
        _check_model(values.get("model"))
        _check_added(values.get("added_tokens") or [])
    except (OSError, ContainerFault) as error:
        raise BundleError(f"`{path}` is not a tokenizer.json that can be used: {reason(error)}") from error
    return json.dumps(values | {"padding": None, "truncation": None, "post_processor": None})


def _need(good: bool, where: str, wanted: str) -> None:
    if not good:
        raise ContainerFault(f"`{where}` must be {wanted}")


def _check_parts(field: str, value: Any) -> None:
    """A component, or a sequence of a few."""
    if value is None:
        return
    _need(isinstance(value, dict), field, "a table")
    lists = [item for item in value.values() if isinstance(item, list)] if value.get("type") == "Sequence" else []
    parts = lists[0] if len(lists) == 1 else [value]
    _need(len(parts) <= _MAX_PARTS, field, f"at most {_MAX_PARTS} parts")
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    _need(all(isinstance(kind, str) and kind in _PARTS[field] for kind in kinds), field,
          f"made of {', '.join(sorted(_PARTS[field]))}")  # fmt: skip
    _need(kinds.count("Replace") <= _MAX_REPLACES, field, f"at most {_MAX_REPLACES} Replace")
    for part in parts:
        _check_part(field, part)


def _check_part(field: str, part: dict[str, Any]) -> None:
    for key in ("content", "prepend", "prefix", "suffix", "replacement"):
        text = part.get(key, "")
        _need(text is None or (isinstance(text, str) and len(text) <= _MAX_TEXT), f"{field}: {key}", "a short text")
    for key in ("start", "stop"):
        _need(type(part.get(key, 0)) is int and 0 <= part.get(key, 0) <= _MAX_TEXT, f"{field}: {key}", "a small number")
    if "pattern" in part:
        _need(_is_simple(part["pattern"], part["type"] == "Split"), f"{field}: pattern", "a text, or a simple Regex")


def _is_simple(pattern: Any, regex: bool) -> bool:
    if not isinstance(pattern, dict) or len(pattern) != 1:
        return False
    kind, text = next(iter(pattern.items()))
    if not isinstance(text, str) or not text:
        return False
    return kind == "String" or (regex and kind == "Regex" and _SIMPLE.fullmatch(text) is not None)


def _check_model(model: Any) -> None:
    _need(isinstance(model, dict) and model.get("type") in _MODELS, "model", f"one of {', '.join(sorted(_MODELS))}")
    _need(not model.get("dropout"), "model: dropout", "none: the same text is always the same tokens")
    vocab, kind = model.get("vocab"), model["type"]
    if kind == "Unigram":
        _need(isinstance(vocab, list) and 0 < len(vocab) <= MAX_IDS, "model: vocab", "a list of pieces")
        _need(type(model.get("unk_id")) is int and 0 <= model["unk_id"] < len(vocab), "model: unk_id", "an id")
        return
    _need(isinstance(vocab, dict) and all(map(_is_id, vocab.values())), "model: vocab", f"texts to ids below {MAX_IDS}")
    _need(len(set(vocab.values())) == len(vocab), "model: vocab", "one text to an id")
    unknown = model.get("unk_token")
    needed = kind != "BPE" or unknown is not None
    _need(not needed or (isinstance(unknown, str) and unknown in vocab), "model: unk_token", "in the vocabulary")
    longest = model.get("max_input_chars_per_word", 0)
    _need(type(longest) is int and 0 <= longest <= 1000, "model: max_input_chars_per_word", "at most 1000")


def _check_added(tokens: Any) -> None:
    _need(isinstance(tokens, list) and len(tokens) <= _MAX_ADDED, "added_tokens", f"a list of at most {_MAX_ADDED}")
    for token in tokens:
        good = isinstance(token, dict) and _is_id(token.get("id")) and isinstance(token.get("content"), str)
        _need(good and 0 < len(token["content"]) <= 256, "added_tokens", f"texts with ids below {MAX_IDS}")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_IDS
