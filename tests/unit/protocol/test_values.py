"""The count of values agrees with what a decoder makes of them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.protocol.cbor_size import MAX_VALUES, has_too_many_values
from tests.fuzz.cbor import Link, dump
from tests.fuzz.frames import commit_of, encoded
from tests.fuzz.oracle import items
from tests.fuzz.through import Ingest

NUMBERS = st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text() | st.binary() | st.text(min_size=300, max_size=300)
LEAVES = st.none() | NUMBERS | TEXTS | st.just(Link(b"\x01\x71\x12\x20" + bytes(32)))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=40)


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_it_counts_what_a_decoder_makes(values: list[Any]) -> None:
    data, count = b"".join(map(dump, values)), sum(map(items, values))
    assert not has_too_many_values(data, count)
    assert has_too_many_values(data, count - 1)


@given(st.binary(), st.integers(0, 100))
def test_any_bytes_have_an_answer(data: bytes, most: int) -> None:
    assert has_too_many_values(data, most) in (False, len(data) > most)


def test_it_ends_where_a_decoder_refuses() -> None:
    assert not has_too_many_values(b"\x9f" + b"\x00" * 50 + b"\xff", 10), "an indefinite length"
    assert not has_too_many_values(b"\x5b" + b"\xff" * 8 + b"\x00" * 50, 10), "a text that ends behind the end"


@pytest.mark.parametrize(("count", "events"), [(MAX_VALUES - 4, 1), (MAX_VALUES - 3, 0)])
def test_a_record_with_more_values_than_any_may_have_is_a_dead_letter(count: int, events: int) -> None:
    """``count`` is the list and what is in it; the record's map, its two keys and the type are four more."""
    ingest = Ingest(filtered=False)
    ingest.take(commit_of(Random(1), dump({"$type": "x", "x": [0] * (count - 1)})))
    assert (ingest.counts.events, ingest.counts.dead) == (events, 1 - events)
    if not events:
        assert "the record has more than 1048576 values" in json.loads(ingest.tape.messages[0][1])["reason"]


def test_a_frame_with_more_values_than_any_may_have_is_a_dead_letter() -> None:
    ingest = Ingest(filtered=False)
    ingest.take(encoded("#identity", {"did": "did:plc:a", "seq": 1, "time": [0] * MAX_VALUES}))
    assert "the frame has more than 1048576 values" in json.loads(ingest.tape.messages[0][1])["reason"]
