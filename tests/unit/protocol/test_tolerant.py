"""Frames that are CBOR but not in DAG-CBOR's form give what they give in that form; and nothing else is let in."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.protocol.events import decode_events, frame_seq, frame_time
from streams.protocol.frames import ErrorFrame, FrameError, split_frame
from streams.protocol.tolerant import MAX_DEPTH, MAX_TOLERATED_VALUES, decode_tolerantly
from tests.fuzz import seeds
from tests.fuzz.cbor import Link, dump, loosely
from tests.fuzz.frames import archive_of
from tests.fuzz.oracle import CID_PREFIX
from tests.unit.protocol.test_frames import cid_of

IDENTITY = {"seq": 7, "did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "time": "2026-01-01T00:00:00Z", "handle": "a.test"}
HEADER = {"op": 1, "t": "#identity"}
#: Maps in the order in which they stand, as most libraries write them.
_plain = cbor2.dumps


def of(header: bytes, body: bytes) -> tuple[str, dict[str, Any], int]:
    """Type, body, and how often the tolerant decoder was needed."""
    tolerated: list[None] = []
    kind, found = split_frame(header + body, lambda: tolerated.append(None))
    return kind, found, len(tolerated)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (_plain({"op": 1, "t": "#identity"}), dump(IDENTITY)),  # as Jetstream's own simulator writes it
        (dump(HEADER), _plain(dict(sorted(IDENTITY.items())))),  # sorted as text, not by length
        (b"\xa2\x62op\x1b\0\0\0\0\0\0\0\1\x61t\x69#identity", dump(IDENTITY)),
        (b"\xbf\x62op\x01\x61t\x69#identity\xff", b"\xbf" + dump(IDENTITY)[1:] + b"\xff"),
        (b"\xa2\x61t\x7f\x62#i\x67dentity\xff\x62op\x01", dump(IDENTITY)),
        (b"\xd9\xd9\xf7" + dump(HEADER), dump(IDENTITY)),  # "this is CBOR"
        (
            _plain({"op": 1, "t": "#identity"}),
            _plain({**IDENTITY, "x": [1.5, -70000, None, True, b"b", {"z": 1, "a": 2}]}),
        ),
    ],
)
def test_other_forms_of_a_frame_are_read(header: bytes, body: bytes) -> None:
    kind, found, tolerated = of(header, body)
    assert (kind, tolerated) == ("#identity", 1)
    assert {name: found[name] for name in IDENTITY} == IDENTITY


def test_what_is_strict_needs_no_tolerance() -> None:
    assert of(dump(HEADER), dump(IDENTITY)) == ("#identity", IDENTITY, 0)


def test_the_relays_errors_are_read_in_any_form() -> None:
    with pytest.raises(ErrorFrame) as caught:
        split_frame(_plain({"op": -1}) + _plain({"message": "no", "error": "FutureCursor"}))
    assert caught.value.name == "FutureCursor"


@settings(max_examples=300, deadline=None)
@given(number=st.integers(0, 1 << 30), chance=st.integers(0, 1 << 60))
def test_any_form_of_a_frame_gives_the_same_events(number: int, chance: int) -> None:
    seed, r = seeds.frames()[number % len(seeds.frames())], Random(chance)
    loose = loosely({"op": 1, "t": seed.kind}, r) + loosely(seed.body, r)
    strict_kind, strict = split_frame(seed.data)
    kind, body = split_frame(loose)
    assert (kind, body) == (strict_kind, strict)
    time = frame_time(strict) or 0
    assert decode_events(kind, body, frame_seq(body), time, None) == decode_events(
        strict_kind, strict, frame_seq(strict), time, None
    )


def test_links_and_bytes_come_out_as_from_the_strict_decoder() -> None:
    link = Link(CID_PREFIX + bytes(32))
    values: dict[str, Any] = {
        "link": link,
        "bytes": b"\0\1",
        "none": None,
        "list": [link, -1, 2.5, "é😀"],
        "big": 1 << 63,
    }
    _, strict = split_frame(dump(HEADER) + dump(values))
    for chance in range(50):
        _, body = split_frame(loosely(HEADER, Random(chance)) + loosely(values, Random(chance)))
        assert body == strict
        assert [type(value) for value in body["list"]] == [type(value) for value in strict["list"]]


def test_a_record_stays_strict() -> None:
    """Its CID is of its bytes: another form of it is another record, and none of the protocol's."""
    block = _plain({"$type": "com.example.note", "text": "x"})
    seed = seeds.small_commits()[0]
    op = {"action": "create", "path": "com.example.note/3kaaaaaaaaaaa", "cid": Link(cid_of(block))}
    body = {**seed.body, "ops": [op], "blocks": archive_of([(cid_of(block), block)])}
    _, read = split_frame(_plain({"op": 1, "t": "#commit"}) + dump(body))
    events = decode_events("#commit", read, 1, 1, None)
    assert not events.values
    assert "cannot be decoded" in events.bad[0].reason


@pytest.mark.parametrize(
    "item",
    [
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\xa1\x01\x01", b"\xa1\x41a\x01",  # keys that are no text
        b"\xf9\x7e\x00", b"\xfa\x7f\x80\x00\x00", b"\xfb" + struct.pack(">d", float("-inf")),  # no finite numbers
        b"\xc2\x41\x01", b"\xd8\x23\x61a", b"\xd8\x1c\x80", b"\xd8\x1d\x00",  # a big number, a regex, shared values
        b"\xd8\x2a\x41\x00", b"\xd8\x2a\x61a", b"\xd8\x2a\x58\x03\x00\x01\x02",  # links that are none
        b"\xe0", b"\xf8\x20", b"\xff", b"\x1c", b"\x5f\x61a\xff", b"\x5f\x5f\xff\xff", b"\x7f\x61\xff\xff",
        b"\xdf\x00\xff", b"\x1f", b"\x81", b"\x5b" + b"\xff" * 8, b"\x9b" + b"\xff" * 8, b"\xbb" + b"\xff" * 8, b"\x61",
        b"\xbf\x61a\xff",
        b"\x9f" * (MAX_DEPTH + 2) + b"\xff" * (MAX_DEPTH + 2), b"\x81" * 100_000 + b"\x00",
        b"\x9f" + b"\xa0" * (MAX_TOLERATED_VALUES + 1) + b"\xff",
        b"\x5f" + b"\x40" * (MAX_TOLERATED_VALUES + 1) + b"\xff",
    ],
)  # fmt: skip
def test_what_is_no_value_of_the_data_model_is_refused(item: bytes) -> None:
    with pytest.raises(ValueError):
        decode_tolerantly(item)
    with pytest.raises(FrameError, match=r"^not DAG-CBOR: "):
        split_frame(_plain({"op": 1, "t": "#identity"}) + b"\xa1\x61x" + item)


@given(st.binary(max_size=300))
def test_any_bytes_are_values_or_a_value_error(data: bytes) -> None:
    try:
        values = decode_tolerantly(data)
    except ValueError:
        return
    json.dumps(values, default=bytes.hex)
