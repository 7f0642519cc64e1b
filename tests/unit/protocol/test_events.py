"""Events: the recording's frames give exactly what its PDS said is true; what is bad costs itself alone."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from streams.protocol.collection_filter import compile_patterns
from streams.protocol.events import decode_events, frame_seq, frame_time
from streams.protocol.frames import FrameError, split_frame
from tests.support.dagcbor import cid_text, encode, json_form, link
from tests.unit.protocol.test_frames import FRAMES, car_of, cid_of

STATE = Path(__file__).parents[2] / "fixtures" / "pds" / "state.json.gz"
DID = "did:plc:sxzzbolood4mc2wfytn6hcil"


def as_bytes(value: Any) -> Any:
    """The PDS's API printed byte strings of unknown lexicons as {"0": 98, …}; their CIDs prove that they are bytes."""
    if isinstance(value, dict):
        if value and all(key == str(i) for i, key in enumerate(value)):
            return {"$bytes": base64.b64encode(bytes(value.values())).decode().rstrip("=")}
        return {key: as_bytes(inner) for key, inner in value.items()}
    return [as_bytes(inner) for inner in value] if isinstance(value, list) else value


def test_the_recording_gives_the_state_that_its_pds_reported() -> None:
    held: dict[tuple[str, str], tuple[str, Any]] = {}
    for frame in FRAMES:
        kind, body = split_frame(frame)
        events = decode_events(kind, body, frame_seq(body), frame_time(body) or 0, None)
        assert not events.bad
        for value in events.values:
            message = json.loads(value)
            commit = message.get("commit")
            if commit is None:
                continue
            key = (message["did"], f"{commit['collection']}/{commit['rkey']}")
            if commit["operation"] == "delete":
                held.pop(key)
            else:
                held[key] = (commit["cid"], commit["record"])
    state = json.loads(gzip.decompress(STATE.read_bytes()))
    active = {did for did, account in state.items() if account["status"] == "active"}
    wanted = {
        (did, path): (record["cid"], as_bytes(record["value"]))
        for did in active
        for path, record in state[did]["records"].items()
    }
    assert len(wanted) == 1203
    assert {key: value for key, value in held.items() if key[0] in active} == wanted


def commit_body(ops: list[dict[str, Any]], blocks: list[bytes], **more: Any) -> dict[str, Any]:
    car = car_of([(cid_of(block), block) for block in blocks])
    return {"repo": DID, "rev": "3n2yssnqxuk2c", "seq": 9, "since": None, "blocks": car, "ops": ops, **more}


def op(block: bytes, path: str = "app.bsky.feed.post/a", action: str = "create") -> dict[str, Any]:
    return {"action": action, "path": path, "cid": cid_of(block)}


GOOD = encode({"$type": "app.bsky.feed.post", "text": "good"})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (op(b"not there"), "missing"),
        (op(b"\xff\xff"), "cannot be decoded"),
        (op(b"\xa1\x61a\x62\xff\xfe"), "cannot be decoded"),  # a string that is not UTF-8
        (op(GOOD, path="no-slash"), "not a valid collection/rkey"),
        (op(GOOD, path="app.bsky.feed.post/"), "not a valid collection/rkey"),
        (op(GOOD, path="app.bsky.feed.post/a/b"), "not a valid collection/rkey"),
        (op(GOOD, action="explode"), "unknown action"),
        ({"action": "create", "path": "app.bsky.feed.post/a", "cid": None}, ""),
        ({"action": "create"}, "no path"),
        ("not a map", ""),
    ],
)
@pytest.mark.parametrize("others", [1, 5])  # few operations are searched for, many are scanned
def test_a_bad_operation_costs_itself_alone(bad: Any, reason: str, others: int) -> None:
    good = [op(GOOD, path=f"app.bsky.feed.post/{i}") for i in range(others)]
    body = commit_body([*good, bad], [GOOD, b"\xff\xff", b"\xa1\x61a\x62\xff\xfe"])
    events = decode_events("#commit", body, 9, 1, None)
    assert len(events.values) == others
    assert len(events.bad) == 1
    assert reason in events.bad[0].reason
    assert events.bad[0].payload


def test_a_nested_bomb_costs_itself_alone() -> None:
    bomb = b"\x81" * 100_000 + b"\x00"
    events = decode_events("#commit", commit_body([op(bomb), op(GOOD)], [bomb, GOOD]), 9, 1, None)
    assert (len(events.values), len(events.bad)) == (1, 1)


