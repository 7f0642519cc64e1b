"""The batch's limits, each at its last value that is taken and its first that is not, and the way that was gone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streams.errors import MismatchError
from streams.messages import DeadLetter, Gap, LetterKind, Run, Watermark, encode_control
from streams.postgres import batch as module
from streams.postgres.batch import (
    MAX_AHEAD_US,
    MAX_HANDLE,
    MAX_KEY_BYTES,
    MAX_ODD_US,
    MAX_OVERTAKEN_US,
    MAX_SEQ,
    MAX_STATUS,
    Batch,
    BatchBuilder,
)
from streams.protocol.tid import MAX_CLOCK_ID, MAX_TIME_US, tid_from_us
from tests.support import merge_model as model

NOW = model.BEGIN + 3600 * model.SECOND
DID = model.DIDS[0]


def build(*events: dict[str, Any]) -> Batch:
    return BatchBuilder().build([model.message(i, e) for i, e in enumerate(events)], NOW)


def controlled(*controls: Any) -> Batch:
    return BatchBuilder().build([model.Message(i, None, encode_control(c)) for i, c in enumerate(controls)], NOW)


def commit(**changes: Any) -> dict[str, Any]:
    """A commit; ``rev``, ``rkey`` and ``collection`` go into its body."""
    event: dict[str, Any] = model.commit(DID, "x", 1, 1)
    for name, value in changes.items():
        (event["commit"] if name in event["commit"] else event)[name] = value
    return event


def test_the_numbers_are_those_of_postgres_and_the_protocol() -> None:
    assert (MAX_SEQ, MAX_HANDLE, MAX_STATUS, MAX_KEY_BYTES) == (2**63 - 1, 253, 64, 2660)


LONGEST = model.commit(
    "did:web:" + "a" * (MAX_KEY_BYTES - 8 - 255 - 512), "r" * 512, 1, 1, "com.example." + ".".join(["a" * 60] * 4)
)


@pytest.mark.parametrize(
    "event",
    [
        commit(time_us=0, rev=tid_from_us(0)),
        commit(time_us=MAX_TIME_US),
        commit(seq=0),
        commit(seq=MAX_SEQ),
        commit(seq=None),
        commit(rev=tid_from_us(NOW + MAX_AHEAD_US, MAX_CLOCK_ID)),
        commit(rkey="r" * 512),
        LONGEST,
    ],
)
def test_what_is_usual_does_not_leave_the_hot_path(event: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_refusal", lambda *_: pytest.fail("it left the hot path"))
    batch = build(event)
    assert (len(batch.grouped().columns[0]), batch.dead) == (1, [])


@pytest.mark.parametrize(
    "event",
    [
        commit(time_us=-1),
        commit(time_us=MAX_TIME_US + 1),
        commit(seq=-1),
        commit(seq=MAX_SEQ + 1),
        commit(rev=tid_from_us(NOW + MAX_AHEAD_US + 1)),
        commit(rkey="r" * 513),
        {**LONGEST, "commit": LONGEST["commit"] | {"collection": LONGEST["commit"]["collection"] + "a"}},
    ],
)
def test_one_more_is_judged_and_refused(event: dict[str, Any]) -> None:
    (dead,) = build(event).dead
    assert dead["offset"] == 0


def test_the_longest_key_says_its_size() -> None:
    event = {**LONGEST, "commit": LONGEST["commit"] | {"collection": LONGEST["commit"]["collection"] + "a"}}
    assert build(event).dead[0]["reason"] == f"the key has {MAX_KEY_BYTES + 1} bytes, the index holds {MAX_KEY_BYTES}"


def test_a_rev_is_judged_by_the_events_time_where_our_clock_is_behind() -> None:
    ahead = NOW + MAX_AHEAD_US
    assert build(commit(time_us=ahead, rev=tid_from_us(ahead + MAX_AHEAD_US, MAX_CLOCK_ID))).dead == []
    (dead,) = build(commit(time_us=ahead, rev=tid_from_us(ahead + MAX_AHEAD_US + 1))).dead
    assert "more than an hour in the future" in dead["reason"]
    first = model.message(0, commit(time_us=0, rev=tid_from_us(MAX_AHEAD_US + 1)))
    assert len(BatchBuilder().build([first], 0).dead) == 1, "the first microsecond is a time"


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"seq": 0, "time_us": 0}, (0, 0)),
        ({"seq": MAX_SEQ, "time_us": MAX_TIME_US}, (MAX_SEQ, MAX_TIME_US)),
        ({"seq": MAX_SEQ + 1, "time_us": MAX_TIME_US + 1}, (None, None)),
        ({"seq": -1, "time_us": -1}, (None, None)),
        ({"seq": None, "time_us": None}, (None, None)),
    ],
)
def test_a_dead_letter_keeps_a_seq_and_a_time_that_can_be_stored(changes: dict[str, Any], kept: Any) -> None:
    (dead,) = build(commit(rkey="a/b", **changes)).dead
    assert (dead["seq"], dead["time"]) == kept
    assert (dead["did"], dead["collection"], dead["rkey"]) == (DID, "app.bsky.feed.like", "a/b")


def identity(sequence: int = 7, time: int = NOW, claimed: int = NOW, seq: int | None = 5) -> dict[str, Any]:
    event = model.identity(DID, 1, 5, "a.test")
    return event | {"time_us": claimed, "seq": seq, "place": {"sequence": sequence, "time": time}}


@pytest.mark.parametrize(
    ("sequence", "time", "taken"),
    [
        (0, 0, True),
        (MAX_TIME_US, MAX_TIME_US, True),
        (-1, NOW, False),
        (7, -1, False),
        (MAX_TIME_US + 1, NOW, False),
        (7, MAX_TIME_US + 1, False),
    ],
)
def test_a_place_is_in_its_range(sequence: int, time: int, taken: bool) -> None:
    batch = build(identity(sequence, time))
    assert [dead["reason"] for dead in batch.dead] == (
        [] if taken else ["not an event of ours: its place is out of range"]
    )
    assert [(row["sequence"], row["time"]) for row in batch.handles.values()] == ([(sequence, time)] if taken else [])


@pytest.mark.parametrize(
    ("apart", "odd"), [(0, 0), (MAX_ODD_US, 0), (-MAX_ODD_US, 0), (MAX_ODD_US + 1, 1), (-MAX_ODD_US - 1, 1)]
)
def test_a_claim_more_than_an_hour_off_is_counted(apart: int, odd: int) -> None:
    batch = build(identity(claimed=NOW + apart))
    assert batch.odd_claims == odd
    assert json.loads(batch.extras() or "").get("odd_claims", 0) == odd


def test_odd_claims_add_up() -> None:
    assert build(identity(claimed=0), identity(claimed=1), identity(claimed=NOW)).odd_claims == 2


def test_without_a_seq_a_place_says_nothing() -> None:
    (row,) = build(identity(seq=None, claimed=NOW - 1)).handles.values()
    assert (row["sequence"], row["time"], row["seq"]) == (None, NOW - 1, 0)


def test_of_one_sequence_the_later_seq_wins_and_the_newest_time_is_held() -> None:
    first, second = identity(time=NOW, seq=5), identity(time=NOW - 9, seq=6)
    second["identity"] = {"did": DID, "handle": "b.test"}
    for events in ((first, second), (second, first)):
        (row,) = build(*events).handles.values()
        assert (row["handle"], row["seq"], row["time"]) == ("b.test", 6, NOW)
    again = {**first, "identity": {"did": DID, "handle": "c.test"}}
    (row,) = build(first, again).handles.values()
    assert row["handle"] == "a.test", "the same seq again is not later"


def test_without_a_sequence_time_and_then_seq_decide() -> None:
    def said(second: int, seq: int, handle: str) -> dict[str, Any]:
        return model.identity(DID, second, seq, handle)

    def handle(*events: dict[str, Any]) -> str:
        (row,) = build(*events).handles.values()
        return str(row["handle"])

    assert handle(said(1, 9, "a.test"), said(2, 1, "b.test")) == "b.test"
    assert handle(said(1, 1, "a.test"), said(1, 2, "b.test")) == "b.test"
    assert handle(said(1, 1, "a.test"), said(1, 1, "b.test")) == "a.test"


@pytest.mark.parametrize(("length", "dead"), [(MAX_HANDLE, 0), (MAX_HANDLE + 1, 1)])
def test_the_longest_handle(length: int, dead: int) -> None:
    assert len(build(model.identity(DID, 1, 1, "h" * length)).dead) == dead


@pytest.mark.parametrize(("length", "dead"), [(MAX_STATUS, 0), (MAX_STATUS + 1, 1)])
def test_the_longest_status(length: int, dead: int) -> None:
    assert len(build(model.account(DID, 1, 1, "s" * length)).dead) == dead


def test_a_nul_in_a_status_is_refused_and_an_active_account_is_not_deleted() -> None:
    assert build(model.account(DID, 1, 1, "a\0")).dead[0]["reason"] == "the status is not valid"
    event = model.account(DID, 1, 1, "deleted")
    event["account"]["active"] = True
    batch = build(event)
    assert len(batch.stages) == 1
    assert [row["status"] for row in batch.stages[0].accounts.values()] == ["deleted"]


@pytest.mark.parametrize(
    ("claimed", "until", "reach"),
    [
        (NOW + 999 * model.SECOND, NOW, NOW + MAX_OVERTAKEN_US),
        (NOW + 5, NOW, NOW + 5),
        (NOW - 5, NOW - 5, NOW - 5),
    ],
)
def test_how_far_a_deletion_reaches(claimed: int, until: int, reach: int) -> None:
    event = model.account(DID, 1, 5, "deleted") | {"time_us": claimed, "place": {"sequence": 7, "time": NOW}}
    (deletion,) = build(event).stages[1].events
    assert (deletion["until"], deletion["rev"]) == (until, tid_from_us(until, MAX_CLOCK_ID))
    assert deletion["reach"] == tid_from_us(reach, MAX_CLOCK_ID)
    del event["place"]
    (deletion,) = build(event).stages[1].events
    assert "reach" not in deletion


def test_each_account_has_its_own_stages() -> None:
    other = model.DIDS[1]
    batch = build(
        model.account(DID, 1, 1, "deleted"),
        model.account(DID, 2, 2, "deleted"),
        model.account(other, 3, 3, "deleted"),
        model.account(DID, 4, 4, None),
        model.commit(DID, "x", 5, 5),
        model.commit(other, "x", 5, 5),
        model.commit(model.DIDS[2], "x", 5, 5),
    )
    assert [[row[0] for row in stage.rows.values()] for stage in batch.stages] == [[model.DIDS[2]], [other], [DID]]
    assert [sorted(event["did"] for event in stage.events) for stage in batch.stages] == [[], [DID, other], [DID]]
    assert [len(stage.accounts) for stage in batch.stages] == [0, 0, 1]
    assert [stage["until"] for stage in json.loads(batch.extras() or "")["stages"]] == [1, 2, 3]


def test_a_sync_may_name_a_rev_up_to_an_hour_ahead_of_the_later_clock() -> None:
    def dead(rev: str, claimed: int) -> int:
        event = model.sync(DID, 1, 1, 1) | {"time_us": claimed}
        event["sync"]["rev"] = rev
        return len(build(event).dead)

    assert dead(tid_from_us(NOW + MAX_AHEAD_US, MAX_CLOCK_ID), 5) == 0
    assert dead(tid_from_us(NOW + MAX_AHEAD_US + 1), 5) == 1
    assert dead(tid_from_us(NOW + 9 + MAX_AHEAD_US, MAX_CLOCK_ID), NOW + 9) == 0
    assert dead("no TID", NOW) == 1


def watermark(**changes: Any) -> Watermark:
    return Watermark(**{"relay": "a.example", "run": 5, "topic_id": "t", "seq": 70, "time": NOW} | changes)


@pytest.mark.parametrize(("number", "taken"), [(-1, True), (-2, False), (MAX_TIME_US, True), (MAX_TIME_US + 1, False)])
def test_a_control_messages_numbers_are_in_their_range(number: int, taken: bool) -> None:
    batch = controlled(watermark(seq=number))
    assert (batch.watermark is not None, batch.received, len(batch.dead)) == (taken, not taken, not taken)


def test_of_watermarks_the_newest_run_and_then_the_highest_seq_is_kept() -> None:
    assert controlled(watermark(run=6, seq=1), watermark(run=5, seq=99)).watermark == watermark(run=6, seq=1)
    assert controlled(watermark(seq=2), watermark(seq=1)).watermark == watermark(seq=2)
    later = watermark(time=NOW + 1)
    assert controlled(watermark(), later).watermark == later, "of two alike the later says more"


def test_control_messages_are_no_events_but_the_ingests_dead_letters_are() -> None:
    gap = Gap(relay="a", run=1, from_seq=1, to_seq=2, from_time=None, to_time=None, reason="why")
    run = Run(
        relay="a", run=1, topic_id="t", mode="start", days=1, asked_from=None, oldest_seq=None, oldest_time=None,
        from_seq=1, head_seq=None, head_time=None,
    )  # fmt: skip
    dead = DeadLetter(relay="a", run=1, seq=3, did=DID, reason="x" * 600, payload="AAAA")
    batch = controlled(gap, run, dead, dead)
    assert (len(batch.gaps), len(batch.runs), len(batch.dead), batch.received) == (1, 1, 2, 2)
    assert batch.gaps[0]["offset"] == 0
    assert len(batch.dead[0]["reason"]) == 500


def refused(version: int) -> str:
    with pytest.raises(MismatchError) as caught:
        value = json.dumps({"kind": "x", "run": 1, "version": version}).encode()
        BatchBuilder().build([model.Message(0, None, value)], 0)
    return str(caught.value)


def test_a_strangers_version_is_printed_while_it_is_short() -> None:
    assert f"version {(1 << 31) - 1}, this" in refused((1 << 31) - 1)
    assert "version beyond any, this" in refused(1 << 31)
    assert "version 2, this" in refused(2)


def test_the_fates_of_collections_are_remembered_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    asked: list[str] = []
    builder = BatchBuilder(lambda collection: asked.append(collection) or True)  # type: ignore[func-returns-value]
    names = ["com.example.a", "com.example.b", "com.example.a", "com.example.c", "com.example.a"]
    builder.build([model.message(i, model.commit(DID, str(i), 1, 1, name)) for i, name in enumerate(names)], NOW)
    assert [name[-1] for name in asked] == ["a", "b", "c", "a"]


def test_what_cannot_be_decoded_is_still_known_by_its_numbers() -> None:
    value = b'{"seq": 12, "time_us":34, "x": [}'
    (dead,) = BatchBuilder().build([model.Message(0, DID.encode(), value)], NOW).dead
    assert (dead["seq"], dead["time"], dead["did"]) == (12, 34, DID)


def test_the_longest_key_is_taken_on_the_long_way_too() -> None:
    ahead = NOW + 2 * MAX_AHEAD_US
    event = {**LONGEST, "time_us": ahead, "commit": LONGEST["commit"] | {"rev": tid_from_us(ahead)}}
    assert build(event).dead == []
    edge = {"time_us": MAX_TIME_US, "seq": MAX_SEQ, "commit": LONGEST["commit"] | {"rev": tid_from_us(ahead)}}
    assert build({**LONGEST, **edge}).dead == []
    assert len(build({**LONGEST, **edge, "seq": 0, "time_us": 0}).dead) == 1, "an hour ahead of its own time"


@pytest.mark.parametrize(("key", "kind"), [(DID, "message"), ("did:plc:other", "foreign")])
def test_only_a_message_under_its_dids_key_can_be_tried_again(key: str, kind: str) -> None:
    value = json.dumps(commit(rev="not a rev")).encode()
    (dead,) = BatchBuilder().build([model.Message(0, key.encode(), value)], NOW).dead
    assert dead["kind"] == kind


@pytest.mark.parametrize(("text", "kept"), [("QUJD", b"ABC"), ("QUJD!", b"QUJD!")])
def test_a_payload_that_is_not_base64_is_kept_as_it_is(text: str, kept: bytes) -> None:
    assert module._unpacked(text) == kept


def test_an_unwanted_or_unusual_record_does_not_leave_the_hot_path_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long way gives the same: that it was not gone is what keeps such a record cheap."""
    monkeypatch.setattr(module, "_refusal", lambda *_: pytest.fail("it left the hot path"))
    monkeypatch.setattr(module, "_without_nul", lambda *_: pytest.fail("there is no NUL in it"))
    unwanted = BatchBuilder(lambda _: False).build([model.message(0, commit())], NOW)
    assert (unwanted.filtered, unwanted.grouped().ends) == (1, (0, 0))
    event = commit()
    event["commit"]["record"] = {"text": 'a\nb "quoted"'}
    assert len(build(event).grouped().columns.dids) == 1


