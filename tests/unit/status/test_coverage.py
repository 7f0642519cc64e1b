"""Coverage as stretches of time."""

from __future__ import annotations

import datetime as dt
import itertools

from hypothesis import given
from hypothesis import strategies as st

from streams.messages import GapKind
from streams.status.coverage import GapTimes, Times, stretches

DAY = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def at(hour: float) -> dt.datetime:
    return DAY + dt.timedelta(hours=hour)


def gap(begin: float | None, end: float | None, kind: GapKind = GapKind.OTHER) -> GapTimes:
    return GapTimes(None if begin is None else at(begin), None if end is None else at(end), "lost", at(30), kind)


def told(times: Times, *gaps: GapTimes) -> list[tuple[str, float, float]]:
    return [
        (s.kind, (s.begin - DAY).total_seconds() / 3600, (s.end - DAY).total_seconds() / 3600)
        for s in stretches(times, gaps)
    ]


ALL = Times(asked_from=at(0), oldest=at(2), covered_from=at(2), covered_to=at(8), newest=at(10), head=at(20))


def test_nothing_is_known() -> None:
    assert stretches(Times(), [gap(None, None)]) == ()


def test_one_after_the_other() -> None:
    assert told(ALL) == [("not kept", 0, 2), ("covered", 2, 8), ("pending", 8, 10), ("to come", 10, 20)]


def test_nothing_is_in_postgres_yet() -> None:
    times = Times(covered_from=at(2), newest=at(10), head=at(20))
    assert told(times) == [("pending", 2, 10), ("to come", 10, 20)]


def test_a_gap_is_cut_out_of_what_it_lies_in() -> None:
    assert told(ALL, gap(4, 9)) == [
        ("not kept", 0, 2), ("covered", 2, 4), ("gap", 4, 9), ("pending", 9, 10), ("to come", 10, 20),
    ]  # fmt: skip


def test_what_is_not_kept_is_no_gap_besides() -> None:
    assert told(ALL, gap(0, 2), gap(1, 3), gap(5, None), gap(None, 5), gap(7, 6)) == [
        ("not kept", 0, 2), ("gap", 2, 3), ("covered", 3, 8), ("pending", 8, 10), ("to come", 10, 20),
    ]  # fmt: skip


def test_what_is_not_known_is_not_said_of_the_relay() -> None:
    assert told(ALL, gap(0, 2, GapKind.NOT_KEPT))[0] == ("not kept", 0, 2)
    assert told(ALL, gap(0, 2, GapKind.NOT_KNOWN))[0] == ("gap", 0, 2)


def test_two_gaps_that_overlap() -> None:
    assert [s for s in told(ALL, gap(5, 7), gap(4, 6)) if s[0] == "gap"] == [("gap", 4, 6), ("gap", 6, 7)]


hours = st.one_of(st.none(), st.integers(0, 24).map(at))


@given(
    st.builds(Times, hours, hours, hours, hours, hours, hours),
    st.lists(st.builds(GapTimes, hours, hours, st.just("lost"), st.just(DAY)), max_size=6),
)
def test_stretches_never_overlap_and_gaps_are_never_hidden(times: Times, gaps: list[GapTimes]) -> None:
    found = stretches(times, gaps)
    assert all(s.begin < s.end for s in found)
    assert all(one.end <= other.begin for one, other in itertools.pairwise(found))
    missing = [s for s in found if s.kind in {"gap", "not kept"}]
    for one in gaps:
        if one.begin is not None and one.end is not None:
            hour = one.begin
            while hour < one.end:  # every hour of a gap is in one, or was never kept
                assert any(s.begin <= hour < s.end for s in missing)
                hour += dt.timedelta(hours=1)
