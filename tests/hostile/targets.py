"""Targets: what a stranger's bytes can reach, each as one function of bytes with the rule that must hold.

A target returns for good input and for input refused with a typed error; anything else that is raised is a
finding. fuzz.py drives them by coverage; test_hostile_wire.py gives them the kept corpus, which needs no atheris.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
from fakes import MARTA, SPEC, FakeBackend, FakeTokenizer, fake_stage

from npc_runtime import container, save, wire
from npc_runtime.config import Config
from npc_runtime.constraint import Trie
from npc_runtime.errors import NpcError
from npc_runtime.persona import MOODS, Persona, Sample, load_persona, persona_from, to_mapping
from npc_runtime.prompt import ControlLayout, PlainLayout, ReplyReader, clean
from npc_runtime.state import State
from npc_runtime.torch_file import read_torch_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from npc_runtime.prompt import Head, Layout

CAP = 1 << 22
HASH = "00" * 32
"""The Bundle hash of fakes.FakeBundle."""
LONGEST_ERROR = 4096
"""Characters of an error's text: what a stranger sent is quoted, never echoed whole."""
TOKENIZER = FakeTokenizer()
LAYOUTS = (ControlLayout(TOKENIZER), PlainLayout(TOKENIZER))
CONTROL_IDS = TOKENIZER.special


@contextmanager
def refusal() -> Iterator[None]:
    """Lets a typed error pass that is no defect of ours and whose text is short."""
    try:
        yield
    except NpcError as error:
        _check_error(error.code, error.text)


def _check_error(code: str, text: str) -> None:
    assert code != "internal", text
    assert len(text) <= LONGEST_ERROR, f"an error of {len(text)} characters"


class Feed:
    """Bytes taken as small numbers and texts, for targets that want more than bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return max(0, len(self._data) - self._at)

    def take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, below: int) -> int:
        return int.from_bytes(self.take(1 if below <= 256 else 3), "little") % below

    def text(self) -> str:
        """UTF-8 as far as it is, with lone surrogates for bytes that are not, as a caller in Python may send."""
        return self.take(self.number(256)).decode("utf-8", "surrogateescape")


def wire_frame(data: bytes) -> None:
    """A frame from a client, and the same bytes as an answer to a client."""
    assert 0 <= wire.salvage_id(data) <= wire.MAX_ID
    with refusal():
        request = wire.decode_request(wire.decode_map(data, CAP))
        again = wire.decode_request(wire.decode_map(wire.encode(request), 2 * CAP))
        assert again == request, f"{request} came back as {again}"
    with refusal():
        event = wire.decode_event(data, CAP)
        wire.decode_reply(event.fields)


def verbs(data: bytes) -> None:
    """A client's requests, one after the other, to a Session on the fake backend, with a Tick after each."""
    stage = fake_stage(Config(max_queued=4, max_npcs=4, save_dir=_folder()), FakeBackend(slots=96))
    session, answers = stage.session("game"), {}

    def emit(event: wire.Event) -> None:
        wire.encode(event)
        assert event.fields.get("code") != "internal", event
        answers[event.id] = event

    try:
        for request in _requests(data):
            session.handle(request, emit)
            stage.tick()
        for _ in range(500):
            if stage.tick() is None:
                break
        session.cancel_all()
        stage.forget("game")
        assert stage.scheduler.pool.free + stage.cast.cached >= stage.scheduler.pool.capacity, "a Slot is lost"
    finally:
        stage.close()


def _requests(data: bytes) -> Iterator[wire.Request]:
    """Frames of one length byte pair each; the file verbs, which other targets cover, are left out."""
    feed = Feed(data)
    for id in range(1, 9):
        if not feed.left:
            return
        with refusal():
            body = wire.decode_map(feed.take(feed.number(1024)), CAP)
            request = wire.decode_request({**body, "id": id})
            if not isinstance(request, (wire.Save, wire.Load)):
                yield request


def persona_file(data: bytes) -> None:
    """A persona's file, read and rendered."""
    path = Path(_folder()) / "someone.toml"
    path.write_bytes(data)
    with refusal():
        persona = load_persona(path)
        assert persona_from(to_mapping(persona), "again") == persona
        _rendered(persona)


def _rendered(persona: Persona) -> None:
    """A persona as tokens: control symbols only where the layout puts them."""
    for layout in LAYOUTS:
        tokens = layout.persona(persona)
        _heads(layout, persona.moods, persona.actions)
        layout.cue(persona)
        # Each sample: <player>, <npc>, <say>, <end> and at most <act>; the opening three; <persona> one.
        assert sum(token in CONTROL_IDS for token in tokens) <= 1 + 5 * len(persona.samples) + 3


