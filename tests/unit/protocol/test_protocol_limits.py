"""The limits of frames, events and TIDs, each at its last value that is taken and its first that is not."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import cbor2
import pytest

from streams.protocol import atjson, events, frames
from streams.protocol.atjson import decode_record, encode_with_record
from streams.protocol.cbor_size import MAX_VALUES
from streams.protocol.events import (
    MAX_DID,
    MAX_EVENT_BYTES,
    MAX_OPS,
    MAX_REV,
    decode_events,
    event_identity,
    frame_seq,
    frame_time,
)
from streams.protocol.frames import MAX_FRAME_BYTES, ErrorFrame, FrameError, Scan, search_block, split_frame
from streams.protocol.syntax import is_did, is_nsid, is_rkey
from streams.protocol.tid import ALPHABET, MAX_CLOCK_ID, MAX_TIME_US, MAX_US, is_tid, tid_from_us, us_from_tid
from tests.support.dagcbor import encode, link
from tests.unit.protocol.test_events import DID, GOOD, commit_body, op
from tests.unit.protocol.test_frames import car_of, cid_of, varint

# -- TIDs and names


def test_the_numbers_of_a_tid_are_the_protocols() -> None:
    """What Postgres computes and the relays compare: no test of ours may move with them."""
    assert (MAX_CLOCK_ID, MAX_US) == (1023, 9_007_199_254_740_991)
    assert len(ALPHABET) == 32
    assert tid_from_us(0) == "2" * 13
    assert tid_from_us(MAX_US, MAX_CLOCK_ID) == tid_from_us(1 << 60, MAX_CLOCK_ID) == "bzzzzzzzzzzzz"
    assert tid_from_us(-1, 1) == tid_from_us(0, 1) == "2222222222223"
    assert tid_from_us(1_700_000_000_000_000, 32) == "3ke6kg3wk2232"
    assert us_from_tid("3ke6kg3wk2232") == 1_700_000_000_000_000
    assert us_from_tid(tid_from_us(12_345, MAX_CLOCK_ID)) == 12_345


def test_names_at_their_longest() -> None:
    assert is_did("did:web:" + "a" * 2040)
    assert not is_did("did:web:" + "a" * 2041)
    nsid = "com." + ".".join(["a" * 61] * 5) + ".abc"
    assert (len(nsid), is_nsid(nsid), is_nsid(nsid + "d")) == (317, True, False)
    assert is_rkey("r" * 512)
    assert not is_rkey("r" * 513)
    assert [bool(is_rkey(name)) for name in (".", "..", "...", "")] == [False, False, True, False]
    assert [bool(is_tid(text)) for text in ("2" * 13, "j" + "z" * 12, "k" + "2" * 12, "2" * 12, "2" * 14)] == [
        True, True, False, False, False,
    ]  # fmt: skip


# -- frames


def frame(body: Any, header: Any = None) -> bytes:
    return encode(header if header is not None else {"op": 1, "t": "#x"}) + encode(body)


def test_the_largest_frame() -> None:
    empty = len(frame({"x": b"\0" * 70_000})) - 70_000
    largest = frame({"x": b"\0" * (MAX_FRAME_BYTES - empty)})
    assert len(largest) == MAX_FRAME_BYTES == 6_291_456
    assert split_frame(largest)[0] == "#x"
    with pytest.raises(FrameError, match="6291457 bytes"):
        split_frame(largest + b"\0")


def test_small_frames_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that cannot have too many values is decoded at once."""
    monkeypatch.setattr(frames, "has_too_many_values", lambda _: pytest.fail("it was counted"))
    least = len(frame({"x": b"\0" * 70_000})) - 70_000
    assert split_frame(frame({"x": b"\0" * (MAX_VALUES - least)}))[0] == "#x"


@pytest.mark.parametrize(
    ("header", "body", "says"),
    [
        ({"op": 1, "t": 5}, {}, "or type 5"),
        ({"op": 2, "t": "#x"}, {}, "unknown op 2"),
        ({"op": 0, "t": "#x"}, {}, "unknown op 0"),
        ({"t": "#x"}, {}, "unknown op None"),
        ([1], {}, "not a map"),
        ({"op": 1, "t": "#x"}, [1], "not a map"),
    ],
)
def test_what_a_header_must_say(header: Any, body: Any, says: str) -> None:
    with pytest.raises(FrameError) as caught:
        split_frame(frame(body, header))
    assert says in str(caught.value)


