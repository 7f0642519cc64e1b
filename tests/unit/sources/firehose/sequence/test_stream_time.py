"""Up to when a stream was read: a few clocks that are wrong do not say it, and a quiet relay has no witnesses."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.sources.firehose.sequence.stream_time import DOUBTERS, FIRST, JUMP, OVERTAKING, WITNESSES, StreamTime

SECOND = 1_000_000
DAY = 86_400 * SECOND
BEGIN = 1_700_000_000 * SECOND


def test_a_day_with_wrong_clocks_is_told_by_the_others() -> None:
    """One frame in a hundred is an hour to a year ahead, one in twenty as much behind."""
    rnd = random.Random(5)
    stream, worst = StreamTime(None), 0
    for n in range(100_000):
        now = BEGIN + n * SECOND
        kind = rnd.random()
        off = rnd.randrange(3600, 365 * 86_400) * SECOND
        stream.see(now + off if kind < 0.01 else now - off if kind < 0.06 else now)
        if n > 100:
            assert stream.time is not None
            worst = max(worst, abs(stream.time - now))
    assert worst < 10 * SECOND
    assert not stream.accept_pending(BEGIN + 10**6 * SECOND) or stream.time is not None


@given(st.lists(st.integers(0, 30 * DAY), min_size=1, max_size=50))
def test_a_quiet_relay_is_believed_to_the_last_frame(steps: list[int]) -> None:
    stream, time = StreamTime(None), BEGIN
    for step in steps:
        time += step
        stream.see(time)
    stream.accept_pending(time)
    assert stream.time == time


@given(st.lists(st.integers(BEGIN - DAY, BEGIN + DAY), min_size=1, max_size=50), st.integers(BEGIN, BEGIN + DAY))
def test_it_goes_back_only_for_many_and_claims_no_more_than_was_claimed(times: list[int], now: int) -> None:
    stream = StreamTime(BEGIN)
    for time in times:
        before = stream.time
        stream.see(time)
        assert before is not None and stream.time is not None
        assert before <= stream.time <= max(BEGIN, *times)
    stream.accept_pending(now)
    assert stream.time is not None and stream.time <= max(BEGIN, *times)


def test_tomorrow_is_not_believed_because_nobody_says_otherwise() -> None:
    stream = StreamTime(BEGIN)
    stream.see(BEGIN + DAY)
    assert not stream.accept_pending(BEGIN + JUMP)
    assert stream.time == BEGIN
    stream.see(BEGIN + SECOND)
    assert not stream.accept_pending(BEGIN + 2 * DAY), "what came after it says otherwise"
    assert stream.time == BEGIN + SECOND


def test_where_all_say_so_it_is_our_clock_that_is_wrong() -> None:
    stream = StreamTime(BEGIN)
    for n in range(WITNESSES):
        assert stream.time == BEGIN
        stream.see(BEGIN + DAY + n)
    assert stream.time == BEGIN + DAY + WITNESSES - 1


@given(st.integers(1, 31), st.sampled_from([-365 * DAY, 365 * DAY, 3600 * SECOND]))
def test_a_burst_of_one_wrong_clock_says_nothing(burst: int, off: int) -> None:
    """An import on a PDS whose clock is a year ahead: what is placed by the time meanwhile would be so for a year."""
    stream = StreamTime(BEGIN)
    for n in range(burst):
        stream.see(BEGIN + off + n * SECOND)
        assert stream.time == BEGIN
    stream.see(BEGIN + SECOND)
    assert stream.time == BEGIN + SECOND


def test_live_events_that_overtake_a_replay_are_believed() -> None:
    """What is deleted among them is purged up to their time."""
    stream = StreamTime(BEGIN, 100)
    for n in range(OVERTAKING):
        assert stream.time == BEGIN
        stream.see(BEGIN + DAY, 10_000 + n)
    assert stream.time == BEGIN + DAY


def test_each_overtaking_needs_as_many_again() -> None:
    stream = StreamTime(BEGIN, 100)
    for day in (1, 2):
        for n in range(OVERTAKING):
            assert stream.time == BEGIN + (day - 1) * DAY
            stream.see(BEGIN + day * DAY, day * 10_000 + n)
    assert stream.time == BEGIN + 2 * DAY


@pytest.mark.parametrize(("beyond", "is_near"), [(0, True), (1, False)])
def test_what_is_near_to_what_is_believed_is_believed_too(beyond: int, is_near: bool) -> None:
    stream = StreamTime(BEGIN)
    for _ in range(WITNESSES - 1):
        stream.see(BEGIN + DAY)
    stream.see(BEGIN + DAY + JUMP + beyond)
    assert stream.time == BEGIN + DAY + (JUMP if is_near else 0)


def test_what_a_pause_has_accepted_is_no_witness_of_what_comes_then() -> None:
    stream = StreamTime(BEGIN, 100)
    for n in range(OVERTAKING - 1):
        stream.see(BEGIN + DAY, 10_000 + n)
    assert stream.accept_pending(BEGIN + DAY)
    for n in range(OVERTAKING - 1):
        stream.see(BEGIN + 2 * DAY, 20_000 + n)
        assert stream.time == BEGIN + DAY
    stream.see(BEGIN + 2 * DAY, 30_000)
    assert stream.time == BEGIN + 2 * DAY


def test_a_burst_that_follows_in_the_sequence_overtakes_nothing() -> None:
    stream = StreamTime(BEGIN, 100)
    for n in range(2 * OVERTAKING):
        stream.see(BEGIN + DAY, 101 + n)
    assert stream.time == BEGIN


@given(st.permutations([BEGIN + n for n in range(FIRST // 2 + 1)] + [0] * (FIRST // 2 - 1)))
def test_the_first_time_is_the_middle_one(claims: list[int]) -> None:
    stream = StreamTime(None)
    for claimed in claims:
        stream.see(claimed)
    assert stream.time is not None and stream.time >= BEGIN


def test_what_many_in_a_row_claimed_wrongly_is_put_right_by_all_the_others() -> None:
    """A user of a PDS that is a year ahead, on a small relay; or the watermark of an older version."""
    stream = StreamTime(BEGIN)
    for n in range(WITNESSES):
        stream.see(BEGIN + 365 * DAY + n)
    assert stream.time == BEGIN + 365 * DAY + WITNESSES - 1
    for n in range(DOUBTERS):
        stream.see(BEGIN + n * SECOND)
    assert stream.time == BEGIN + (DOUBTERS - 1) * SECOND


def test_before_there_is_a_time_the_middle_of_the_claims_is_guessed() -> None:
    stream = StreamTime(None)
    assert stream.guess is None
    for claimed, guess in ((100, 100), (1 << 60, 100), (1 << 60, 1 << 60), (101, 101), (102, 102)):
        stream.see(claimed)
        assert (stream.time, stream.guess) == (None, guess)
