"""What becomes of messages before Postgres sees them: merged rows, dead letters, control messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from streams.errors import MismatchError
from streams.messages import DeadLetter, Gap, Run, Watermark, dead_payload, encode_control
from streams.postgres.batch import MAX_KEY_BYTES, Batch, BatchBuilder
from streams.postgres.columns import RecordColumns
from streams.protocol.collection_filter import compile_patterns
from streams.protocol.tid import MAX_CLOCK_ID, is_tid, tid_from_us
from tests.support import merge_model as model

NOW = model.BEGIN + 3600 * model.SECOND
DID = model.DIDS[0]


def build(*events: dict[str, Any], keep: Any = None) -> Batch:
    return BatchBuilder(keep).build([model.message(i, e) for i, e in enumerate(events)], NOW)


def reason(batch: Batch) -> str:
    assert len(batch.dead) == 1, batch.dead
    assert batch.grouped().columns == RecordColumns()
    return str(batch.dead[0]["reason"])


def apply_to(state: Any, batch: Batch) -> None:
    """Feed the batch's merged content to the naive model, in the order that apply_batch has."""

    def when(row: dict[str, Any]) -> model.When:
        return row["sequence"], row["time"], row["seq"]

    for row in batch.handles.values():
        state.handle(row["did"], when(row), row["handle"])
    for stage in batch.stages:
        for row in stage.events:
            if row["kind"] == "sync":
                state.sync(row["did"], when(row), row["rev"])
            else:
                assert row["rev"] == tid_from_us(row["until"], MAX_CLOCK_ID)
                state.deletion(row["did"], when(row), row["rev"], row.get("reach"))
        for row in stage.accounts.values():
            state.account(row["did"], when(row), row["active"], row["status"])
        for did, collection, rkey, rev, cid, body, seq, time, *_ in stage.rows.values():
            record = None if body is None else json.loads(body)
            commit = {"rev": rev, "collection": collection, "rkey": rkey, "cid": cid, "record": record}
            state.commit(did, commit, time, seq)


@given(model.logs())
@settings(max_examples=300, deadline=None)
def test_any_slicing_and_any_replay_give_the_rows_of_one_by_one(log: Any) -> None:
    events, replayed, cuts = log
    naive, sliced = model.Model(), model.Model()
    for event in events:
        naive.apply(event)
    builder = BatchBuilder()
    for part in model.slices(replayed, cuts):
        batch = builder.build(part, NOW)
        assert not batch.dead
        assert batch.received == len(part)
        apply_to(sliced, batch)
    assert sliced == naive


def test_rows_come_in_key_order_each_key_once() -> None:
    batch = build(*[model.commit(did, rkey, s, s) for s in (3, 1, 2) for did in model.DIDS for rkey in "ba"])
    columns = batch.grouped().columns
    keys = list(zip(*columns[:3], strict=True))
    assert keys == sorted(set(keys))
    assert set(columns[3]) == {model.rev(3)}
    assert batch.extras() is None


def test_on_a_tie_the_later_message_wins_if_it_differs() -> None:
    batch = build(model.commit(DID, "x", 1, 1), model.commit(DID, "x", 1, 2), model.commit(DID, "x", 1, 2))
    assert [column[0] for column in batch.grouped().columns[4:9:4]] == ["bafy2", 1]


def test_a_deletion_parts_the_slice() -> None:
    batch = build(model.commit(DID, "x", 1, 1), model.account(DID, 2, 7, "deleted"), model.commit(DID, "x", 3, 3))
    assert [len(stage.rows) for stage in batch.stages] == [1, 1]
    stages = json.loads(batch.extras() or "")["stages"]
    assert [stage["until"] for stage in stages] == [1, 2]
    assert stages[1]["events"][0]["kind"] == "deletion"


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        (r'{"t":"a\u0000b"}', r'{"t":"a\ufffdb"}'),
        (r'{"t":"\u0000\u0000"}', r'{"t":"\ufffd\ufffd"}'),
        (r'{"t":"\\u0000"}', r'{"t":"\\u0000"}'),
        (r'{"t":"\\\u0000"}', r'{"t":"\\\ufffd"}'),
        (r'{"t":"\n\\\\u0000"}', r'{"t":"\n\\\\u0000"}'),
    ],
)
def test_a_nul_becomes_the_replacement_character(raw: str, stored: str) -> None:
    value = json.dumps(model.commit(DID, "x", 1, 1)).replace(
        json.dumps(model.commit(DID, "x", 1, 1)["commit"]["record"]), raw
    )
    batch = BatchBuilder().build([model.Message(0, DID.encode(), value.encode())], NOW)
    assert batch.grouped().columns.bodies == (stored.encode(),)
    assert batch.replaced == (raw != stored)