def test_a_filter_keeps_operations_out() -> None:
    keep = compile_patterns(("app.bsky.feed.*",))
    ops = [op(GOOD), op(GOOD, path="app.bsky.graph.follow/x")]
    events = decode_events("#commit", commit_body(ops, [GOOD]), 9, 1, keep)
    assert ([json.loads(value)["commit"]["collection"] for value in events.values], events.filtered) == (
        ["app.bsky.feed.post"],
        1,
    )


def test_the_message_is_jetstreams_with_seq_and_since() -> None:
    body = commit_body([op(GOOD), {"action": "delete", "path": "app.bsky.feed.post/b", "cid": None}], [GOOD])
    body["since"] = "3n2yssnqxuk2b"
    first, second = map(json.loads, decode_events("#commit", body, 9, 77, None).values)
    assert first.pop("commit") == {
        "rev": "3n2yssnqxuk2c", "operation": "create", "collection": "app.bsky.feed.post", "rkey": "a",
        "record": {"$type": "app.bsky.feed.post", "text": "good"},
        "cid": cid_text(cid_of(GOOD)), "since": "3n2yssnqxuk2b",
    }  # fmt: skip
    assert first == {"did": DID, "time_us": 77, "kind": "commit", "seq": 9}
    assert "record" not in second["commit"] and second["commit"]["operation"] == "delete"


def test_bytes_and_links_are_told_apart_and_what_confuses_them_costs_nobody() -> None:
    image, other = cid_of(b"image"), cid_of(b"other")
    records = [
        {"plain": link(other)},
        {"one": link(image), "same": image, "bytes": b"\x00\xff", "look": {"$link": "b"}},
        {"pi": 3.5, "deep": [link(other)] * 2},
    ]
    blocks = [encode(record) for record in records]
    events = decode_events("#commit", commit_body([op(block) for block in blocks], blocks), 9, 1, None)
    assert [json.loads(value)["commit"]["record"] for value in events.values] == [json_form(r) for r in records]


@pytest.mark.parametrize(
    "change",
    [
        {"repo": "nobody"},
        {"repo": 5},
        {"rev": None},
        {"since": b"x"},
        {"ops": None},
        {"blocks": None},
        {"tooBig": True, "ops": []},
    ],
)
def test_a_commit_without_what_it_needs_is_refused_whole(change: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        decode_events("#commit", {**commit_body([op(GOOD)], [GOOD]), **change}, 9, 1, None)


@pytest.mark.parametrize("time", [None, "", "tomorrow", 5, "2026-13-01T00:00:00Z"])
def test_a_time_that_cannot_be_read_is_none(time: Any) -> None:
    assert frame_time({"time": time}) is None


def test_times_are_microseconds_to_the_last() -> None:
    assert frame_time({"time": "2026-11-23T18:59:24.627Z"}) == 1795460364627000
    assert frame_time({"time": "1970-01-01T00:00:00.000001Z"}) == 1


@pytest.mark.parametrize("seq", [None, "1", -1, 1 << 53, True, 1.5])
def test_a_frame_needs_a_seq(seq: Any) -> None:
    with pytest.raises(FrameError):
        frame_seq({"seq": seq})


def test_a_commit_that_would_swell_is_refused_whole() -> None:
    large = encode({"text": "x" * 300_000})
    with pytest.raises(FrameError, match="operations"):
        decode_events("#commit", commit_body([op(GOOD)] * 1001, [GOOD]), 9, 1, None)
    with pytest.raises(FrameError, match="bytes of events"):
        decode_events("#commit", commit_body([op(large)] * 200, [large]), 9, 1, None)


def test_many_bad_operations_keep_the_blocks_once() -> None:
    events = decode_events("#commit", commit_body([op(b"not there")] * 500, [b"x" * 100_000]), 9, 1, None)
    assert len(events.bad) == 500
    assert sum(len(bad.payload) for bad in events.bad) < 110_000


def test_a_did_that_is_known_is_not_checked_again() -> None:
    body = {**commit_body([op(GOOD)], [GOOD]), "repo": "checked before"}
    assert decode_events("#commit", body, 9, 1, None, known={"checked before"}).did == "checked before"
    for known in ((), {"another"}):
        with pytest.raises(FrameError, match="repo is not a valid DID"):
            decode_events("#commit", body, 9, 1, None, known=known)
    for repo in (["did:web:a"], None):
        with pytest.raises(FrameError, match="repo is not a valid DID"):
            decode_events("#commit", {**body, "repo": repo}, 9, 1, None, known={"did:web:a"})
