"""Records in JSON: bytes and links told apart, whatever a record holds to confuse the two."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.protocol.atjson import decode_record, encode_with_record
from tests.support.dagcbor import cid_text, encode, json_form, link

CID = b"\x01\x71\x12\x20" + bytes(range(32))
HEADS = (b"\xd8\x2a\x58\x25\x00", b"\x58\x24")  # what stands before a CID that is a link, and before one that is bytes

#: Versions 0 and 1, hashes of several lengths, the shortest, one with bytes behind its hash.
ODD_CIDS = [
    b"\x12\x20" + bytes(32),
    b"\x01\x55\x00\x00",
    b"\x01\x71\x13\x40" + bytes(64),
    b"\x01\x71\x12\x20" + bytes(33),
    b"\x01\x71\x12\x13" + bytes(19),  # with 0x00 before it 24 bytes: the head is longer
]
cids = (
    st.just(CID)
    | st.sampled_from(ODD_CIDS)
    | st.binary(min_size=32, max_size=32).map(lambda digest: b"\x01\x55\x12\x20" + digest)
)
hostile = st.sampled_from([head + CID for head in HEADS] + [HEADS[0] + CID[:18] + b"\x58\x24"])
byte_strings = st.binary(max_size=300) | cids | hostile
keys = st.text(max_size=6) | st.sampled_from(["$link", "$bytes", "$type", "ref"])
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=30)
floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: str(number) != "-0.0")
values = st.recursive(
    scalars | floats | byte_strings | cids.map(link),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=25,
)
records = st.dictionaries(keys, values, max_size=6)


def as_json(block: bytes) -> Any:
    holder = {"before": 1, "record": decode_record(block), "after": 2}
    message = json.loads(encode_with_record({"did": "did:x:y", "commit": holder}, holder, block))
    assert list(message) == ["did", "commit"]
    assert list(message["commit"]) == ["before", "record", "after"]
    return message["commit"]["record"]


@given(records)
@example({"bytes": CID, "link": link(CID)})
@example({"link": link(CID), "zbytes": CID})
@example({"link": link(CID), "again": [link(CID), link(CID)]})
@example({"link": {"$link": cid_text(CID)}, "bytes": {"$bytes": "AQ"}, "true": [link(CID), b"\x01"]})
@example({"text": cid_text(CID), "empty": b"", "one": b"\x01", "eighteen": b"\x12"})
@example({"z" * size: bytes([1]) * size for size in (23, 24, 255, 256, 257, 65_535, 65_536)})
@example({f"{n}": link(CID[:-1] + bytes([n])) for n in range(100)})
def test_a_record_is_what_it_was(record: dict[str, Any]) -> None:
    assert as_json(encode(record)) == json_form(record)


@pytest.mark.parametrize("cid", ODD_CIDS)
def test_an_odd_cid_is_a_link_and_its_bytes_are_bytes(cid: bytes) -> None:
    for record in (link(cid), cid, [link(cid), cid], [cid, link(cid)]):
        assert as_json(encode(record)) == json_form(record)


def heads(length: int, major: int) -> Iterator[bytes]:
    """Every way to write the head of a string, the shortest first; only the shortest is DAG-CBOR."""
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        yield bytes([major | extra]) + length.to_bytes(size, "big")


@pytest.mark.parametrize("decoy", [b"", *(head + CID for head in HEADS), CID])
@pytest.mark.parametrize("is_link", [True, False])
def test_longer_heads_confuse_nobody(decoy: bytes, is_link: bool) -> None:
    """The decoder takes heads that are longer than need be; a string beside then looks more like the value's place."""
    for tag in (b"\xd8\x2a", b"\xd9\x00\x2a", b"\xda\x00\x00\x00\x2a") if is_link else (b"",):
        for head in heads(len(CID) + is_link, 0x40):
            item = tag + head + b"\x00" * is_link + CID
            for block in (b"\x82" + item + encode(decoy), b"\x82" + encode(decoy) + item):
                assert json_form(link(CID) if is_link else CID) in as_json(block)
                assert json_form(decoy) in as_json(block)


def test_places_that_overlap_confuse_nobody() -> None:
    """A CID that repeats itself: its first place, behind a link's head, reaches over the second, a byte string."""
    period = b"\x01\x71\x12\x20" + bytes(14) + b"\x58\x24"
    cid = (period * 2)[:36]
    decoy = HEADS[0] + period[:-2]
    block = encode([decoy, cid])
    assert HEADS[0] + cid in block
    assert as_json(block) == json_form([decoy, cid])


def test_many_links_cost_no_more_than_their_number() -> None:
    """Each looked up in the whole block, these are 20 seconds; decoded again, a tenth of one."""
    links = [link(CID[:4] + n.to_bytes(32, "big")) for n in range(40_000)]
    block = encode({"links": links})
    start = time.process_time()
    record = as_json(block)
    assert time.process_time() - start < 5
    assert record == json_form({"links": links})


@pytest.mark.parametrize(
    "block",
    [
        b"\xff",
        b"",
        b"\x01\x01",
        b"\x62\xff\xfe",
        b"\xa2\x61a\x01\x61a\x02",
        b"\xa2\x61b\x01\x61a\x02",
        b"\xa1\x01\x02",
        b"\xc1\x00",
        b"\xfb\x7f\xf8" + bytes(6),
        b"\xd8\x2a\x41\x00",
        b"\x5f\x41a\xff",
    ],
)
def test_what_is_no_dag_cbor_is_refused(block: bytes) -> None:
    with pytest.raises(ValueError):
        decode_record(block)


@pytest.mark.parametrize(
    "record", [-(2**64), [2**64 - 1, -(2**63) - 1], [CID, -(2**64)]], ids=["int", "ints", "after the slower decoder"]
)
def test_what_json_cannot_say_is_a_type_error(record: Any) -> None:
    with pytest.raises(TypeError):
        as_json(encode(record))


def test_nesting_is_bounded() -> None:
    with pytest.raises(TypeError):
        as_json(b"\x81" * 300 + b"\x00")
    with pytest.raises(RecursionError):
        decode_record(b"\x81" * 100_000 + b"\x00")
