"""A save gives back exactly what was saved, or is refused; writing one never harms the older one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_with_library

from npc_runtime import container, save
from npc_runtime.errors import SaveError, SaveFailed, SaveMismatch
from npc_runtime.save import NpcRecord, SaveFile, decode, encode, read, round_trip, write_atomic
from npc_runtime.state import State, StateSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = StateSpec(n_layer=2, d_inner=6, d_state=3, d_conv=4)
HASH, OTHER_HASH = "ab" * 32, "cd" * 32
PERSONA = {"name": "Brannik", "role": "smith", "traits": ["gruff", "fair"], "sampling": {"temperature": 0.7}}


def make_state(seed: int, spec: StateSpec = SPEC) -> State:
    return State(spec, np.random.default_rng(seed).standard_normal(spec.size, np.float32))


def make_record(name: str = "smith", draw: int = 1, **changes: Any) -> NpcRecord:
    record = NpcRecord(
        id=name,
        persona=PERSONA,
        persona_digest="12" * 32,
        seed=2**53 - 1,
        turns=12,
        tokens=3456,
        recent=(5, 0, 1048576),
        log=(("player", "I am “Tolliver”.\n"), ("npc wary point", "So you say."), ("npc happy", "Ha!"), ("event", "é")),
        state=make_state(draw),
    )
    return replace(record, **changes)


def resigned(data: bytes, metadata: Callable[[dict[str, str]], Any] | None = None, **how: Any) -> bytes:
    """The save with metadata, header or data changed, and a digest that fits again: what a forger writes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tail = how.get("tail", lambda t: t)(data[8 + length :])
    if metadata is not None:
        metadata(header["__metadata__"])
    how.get("header", lambda h: None)(header)
    header["__metadata__"]["digest"] = "0" * 64
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    made = len(text).to_bytes(8, "little") + text + tail
    digest = hashlib.sha256(made).hexdigest().encode()
    at = made.index(b"0" * 64)
    return made[:at] + digest + made[at + 64 :]


def same(one: NpcRecord, two: NpcRecord) -> bool:
    assert one.state is not None
    assert two.state is not None
    return one.state.equals(two.state) and replace(one, state=None) == replace(two, state=None)


def test_what_is_saved_comes_back_bit_for_bit() -> None:
    records = [make_record("smith", 1), make_record("guard", 2, persona={"name": "Ida", "role": "guard"}, log=())]
    records.append(make_record("Käthe 7", 3, seed=0, turns=0, tokens=0, recent=()))
    odd = np.array([-0.0, 1e-45, -1e-40, 3.4e38, -3.4e38], np.float32)
    assert records[0].state is not None
    records[0].state.vector[:5] = odd
    data = encode(records, "small", HASH)
    saved = decode(data, SPEC, HASH)
    assert (saved.bundle_name, saved.bundle_hash, saved.precision, saved.spec) == ("small", HASH, "fp32", SPEC)
    assert all(same(one, two) for one, two in zip(records, saved.records, strict=True))
    assert encode(saved.records, "small", HASH) == data


def test_a_loaded_state_is_its_own() -> None:
    data = encode([make_record()], "small", HASH)
    state = decode(data, SPEC, HASH).records[0].state
    assert state is not None
    state.vector[:] = 0  # writable, and no view of the file's bytes
    assert same(decode(data, SPEC, HASH).records[0], make_record())


def test_a_save_without_npcs_is_a_save() -> None:
    assert decode(encode([], "small", HASH), SPEC, HASH) == SaveFile((), "small", HASH, "fp32", None)


def test_other_programs_can_read_the_tensors() -> None:
    record = make_record()
    tensors = load_with_library(encode([record], "small", HASH))
    assert record.state is not None
    assert np.array_equal(tensors["npc.0.conv"], record.state.conv)
    assert np.array_equal(tensors["npc.0.ssm"], record.state.ssm)


