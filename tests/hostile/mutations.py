"""Mutations: how a good file is made bad. Every one is a pure function of its random numbers and the file."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

STEPS = 64
"""Every file is cut at each of so many places."""
_NEST = (200, 2000, 100_000)
ABSURD = (
    "null", "true", "-1", "0", "1", "-0.0", "1.5", "1e308", "1e999", "-1e999", "NaN", "Infinity", "-Infinity",
    *(str(number) for number in (2**15, 2**31, 2**32, 2**53, 2**63, 2**64, 2**64 + 1)), "9" * 400,
    "9" * 4000, "9" * 5000,
    '""', '"1"', '"../../../etc/passwd"', '"/etc/passwd"', '"..\\\\..\\\\x"', '"C:\\\\x"', '"a\\u0000b"', '"\\ud800"',
    '"\\u202e"', '"<player>"', '"' + "x" * 5000 + '"', "[]", "{}", "[[1]]", "[0,0]", "[1,2,3,4,5,6,7,8,9]",
    "[" + ",".join("1" * 10_000) + "]", *("[" * depth + "]" * depth for depth in _NEST),
    *('{"a":' * depth + "1" + "}" * depth for depth in _NEST),
)  # fmt: skip
"""JSON texts to stand where something else belongs; some are no JSON."""
NAMES = ("", "../x", "/etc/passwd", "a\0b", "\u202e", "x" * 3000, "__metadata__", "bundle.json", "CON", "...", " ")


def cut(data: bytes, step: int) -> bytes:
    """The first step/64 of a file."""
    return data[: len(data) * step // STEPS]


def flipped(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(rng: Random, data: bytes) -> bytes:
    at, count = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64))
    new = rng.choice((rng.randbytes(count), b"\xff" * count, bytes(count), b"\x80" * count))
    return data[:at] + new + data[at + count :]


def numbered(rng: Random, data: bytes) -> bytes:
    """An absurd number over four or eight bytes, as a length or an offset may be."""
    number = rng.choice((0, 1, 7, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1))
    at = rng.choice((0, rng.randrange(len(data))))
    new = number.to_bytes(8, "little")[: rng.choice((4, 8))]
    return data[:at] + new + data[at + len(new) :]


def inserted(rng: Random, data: bytes) -> bytes:
    at = rng.choice((0, len(data), rng.randrange(len(data))))
    return data[:at] + rng.randbytes(rng.choice((1, 3, 64, 5000))) + data[at:]


def deleted(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 2, 8, 100)) :]


def repeated(rng: Random, data: bytes) -> bytes:
    at, count = rng.randrange(len(data)), rng.choice((1, 16, 300))
    return data[:at] + data[at : at + count] * rng.choice((2, 3, 40)) + data[at:]


BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (
    flipped,
    flipped,
    overwritten,
    numbered,
    inserted,
    deleted,
    repeated,
)


def bytewise(rng: Random, data: bytes) -> bytes:
    return rng.choice(BYTES)(rng, data) if data else rng.randbytes(8)


def floats(rng: Random, data: bytes) -> bytes:
    """NaN, infinities, denormals and giants among the numbers of a tensor."""
    new = rng.choice((float("nan"), float("inf"), float("-inf"), 1e-42, 3e38, -3e38, -0.0, 65504.0))
    packed = struct.pack("<f", new) if rng.random() < 0.7 else struct.pack("<e", min(max(new, -65504), 65504))
    at = rng.randrange(max(1, len(data) // 4)) * 4
    count = rng.choice((1, 1, 16, 10_000))
    return (data[:at] + packed * count)[: len(data)] + data[at + len(packed) * count :]


def jsonwise(rng: Random, value: Any) -> str:
    """The JSON of a value with one to three things in it made absurd, lost, renamed or said twice."""
    value = json.loads(json.dumps(value))
    raw: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _disturb(rng, value, raw)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for mark, new in raw.items():
        text = text.replace(mark, new)
    return text


def _disturb(rng: Random, value: Any, raw: dict[str, str]) -> None:
    places = _places(value)
    if not places:
        return
    holder, key = rng.choice(places)
    mark = f"@{len(raw)}@"
    what = rng.random()
    if what < 0.55:
        raw[f'"{mark}"'] = rng.choice(ABSURD)
        holder[key] = mark
    elif what < 0.65:
        del holder[key]
    elif isinstance(holder, dict) and what < 0.75:
        holder[rng.choice(NAMES)] = holder.pop(key)
    elif isinstance(holder, dict) and what < 0.85:  # the same key again, with the same or another value
        raw[f'"{mark}":0'] = f"{json.dumps(key)}:{rng.choice((json.dumps(holder[key]), '1'))}"
        holder[mark] = 0
    elif what < 0.93:
        other, its = rng.choice(places)
        holder[key] = json.loads(json.dumps(other.get(its) if isinstance(other, dict) else (other or [0])[0]))
    else:
        holder[key] = _nudged(rng, holder[key])


def _nudged(rng: Random, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, list)):
        return not value
    if isinstance(value, (int, float)):
        return value + rng.choice((-1, 1, 0.5, 2**20))
    return value[: len(value) // 2] if rng.random() < 0.5 else value * 2


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) below a value."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key) for key in value]
        for item in value.values():
            found += _places(item)
    elif isinstance(value, list):
        found += [(value, place) for place in range(len(value))]
        for item in value[:50]:
            found += _places(item)
    return found


def tomlwise(rng: Random, text: str) -> bytes:
    """A persona's file with a bomb, a strange value or broken lines in it."""
    lines = text.splitlines()
    at = rng.randrange(len(lines) + 1)
    what = rng.randrange(6)
    if what == 0:
        lines.insert(at, rng.choice(_BOMBS)(rng))
    elif what == 1:
        lines[at % len(lines)] = f"{lines[at % len(lines)].split('=')[0] or 'name'}= {rng.choice(_TOML_VALUES)}"
    elif what == 2:
        lines.insert(at, lines[at % len(lines)])
    elif what == 3:
        rng.shuffle(lines)
    elif what == 4:
        del lines[at % len(lines)]
    data = "\n".join(lines).encode()
    return bytewise(rng, data) if what == 5 else data