def with_commit(**changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = model.commit(DID, "x", 1, 1)
    event["commit"] |= changes
    return event


LONG_DID = "did:web:" + "a" * 2000
FUTURE = tid_from_us(NOW + 3601 * model.SECOND)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (with_commit(rev="now"), "not a valid TID"),
        (with_commit(rev="z" * 13), "not a valid TID"),
        (with_commit(rev=FUTURE), "an hour in the future"),
        (with_commit(rkey="a/b"), "rkey"),
        (with_commit(rkey="a\0"), "rkey"),
        (with_commit(rkey=".."), "rkey"),
        (with_commit(collection="like"), "NSID"),
        (with_commit(collection="app.bsky\0.feed"), "NSID"),
        (with_commit(record=None), "no record"),
        (with_commit(record=[1]), "no record"),
        (with_commit(cid=None), "no CID"),
        (with_commit(cid="a\0"), "CID is not valid"),
        (with_commit(operation="upsert"), "unknown operation"),
        ({**with_commit(), "time_us": None}, "time_us"),
        ({**with_commit(), "time_us": 1 << 62}, "time_us"),
        ({**with_commit(), "seq": 1 << 63}, "seq"),
        ({**with_commit(), "seq": -1}, "seq"),
        ({**with_commit(), "kind": "labels"}, "kind 'labels'"),
        ({**with_commit(), "kind": "identity"}, "without its body"),
        ({"did": DID}, "kind"),
        (model.commit("DID:plc:x", "x", 1, 1), "no valid DID"),
        (model.commit("did:plc:\0", "x", 1, 1), "no valid DID"),
        (model.commit(LONG_DID, "r" * 512, 1, 1, "com.example." + ".".join(["a" * 60] * 4)), "the index holds"),
        (model.identity(DID, 1, 1, "a\0.test"), "handle"),
        (model.account(DID, 1, 1, "x" * 65), "status"),
        (model.sync(DID, 1, 1, 8000), "an hour in the future"),
    ],
)
def test_what_cannot_be_a_row_is_a_dead_letter(event: dict[str, Any], says: str) -> None:
    batch = build(event)
    assert says in reason(batch)
    assert batch.received == 1
    assert "\0" not in (batch.extras() or "")


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"\0", b"x", b"[]", b'"x"', b"\xff", b'{"kind":1}', b'{"kind":"commit","did":"\\ud800"}',
        b'{"kind":"commit","did":"\xff"}', b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_event_is_a_dead_letter(value: bytes | None) -> None:
    batch = BatchBuilder().build([model.Message(3, DID.encode(), value)], NOW)
    assert reason(batch).startswith("not an event of ours")
    assert batch.dead[0]["offset"] == 3


def test_a_record_that_is_not_utf8_is_a_dead_letter() -> None:
    value = json.dumps(with_commit(record={"t": "@"})).encode().replace(b"@", b"\xff")
    assert reason(BatchBuilder().build([model.Message(0, DID.encode(), value)], NOW)) == "the record is not UTF-8"


def test_a_key_that_is_not_the_did_is_a_foreign_producer() -> None:
    value = model.message(0, model.commit(DID, "x", 1, 1)).value
    assert "the key is not the DID" in reason(BatchBuilder().build([model.Message(0, b"k", value)], NOW))


def test_the_longest_key_and_a_rev_ahead_of_our_clock_alone_are_taken() -> None:
    collection = "com.example." + ".".join(["a" * 60] * 4)
    did = "did:web:" + "a" * (MAX_KEY_BYTES - 8 - len(collection) - 512)
    late = with_commit(rev=tid_from_us(NOW + 5000 * model.SECOND)) | {"time_us": NOW + 4000 * model.SECOND}
    batch = build(model.commit(did, "r" * 512, 1, 1, collection), late)
    assert not batch.dead
    assert len(batch.grouped().columns.dids) == 2


