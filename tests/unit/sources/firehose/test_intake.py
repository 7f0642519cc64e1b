"""The intake: what a frame does besides becoming messages."""

from __future__ import annotations

import time

import pytest

from streams.protocol.events import MAX_REV, event_identity
from streams.protocol.tid import tid_from_us
from streams.sources.firehose.intake import AskAgain, SequenceReset
from streams.sources.firehose.sequence.continuity import Continuity
from streams.sources.firehose.sequence.resets import WITNESSES
from tests.fuzz.through import NOW, Ingest
from tests.unit.project.test_fuzz import cases

SECOND = 1_000_000


def account(seq: int, at: int, kind: str = "#account") -> bytes:
    time = f"2026-01-01T00:{at // 60:02d}:{at % 60:02d}.000Z"
    return cases.encoded(kind, {"seq": seq, "did": "did:plc:z72i7hdynmk6r22z27h6tvur", "active": True, "time": time})


@pytest.mark.parametrize("kind", ["#account", "#tombstone", "#handle"])
def test_a_reset_counts_whatever_kind_of_frame_shows_it(kind: str) -> None:
    ingest = Ingest(filtered=False)
    ingest.intake.reconnected()
    for seq in range(100, 200):
        ingest.intake.frame(account(seq, seq))
    with pytest.raises(SequenceReset):
        for seq in range(1, 65):
            ingest.intake.frame(account(seq, 1000 + seq, kind))
    assert ingest.counts.late == WITNESSES


def test_what_is_repeated_is_counted_whatever_kind_of_frame_it_is() -> None:
    ingest = Ingest(filtered=False)
    for kind in ("#account", "#tombstone"):
        for _ in range(3):
            ingest.intake.frame(account(7 + len(kind), 1, kind))
    assert ingest.counts.seen == 4
    assert ingest.counts.taken == 2


def test_an_info_brings_nothing_new() -> None:
    ingest = Ingest(filtered=False)
    ingest.intake.frame(cases.encoded("#info", {"name": "OutdatedCursor"}))
    assert ingest.counts.taken == 0


@pytest.mark.parametrize("did", ["did:plc:" + "a" * 5000, "did:plc:a"])
@pytest.mark.parametrize("kind", ["#commit", "#sync"])
def test_what_names_an_event_is_bounded(did: str, kind: str) -> None:
    """It stands in every watermark."""
    rev = "x" * 1_000_000
    name = event_identity(kind, {"repo": did, "did": did, "rev": rev}, b"data")
    assert len(" ".join(name)) <= 2 * MAX_REV
    ingest = Ingest(filtered=False)
    ingest.intake.frame(cases.encoded(kind, {"seq": 9, "repo": did, "did": did, "rev": rev}))
    ingest.intake.accept_pending()
    assert len(ingest.intake.continuity.event or "") <= 2 * MAX_REV


def test_the_sequence_that_is_left_names_what_comes_then() -> None:
    ingest = Ingest(filtered=False)
    ingest.intake._on_turn = lambda: NOW + 1  # type: ignore[method-assign]
    ingest.intake.frame(account(8, 1))
    ingest.intake.continuity.go_on_at(0)
    ingest.intake.frame(account(1, 2))
    assert b'"sequence":%d' % NOW in ingest.tape.messages[0][1]
    assert b'"sequence":%d' % (NOW + 1) in ingest.tape.messages[1][1]


def test_no_frame_is_placed_in_the_future() -> None:
    """Whole hours of a relay may be a year ahead: states that are placed there would win until then."""
    ingest = Ingest(filtered=False)
    now = time.time_ns() // 1000
    ingest.intake.continuity = Continuity(0, known=False, time=now + 86_400 * SECOND)
    place = ingest.intake._place()
    assert now <= place["time"] <= time.time_ns() // 1000
    ingest.intake.continuity = Continuity(0, known=False, time=now - 86_400 * SECOND)
    assert ingest.intake._place()["time"] == now - 86_400 * SECOND


def test_revs_are_tids() -> None:
    assert len(tid_from_us(NOW)) < MAX_REV


@pytest.mark.parametrize("ago", [86_400, 0, -86_400])
def test_a_frame_without_a_time_is_of_its_rev_but_not_of_the_future(ago: int) -> None:
    """After days of silence the last time that was read would make its rev one of the future."""
    ingest = Ingest(filtered=False)
    before = time.time_ns() // 1000
    made = before - ago * SECOND
    at = ingest.intake._time({"rev": tid_from_us(made)})
    assert at == made if ago > 0 else before <= at <= time.time_ns() // 1000
    assert ingest.intake._time({"rev": "none"}) == 0


def test_an_old_sequence_that_falls_silent_is_left() -> None:
    """A relay that keeps its old sequence was cut in the middle of it: by its seqs it sends nothing of the new one."""
    ingest = Ingest(filtered=False)
    intake = ingest.intake
    old, new = [account(seq, seq) for seq in range(100, 200)], [account(seq, 1000 + seq) for seq in range(1, 65)]
    intake.reconnected()
    with pytest.raises(SequenceReset):
        for data in (*old, *new):
            intake.frame(data)
    memory, _ = intake.continuity.begin_anew()
    intake.continuity = Continuity(0, known=False, memory=memory)
    intake.reconnected()
    for data in old[:50]:
        intake.frame(data)
    intake.accept_pending()
    assert intake.reconnected() > 0
    for data in old[48:]:
        intake.frame(data)
    with pytest.raises(AskAgain):
        intake.accept_pending()
    assert intake.reconnected() == 0
    for data in (*old, *new):
        intake.frame(data)
    intake.accept_pending()
    assert intake.continuity.position == 64
