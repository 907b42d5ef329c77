from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_runtime import errors, wire

CAP = 2**22
JSONLIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for cls in wire.REQUESTS.values() for name in cls.__dataclass_fields__})


def decoded(body: dict[str, Any]) -> wire.Request:
    return wire.decode_request(wire.decode_map(msgpack.packb(body), CAP))


def test_defaults_are_left_out_of_a_frame() -> None:
    frame = wire.encode(wire.Say(id=1, npc="marta", text="hello", lane="player"))
    assert msgpack.unpackb(frame) == {"id": 1, "op": "say", "npc": "marta", "text": "hello"}


def test_unknown_fields_are_ignored_and_nil_is_the_default() -> None:
    request = decoded({"id": 1, "op": "say", "npc": "a", "text": "x", "seed": None, "later": [1]})
    assert request == wire.Say(id=1, npc="a", text="x")


def test_an_integer_is_a_number_but_a_number_is_no_integer() -> None:
    say = {"id": 1, "op": "say", "npc": "a", "text": "x"}
    request = decoded({**say, "temperature": 1})
    assert isinstance(request, wire.Say)
    assert type(request.temperature) is float
    with pytest.raises(errors.BadInput, match="`seed` must be an integer"):
        decoded({**say, "seed": 1.0})
    with pytest.raises(errors.BadInput, match="`temperature` must be a number"):
        decoded({**say, "temperature": math.inf})


@pytest.mark.parametrize("table", [{b"name": "Marta"}, {"name": "Marta", 5: 1}], ids=["bytes key", "integer key"])
def test_a_table_needs_text_keys(table: dict[Any, Any]) -> None:
    with pytest.raises((errors.BadInput, errors.WireError)):
        decoded({"id": 1, "op": "spawn", "npc": "a", "persona": table})


def test_a_long_frame_may_be_long_only_by_one_text_or_binary_field() -> None:
    long = b"\x07" * (wire.MAX_PLAIN_BYTES + 1)
    request = decoded({"id": 1, "op": "restore", "npc": "a", "data": long})
    assert isinstance(request, wire.Restore)
    assert request.data == long
    for bomb in ([0] * wire.MAX_PLAIN_BYTES, {str(n): n for n in range(200_000)}):
        with pytest.raises(errors.TooLarge, match="not text or binary"):
            decoded({"id": 1, "op": "list", "x": bomb})
    key = b"\x81\xdd\x00\x20\x00\x00" + b"\x90" * 2**21 + b"\x00"
    with pytest.raises(errors.TooLarge):
        wire.decode_map(key, CAP)


def test_a_frame_over_the_cap_is_refused_unread() -> None:
    with pytest.raises(errors.TooLarge, match="may hold 10 bytes, got 11"):
        wire.decode_map(b"x" * 11, 10)


def test_an_error_crosses_the_wire_whole() -> None:
    sent = errors.NpcBusy("`marta` has Turns under way")
    event = wire.decode_event(wire.encode(wire.error_event(7, sent)), CAP)
    got = errors.from_wire(event.fields["code"], event.fields["text"], event.fields["hint"])
    assert type(got) is errors.NpcBusy
    assert (got.text, got.hint, event.id, event.last) == (sent.text, sent.hint, 7, True)
    assert event.fields["retry"]


def test_an_answer_without_ev_is_refused() -> None:
    with pytest.raises(errors.WireError, match="`ev`"):
        wire.decode_event(msgpack.packb({"id": 1}), CAP)


def test_checked_finds_what_the_wire_would_refuse() -> None:
    good = wire.Observe(id=1, npcs=["a"], text="x")
    assert wire.checked(good) == good
    with pytest.raises(errors.BadInput, match="`npcs` must be a list of texts"):
        wire.checked(wire.Observe(id=1, npcs=["a", 5], text="x"))  # type: ignore[list-item]


@given(st.binary(max_size=200))
def test_any_bytes_give_a_map_or_a_typed_error(frame: bytes) -> None:
    with suppress(errors.WireError, errors.TooLarge):
        assert isinstance(wire.decode_map(frame, 100), dict)
    assert 0 <= wire.salvage_id(frame) <= wire.MAX_ID


@given(st.dictionaries(st.sampled_from(FIELDS), JSONLIKE), st.sampled_from([*wire.REQUESTS, "dance"]), JSONLIKE)
def test_any_map_gives_a_request_or_a_typed_error(fields: dict[str, Any], op: str, id: Any) -> None:
    try:
        request = wire.decode_request({**fields, "op": op, "id": id})
    except errors.BadInput:
        return
    assert wire.decode_request(wire.decode_map(wire.encode(request), CAP)) == request


@pytest.mark.parametrize("key", ["npc", "op", "id"])
def test_a_field_nested_as_deep_as_msgpack_goes_is_refused(key: str) -> None:
    """Quoting it in the error ran into Python's limit of recursion, which was told as a defect of ours."""
    fields = {"id": b"\x01", "op": b"\xa4drop", "npc": b"\xa1a"} | {key: b"\x91" * 1020 + b"\x90"}
    frame = b"\x83" + b"".join(bytes([0xA0 + len(name)]) + name.encode() + data for name, data in fields.items())
    with pytest.raises(errors.BadInput, match="got a list of 1"):
        wire.decode_request(wire.decode_map(frame, CAP))
