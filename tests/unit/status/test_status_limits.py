"""Troubles, coverage and lag at their exact limits."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from streams.messages import GapKind
from streams.resources.others import Other
from streams.settings import Settings
from streams.status.coverage import GapTimes, Times, stretches
from streams.status.estimate import LOOK_EVERY, Remaining, estimate
from streams.status.lag import PartitionLag, SinkLag
from streams.status.model import LetterSummary, Partition, Rates
from streams.status.process import IngestState
from streams.status.troubles import FRESH, SMALL_LAG, process_name, reaches_head, replaced
from tests.unit.status.test_troubles import NOW, WELL, ago, context, ingest, told, worker

DOWN = worker(alive=False, seen_at=ago(180))


def state(**changes: object) -> IngestState:
    found = ingest(**changes).ingest
    assert found is not None
    return found


def test_the_numbers_of_the_documents() -> None:
    assert (FRESH, SMALL_LAG, LOOK_EVERY) == (86_400.0, 10_000, 5.0)


@pytest.mark.parametrize(
    ("members", "processes", "words"),
    [
        (None, (worker(), ingest()), ""),
        (("one",), (worker(), ingest()), ""),
        (None, (DOWN, ingest()), "No worker runs (the last one was seen 3m00s ago on one)"),
        ((), (worker(), worker(host="two"), ingest()), "2 workers reported (one, two), and Kafka's group has no"),
        (
            ("one",),
            (worker(), worker(host="two"), ingest()),
            "2 workers reported (one, two), and Kafka's group has 1 (one)",
        ),
        (("a", "a", "b"), (DOWN, ingest()), "Kafka still counts 3 (a, b)"),
    ],
)
def test_workers_and_the_members_of_their_group(
    members: tuple[str, ...] | None, processes: tuple[object, ...], words: str
) -> None:
    said = told(context(members=members), processes=processes)
    assert (words in said) if words else said == ""
    assert said.count("\n") <= 1


@pytest.mark.parametrize(
    ("newest", "rates", "run", "says"),
    [
        (ago(60), Rates(None, None, None), 1, False),  # within a minute of the head
        (ago(61), Rates(None, None, None), 1, True),
        (ago(61), Rates(None, 0.0, None), 1, True),
        (ago(61), Rates(None, 1.0, None), 1, False),  # somebody writes
        (ago(0), Rates(None, 0.0, None), None, True),
    ],
)
def test_an_ingest_that_never_reported(newest: dt.datetime, rates: Rates, run: int | None, says: bool) -> None:
    said = told(context(newest=newest), processes=(worker(),), rates=rates, run=run)
    assert ("No ingest runs (none ever reported here)" in said) is says


def test_an_ingest_that_ended() -> None:
    ended = ingest(alive=False, ended_at=ago(1), seen_at=ago(2))
    assert told(context(newest=ago(60)), processes=(worker(), ended)) == ""
    assert "head was not reached" in told(context(newest=ago(61)), processes=(worker(), ended))
    assert told(context(newest=None), processes=(worker(), ended), head=None) == ""
    killed = ingest(alive=False, seen_at=ago(180))
    assert "did not end in order" in told(context(newest=ago(0)), processes=(worker(), killed))
    assert told(context(newest=ago(0)), processes=(worker(), killed, ingest(pid=3))) == ""


def test_when_the_last_was_seen() -> None:
    gone = (worker(alive=False, seen_at=ago(300)), worker(alive=False, seen_at=ago(60), ended_at=ago(60), host="two"))
    assert "(the last one ended 1m00s ago on two)" in told(context(members=()), processes=(*gone, ingest()))
    ahead = worker(alive=False, seen_at=ago(-30))
    assert "(the last one was seen 0s ago on one)" in told(context(members=()), processes=(ahead, ingest()))


def partition(begin: int, next_offset: int, end: int) -> Partition:
    return msgspec.structs.replace(WELL.partitions[0], begin=begin, next_offset=next_offset, end=end)


def test_positions_outside_the_topic() -> None:
    assert told(partitions=(partition(5, 5, 5),)) == ""
    assert "is applied up to 6, and the topic ends at 5" in told(partitions=(partition(0, 6, 5),))
    assert "Partition 0: 1 messages left the topic" in told(partitions=(partition(6, 5, 9),))


@pytest.mark.parametrize(
    ("grows", "lag", "says"),
    [(0.0, 99_999, False), (0.5, SMALL_LAG, False), (0.5, SMALL_LAG + 1, True), (None, 99_999, False)],
)
def test_a_lag_that_grows(grows: float | None, lag: int, says: bool) -> None:
    assert ("The lag grows" in told(context(lag_grows=grows), lag=lag)) is says


@pytest.mark.parametrize(
    ("window", "left", "says"),
    [(None, None, False), (9.0, 9.0, False), (8.9, 9.0, True), (9.0, None, True), (None, 9.0, False)],
)
def test_a_window_that_runs_out(window: float | None, left: float | None, says: bool) -> None:
    processes = (worker(), ingest(window_left=window, left=left))
    assert ("window will run out" in told(processes=processes)) is says
    gone = (worker(), ingest(window_left=window, left=left, alive=False, ended_at=ago(1)))
    assert "window will run out" not in told(processes=gone)


def gap(written: float, kind: GapKind = GapKind.OTHER) -> GapTimes:
    return GapTimes(ago(50), ago(40), "lost", ago(written), kind)


def test_a_gap_is_a_trouble_for_a_day() -> None:
    assert told(context(gaps=(gap(FRESH),)), gaps=1) == ""
    fresh = told(context(gaps=(gap(FRESH - 1),)), gaps=1)
    assert fresh == "A gap of 2026-11-20 11:59:10Z to 2026-11-20 11:59:20Z: lost: faust -A streams.agents gaps list."
    assert "lost (and 1,999 more): faust" in told(context(gaps=(gap(1),)), gaps=2000)
    assert "lost (and 1 more): faust" in told(context(gaps=(gap(1, GapKind.NOT_KEPT), gap(2))), gaps=2)
    kept = told(context(gaps=(gap(1, GapKind.NOT_KEPT),)), gaps=1)
    assert kept.startswith("The relay did not keep what was asked for: 2026-11-20 11:59:10Z to")
    unknown = msgspec.structs.replace(gap(1), begin=None)
    assert "A gap of an unknown time to" in told(context(gaps=(unknown,)), gaps=1)


def test_a_dead_letter_is_a_trouble_for_a_day() -> None:
    fields = dict.fromkeys(LetterSummary.__struct_fields__)

    def letter(seconds: float) -> LetterSummary:
        return LetterSummary(**{**fields, "at": ago(seconds), "reason": "why"})  # type: ignore[arg-type]

    assert told(last_letters=(letter(FRESH),), dead_letters=1) == ""
    assert told(last_letters=(letter(FRESH - 1),), dead_letters=1).startswith("A dead letter: why: faust")
    assert "why (and 1 more): faust" in told(last_letters=(letter(1),), dead_letters=2)


@pytest.mark.parametrize(
    ("time", "speed", "reaches"),
    [(ago(60), 1.0, True), (ago(61), 1.0, False), (ago(61), 0.0, True), (ago(61), None, True), (None, 1.0, True)],
)
def test_an_ingest_that_follows_has_reached_the_head_where_it_is_near_the_clock(
    time: dt.datetime | None, speed: float | None, reaches: bool
) -> None:
    status = msgspec.structs.replace(WELL, processes=(worker(), ingest(time=time, speed=speed)))
    assert reaches_head(NOW, status) is reaches
    gone = msgspec.structs.replace(WELL, processes=(worker(), ingest(time=time, speed=speed, alive=False)))
    assert reaches_head(NOW, gone)


def test_the_head_is_reached_within_a_minute() -> None:
    status = msgspec.structs.replace(WELL, processes=())
    assert [reaches_head(ago(seconds), status) for seconds in (60, 61)] == [True, False]
    assert not reaches_head(None, status)
    assert not reaches_head(NOW, msgspec.structs.replace(status, head=None))


def test_who_is_lost_is_made_up_for_one_for_one() -> None:
    def lost(seen: float, **more: object) -> object:
        return worker(alive=False, seen_at=ago(seen), **more)

    first, second = lost(100), lost(50, host="two")
    late = worker(started_at=ago(40), host="three")
    assert replaced((first, late)) == {first}  # type: ignore[arg-type]
    assert replaced((first, second, late)) == {second}  # type: ignore[arg-type]
    assert replaced((first, worker(started_at=ago(100)))) == frozenset()  # type: ignore[arg-type]
    assert replaced((first, worker(started_at=ago(99)))) == {first}  # type: ignore[arg-type]
    assert replaced((lost(100, ended_at=ago(100)), late)) == frozenset()  # type: ignore[arg-type]
    assert replaced((first, ingest(started_at=ago(1)))) == frozenset()  # type: ignore[arg-type]
    older = worker(started_at=ago(400), host="four")
    assert replaced((first, older, late)) == {first}, "the latest start counts"  # type: ignore[arg-type]
    assert process_name(late) == "worker on three (pid 1)"


# -- coverage


def hour(number: float) -> dt.datetime:
    return dt.datetime(2026, 11, 1, tzinfo=dt.UTC) + dt.timedelta(hours=number)


def kinds(times: Times, *gaps: GapTimes) -> list[tuple[str, float, float]]:
    return [
        (s.kind, (s.begin - hour(0)).total_seconds() / 3600, (s.end - hour(0)).total_seconds() / 3600)
        for s in stretches(times, gaps)
    ]


def test_stretches_of_no_length_are_none() -> None:
    times = Times(
        asked_from=hour(0), oldest=hour(0), covered_from=hour(0), covered_to=hour(2), newest=hour(2), head=hour(1)
    )
    assert kinds(times) == [("covered", 0, 2)]
    assert kinds(times, GapTimes(hour(1), hour(1), "lost", hour(9))) == [("covered", 0, 2)]
    assert kinds(Times(covered_from=hour(1), covered_to=None, newest=hour(1))) == []
    assert kinds(Times(covered_to=hour(1))) == []


def test_what_is_covered_begins_with_the_relays_oldest() -> None:
    assert kinds(Times(asked_from=hour(0), oldest=hour(2), covered_from=hour(1), covered_to=hour(3))) == [
        ("not kept", 0, 2), ("covered", 2, 3),
    ]  # fmt: skip
    assert kinds(Times(asked_from=hour(0), oldest=hour(2), covered_to=hour(3))) == [("not kept", 0, 2)]
    assert kinds(Times(oldest=hour(2), covered_from=hour(1), covered_to=hour(3))) == [("covered", 1, 3)]


# -- lag, others, estimate


def test_the_lag_of_partitions_adds_up() -> None:
    sink = SinkLag((PartitionLag(0, 0, 5, 9, None, None), PartitionLag(1, 7, 5, 9, None, None)), 0, 0, 0, 0)
    assert ([p.pending for p in sink.partitions], sink.pending, sink.messages, sink.odd_claims) == ([4, 2], 6, 10, 0)


@pytest.mark.parametrize(
    ("left", "words"),
    [(Remaining(1), "about 1 events"), (Remaining(0, 1), "about 1 events"), (Remaining(0, None), None)],
)
def test_one_event_is_left(left: Remaining, words: str | None) -> None:
    said = estimate(left, Settings(_env_file=None))  # type: ignore[call-arg]
    assert said is None if words is None else said is not None and words in said


def test_another_is_compared_by_what_it_says() -> None:
    assert Other("a", 0.5) == Other("a", 0.5)