@lru_cache(64)  # most inputs leave the words alone, and a hundred heads take longer than all the rest
def _heads(layout: Layout, moods: tuple[str, ...], actions: tuple[str, ...]) -> Trie[Head]:
    return layout.heads(moods, actions)


def prompt(data: bytes) -> None:
    """A persona built in Python of any texts, its lines, and a Reply made of any tokens."""
    feed = Feed(data)
    texts = [feed.text() for _ in range(6)]
    persona = Persona(texts[0], texts[1], (texts[2],), knows=(texts[3],), samples=(Sample(texts[4], texts[5]),))
    _rendered(persona)
    for text in texts:
        assert clean(clean(text)) == clean(text)
        for layout in LAYOUTS:
            for tokens in (layout.player(text), layout.event(text)):
                assert sum(token in CONTROL_IDS for token in tokens) <= 1
            assert not CONTROL_IDS.intersection(layout.speech(text))
    for layout in LAYOUTS:
        _read_reply(layout, feed)


def _read_reply(layout: Layout, feed: Feed) -> None:
    """Tokens as a backend may draw them, within what the reader allows, up to the end."""
    reader = ReplyReader(layout, TOKENIZER, _heads(layout, MOODS[:3], ("trade", "give")), 40)
    shown = ""
    while reader.finish is None and feed.left:
        token = feed.number(TOKENIZER.vocab_size)
        if reader.allowed is not None:
            token = reader.allowed[token % len(reader.allowed)]
        elif token in reader.banned:
            continue
        piece = reader.push(token)
        shown += piece.text if piece else ""
    assert reader.text.startswith(shown)
    assert reader.kept <= 200


def save_file(data: bytes) -> None:
    """A save as it came, and as a forger who can count and hash would send it."""
    _decoded(data)
    _decoded(signed(data))


def _decoded(data: bytes) -> None:
    with refusal():
        saved = save.decode(data, SPEC, HASH)
        assert all(record.state is not None and record.state.finite() for record in saved.records)
        again = save.encode(saved.records, saved.bundle_name, saved.bundle_hash)  # exact: fp32
        found = save.decode(again, SPEC, HASH)
        assert [_plain(record) for record in found.records] == [_plain(record) for record in saved.records]


def _plain(record: save.NpcRecord) -> tuple[Any, ...]:
    state = b"" if record.state is None else record.state.vector.tobytes()
    return (record.id, json.dumps(record.persona), record.seed, record.turns, record.recent, record.log, state)


def signed(data: bytes) -> bytes:
    """A save of a header's rest, a null byte and the tensors' bytes, with length and digest that fit."""
    rest, _, tail = data.partition(b"\0")
    opening = b'{"__metadata__":{"digest":"'
    head = (len(opening) + 64 + len(rest)).to_bytes(8, "little") + opening
    digest = hashlib.sha256(b"".join([head, b"0" * 64, rest, tail])).hexdigest().encode()
    return b"".join([head, digest, rest, tail])


def header(data: bytes) -> None:
    """A safetensors file, as a Bundle's weights or a checkpoint are."""
    with memoryview(data) as view:
        try:
            found = container.read_header(view, 1 << 16)
        except container.ContainerFault as fault:
            _check_error("bad_bundle", str(fault))
            return
        for entry in found.entries.values():
            assert container.array(view, entry).nbytes == entry.nbytes


def trie(data: bytes) -> None:
    """Any sequences as the words of a head: refused, or each leads to its own value and nowhere else."""
    entries = [(tuple(word), number) for number, word in enumerate(data.split(b"\0"))]
    try:
        made = Trie(entries)
    except ValueError:
        words = sorted(word for word, _ in entries)
        assert () in words or any(b[: len(a)] == a for a, b in pairwise(words))
        return
    for word, number in entries:
        node = made
        for token in word:
            assert token in node.allowed
            assert node.value is None
            node = node.child(token)
        assert (node.value, node.allowed) == (number, ())


def torch_file(data: bytes) -> None:
    """A torch checkpoint, and the same bytes as the description inside a sound one."""
    path = Path(_folder()) / "weights.bin"
    for content in (data, torch_zip(data)):
        path.write_bytes(content)
        with refusal():
            for tensor in read_torch_file(path).values():
                assert tensor.values.nbytes <= len(content)
                tensor.values.sum()


