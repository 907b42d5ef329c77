"""Tokenizer: text to token ids and back; control symbols that no text can produce."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from npc_runtime.errors import BundleError, install_hint
from npc_runtime.tokenizer_json import read_tokenizer_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CONTROL = ("<persona>", "<event>", "<player>", "<npc>", "<act>", "<say>", "<end>")
"""Control symbols of prompt layout 1, in id order as the trainer defines them."""
MAX_MODEL_BYTES = 32 * 2**20
"""Bytes of a SentencePiece model."""


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


@contextmanager
def _trouble(what: str) -> Iterator[None]:
    """Makes whatever a library raises over a bad file a BundleError: Rust's panics are not even Exceptions."""
    try:
        yield
    except (BundleError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise BundleError(f"{what}: {error!s:.200}") from error


class SentencePieceTokenizer:
    """A SentencePiece model whose control symbols are of type CONTROL, so encoding cannot yield them."""

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self._what = f"the tokenizer `{path}` cannot be used"
        self._model = sentencepiece.SentencePieceProcessor()
        with _trouble(f"`{path}` is not a SentencePiece model"):
            self._model.LoadFromSerializedProto(_bytes(path))
            self.vocab_size: int = self._model.vocab_size()
            pieces = range(self.vocab_size)
            self.special = frozenset(i for i in pieces if self._model.IsControl(i) or self._model.IsUnknown(i))
            self._control = {self._model.IdToPiece(i): i for i in self.special}
            hidden = ["\n", "\r", "\t", *(f"<0x{byte:02X}>" for byte in (*range(32), 127))]
            self.unspeakable = frozenset(map(self._model.PieceToId, hidden)) - self.special

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        with _trouble(self._what):
            ids: list[int] = self._model.EncodeAsIds(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; broken UTF-8 shows as U+FFFD."""
        with _trouble(self._what):
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
                install_hint("hf"),
            ) from error
        self._what = f"the tokenizer `{path}` cannot be used"
        with _trouble(f"`{path}` is not a tokenizer.json"):
            self._model = Fast.from_str(read_tokenizer_json(path))
            # Not the number of entries: ids may have gaps, and every id must find its row of the embedding.
            self.vocab_size: int = 1 + max(self._model.get_vocab(with_added_tokens=True).values(), default=0)
            added = self._model.get_added_tokens_decoder()
        self.special = frozenset(i for i, token in added.items() if token.special)
        self._control = {token.content: i for i, token in added.items() if token.special}
        # Pieces of byte-level vocabularies are spelt otherwise; the plain layout ends at a line break by text.
        self.unspeakable: frozenset[int] = frozenset()
        self._model.encode_special_tokens = True  # player text that spells a special token stays text

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without any added beginning or end token."""
        with _trouble(self._what):
            ids: list[int] = self._model.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        with _trouble(self._what):
            text: str = self._model.decode(list(ids), skip_special_tokens=True)
        return text

    def control(self, symbol: str) -> int | None:
        """Id of a special token of that text, or None."""
        return self._control.get(symbol)


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_MODEL_BYTES + 1)
    if len(data) > MAX_MODEL_BYTES:
        raise BundleError(f"`{path}` may hold {MAX_MODEL_BYTES} bytes and holds more")
    return data


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file: `*.json` is Hugging Face's format, anything else SentencePiece's."""
    if not path.is_file():
        raise BundleError(f"tokenizer `{path}` is missing")
    return JsonTokenizer(path) if path.suffix == ".json" else SentencePieceTokenizer(path)