def test_unwanted_collections_are_skipped_and_patterns_match_as_globs() -> None:
    keep = compile_patterns(("app.bsky.feed.*", "com.example.thing"))
    assert keep is not None
    assert [keep(c) for c in ("app.bsky.feed.like", "com.example.thing", "com.example.things", "app-bsky.feed.x")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert compile_patterns(()) is None
    batch = build(model.commit(DID, "x", 1, 1), model.commit(DID, "x", 1, 1, "org.other.thing"), keep=keep)
    assert (batch.received, batch.filtered, batch.grouped().columns.collections) == (2, 1, ("app.bsky.feed.like",))


def control(**changes: Any) -> dict[str, Any]:
    return {"relay": "ws://r", "run": 5, **changes}


def test_control_messages() -> None:
    messages = [
        encode_control(Watermark(**control(), topic_id="t", seq=3, time=1)),
        encode_control(
            Run(**control(), topic_id="t", mode="start", days=1, asked_from=None, oldest_seq=1, oldest_time=2,
                from_seq=1, head_seq=9, head_time=3)
        ),
        encode_control(Gap(**control(), from_seq=1, to_seq=2, from_time=None, to_time=None, reason="reset")),
        encode_control(DeadLetter(**control(), seq=4, did=None, reason="no CBOR", payload=dead_payload(b"\0\xff"))),
        encode_control(Watermark(**control(), topic_id="t", seq=4, time=2)),
        encode_control(Watermark(**control(run=4), topic_id="t", seq=9, time=2)),
    ]  # fmt: skip
    batch = BatchBuilder().build([model.Message(i, None, m) for i, m in enumerate(messages)], NOW)
    assert batch.received == len(batch.dead) == 1
    assert batch.watermark is not None
    assert (batch.watermark.seq, batch.topic_id, len(batch.gaps), len(batch.runs)) == (4, "t", 1, 1)


@pytest.mark.parametrize(
    "value", [b'{"kind":"news","version":1,"relay":"","run":1}', b"x", b"", b'{"kind":"watermark"}', b'{"version":99}']
)
def test_a_control_message_that_we_do_not_know_is_a_dead_letter(value: bytes) -> None:
    assert "no control message" in reason(BatchBuilder().build([model.Message(0, None, value)], NOW))


def test_a_newer_format_and_a_second_topic_stop_us() -> None:
    for kind in ("watermark", "news"):
        value = json.dumps({"kind": kind, "version": 2, "relay": "", "run": 1, "topic_id": "t", "seq": 1, "time": 1})
        with pytest.raises(MismatchError, match="newer program"):
            BatchBuilder().build([model.Message(0, None, value.encode())], NOW)
    marks = [encode_control(Watermark(**control(), topic_id=t, seq=3, time=1)) for t in "ab"]
    with pytest.raises(MismatchError, match="re-created"):
        BatchBuilder().build([model.Message(i, None, m) for i, m in enumerate(marks)], NOW)


def test_the_topics_id_is_that_of_its_watermarks() -> None:
    """A run that died before its first watermark has left an id that nobody goes on from."""

    def built(*values: bytes) -> Batch:
        return BatchBuilder().build([model.Message(i, None, value) for i, value in enumerate(values)], NOW)

    runs = [
        encode_control(
            Run(**control(run=run), topic_id=t, mode="start", days=1, asked_from=None, oldest_seq=1, oldest_time=2,
                from_seq=1, head_seq=None, head_time=None)
        )
        for run, t in ((3, "died"), (4, "lives"))
    ]  # fmt: skip
    assert built(runs[0]).topic_id is None
    mark = encode_control(Watermark(**control(run=4), topic_id="lives", seq=3, time=1))
    batch = built(*runs, mark)
    assert (batch.topic_id, len(batch.runs)) == ("lives", 2)


def test_tids() -> None:
    assert tid_from_us(0) == "2" * 13
    assert tid_from_us((1 << 53) - 1, 1023) == "b" + "z" * 12
    assert tid_from_us(NOW, 1023) < tid_from_us(NOW + 1)
    assert not any(is_tid(text) for text in ("", "2" * 12, "2" * 14, "k" + "2" * 12, "1" * 13, "2" * 13 + "\n"))