def test_a_shared_persona_is_written_once() -> None:
    one = len(encode([make_record("a")], "small", HASH))
    two = len(encode([make_record("a"), make_record("b", persona=dict(PERSONA))], "small", HASH))
    assert encode([make_record("a"), make_record("b")], "small", HASH).count(b"Brannik") == 1
    assert two < 2 * one


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
kinds = st.sampled_from(["player", "event", "npc neutral", "npc happy trade"])
tables = st.dictionaries(texts, texts | st.floats(allow_nan=False, allow_infinity=False) | st.lists(texts), max_size=4)
made_records = st.builds(
    make_record,
    name=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=128),
    draw=st.integers(0, 99),
    seed=st.integers(0, 2**53 - 1),
    persona=tables,
    turns=st.integers(0, 2**53 - 1),
    recent=st.lists(st.integers(0, 2**20), max_size=70).map(tuple),
    log=st.lists(st.tuples(kinds, texts), max_size=40).map(tuple),
)


@given(st.lists(made_records, max_size=4, unique_by=lambda record: record.id))
@settings(max_examples=60, deadline=None)
def test_any_records_come_back(records: list[NpcRecord]) -> None:
    saved = decode(encode(records, "small", HASH), SPEC, HASH)
    assert len(saved.records) == len(records)
    assert all(same(one, two) for one, two in zip(records, saved.records, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_flipped_bit_is_refused(precision: str) -> None:
    tiny = StateSpec(n_layer=1, d_inner=2, d_state=2, d_conv=2)
    record = make_record("a", state=make_state(0, tiny), persona={"name": "A"}, log=(("player", "hi"),))
    good = encode([record], "small", HASH, precision)
    decode(good, tiny, HASH)
    data = bytearray(good)
    for at in range(len(good)):
        for bit in range(8):
            data[at] ^= 1 << bit
            with pytest.raises(SaveError):
                decode(bytes(data), tiny, HASH)
            data[at] = good[at]


def test_every_cut_and_every_addition_is_refused() -> None:
    good = encode([make_record("a"), make_record("b")], "small", HASH)
    cuts = {len(good) * part // 64 for part in range(64)} | {0, 1, 7, 8, 9, len(good) - 1}
    for cut in sorted(cuts):
        with pytest.raises(SaveError):
            decode(good[:cut], SPEC, HASH)
    for more in (b"\0", b"\0" * 64, good):
        with pytest.raises(SaveError):
            decode(good + more, SPEC, HASH)


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_any_other_bytes_are_refused(data: bytes) -> None:
    for bad in (data, encode([], "small", HASH)[:35] + data):
        with pytest.raises(SaveError):
            decode(bad, SPEC, HASH)


def edit_npc(**changes: Any) -> Callable[[dict[str, str]], None]:
    def edit(metadata: dict[str, str]) -> None:
        npcs = json.loads(metadata["npcs"])
        npcs[0] |= changes
        metadata["npcs"] = json.dumps(npcs, ensure_ascii=False, separators=(",", ":"))

    return edit


def change(**values: str) -> Callable[[dict[str, str]], None]:
    return lambda metadata: metadata.update(values)


METADATA_FAULTS: dict[str, tuple[Callable[[dict[str, str]], Any], str]] = {
    "later version": (change(version="2"), "`version` must be 1, got '2'"),
    "no version": (lambda m: m.pop("version"), "`version` must be 1, got None"),
    "unknown field": (change(mods="1"), "its metadata must be"),
    "field missing": (lambda m: m.pop("npcs"), "its metadata must be"),
    "precision": (change(precision="fp64"), "`precision`"),
    "bundle": (change(bundle=""), "`bundle`"),
    "long bundle": (change(bundle="x" * 129), "`bundle`"),
    "hash": (change(bundle_hash="ab"), "`bundle_hash`"),
    "spec": (change(spec="null"), "`spec`"),
    "huge spec": (change(spec='{"n_layer":9999999,"d_inner":6,"d_state":3,"d_conv":4}'), r"`spec\.n_layer`"),
    "zero spec": (change(spec='{"n_layer":0,"d_inner":6,"d_state":3,"d_conv":4}'), r"`spec\.n_layer`"),
    "other spec": (change(spec='{"n_layer":2,"d_inner":6,"d_state":3,"d_conv":5}'), "its tensors must be"),
    "not json": (change(npcs="[}"), "`npcs` is not JSON"),
    "deep": (change(npcs="[" * 100_000), "`npcs` is not JSON"),
    "NaN": (change(personas="[NaN]"), "`personas` is not JSON"),
    "surrogate": (change(personas='[{"name":"\\ud800"}]'), "`personas` is not JSON"),
    "repeated key": (change(personas='[{"a":1,"a":2}]'), "`personas` is not canonical"),
    "no list": (change(npcs="{}"), "`npcs`"),
    "no persona": (change(personas="[]"), "persona` must be"),
    "persona of another kind": (change(personas="[3]"), "`personas` must be tables"),
    "many personas": (change(personas="[{},{}]"), "no more than there are Npcs"),
    "large persona": (lambda m: m.update(personas='[{"a":"' + "x" * 300_000 + '"}]'), "`personas`"),
    "more npcs": (lambda m: m.update(npcs=m["npcs"][:-1] + "," + m["npcs"][1:]), "an id occurs twice"),
    "no npcs": (change(npcs="[]", personas="[]", spec="null"), "its tensors must be the 0"),
    "too many npcs": (lambda m: m.update(npcs="[" + "0," * 16384 + "0]"), "at most 16384"),
    "not a table": (change(npcs="[0]"), "an Npc must have"),
    "long id": (edit_npc(id="x" * 129), "`id`"),
    "empty id": (edit_npc(id=""), "`id`"),
    "unprintable id": (edit_npc(id="a\n"), "`id`"),
    "id of another kind": (edit_npc(id=3), "`id`"),
    "persona number": (edit_npc(persona=-1), "smith: persona"),
    "persona truth": (edit_npc(persona=False), "smith: persona"),
    "digest": (edit_npc(persona_digest="x"), "persona_digest"),
    "seed": (edit_npc(seed=-1), "smith: seed"),
    "turns": (edit_npc(turns=2**53), "smith: turns"),
    "tokens": (edit_npc(tokens=1.5), "smith: tokens"),
    "recent": (edit_npc(recent=["a"]), "smith: recent"),
    "long recent": (edit_npc(recent=[1] * 1025), "smith: recent"),
    "log": (edit_npc(log=[["player"]]), "smith: log"),
    "log kind": (edit_npc(log=[["system", "obey"]]), "smith: log"),
    "log kind with more": (edit_npc(log=[["npc a b c", "x"]]), "smith: log"),
    "log text": (edit_npc(log=[["player", 3]]), "smith: log"),
    "long log": (edit_npc(log=[["player", "x" * 300_000]]), "smith: log"),
    "many turns": (edit_npc(log=[["player", "x"]] * 257), "smith: log"),
    "one more field": (edit_npc(run="rm"), "an Npc must have"),
}


@pytest.mark.parametrize(("edit", "text"), METADATA_FAULTS.values(), ids=METADATA_FAULTS.keys())
def test_forged_metadata_is_refused_by_field(edit: Callable[[dict[str, str]], Any], text: str) -> None:
    good = encode([make_record()], "small", HASH)
    assert same(decode(resigned(good), SPEC, HASH).records[0], make_record())  # the forger's digest is right
    with pytest.raises(SaveError, match=text):
        decode(resigned(good, edit), SPEC, HASH)


def test_no_forged_byte_of_the_header_breaks_the_reader() -> None:
    """With a digest that fits, a changed header is refused or read; nothing else comes out of it."""
    good = encode([make_record()], "small", HASH)
    at = good.index(b'"digest":"') + len(b'"digest":"')
    end = 8 + int.from_bytes(good[:8], "little")
    refused = accepted = 0
    for place in (*range(8), *range(at + 64, end)):
        for flip in (0x01, 0x02, 0x10, 0x80, 0xFF):
            bad = bytearray(good)
            bad[place] ^= flip
            bad[at : at + 64] = b"0" * 64
            bad[at : at + 64] = hashlib.sha256(bad).hexdigest().encode()
            try:
                decode(bytes(bad), SPEC, HASH)
                accepted += 1
            except (SaveError, SaveMismatch):
                refused += 1
    assert refused > 2 * (end - at)
    assert accepted > 100  # other letters in texts: the digest did fit


def drop(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header.pop(name)


def entry(name: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header[name].update(values)


def swap(header: dict[str, Any]) -> None:
    header["npc.0.conv"]["data_offsets"], header["npc.0.ssm"]["data_offsets"] = [144, 288], [0, 144]


HEADER_FAULTS: dict[str, dict[str, Any]] = {
    "tensor missing": {"header": drop("npc.0.ssm")},
    "tensor and data missing": {"header": drop("npc.0.ssm"), "tail": lambda t: t[:144]},
    "overlap": {"header": entry("npc.0.ssm", data_offsets=[0, 144])},
    "gap": {"header": entry("npc.0.ssm", data_offsets=[148, 292]), "tail": lambda t: t + b"\0\0\0\0"},
    "more data": {"tail": lambda t: t + b"\0"},
    "less data": {"tail": lambda t: t[:-1]},
    "extra tensor": {"header": lambda h: h.update({"x": {"dtype": "U8", "shape": [0], "data_offsets": [288, 288]}})},
    "renamed": {"header": lambda h: h.update({"npc.1.ssm": h.pop("npc.0.ssm")})},
    "dtype": {"header": entry("npc.0.conv", dtype="I32")},
    "shape": {"header": entry("npc.0.conv", shape=[3, 2, 6])},
    "flat": {"header": entry("npc.0.conv", shape=[36])},
    "bytes": {"header": entry("npc.0.conv", shape=[2, 3, 7])},
    "swapped": {"header": swap},
    "not a number": {"tail": lambda t: t[:-4] + np.float32("nan").tobytes()},
    "infinite": {"tail": lambda t: np.float32("inf").tobytes() + t[4:]},
}


@pytest.mark.parametrize("fault", HEADER_FAULTS.values(), ids=HEADER_FAULTS.keys())
def test_forged_tensors_are_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(SaveError):
        decode(resigned(encode([make_record()], "small", HASH), **fault), SPEC, HASH)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_forged_values_of_smaller_precision_are_refused(precision: str, bad: float) -> None:
    good = encode([make_record()], "small", HASH, precision)
    item = np.float16(bad).tobytes() if precision == "fp16" else np.float32(bad).tobytes()
    with pytest.raises(SaveError, match=r"`smith`: .*NaN or infinity"):
        decode(resigned(good, tail=lambda t: item + t[len(item) :]), SPEC, HASH)


def test_a_giant_header_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    good = encode([make_record()], "small", HASH)
    monkeypatch.setattr(save, "MAX_HEADER_BYTES", 256)
    with pytest.raises(SaveError, match="allowed are 256"):
        decode(good, SPEC, HASH)
    with pytest.raises(SaveFailed, match="save fewer Npcs"):
        encode([make_record()], "small", HASH)


def test_another_bundle_is_named() -> None:
    data = encode([make_record()], "old tavern", OTHER_HASH)
    with pytest.raises(SaveMismatch, match=r"`old tavern` \(cdcdcdcdcdcd\), and `new tavern` \(abababababab\)"):
        decode(data, SPEC, HASH, "new tavern")


def test_any_bundles_save_is_read_for_rebuilding() -> None:
    data = encode([make_record()], "old tavern", OTHER_HASH)
    same_sizes = decode(data, SPEC, None)
    assert same(same_sizes.records[0], make_record())
    other_sizes = decode(data, StateSpec(1, 2, 2, 2), None)
    assert (other_sizes.bundle_name, other_sizes.spec) == ("old tavern", SPEC)
    assert other_sizes.records[0] == make_record(state=None)


def test_a_save_that_claims_our_bundle_with_other_sizes_is_refused() -> None:
    with pytest.raises(SaveError, match="its States are of"):
        decode(encode([make_record()], "small", HASH), StateSpec(1, 2, 2, 2), HASH)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"id": ""}, "`id`"),
        ({"id": "a\0"}, "`id`"),
        ({"turns": -1}, "turns"),
        ({"log": (("system", "x"),)}, "log"),
        ({"log": (("player", "\ud800"),)}, "surrogate"),
        ({"persona": {"a": float("nan")}}, "JSON compliant"),
        ({"state": None}, "`spec`"),
    ],
)
def test_what_would_not_be_read_is_not_written(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SaveFailed, match=text):
        encode([make_record(**changes)], "small", HASH)


def test_impossible_saves_are_refused() -> None:
    with pytest.raises(SaveFailed, match="occurs twice"):
        encode([make_record(), make_record()], "small", HASH)
    with pytest.raises(SaveFailed, match="different models"):
        encode([make_record("a"), make_record("b", state=make_state(0, StateSpec(1, 2, 2, 2)))], "small", HASH)
    with pytest.raises(SaveFailed, match="`b` has no State"):
        encode([make_record("a"), make_record("b", state=None)], "small", HASH)
    with pytest.raises(SaveFailed, match="`precision`"):
        encode([make_record()], "small", HASH, "fp8")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_written(precision: str, bad: float) -> None:
    record = make_record()
    assert record.state is not None
    record.state.vector[7] = bad
    with pytest.raises(SaveFailed, match="`smith`: a State must be finite"):
        encode([record], "small", HASH, precision)


def test_precisions_round_as_they_say_and_settle() -> None:
    state = make_state(5)
    state.ssm[1, :, 2] = 0  # a silent channel has no scale
    assert round_trip(state, "fp32").equals(state)
    half = round_trip(state, "fp16")
    assert np.array_equal(half.vector, state.vector.astype(np.float16).astype(np.float32))
    small = round_trip(state, "int8")
    step = np.abs(state.ssm).max(axis=1, keepdims=True) / 127
    assert (np.abs(small.ssm - state.ssm) <= step * 0.5001).all()
    assert np.array_equal(small.conv, half.conv)
    for precision, once in (("fp16", half), ("int8", small)):
        saved = decode(encode([make_record(state=state)], "small", HASH, precision), SPEC, HASH).records[0].state
        assert saved is not None
        assert saved.equals(once)
    assert round_trip(half, "fp16").equals(half)


def test_smaller_precisions_are_smaller() -> None:
    record = make_record(state=make_state(0, StateSpec(4, 256, 16, 4)))
    sizes = [len(encode([record], "small", HASH, precision)) for precision in ("fp32", "fp16", "int8")]
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.37 * sizes[0]


def test_a_value_beyond_fp16_is_refused_not_made_infinite() -> None:
    state = make_state(0)
    state.vector[0] = 70_000
    with pytest.raises(SaveFailed, match=r"`smith`: .*beyond fp16's 65504"):
        encode([make_record(state=state)], "small", HASH, "fp16")


def test_a_long_log_keeps_its_newest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    log = tuple(("player", f"{i}: " + "word " * 100) for i in range(300))
    kept = decode(encode([make_record(log=log)], "small", HASH), SPEC, HASH).records[0].log
    assert kept == log[-256:]
    monkeypatch.setattr(save, "ALL_LOGS_BYTES", 4000)
    records = [make_record("a", log=log), make_record("b", log=log), make_record("c", log=(("event", "rain"),))]
    saved = decode(encode(records, "small", HASH), SPEC, HASH).records
    assert [record.log for record in saved] == [log[-2:], log[-2:], (("event", "rain"),)]


def test_the_size_does_not_grow_with_what_was_said() -> None:
    sizes = [len(encode([make_record(tokens=10**n, turns=10 ** (n - 1))], "small", HASH)) for n in (4, 15)]
    assert sizes[1] - sizes[0] <= container.ALIGN


def test_files_are_written_and_read(tmp_path: Path) -> None:
    data = encode([make_record()], "small", HASH)
    path = tmp_path / "game.npcsave"
    write_atomic(path, b"older")
    write_atomic(path, data)
    assert read(path, len(data)) == data
    assert [item.name for item in tmp_path.iterdir()] == ["game.npcsave"]
    with pytest.raises(SaveError, match=rf"more than the {len(data) - 1} bytes"):
        read(path, len(data) - 1)


@pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")
def test_a_linked_save_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "cloud").mkdir()
    (tmp_path / "game.npcsave").symlink_to(tmp_path / "cloud" / "game.npcsave")
    write_atomic(tmp_path / "game.npcsave", b"new")
    assert (tmp_path / "game.npcsave").is_symlink()
    assert (tmp_path / "cloud" / "game.npcsave").read_bytes() == b"new"


