"""Tokenizer: text to token ids and back; control symbols that no text can produce."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from npc_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONTROL = ("<persona>", "<event>", "<player>", "<npc>", "<act>", "<say>", "<end>")
"""Control symbols of prompt layout 1, in id order as the trainer defines them."""


class Tokenizer(Protocol):
    """What the runtime asks of a tokenizer."""

    vocab_size: int
    special: frozenset[int]
    """Ids that are not text (control symbols, padding, unknown); never spoken."""
    unspeakable: frozenset[int]
    """Ids that are text but not fit to be shown: line breaks, escape and other control characters."""

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; never a control symbol, whatever the text says."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; an unfinished UTF-8 sequence at the end shows as U+FFFD."""
        ...

    def control(self, symbol: str) -> int | None:
        """Id of a control symbol, or None where the vocabulary lacks it."""
        ...


class SentencePieceTokenizer:
    """A SentencePiece model whose control symbols are of type CONTROL, so encoding cannot yield them."""

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(path.read_bytes())
        except (OSError, RuntimeError) as error:
            raise BundleError(f"`{path}` is not a SentencePiece model: {error}") from error
        self.vocab_size: int = self._model.vocab_size()
        pieces = range(self.vocab_size)
        self.special = frozenset(i for i in pieces if self._model.IsControl(i) or self._model.IsUnknown(i))
        self._control = {self._model.IdToPiece(i): i for i in self.special}
        hidden = ["\n", "\r", "\t", *(f"<0x{byte:02X}>" for byte in (*range(32), 127))]
        self.unspeakable = frozenset(map(self._model.PieceToId, hidden)) - self.special

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        ids: list[int] = self._model.EncodeAsIds(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; broken UTF-8 shows as U+FFFD."""
        text: str = self._model.DecodeIds(list(ids))
        return text

    def control(self, symbol: str) -> int | None:
        """Id of a control symbol, or None."""
        return self._control.get(symbol)


class JsonTokenizer:
    """A Hugging Face `tokenizer.json` (imported checkpoints); needs the optional `tokenizers` package."""

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Fast
        except ImportError as error:
            raise BundleError(
                f"`{path}` is a Hugging Face tokenizer and the package `tokenizers` is not installed",
                "pip install 'npc-runtime[hf]'",
            ) from error
        try:
            self._model = Fast.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every kind of bad file
            raise BundleError(f"`{path}` is not a tokenizer.json: {error}") from error
        self.vocab_size: int = self._model.get_vocab_size(with_added_tokens=True)
        added = self._model.get_added_tokens_decoder()
        self.special = frozenset(i for i, token in added.items() if token.special)
        self._control = {token.content: i for i, token in added.items() if token.special}
        # Pieces of byte-level vocabularies are spelt otherwise; the plain layout ends at a line break by text.
        self.unspeakable: frozenset[int] = frozenset()
        self._model.encode_special_tokens = True  # player text that spells a special token stays text

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without any added beginning or end token."""
        ids: list[int] = self._model.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        text: str = self._model.decode(list(ids), skip_special_tokens=True)
        return text

    def control(self, symbol: str) -> int | None:
        """Id of a special token of that text, or None."""
        return self._control.get(symbol)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file: `*.json` is Hugging Face's format, anything else SentencePiece's."""
    if not path.is_file():
        raise BundleError(f"tokenizer `{path}` is missing")
    return JsonTokenizer(path) if path.suffix == ".json" else SentencePieceTokenizer(path)