def test_a_frame_is_two_objects() -> None:
    for data, count in ((encode({"op": 1, "t": "#x"}), 1), (frame({}) + encode({}), 3)):
        with pytest.raises(FrameError, match=f"this has {count}"):
            split_frame(data)


def test_an_error_frame_without_words() -> None:
    with pytest.raises(ErrorFrame) as caught:
        split_frame(frame({}, {"op": -1}))
    assert (str(caught.value), caught.value.name) == ("error", "error")
    with pytest.raises(ErrorFrame, match=r"^Full: try later$"):
        split_frame(frame({"error": "Full", "message": "try later"}, {"op": -1}))


# -- blocks: the search must find them, or the slow scan hides that it does not


@pytest.mark.parametrize("size", [1, 2, 91, 92, 93, 127, 128, 129, 16_346, 16_347])
@pytest.mark.parametrize("behind", [0, 5])
def test_the_search_finds_a_block_of_up_to_two_bytes_of_length(size: int, behind: int) -> None:
    block = bytes(i % 251 for i in range(size))
    others = [(cid_of(bytes([i])), bytes([i]) * 40) for i in range(behind)]
    assert search_block(car_of([(cid_of(b"x"), b"x"), (cid_of(block), block), *others]), cid_of(block)) == block


@pytest.mark.parametrize("last", [0, 127])
def test_a_byte_below_128_before_a_length_is_not_a_part_of_it(last: int) -> None:
    block, other = b"b" * 60, bytes([1, last])
    sections = [(cid_of(data), data) for data in (other, block, b"behind")]
    assert search_block(car_of(sections), cid_of(block)) == block


def test_the_search_passes_over_links_to_the_block_and_finds_it_before_them() -> None:
    block = b"the block"
    links = encode({"a": [link(cid_of(block))] * 3})
    assert search_block(car_of([(cid_of(block), block), (cid_of(links), links)]), cid_of(block)) == block


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_cid_at_the_very_beginning_has_no_length_before_it(at: int) -> None:
    block = b"b" * 60
    assert search_block(b"\x60" * at + cid_of(block) + block, cid_of(block)) is None


def test_a_cid_behind_three_bytes_is_looked_at() -> None:
    block = b"b" * 60
    assert search_block(b"\0\0" + varint(96) + cid_of(block) + block, cid_of(block)) == block


@pytest.mark.parametrize(("links", "found"), [(199, True), (200, False)])
def test_the_search_ends_after_so_many_tries(links: int, found: bool) -> None:
    block = b"the block"
    car = car_of([(cid_of(block), block)]) + b"\0" + b"\0".join([cid_of(block)] * links)
    assert (search_block(car, cid_of(block)) == block) is found


@pytest.mark.parametrize("cid", [b"\x01\x71\x12\x20" + bytes(31), b"\x01\x55\x12\x20" + bytes(32), b""])
def test_a_cid_that_no_record_has_is_refused(cid: bytes) -> None:
    with pytest.raises(FrameError, match="not a CID of a record"):
        search_block(car_of([(cid_of(b"x"), b"x")]), cid)


def test_a_scan_reads_the_car_once_and_hashes_a_wrong_block_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"scans": 0, "hashes": 0}
    scan, checked = frames._scan, frames.checked_block

    def counted_scan(*arguments: Any) -> None:
        counts["scans"] += 1
        scan(*arguments)

    def counted_check(*arguments: Any) -> bytes:
        counts["hashes"] += 1
        return checked(*arguments)

    monkeypatch.setattr(frames, "_scan", counted_scan)
    monkeypatch.setattr(frames, "checked_block", counted_check)
    found = Scan(car_of([(cid_of(b"right"), b"wrong"), (cid_of(b"y"), b"y")]))
    for _ in range(3):
        with pytest.raises(FrameError, match="another hash"):
            found.block(cid_of(b"right"))
        assert found.block(cid_of(b"y")) == b"y"
    assert counts == {"scans": 1, "hashes": 4}


def test_a_cut_car_gives_what_stands_before_the_cut() -> None:
    car = car_of([(cid_of(b"first"), b"first"), (cid_of(b"second"), b"second")])
    for cut in (1, 5, len(b"second"), len(b"second") + 36):
        scan = Scan(car[:-cut])
        assert scan.block(cid_of(b"first")) == b"first"
        with pytest.raises(FrameError, match="cut"):
            scan.block(cid_of(b"second"))
    assert Scan(car).block(cid_of(b"second")) == b"second"