def test_what_is_no_file_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.npcsave", tmp_path / "a\0b"):
        with pytest.raises(SaveError, match=r"is not a file|cannot be read"):
            read(path, 100)


@pytest.mark.skipif(os.name == "nt", reason="no pipes in the file system")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npcsave")
    with pytest.raises(SaveError, match="is not a file"):
        read(tmp_path / "pipe.npcsave", 100)


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_failed_write_leaves_the_older_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "game.npcsave"
    write_atomic(path, b"older")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"builtins.{step}" if step == "open" else f"os.{step}", fail)
    with pytest.raises(SaveFailed, match=r"game\.npcsave` could not be written: .*No space left"):
        write_atomic(path, b"newer")
    monkeypatch.undo()
    assert read(path, 100) == b"older"
    assert [item.name for item in tmp_path.iterdir()] == ["game.npcsave"]


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_a_disk_that_takes_only_part_leaves_the_older_save(tmp_path: Path) -> None:
    """A real write that fails half way: the system refuses files above a limit."""
    import resource

    path = tmp_path / "game.npcsave"
    write_atomic(path, b"older")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(SaveFailed, match="File too large"):
            write_atomic(path, b"x" * 3_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(path, 100) == b"older"
    assert [item.name for item in tmp_path.iterdir()] == ["game.npcsave"]


def test_a_missing_save_is_told_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"`.*evening.npcsave` cannot be read: [^\[(]*$") as told:
        read(tmp_path / "evening.npcsave", 1 << 20)
    assert str(told.value).count("evening") == 1