def test_only_a_stage_with_states_of_accounts_names_them() -> None:
    batch = build(model.account(DID, 1, 1, "takendown"), model.account(model.DIDS[1], 2, 2, "deleted"))
    stages = json.loads(batch.extras() or "")["stages"]
    assert [sorted(stage) for stage in stages] == [["accounts", "events", "until"], ["events", "until"]]
    assert [account["did"] for account in stages[0]["accounts"]] == [DID]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, None),
        (LetterKind.FRAME, LetterKind.FRAME),
        (LetterKind.OPERATION, LetterKind.OPERATION),
        (LetterKind.MESSAGE, LetterKind.FOREIGN),
    ],
)
def test_a_letter_of_the_ingest_holds_what_it_says_but_no_message(
    said: LetterKind | None, kept: LetterKind | None
) -> None:
    letter = DeadLetter(relay="a", run=1, seq=3, did=DID, reason="x", payload="AAAA", letter_kind=said)
    assert controlled(letter).dead[0]["kind"] == kept


@pytest.mark.parametrize(
    "changes", [{"identity": {"did": model.DIDS[1], "handle": "a.test"}}, {"kind": "account"}, {"identity": None}]
)
def test_an_event_about_an_account_needs_the_body_of_its_kind_and_its_did(changes: dict[str, Any]) -> None:
    assert build(identity()).dead == []
    (dead,) = build({**identity(), **changes}).dead
    assert dead["reason"].endswith(" without its body")