@pytest.mark.parametrize(("length", "block"), [(36, b""), (35, None)])
def test_the_shortest_section_is_a_cid_alone(length: int, block: bytes | None) -> None:
    header = car_of([])
    car = header + varint(length) + cid_of(b"")[:length]
    if block is None:
        with pytest.raises(FrameError, match="cut"):
            Scan(car).block(cid_of(b""))
    else:
        assert Scan(car).block(cid_of(b"")) == block


def test_a_varint_has_at_most_five_bytes() -> None:
    five, six = b"\x80\x80\x80\x80\x00", b"\x80\x80\x80\x80\x80\x00"
    assert frames._varint(five, 0) == (0, 5)
    assert frames._varint(b"x\xac\x02", 1) == (300, 3)
    with pytest.raises(FrameError, match="too long"):
        frames._varint(six, 0)


# -- events


def test_the_largest_event_has_room_below_the_topics_limit() -> None:
    assert MAX_EVENT_BYTES == 8 * 1024 * 1024 - 16 * 1024
    assert (events.MAX_FRAME_EVENTS_BYTES, MAX_OPS, MAX_DID, MAX_REV) == (32 * 1024 * 1024, 1000, 2048, 64)


@pytest.mark.parametrize(("operations", "way"), [(1, "search"), (3, "search"), (4, "scan"), (5, "scan")])
def test_few_operations_are_searched_for_and_many_are_scanned(
    operations: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: set[str] = set()
    search = events.search_block
    monkeypatch.setattr(events, "search_block", lambda car, cid: ways.add("search") or search(car, cid))

    class Counted(Scan):
        def __init__(self, car: bytes) -> None:
            ways.add("scan")
            super().__init__(car)

    monkeypatch.setattr(events, "Scan", Counted)
    ops = [op(GOOD, path=f"app.bsky.feed.post/{i}") for i in range(operations)]
    assert len(decode_events("#commit", commit_body(ops, [GOOD]), 9, 1, None).values) == operations
    assert ways == {way}


def test_the_most_operations() -> None:
    ops = [{"action": "delete", "path": f"app.bsky.feed.post/{i}", "cid": None} for i in range(MAX_OPS)]
    assert len(decode_events("#commit", commit_body(ops, []), 9, 1, None).values) == MAX_OPS == 1000


@pytest.mark.parametrize(("over", "kept"), [(0, True), (1, False)])
def test_the_largest_event_is_taken_to_the_byte(over: int, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    body = commit_body([op(GOOD)], [GOOD])
    size = len(decode_events("#commit", body, 9, 1, None).values[0])
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", size - over)
    found = decode_events("#commit", body, 9, 1, None)
    assert (len(found.values), len(found.bad)) == ((1, 0) if kept else (0, 1))
    if not kept:
        assert f"too large for the topic: {size} bytes" in found.bad[0].reason


@pytest.mark.parametrize(("over", "kept"), [(0, True), (1, False)])
def test_the_largest_event_about_an_account(over: int, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"did": DID, "handle": "a.test"}
    found = decode_events("#identity", body, 9, 1, None)
    assert (found.bad, found.filtered) == ([], 0)
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", len(found.values[0]) - over)
    if kept:
        assert decode_events("#identity", body, 9, 1, None) == found
    else:
        with pytest.raises(FrameError, match="too large for the topic"):
            decode_events("#identity", body, 9, 1, None)


@pytest.mark.parametrize(("over", "refused"), [(0, False), (1, True)])
def test_the_most_bytes_of_a_frames_events(over: int, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events and the blocks of dead letters count together."""
    wrong = b"w" * 50
    body = commit_body([op(GOOD), {**op(wrong), "path": "x"}], [GOOD, wrong])
    found = decode_events("#commit", body, 9, 1, None)
    size = len(found.values[0]) + len(wrong)
    assert [bad.payload for bad in found.bad] == [wrong]
    monkeypatch.setattr(events, "MAX_FRAME_EVENTS_BYTES", size - over)
    if refused:
        with pytest.raises(FrameError, match="bytes of events"):
            decode_events("#commit", body, 9, 1, None)
    else:
        assert decode_events("#commit", body, 9, 1, None) == found


def test_records_of_a_million_bytes_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(events, "has_too_many_values", lambda block: bool(counted.append(len(block))))
    small = encode({"x": b"\0" * (MAX_VALUES - 8)})
    large = encode({"x": b"\0" * (MAX_VALUES - 7)})
    assert (len(small), len(large)) == (MAX_VALUES, MAX_VALUES + 1)
    for block in (small, large):
        assert len(decode_events("#commit", commit_body([op(block)], [block]), 9, 1, None).values) == 1
    assert counted == [MAX_VALUES + 1]


@pytest.mark.parametrize("seq", [0, 1, (1 << 53) - 1])
def test_seqs_that_a_frame_may_have(seq: int) -> None:
    assert frame_seq({"seq": seq}) == seq


def test_times_between_1970_and_the_year_10000() -> None:
    assert frame_time({"time": "1970-01-01T00:00:00Z"}) == 0
    assert frame_time({"time": "1969-12-31T23:59:59.999999Z"}) is None
    assert frame_time({"time": "9999-12-31T23:59:59Z"}) == MAX_TIME_US
    assert frame_time({"time": "9999-12-31T23:59:59.000001Z"}) is None


def test_what_tells_events_of_one_seq_apart() -> None:
    long_did, longest_did = "d" * (MAX_DID + 1), "d" * MAX_DID
    assert event_identity("#commit", {"repo": longest_did, "rev": "r" * MAX_REV}, b"") == (
        longest_did,
        "#commit " + "r" * MAX_REV,
    )
    for body in ({"repo": long_did, "rev": "r"}, {"repo": DID, "rev": "r" * (MAX_REV + 1)}, {"rev": "r"}):
        assert event_identity("#commit", body, b"1") != event_identity("#commit", body, b"2")
        assert event_identity("#commit", body, b"1")[0] == ""
    assert event_identity("#account", {"did": DID, "active": True}, b"") == (DID, "#account True NoneType NoneType")
    assert event_identity("#account", {"did": DID, "active": 1, "status": "x"}, b"") == (
        DID,
        "#account False x NoneType",
    )


def test_a_bad_operation_is_named_in_short() -> None:
    bad = {"action": "a" * 200, "path": "app.bsky.feed.post/" + "p" * 400, "cid": None}
    (found,) = decode_events("#commit", commit_body([bad], []), 9, 1, None).bad
    assert found.reason.split(": ")[0] == "a" * 100 + " " + bad["path"][:300]


def test_about_an_account_what_is_not_said_is_not_written() -> None:
    found = decode_events("#account", {"did": DID, "active": False, "status": None}, 9, 7, None, place={"sequence": 1})
    message = json.loads(found.values[0])
    assert message["account"] == {"did": DID, "seq": 9, "time": None, "active": False}
    assert message["place"] == {"sequence": 1}
    with pytest.raises(FrameError, match="no active"):
        decode_events("#account", {"did": DID, "active": 1}, 9, 7, None)
    with pytest.raises(FrameError, match="no rev"):
        decode_events("#sync", {"did": DID}, 9, 7, None)


# -- records in JSON


CID = b"\x01\x71\x12\x20" + bytes(range(32))


def as_json(record: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, bool]:
    """The record in JSON, and whether it was decoded again."""
    again: list[None] = []
    slow = cbor2.loads
    monkeypatch.setattr(atjson.cbor2, "loads", lambda *a, **k: (again.append(None), slow(*a, **k))[1])
    block = encode(record)
    holder = {"record": decode_record(block)}
    message = json.loads(encode_with_record(holder, holder, block))
    monkeypatch.setattr(atjson.cbor2, "loads", slow)
    return message["record"], bool(again)


def test_only_what_is_in_doubt_is_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(number: int) -> bytes:
        return CID[:-1] + bytes([200 + number])

    assert as_json({"a": link(CID)}, monkeypatch)[1] is False
    assert as_json({"a": [link(other(i)) for i in range(16)]}, monkeypatch)[1] is False
    assert as_json({"a": [link(other(i)) for i in range(17)]}, monkeypatch)[1] is True
    assert as_json({"a": [link(CID), link(CID)]}, monkeypatch)[1] is True, "twice"
    assert as_json({"a": CID}, monkeypatch) == (
        {"a": {"$bytes": b64encode(CID).decode().rstrip("=")}},
        True,
    )
    assert as_json({"a": b"\x02" + CID[1:]}, monkeypatch)[1] is False, "no CID begins like this"