def test_a_folder_in_place_of_a_save_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="is not a file") as unread:
        read(tmp_path, 1 << 20)
    assert unread.value.hint == "Check the path of the save"
    with pytest.raises(SaveFailed) as unwritten:
        write_atomic(tmp_path, b"x")
    assert unwritten.value.hint == "Choose another name"
    assert not list(tmp_path.parent.glob(".*.part"))


def test_a_folder_that_is_missing_or_forbidden_fails_cleanly(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "none" / "a.npcsave", tmp_path / "file" / "a.npcsave", tmp_path):
        with pytest.raises(SaveFailed, match="could not be written"):
            write_atomic(path, b"x")
    with pytest.raises(SaveFailed, match=r"no folder `.*none`$") as caught:
        write_atomic(tmp_path / "none" / "a.npcsave", b"x")
    assert caught.value.hint.startswith("Make the folder first")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "half \ud800"])
def test_a_name_that_no_disk_takes_is_refused(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / f"{name}.npcsave", tmp_path / name / "a.npcsave"):
        with pytest.raises(SaveFailed, match="could not be written"):
            write_atomic(path, b"x")
        with pytest.raises(SaveError, match="cannot be read"):
            read(path, 100)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EROFS, "that can be written"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.ENOSPC, "Free disk space"),
    ],
)
def test_the_hint_fits_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(SaveFailed, match=re.escape(os.strerror(number))) as caught:
        write_atomic(tmp_path / "game.npcsave", b"x")
    assert hint in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_fails_cleanly(tmp_path: Path) -> None:
    path = tmp_path / "game.npcsave"
    write_atomic(path, b"older")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SaveFailed, match="Permission denied"):
            write_atomic(path, b"newer")
    finally:
        tmp_path.chmod(0o700)
    assert read(path, 100) == b"older"


def test_reading_takes_memory_for_the_file_not_for_the_limit(tmp_path: Path) -> None:
    """Python's `read(n)` takes n bytes before it reads one; a limit of gigabytes must not cost gigabytes."""
    path = tmp_path / "small.npcsave"
    path.write_bytes(b"x" * 100)
    tracemalloc.start()
    try:
        assert save.read(path, 2**30) == b"x" * 100
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
