"""The throttle's decisions, with a clock of the test's own: nothing sleeps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.ops.machine import spent
from streams.throttle import IdleJudge, Pacer, describe


def test_the_defaults_are_five_events_every_two_seconds() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.take(0.0, 1000) == 5
    assert pacer.take(0.1, 10) == 0
    assert pacer.wait(0.1) == math.inf  # the batch still runs
    pacer.end(0.5)
    assert pacer.wait(0.5) == 2.0
    assert pacer.take(2.4, 5) == 0
    assert pacer.take(2.5, 5) == 5


def test_a_batch_may_be_of_several_partitions() -> None:
    pacer = Pacer(5, 2.0)
    assert [pacer.take(0.0, 2), pacer.take(0.0, 2), pacer.take(0.0, 2), pacer.take(0.0, 2)] == [2, 2, 1, 0]
    pacer.end(0.1)
    pacer.end(0.3)
    assert pacer.wait(0.3) == math.inf
    pacer.end(0.2)
    assert pacer.wait(0.2) == pytest.approx(2.0)


def test_what_is_left_of_a_batch_may_be_taken_until_the_next_may_start() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.take(0.0, 3) == 3
    pacer.end(0.0)
    assert pacer.take(1.0, 5) == 2
    pacer.end(1.0)
    assert pacer.take(2.9, 5) == 0
    assert pacer.take(3.0, 5) == 5  # forfeited, not added
    assert pacer.take(3.0, 5) == 0


def test_without_a_delay_only_the_size_holds() -> None:
    pacer = Pacer(5, 0.0)
    assert [pacer.take(0.0, 100), pacer.take(0.0, 100), pacer.wait(0.0)] == [5, 5, 0.0]


def test_a_free_take_neither_waits_nor_counts() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.take(0.0, 5) == 5
    assert pacer.take(0.0, 1000, free=True) == 1000


@given(
    size=st.integers(1, 20),
    delay=st.floats(0.01, 5.0),
    asks=st.lists(st.tuples(st.integers(1, 30), st.floats(0.0, 3.0), st.floats(0.0, 1.0)), max_size=80),
)
def test_no_more_than_a_batch_between_an_end_and_the_next_start(
    size: int, delay: float, asks: list[tuple[int, float, float]]
) -> None:
    """For any behaviour: a batch begins no earlier than the delay after the end of the one before."""
    pacer, now = Pacer(size, delay), 0.0
    batch, last_end = 0, -math.inf
    for want, pause, takes in asks:
        now += pause
        given_ = pacer.take(now, want)
        assert 0 <= given_ <= min(want, size)
        if not given_:
            assert now < last_end + delay
            assert pacer.wait(now) > 0
            continue
        batch = batch + given_ if now < last_end + delay else given_
        assert batch <= size
        now += takes
        pacer.end(now)
        last_end = now


def test_idleness_has_hysteresis() -> None:
    judge = IdleJudge()
    assert not judge.idle  # until it is known
    assert [judge.sample(0.0) for _ in range(3)] == [False, False, True]
    assert [judge.sample(x) for x in (0.15, 0.9, 0.15, 0.9, 0.15)] == [True] * 5  # a single busy second is none
    assert [judge.sample(0.5), judge.sample(0.5)] == [True, False]
    assert [judge.sample(x) for x in (0.05, 0.15, 0.05, 0.05, 0.05)] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("size", "delay", "idle", "words"),
    [
        (5, 2.0, False, ["5 events every 2000 ms", "2.5 events/s", "can never catch up"]),
        (5, 2.0, True, ["no limit while it is idle", "that rate can never catch up"]),
        (400, 1.0, False, ["400.0 events/s", "may not catch up"]),
        (1000, 1.0, False, ["1,000.0 events/s", "that can catch up"]),
        (4000, 0.0, True, ["4000 events without a delay", "as fast as it goes"]),
    ],
)
def test_it_says_what_the_settings_allow(size: int, delay: float, idle: bool, words: list[str]) -> None:
    text = describe(Pacer(size, delay), idle)
    for word in words:
        assert word in text


def test_cpu_of_new_and_of_gone_processes() -> None:
    before = {(1, 0.0): 5.0, (2, 0.0): 9.0}
    after = {(1, 0.0): 6.0, (3, 1.0): 0.5, (2, 7.0): 0.25}  # 2 is another process of the same pid
    assert spent(before, after) == pytest.approx(1.75)
