"""Specimens: good files of every kind, how each is spoiled, and what a game does with what comes of it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bundles import random_weights, tokenizer_bytes
from fakes import SPEC, FakeBackend, fake_stage
from hostile import mutations, pickles
from hostile.targets import HASH, good_record

from npc_runtime import save, wire
from npc_runtime.backends import choose
from npc_runtime.bundle import Bundle, write_bundle
from npc_runtime.config import Config
from npc_runtime.errors import from_wire
from npc_runtime.importer import import_checkpoint
from npc_runtime.model.config import ModelConfig
from npc_runtime.persona import load_persona, persona_from, to_mapping
from npc_runtime.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from npc_runtime.session import Session

CONFIG = ModelConfig(d_model=16, n_layer=1, vocab_size=320, d_state=4, d_conv=3, dt_rank=2)
MARTA = {"name": "Marta", "role": "innkeeper", "traits": ["gruff"], "opening": "Come in!"}
LINE = "Who goes there, <player>? 1234 \u00e9\u4e2d\u0301 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
TICKS = 2000
Files = dict[str, bytes]


@dataclass(frozen=True)
class Specimen:
    """One kind of file. `spoil` gives the files of a folder and whether hashes were made to fit; `use` says what came.

    `use` returns `same` when everything is as in the good files, else `other`; a typed error is a refusal.
    """

    main: str
    good: Callable[[], Files]
    spoil: Callable[[Random, Files, int], tuple[Files, bool]]
    use: Callable[[Path, Files, int], str]


# ---- saves


@cache
def _saves() -> tuple[bytes, ...]:
    people = [good_record("smith"), good_record("marta"), good_record("a \u00e9")]
    one = [good_record("smith")]
    return (
        save.encode(people, "fake", HASH),
        save.encode(one, "fake", HASH, "fp16"),
        save.encode(people[:2], "fake", HASH, "int8"),
        save.encode(people[:2], "fake", "ab" * 32),
        save.encode([], "fake", HASH),
    )


def _spoil_save(rng: Random, files: Files, step: int) -> tuple[Files, bool]:
    data = rng.choice(_saves())
    forged = rng.random() < 0.7
    if step < 2 * mutations.STEPS:
        data = _cut(data, step)
        return {"game.npcsave": sign(data) if step >= mutations.STEPS else data}, step >= mutations.STEPS
    if not forged:
        return {"game.npcsave": mutations.bytewise(rng, data)}, False
    length = 8 + int.from_bytes(data[:8], "little")
    header, tail = json.loads(data[8:length]), data[length:]
    metadata = header["__metadata__"]
    metadata["digest"] = "0" * 64
    what = rng.random()
    if what < 0.45:  # one of the JSON texts inside
        key = rng.choice(("npcs", "npcs", "personas", "spec"))
        metadata[key] = mutations.jsonwise(rng, json.loads(metadata[key]))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    elif what < 0.7:
        text = mutations.jsonwise(rng, header)
    else:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
        tail = mutations.floats(rng, tail) if what < 0.9 and tail else mutations.bytewise(rng, tail)
    encoded = text.encode("utf-8", "surrogatepass")
    return {"game.npcsave": sign(len(encoded).to_bytes(8, "little") + encoded + tail)}, True


def sign(data: bytes) -> bytes:
    """The digest made to fit, where there is a place for it."""
    if len(data) < 99:
        return data
    blank = data[:35] + b"0" * 64 + data[99:]
    return data[:35] + hashlib.sha256(blank).hexdigest().encode() + data[99:]


def _cut(data: bytes, step: int) -> bytes:
    return mutations.cut(data, step % mutations.STEPS)


def _use_save(folder: Path, files: Files, number: int) -> str:
    """Loads the file into a game, lets everyone speak, saves them again."""
    data = files["game.npcsave"]
    stage = fake_stage(Config(save_dir=str(folder), max_npcs=8), FakeBackend(slots=128))
    try:
        session = stage.session("game")
        _ask(stage, session, wire.Load(id=1, path="game.npcsave", rebuild=number % 2 == 0))
        if data in _saves():
            _compare(stage, session, data)
        for npc in list(session.npcs):
            _ask(stage, session, wire.Say(id=1, npc=npc, text=LINE, pace=0, seed=1))
        _ask(stage, session, wire.Save(id=1, path="again.npcsave"))
        session.close(keep=False)
    finally:
        stage.close()
    return "same" if data in _saves() else "other"


def _compare(stage: Stage, session: Session, data: bytes) -> None:
    """What came out of a good file is what went in, bit for bit."""
    saved = save.decode(data, SPEC, None)
    if saved.bundle_hash != HASH:
        return
    for record in saved.records:
        current = session.npcs[record.id].timeline.current
        assert current is not None
        assert record.state is not None
        assert stage.backend.read(current.slot).equals(record.state), f"{record.id} has another State"


def _ask(stage: Stage, session: Session, request: wire.Request) -> wire.Event:
    """The last answer to a request; raises the typed error it may be, and AssertionError for a defect."""
    answers: list[wire.Event] = []
    session.handle(request, answers.append)
    for _ in range(TICKS):
        if answers and answers[-1].last:
            break
        wait = stage.tick()
        time.sleep(0.001 if wait else 0)  # a file is read or written on the side
    last = answers[-1]
    wire.encode(last)
    assert last.last, f"no end of {request.op}"
    if last.ev == "error":
        assert last.fields["code"] != "internal", last.fields
        raise from_wire(last.fields["code"], last.fields["text"])
    return last


# ---- Bundles


def _bundle(bits: int, tokenizer: str) -> Files:
    layout = "plain" if tokenizer == "tokenizer.json" else "control-1"
    with TemporaryDirectory() as place:
        source = Path(place) / tokenizer
        source.write_bytes(tokenizer_json() if layout == "plain" else tokenizer_bytes())
        target = Path(place) / "bundle"
        write_bundle(target, "tavern", CONFIG, random_weights(CONFIG), bits, source, layout, "MIT", "# Tavern\n")
        return {path.name: path.read_bytes() for path in sorted(target.iterdir())}


@cache
def tokenizer_json() -> bytes:
    """A byte-level vocabulary with two merges, as Hugging Face stores it."""
    letters = byte_letters()
    vocab = {letter: number for number, letter in enumerate([*letters, "th", "the", "<|end|>"])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 258, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False}
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**end, "normalized": False, "special": True}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": level,
        "post_processor": level,
        "decoder": level,
        "model": {"type": "BPE", "unk_token": None, "vocab": vocab, "merges": [["t", "h"], ["th", "e"]]},
    }
    return json.dumps(value, ensure_ascii=False).encode()


def byte_letters() -> list[str]:
    """The printable letter of every byte in byte-level vocabularies (GPT-2's rule)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    for place, byte in enumerate(byte for byte in range(256) if byte not in letters):
        letters[byte] = chr(256 + place)
    return [letters[byte] for byte in range(256)]


def _spoil_bundle(name: str, rng: Random, files: Files, step: int) -> tuple[Files, bool]:
    """Spoils one file of a Bundle; a forger also writes its new hash and size into bundle.json."""
    data = files[name]
    forged = step >= mutations.STEPS and rng.random() < 0.85 if name != "bundle.json" else False
    if step < 2 * mutations.STEPS:
        data, forged = _cut(data, step), step >= mutations.STEPS
    elif name == "tokenizer.json" and rng.random() < 0.5:
        data = mutations.tokenizerwise(rng, json.loads(data)).encode()
    elif name.endswith(".json"):
        data = _json_or_bytes(rng, data)
    elif name == "weights.safetensors":
        data = _spoil_container(rng, data)
    else:
        data = mutations.bytewise(rng, data)
        for _ in range(rng.choice((0, 0, 1, 4))):
            data = mutations.bytewise(rng, data)
    spoiled = files | {name: data}
    if forged and name != "bundle.json":
        described = json.loads(files["bundle.json"])
        described["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        spoiled["bundle.json"] = json.dumps(described).encode()
    return spoiled, forged or name == "bundle.json"


def _json_or_bytes(rng: Random, data: bytes) -> bytes:
    if rng.random() < 0.2:
        return mutations.bytewise(rng, data)
    return mutations.jsonwise(rng, json.loads(data)).encode("utf-8", "surrogatepass")


def _spoil_container(rng: Random, data: bytes) -> bytes:
    """Header or data of a safetensors file, the header's length right or wrong."""
    length = 8 + int.from_bytes(data[:8], "little")
    what = rng.random()
    if what < 0.3:
        return mutations.bytewise(rng, data)
    if what < 0.7:
        text = mutations.jsonwise(rng, json.loads(data[8:length])).encode("utf-8", "surrogatepass")
        return len(text).to_bytes(8, "little") + text + data[length:]
    return data[:length] + mutations.floats(rng, data[length:])


def _use_bundle(folder: Path, files: Files, number: int) -> str:
    """Opens the Bundle as the daemon does and talks to someone on it."""
    bundle = Bundle.load(folder)
    config = Config(max_batch=1, state_budget_mb=1, save_dir=str(folder))
    backend, reason = choose("reference" if number % 4 else "onnx", bundle, config)
    stage = Stage(bundle, backend, reason, config)
    try:
        session = stage.session("game")
        _ask(stage, session, wire.Spawn(id=1, npc="marta", persona=MARTA, seed=7))
        _ask(stage, session, wire.Say(id=1, npc="marta", text=LINE, pace=0, max_tokens=6))
        _ask(stage, session, wire.Choose(id=1, npc="marta", lines=["Yes.", "No."], moods=["sad"]))
    finally:
        stage.close()
    return "same" if bundle.hash == _hash_of(files) else "other"


def _hash_of(files: Files) -> str:
    """The hash of the good Bundle that equals these files in all but the spelling of bundle.json, or nothing."""
    from npc_runtime.description import hash_description

    for good in _good_bundles():
        if all(files.get(name) == data for name, data in good.items() if name != "bundle.json"):
            return hash_description(json.loads(good["bundle.json"]))
    return ""


@cache
def _bundle_files(bits: int, tokenizer: str) -> Files:
    return _bundle(bits, tokenizer)


def _good_bundles() -> list[Files]:
    return [_bundle_files(4, "tokenizer.model"), _bundle_files(32, "tokenizer.json")]


# ---- personas


def _personas() -> Files:
    folder = Path(__file__).resolve().parents[2] / "personas"
    return {"someone.toml": (folder / "adela.toml").read_bytes()}


def _spoil_persona(rng: Random, files: Files, step: int) -> tuple[Files, bool]:
    data = files["someone.toml"]
    if step < mutations.STEPS:
        return {"someone.toml": _cut(data, step)}, True
    return {"someone.toml": mutations.tomlwise(rng, data.decode())}, True


def _use_persona(folder: Path, files: Files, number: int) -> str:
    persona = load_persona(folder / "someone.toml")
    assert persona_from(to_mapping(persona), "again") == persona
    stage = fake_stage(Config(save_dir=str(folder)), FakeBackend(slots=96))
    try:
        session = stage.session("game")
        _ask(stage, session, wire.Spawn(id=1, npc="someone", persona=to_mapping(persona)))
        _ask(stage, session, wire.Say(id=1, npc="someone", text=LINE, pace=0, max_tokens=4))
    finally:
        stage.close()
    return "same" if files == _personas() else "other"


# ---- checkpoints


@cache
def _checkpoint(kind: str) -> Files:
    weights = random_weights(CONFIG)
    keys = {"embedding": "backbone.embedding.weight", "norm_f": "backbone.norm_f.weight"}
    named = {keys.get(name) or _theirs(name): value for name, value in weights.items()}
    sizes = {"d_model": 16, "n_layer": 1, "vocab_size": 320, "ssm_cfg": {"d_state": 4, "d_conv": 3, "dt_rank": 2}}
    files = {"config.json": json.dumps(sizes).encode(), "tokenizer.json": tokenizer_json()}
    if kind == "torch":
        return files | {"pytorch_model.bin": pickles.checkpoint(named)}
    import safetensors.numpy

    shards = [dict(list(named.items())[::2]), dict(list(named.items())[1::2])]
    places = {name: f"part-{number}.safetensors" for number, shard in enumerate(shards) for name in shard}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()
    return files | {f"part-{n}.safetensors": safetensors.numpy.save(shard) for n, shard in enumerate(shards)}


def _theirs(name: str) -> str:
    from npc_runtime.importer import _PARTS

    _, layer, part = name.split(".")
    return f"backbone.layers.{layer}.{_PARTS[part]}"


def _spoil_checkpoint(rng: Random, files: Files, step: int) -> tuple[Files, bool]:
    name = rng.choice(sorted(files)) if step >= mutations.STEPS else "part-0.safetensors"
    data = files[name]
    if step < mutations.STEPS:
        data = _cut(data, step)
    elif name.endswith(".json"):
        data = _json_or_bytes(rng, data)
    else:
        data = _spoil_container(rng, data)
    return files | {name: data}, True


def _spoil_torch(rng: Random, files: Files, step: int) -> tuple[Files, bool]:
    data = files["pytorch_model.bin"]
    if step < mutations.STEPS:
        return files | {"pytorch_model.bin": _cut(data, step)}, True
    what = rng.random()
    if what < 0.3:
        return files | {"pytorch_model.bin": mutations.bytewise(rng, data)}, True
    if what < 0.6:  # a sound zip around a spoiled description
        inside = pickles.members(data)
        inside["archive/data.pkl"] = mutations.bytewise(rng, inside["archive/data.pkl"])
        return files | {"pytorch_model.bin": pickles.zipped(inside)}, True
    return files | {"pytorch_model.bin": pickles.attack(rng, data)}, True


def _use_checkpoint(folder: Path, files: Files, number: int) -> str:
    import_checkpoint(folder, folder / "made", bits=8 if number % 2 else 32)
    return "same" if files in (_checkpoint("torch"), _checkpoint("safetensors")) else "other"


SPECIMENS: dict[str, Specimen] = {
    "save": Specimen("game.npcsave", lambda: {"game.npcsave": _saves()[0]}, _spoil_save, _use_save),
    "description": Specimen(
        "bundle.json", partial(_bundle_files, 4, "tokenizer.model"), partial(_spoil_bundle, "bundle.json"), _use_bundle
    ),
    "weights": Specimen(
        "weights.safetensors",
        partial(_bundle_files, 4, "tokenizer.model"),
        partial(_spoil_bundle, "weights.safetensors"),
        _use_bundle,
    ),
    "tokenizer.model": Specimen(
        "tokenizer.model",
        partial(_bundle_files, 4, "tokenizer.model"),
        partial(_spoil_bundle, "tokenizer.model"),
        _use_bundle,
    ),
    "tokenizer.json": Specimen(
        "tokenizer.json",
        partial(_bundle_files, 32, "tokenizer.json"),
        partial(_spoil_bundle, "tokenizer.json"),
        _use_bundle,
    ),
    "persona": Specimen("someone.toml", _personas, _spoil_persona, _use_persona),
    "torch": Specimen("pytorch_model.bin", partial(_checkpoint, "torch"), _spoil_torch, _use_checkpoint),
    "checkpoint": Specimen("config.json", partial(_checkpoint, "safetensors"), _spoil_checkpoint, _use_checkpoint),
}
SHARES = {"save": 5, "weights": 3, "tokenizer.model": 3, "tokenizer.json": 2, "persona": 2, "torch": 2}
"""How often each kind is tried; the others once."""