_BOMBS: tuple[Callable[[Random], str], ...] = (
    lambda rng: "a." * rng.choice((400, 510, 20_000)) + "a = 1",
    lambda rng: "\n".join("a" + ".a" * 500 + f".b{n} = 1" for n in range(60)),
    lambda rng: "x = " + "[" * rng.choice((100, 900, 30_000)),
    lambda rng: "x = " + '{"a"=' * rng.choice((100, 900, 12_000)),
    lambda rng: "x = " + "9" * rng.choice((400, 5000, 60_000)),
    lambda rng: "x = 0x" + "f" * 60_000,
    lambda rng: 'x = "' + "\\u0041" * 10_000 + '"',
    lambda rng: "x = [" + "1," * 30_000 + "]",
    lambda rng: "\n".join(f"[[samples]]\n[samples.a{n}]" for n in range(2500)),
    lambda rng: "\n".join(f"[t{n}]" for n in range(9000)),
    lambda rng: "\n".join(f"k{n} = 1" for n in range(7000)),
    lambda rng: "x = " + '"' * rng.choice((3, 4, 5, 6, 50_000)),
    lambda rng: "x = 1" + "_1" * 2000,
    lambda rng: "x = 1979-05-27T07:32:00." + "9" * 50_000 + "Z",
    lambda rng: "#" * 60_000,
    lambda rng: "[" + "a." * 500 + "a]\n" * 1,
    lambda rng: "\n".join("[" + "a." * 250 + f"b{n}]" for n in range(100)),
)
_TOML_VALUES = (
    "nan", "inf", "-inf", "1e400", "true", "1979-05-27", "07:32:00", "''", '"\\u0000"', '"\\u202e"', '"../../x"', "[]",
    "{}", "[[]]", "{name = 1}", '["a", "a"]', '["../x"]', "0x10", str(2**64),
    "-1", '"<player>"', '"\ufeff"', '"' + "é" * 9000 + '"',
)  # fmt: skip


def _again(kind: str, count: int, **fields: Any) -> dict[str, Any]:
    """A component that does the same so many times."""
    part, parts = {"normalizers": "Replace", "decoders": "Replace", "pretokenizers": "Split"}[kind], kind
    return {"type": "Sequence", parts: [{"type": part, **fields}] * count}


_GROWS = {"pattern": {"String": "a"}, "content": "a" * 20}
_SPLITS = {"behavior": "Isolated", "invert": False}
TOKENIZER_ATTACKS: tuple[tuple[str, Any], ...] = (
    ("padding", {"strategy": {"Fixed": 200_000_000}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "a"}),
    ("truncation", {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5}),
    ("normalizer", _again("normalizers", 6, **_GROWS)),
    ("normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
    ("normalizer", {"type": "Prepend", "prepend": "x" * 1_000_000}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAA="}),
    ("decoder", _again("decoders", 6, **_GROWS)),
    ("decoder", {"type": "Strip", "content": "a", "start": 2**40, "stop": 3}),
    ("decoder", {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}),
    *(("pre_tokenizer", {"type": "Split", "pattern": {"Regex": pattern}, **_SPLITS})
      for pattern in ("(a|a)*$x|(a+)+b", "(a*)*b", "(?:a?){40}a{40}", "(a{1000}){1000}", "[", "(?<=a*)b", "\\1(a)")),
    ("pre_tokenizer", {"type": "Split", "pattern": {"String": ""}, **_SPLITS}),
    ("pre_tokenizer", {"type": "FixedLength", "length": 0}),
    ("post_processor", {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
                        "pair": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {}}),
    ("model", {"type": "Unigram", "unk_id": None, "vocab": []}),
    ("model", {"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0], ["b", -1e308]]}),
    ("model", {"type": "Unigram", "unk_id": 0, "vocab": [["x" * 100_000, 0.0], ["", 1.0]]}),
    ("model", {"type": "WordPiece", "unk_token": "[XX]", "continuing_subword_prefix": "##",
               "max_input_chars_per_word": 100, "vocab": {"a": 0}}),
    ("model", {"type": "WordLevel", "unk_token": "nope", "vocab": {"a": 0}}),
    ("model", {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}),
    ("model", {"type": "BPE", "vocab": {"a": 4_000_000_000}, "merges": []}),
    ("model", {"type": "BPE", "vocab": {"a": 3, "b": 3}, "merges": [["a", "a"]]}),
    ("model", {"type": "BPE", "vocab": {}, "merges": [], "dropout": 0.5}),
    ("added_tokens", [{"id": 4_294_967_290, "content": "", "single_word": False, "lstrip": True, "rstrip": True,
                       "normalized": True, "special": True}]),
    ("added_tokens", [{"id": n, "content": f"t{n}", "single_word": False, "lstrip": True, "rstrip": True,
                       "normalized": True, "special": False} for n in range(300, 1300)]),
)  # fmt: skip
"""Fields of a tokenizer.json that take for ever, grow for ever, or make the library panic."""


def tokenizerwise(rng: Random, value: Any) -> str:
    """A tokenizer.json with one attack, sometimes two."""
    value = dict(value) | dict(rng.choices(TOKENIZER_ATTACKS, k=rng.choice((1, 1, 2))))
    return json.dumps(value, ensure_ascii=False)
