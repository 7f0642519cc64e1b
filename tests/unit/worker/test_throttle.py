"""The throttle's decisions, with a clock of the test's own; and its waits, as exact as the event loop is."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.resources.idleness import MachineSample
from streams.resources.machine import Machine
from streams.settings import PROFILES, Settings
from streams.worker.throttle import LARGEST_BATCH, Pacer, Throttle, describe
from tests.support.patience import PATIENCE
from tests.support.virtual_time import virtually


def test_the_defaults_are_five_events_every_two_seconds() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.acquire(0.0, 1000) == 5
    assert pacer.acquire(0.1, 10) == 0
    assert pacer.wait(0.1) == math.inf  # the batch still runs
    pacer.end(0.5)
    assert pacer.wait(0.5) == 2.0
    assert pacer.acquire(2.4, 5) == 0
    assert pacer.acquire(2.5, 5) == 5


def test_a_batch_may_be_of_several_partitions() -> None:
    pacer = Pacer(5, 2.0)
    assert [pacer.acquire(0.0, 2), pacer.acquire(0.0, 2), pacer.acquire(0.0, 2), pacer.acquire(0.0, 2)] == [2, 2, 1, 0]
    pacer.end(0.1)
    pacer.end(0.3)
    assert pacer.wait(0.3) == math.inf
    pacer.end(0.2)
    assert pacer.wait(0.2) == pytest.approx(2.0)


def test_what_is_left_of_a_batch_may_be_taken_until_the_next_may_start() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.acquire(0.0, 3) == 3
    pacer.end(0.0)
    assert pacer.acquire(1.0, 5) == 2
    pacer.end(1.0)
    assert pacer.acquire(2.9, 5) == 0
    assert pacer.acquire(3.0, 5) == 5  # forfeited, not added
    assert pacer.acquire(3.0, 5) == 0


def test_without_a_delay_only_the_size_holds() -> None:
    pacer = Pacer(5, 0.0)
    assert [pacer.acquire(0.0, 100), pacer.acquire(0.0, 100), pacer.wait(0.0)] == [5, 5, 0.0]


def test_a_free_take_neither_waits_nor_counts() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.acquire(0.0, 5) == 5
    assert pacer.acquire(0.0, 1000, free=True) == 1000


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
        given_ = pacer.acquire(now, want)
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


Clock = Callable[[], float]


def throttle(clock: Clock = time.monotonic, **settings: object) -> Throttle:
    made = Settings(_env_file=None, **settings)  # type: ignore[arg-type, call-arg]
    return Throttle(made, Machine(made), clock)


def seen(made: Throttle, *others: float) -> None:
    """Samples of the machine, as the sampler would bring them."""
    for share in others:
        made._look_at_machine(MachineSample(share))


IDLE, BUSY = (0.0,) * 3, (0.9,) * 2


def test_a_batch_starts_when_it_is_due_and_never_before() -> None:
    """100 events every 130 ms: looking ten times a second would cost 70 ms a batch."""

    async def run(clock: Clock) -> None:
        made = throttle(clock, backfill_batch_size=100, backfill_batch_delay_ms=130, backfill_use_idle=False)
        ended, late = -math.inf, []
        for _ in range(12):
            assert await made.acquire(1000, lambda: True) == 100
            late.append(clock() - ended - 0.13)
            await asyncio.sleep(0.005)
            ended = clock()
            made.end()
        assert min(late) > -1e-6
        assert max(late[1:]) < 0.001, late

    virtually(run)


def test_who_waits_is_served_in_order_when_a_transaction_ends() -> None:
    async def run(clock: Clock) -> None:
        made = throttle(clock, backfill_batch_size=5, backfill_batch_delay_ms=20, backfill_use_idle=False)
        served: list[int] = []
        starts: list[float] = []

        async def lane(number: int) -> None:
            for _ in range(3):
                given = await made.acquire(5, lambda: True)
                served.append(number)
                starts.append(clock())
                await asyncio.sleep(0.001)
                assert given == 5
                made.end()

        await asyncio.gather(*(lane(number) for number in range(3)))
        assert served == [0, 1, 2] * 3
        pauses = [after - before for before, after in itertools.pairwise(starts)]
        assert min(pauses) > 0.02
        assert max(pauses) < 0.022, pauses

    virtually(run)


async def test_a_wait_ends_when_the_work_is_no_longer_ours() -> None:
    made = throttle(backfill_batch_delay_ms=100_000, backfill_use_idle=False)
    assert await made.acquire(5, lambda: True) == 5
    made.end()
    until = time.monotonic() + 0.25
    assert await made.acquire(5, lambda: time.monotonic() < until) == 0
    made.paused = True
    async with asyncio.timeout(PATIENCE):
        async with made.slot(lambda: False):
            pass


async def test_a_wait_ends_when_the_machine_becomes_idle() -> None:
    made = throttle(backfill_batch_delay_ms=10_000_000)
    assert await made.acquire(1000, lambda: True) == 5
    made.end()
    waits = asyncio.create_task(made.acquire(100_000, lambda: True))
    await asyncio.sleep(0.01)
    assert made.is_waiting
    seen(made, *IDLE)
    assert await asyncio.wait_for(waits, PATIENCE) == LARGEST_BATCH


async def test_while_paused_nothing_starts() -> None:
    made = throttle(backfill_profile="unlimited")
    made.paused = True
    assert made.is_waiting
    assert not made.is_whole
    entered = asyncio.Event()

    async def write() -> None:
        async with made.slot(lambda: True):
            entered.set()

    waiting = asyncio.gather(made.acquire(10, lambda: True), write())
    await asyncio.sleep(0.15)
    assert not waiting.done()
    assert not entered.is_set()
    made.paused = False
    assert (await waiting)[0] == 10
    assert not made.is_waiting
    assert made.is_whole


async def test_places_for_transactions_are_counted() -> None:
    made = throttle(backfill_max_concurrent=3)

    async def write() -> None:
        async with made.slot(lambda: True):
            await asyncio.sleep(0.01)

    await asyncio.gather(*(write() for _ in range(10)))
    assert (made.transactions, made.transactions_max) == (0, 3)


async def test_it_says_why_it_goes_as_it_goes() -> None:
    made = throttle()
    assert made.machine is None
    assert (made.mode, made.why) == ("paced", "5 events every 2 s: whether the machine is idle is not known yet")
    seen(made, 0.84)
    assert await made.acquire(5, lambda: True) == 5
    assert made.why == "5 events every 2 s: others use 84 % of the machine"
    made.end()
    waits = asyncio.create_task(made.acquire(5, lambda: True))
    await asyncio.sleep(0.01)
    assert made.why.startswith(("waiting 2.0 s of the 2 s delay", "waiting 1.9 s of the 2 s delay"))
    waits.cancel()
    seen(made, *IDLE)
    assert (made.mode, made.why) == ("whole slices", "the machine is idle but for us")
    assert made.machine is not None
    assert (made.machine.idle, made.machine.others) == (True, 0.0)
    made.paused = True
    assert (made.mode, made.why) == ("paused", "paused until the command `resume`")
    assert throttle(backfill_use_idle=False).why == "5 events every 2 s: BACKFILL_USE_IDLE is off"
    assert throttle(backfill_profile="unlimited").mode == "whole slices"


async def test_only_settings_without_a_limit_go_on_whatever_the_machine_does() -> None:
    for profile in PROFILES:
        made = throttle(backfill_profile=profile)
        seen(made, *IDLE)
        assert made.is_whole
        seen(made, *BUSY)
        assert made.is_whole == (profile == "unlimited")
        assert throttle(backfill_profile=profile, backfill_use_idle=False).is_whole == (profile == "unlimited")