def torch_zip(description: bytes, storage: bytes = bytes(64)) -> bytes:
    import io
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in (("data.pkl", description), ("byteorder", b"little"), ("data/0", storage)):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return made.getvalue()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "wire": wire_frame,
    "prompt": prompt,
    "persona": persona_file,
    "save": save_file,
    "trie": trie,
    "verbs": verbs,
    "header": header,
    "torch": torch_file,
}


def seeds(target: str) -> list[bytes]:
    """Good input to begin from."""
    return {
        "wire": _wire_seeds,
        "prompt": lambda: [b"\x05Marta\x09innkeeper" + b"\x06a b\xc3\xa9c" * 6 + bytes(range(40))],
        "persona": lambda: [path.read_bytes() for path in sorted(_personas().glob("*.toml"))[:3]],
        "save": _save_seeds,
        "trie": lambda: [b"neutral\0sad\0wary"],
        "verbs": _verb_seeds,
        "header": lambda: [good_container()],
        "torch": lambda: [good_description(), torch_zip(good_description())],
    }[target]()


def _personas() -> Path:
    return Path(__file__).parents[2] / "personas"


def _wire_seeds() -> list[bytes]:
    bodies = json.loads((Path(__file__).parents[2] / "bindings/vectors/frames.json").read_text("utf-8"))
    frames = [bytes.fromhex(item["hex"]) for item in _dicts(bodies) if "hex" in item]
    return frames or [wire.encode(wire.Say(id=1, npc="marta", text="hello"))]


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dicts(item)


def _save_seeds() -> list[bytes]:
    found = []
    for precision in ("fp32", "int8"):
        data = save.encode([good_record()], "fake", HASH, precision)
        length = 8 + int.from_bytes(data[:8], "little")
        found += [data, data[8 + 27 + 64 : length] + b"\0" + data[length:]]
    return found


def good_record(name: str = "smith") -> save.NpcRecord:
    return save.NpcRecord(
        id=name,
        persona=to_mapping(MARTA),
        persona_digest=MARTA.digest(),
        seed=7,
        turns=2,
        tokens=90,
        recent=(30, 31),
        log=(("player", "I am Tolliver."), ("npc wary", "So you say."), ("event", "A door falls shut.")),
        state=State(SPEC, np.array([1, 2, 3, 4, 90, 0], np.float32)),
    )


def _verb_seeds() -> list[bytes]:
    spawn = {"op": "spawn", "npc": "a", "persona": {"name": "Marta", "role": "innkeeper"}, "seed": 7}
    scripts: list[list[dict[str, Any]]] = [
        [spawn, {"op": "say", "npc": "a", "text": "hi", "pace": 0}, {"op": "rewind", "npc": "a"}],
        [spawn, {"op": "observe", "npcs": ["a"], "text": "rain"}, {"op": "fork", "npc": "a", "to": "b"}],
        [spawn, {"op": "choose", "npc": "a", "lines": ["x", "y"]}, {"op": "cancel", "npc": "a", "heard": 3}],
        [spawn, {"op": "snapshot", "npc": "a"}, {"op": "drop", "npc": "a"}, {"op": "list"}],
        [{"op": "restore", "npc": "b", "data": save.encode([good_record()], "fake", HASH), "rebuild": True}],
    ]
    return [b"".join(map(_framed, script)) for script in scripts]


def _framed(body: dict[str, Any]) -> bytes:
    frame: bytes = msgpack.packb(body)
    return len(frame).to_bytes(3, "little") + frame


def good_container() -> bytes:
    listed: Sequence[tuple[str, str, tuple[int, ...]]] = [("a", "F32", (2, 3)), ("b", "BF16", (4,)), ("c", "U8", (3,))]
    return container.write_header(listed, {"digest": "x"}) + bytes(24 + 8 + 3)


def good_description() -> bytes:
    """What torch.save writes of `{"weight": a 2 by 3 float tensor}`, built by hand."""
    return (
        b"\x80\x02}q\x00X\x06\x00\x00\x00weightq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03"
        b"ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x10tq\x07QK\x00K\x02K\x03\x86q\x08"
        b"K\x03K\x01\x86q\x09\x89ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs."
    )


@cache
def _folder() -> str:
    """A folder of this process alone, in memory where the system offers it."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    made = tempfile.TemporaryDirectory(prefix="hostile-", dir=place)
    _KEPT.append(made)
    return made.name


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
