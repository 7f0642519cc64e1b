"""The throttle and the chain of slices at their exact limits."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

import pytest

from streams.resources.idleness import MachineSample
from streams.resources.in_flight import MemoryState
from streams.worker import throttle as module
from streams.worker.slices import (
    SLICE_BYTES,
    SLICE_RECORDS,
    Break,
    Chain,
    Slice,
    SlicedRecord,
    cut_events,
    rewound,
    split,
)
from streams.worker.throttle import ASK_SECONDS, LARGEST_BATCH, NETWORK_RATE, SMALLEST_BATCH, Pacer, Throttle, describe
from tests.support.patience import PATIENCE
from tests.support.virtual_time import virtually
from tests.unit.worker.test_slices import P0, P1, Message, chain_at, run
from tests.unit.worker.test_throttle import BUSY, IDLE, seen, throttle

# -- pace


def test_the_numbers_of_the_documents() -> None:
    assert (LARGEST_BATCH, SMALLEST_BATCH, ASK_SECONDS, NETWORK_RATE) == (4000, 100, 0.1, (300, 600))
    assert (SLICE_RECORDS, SLICE_BYTES) == (1000, 1 << 20)


def test_a_batch_is_due_at_the_very_end_of_the_delay() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.wait(0.0) == 0.0
    assert pacer.acquire(0.0, 5) == 5
    pacer.end(1.0)
    assert (pacer.wait(2.75), pacer.acquire(2.999, 5)) == (0.25, 0)
    assert (pacer.wait(3.0), pacer.wait(9.0)) == (0.0, 0.0)
    assert pacer.acquire(3.0, 9) == 5


def test_what_is_left_of_a_batch_does_not_wait_while_another_part_runs() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.acquire(0.0, 4) == 4
    assert (pacer.wait(0.0), pacer.acquire(0.0, 4)) == (0.0, 1)
    assert pacer.wait(0.0) == math.inf
    pacer.end(0.5)
    assert pacer.wait(0.5) == math.inf
    pacer.end(0.75)
    assert pacer.wait(0.75) == 2.0


def test_a_new_batch_begins_only_where_nothing_runs() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.acquire(0.0, 4) == 4
    assert pacer.acquire(9.0, 4) == 1, "the rest of the old one: a transaction runs"
    pacer.end(9.0)
    pacer.end(9.0)
    assert pacer.acquire(11.0, 3) == 3
    pacer.end(11.0)
    assert pacer.acquire(13.0, 5) == 5, "the two that were left are forfeited"


def test_free_takes_count_as_running() -> None:
    pacer = Pacer(5, 2.0)
    assert pacer.acquire(0.0, 7, free=True) == 7
    assert pacer.wait(5.0) == math.inf
    pacer.end(5.0)
    assert pacer.wait(5.0) == 2.0
    assert Pacer(5, 0.0).rate == math.inf
    assert Pacer(5, 2.0).rate == 2.5


@pytest.mark.parametrize(
    ("size", "verdict"),
    [(300, "can never catch up"), (301, "may not catch up"), (600, "may not catch up"), (601, "can catch up")],
)
def test_which_rate_can_catch_up(size: int, verdict: str) -> None:
    assert describe(Pacer(size, 1.0), False).endswith(f": that {verdict} with it.")
    assert "every 1000 ms: at most" in describe(Pacer(size, 1.0), False)


# -- the throttle


def with_memory(made: Throttle, state: MemoryState) -> Throttle:
    made.memory._judge.state = state
    return made


def test_what_it_says_while_memory_is_short() -> None:
    made = throttle(backfill_profile="unlimited")
    assert (made.mode, made.largest, made.is_whole, made.is_waiting) == ("whole slices", LARGEST_BATCH, True, False)
    with_memory(made, "pause")
    assert (made.mode, made.largest, made.is_whole, made.is_waiting) == ("memory", SMALLEST_BATCH, False, True)
    assert made.why.endswith("pausing until some is freed")
    with_memory(made, "small")
    assert (made.mode, made.largest, made.is_whole, made.is_waiting) == ("small batches", SMALLEST_BATCH, False, False)
    assert made.why.endswith("going on with the smallest batches")
    made.paused = True
    assert made.mode == "paused"
    slow = with_memory(throttle(backfill_batch_size=7), "small")
    assert slow.largest == 7
    assert throttle(backfill_batch_size=7).largest == 7


def test_without_a_limit_and_with_the_largest_batch_it_is_free() -> None:
    free = {"backfill_batch_delay_ms": 0, "backfill_use_idle": False}
    assert throttle(backfill_batch_size=LARGEST_BATCH, **free).is_whole
    assert not throttle(backfill_batch_size=LARGEST_BATCH - 1, **free).is_whole
    assert not throttle(backfill_batch_size=LARGEST_BATCH, backfill_batch_delay_ms=1, backfill_use_idle=False).is_whole
    assert throttle(backfill_batch_size=LARGEST_BATCH, **free).why == "the settings have no limit"
    unused = throttle(backfill_use_idle=False)
    seen(unused, *IDLE)
    assert (unused.mode, unused.why) == ("paced", "5 events every 2 s: BACKFILL_USE_IDLE is off")


def test_a_take_is_of_no_more_than_the_largest_batch() -> None:
    async def check(clock: Callable[[], float]) -> None:
        made = throttle(clock, backfill_profile="unlimited")
        assert await made.acquire(10_000, lambda: True) == LARGEST_BATCH
        assert await made.acquire(10, lambda: True) == 10
        with_memory(made, "small")
        assert await made.acquire(10_000, lambda: True) == SMALLEST_BATCH
        assert await made.acquire(10, lambda: False) == 0
        assert not made.is_waiting

    virtually(check)


def test_whoever_waits_is_asked_ten_times_a_second_whether_it_is_still_ours() -> None:
    async def check(clock: Callable[[], float]) -> None:
        made = throttle(clock, backfill_batch_delay_ms=100_000, backfill_use_idle=False)
        assert await made.acquire(5, lambda: True) == 5
        made.end()
        asked: list[float] = []

        def still_ours() -> bool:
            asked.append(clock())
            return clock() < 1.0

        assert await made.acquire(5, still_ours) == 0
        assert 0.999 < clock() < 1.101
        assert len(asked) == pytest.approx(11, abs=1)

    virtually(check)


def test_while_memory_is_short_nothing_more_is_pulled() -> None:
    async def check(clock: Callable[[], float]) -> None:
        made = with_memory(throttle(clock), "pause")
        waits = asyncio.create_task(made.wait_for_memory(lambda: True))
        await asyncio.sleep(0.05)
        assert made._gated
        with_memory(made, "go")
        assert made.is_waiting, "until it looks again"
        await waits
        assert clock() == pytest.approx(0.1)
        assert not made.is_waiting
        with_memory(made, "small")
        await made.wait_for_memory(lambda: True)
        with_memory(made, "pause")
        await made.wait_for_memory(lambda: False)
        assert clock() == pytest.approx(0.1)

    virtually(check)


def test_transactions_are_counted_while_they_run() -> None:
    async def check(clock: Callable[[], float]) -> None:
        made = throttle(clock, backfill_max_concurrent=2)
        async with made.slot(lambda: True):
            assert (made.transactions, made.transactions_max) == (1, 1)
            async with made.slot(lambda: True):
                assert (made.transactions, made.transactions_max) == (2, 2)
        async with made.slot(lambda: True):
            assert (made.transactions, made.transactions_max) == (1, 2)
        assert made.transactions == 0

    virtually(check)


def test_what_is_said_of_the_delay_that_is_left() -> None:
    async def check(clock: Callable[[], float]) -> None:
        made = throttle(clock, backfill_use_idle=False)
        assert await made.acquire(5, lambda: True) == 5
        waits = asyncio.create_task(made.acquire(5, lambda: True))
        await asyncio.sleep(0.5)
        assert made.why == "5 events every 2 s: BACKFILL_USE_IDLE is off", "it waits for a transaction"
        made.end()
        await asyncio.sleep(0.5)
        assert made.why == "waiting 1.5 s of the 2 s delay: BACKFILL_USE_IDLE is off"
        assert await waits == 5
        assert clock() == pytest.approx(2.5)
        made.end()
        assert made.why == "5 events every 2 s: BACKFILL_USE_IDLE is off", "nobody waits"

    virtually(check)


@pytest.mark.parametrize(("now", "pace"), [(1.5, "waiting 0.5 s of the 2 s delay"), (2.0, "5 events every 2 s")])
def test_a_batch_that_is_due_now_is_not_waited_for(now: float, pace: str) -> None:
    made = throttle(lambda: now, backfill_use_idle=False)
    assert made._pacer.acquire(0.0, 5) == 5
    made._pacer.end(0.0)
    made._queue.append(object())
    assert made.why == f"{pace}: BACKFILL_USE_IDLE is off"


def test_a_change_of_the_machine_is_said_where_it_changes_the_pace(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = throttle()
    seen(made, *IDLE, *BUSY)
    assert [record.getMessage() for record in caplog.records] == [
        "[BACKFILL] The machine is idle, others use 0 % of the machine: whole slices, no waits",
        "[BACKFILL] The machine is busy, others use 90 % of the machine: pacing",
    ]
    caplog.clear()
    for settings in ({"backfill_use_idle": False}, {"backfill_profile": "unlimited"}):
        seen(throttle(**settings), *IDLE, *BUSY)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("size", "use_idle", "level"),
    [(300, False, "WARNING"), (301, False, "INFO"), (300, True, "INFO"), (4000, False, "INFO")],
)
async def test_a_pace_that_can_never_catch_up_is_a_warning(
    size: int, use_idle: bool, level: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    delay = 0 if size == LARGEST_BATCH else 1000
    made = throttle(backfill_batch_size=size, backfill_batch_delay_ms=delay, backfill_use_idle=use_idle)
    monkeypatch.setattr(made._machine, "sample", lambda: MachineSample(0.0))
    await made.start()
    await made.close()
    paces = [record.levelname for record in caplog.records if "Pace: " in record.getMessage()]
    assert paces == [level]


@pytest.mark.parametrize("sentence", [None, "the container has less than the limit"])
async def test_what_the_container_says_is_a_warning(
    sentence: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = throttle()
    monkeypatch.setattr(made._machine, "sample", lambda: MachineSample(0.0))
    monkeypatch.setattr(module, "container_says", lambda _: sentence)
    await made.start()
    await made.close()
    said = [record.getMessage() for record in caplog.records if "Memory: " in record.getMessage()]
    assert said == ([] if sentence is None else [f"[BACKFILL] Memory: {sentence}"])


async def test_it_looks_at_the_machine_again_and_again_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made, looked_thrice, looks = throttle(), asyncio.Event(), 0

    def look(_: MachineSample) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            looked_thrice.set()

    monkeypatch.setattr(module, "SAMPLE_SECONDS", 0)
    monkeypatch.setattr(made._machine, "sample", lambda: MachineSample(0.0))
    monkeypatch.setattr(made, "_look_at_machine", look)
    await made.close()
    await made.start()
    sampler = made._sampler
    assert sampler is not None
    async with asyncio.timeout(PATIENCE):
        await looked_thrice.wait()
    await made.close()
    assert sampler.cancelled()


# -- slices


def sized(*sizes: int | None) -> list[SlicedRecord]:
    return [Message(i, value=None if size is None else bytes(size)) for i, size in enumerate(sizes)]


def lengths(pieces: list[list[SlicedRecord]]) -> list[int]:
    return [len(piece) for piece in pieces]


def test_a_run_is_cut_at_its_records_and_at_its_bytes() -> None:
    assert lengths(split(sized(*[1] * 7), max_records=3)) == [3, 3, 1]
    assert lengths(split(sized(*[1] * 6), max_records=3)) == [3, 3]
    assert lengths(split(sized(4, 6, 9, 1, 10, 11), max_bytes=10)) == [2, 2, 1, 1]
    assert lengths(split(sized(9, 9), max_bytes=10)) == [2]
    assert lengths(split(sized(*[1] * 1001))) == [1000, 1]
    assert lengths(split(sized(SLICE_BYTES - 1, 1, 5))) == [2, 1]
    assert split([]) == []


def test_a_slice_counts_its_bytes_and_ends_behind_its_last_record() -> None:
    records = sized(5, None, 7)
    piece = Slice(P0, 0, records, 1)
    assert (piece.nbytes, piece.next_offset, len(piece), repr(piece)) == (12, 3, 3, "<Slice t/0 [0, 3)>")
    piece.clear()
    assert (len(piece), piece.next_offset, piece.nbytes) == (0, 3, 12)


def test_what_a_break_says_where_nothing_was_asked() -> None:
    assert (Break("stale").expected, Break("stale").got) == (-1, -1)


def test_another_answer_is_looked_at_again() -> None:
    chain = chain_at(10)
    assert chain.link(P0, run(15, 17)) == Break("refetch", 10, 15)
    assert chain.link(P0, run(16, 17)) == Break("refetch", 10, 16)
    assert chain.link(P0, run(15, 17)) == Break("refetch", 10, 15)
    assert chain.link(P0, run(15, 17)) == Break("hole", 10, 15)
    assert chain.link(P0, run(9, 12)) == Break("refetch", 10, 9)
    assert chain.link(P0, run(9, 12)) == Break("rewound", 10, 9)


def test_a_chain_numbers_its_validities() -> None:
    chain = Chain()
    assert (chain.epoch(P0), P0 in chain, chain.armed) == (0, False, {})
    chain.void([P0, P1])
    assert (chain.epoch(P0), chain.epoch(P1)) == (1, 2)
    chain.arm(P0, 5)
    assert (P0 in chain, P1 in chain, chain.armed) == (True, False, {P0: 5})
    assert chain.link(P0, run(9, 10)) == Break("refetch", 5, 9)
    chain.void([P0])
    assert (chain.epoch(P0), P0 in chain) == (3, False)
    chain.arm(P0, 5)
    assert chain.link(P0, run(9, 10)) == Break("refetch", 5, 9), "what was seen before is forgotten"
    assert chain.bridge(P1, run(0, 1)) == Break("stale")


def test_a_cut_begins_where_it_is_told() -> None:
    records: list[SlicedRecord] = [Message(i, key=key) for i, key in enumerate([b"a", None, b"b", None, b"c"])]
    assert [cut_events(records, 0, limit) for limit in (1, 2, 3, 9)] == [(2, 1), (4, 2), (5, 3), (5, 3)]
    assert cut_events(records, 2, 1) == (4, 1)
    assert cut_events(records, 5, 1) == (5, 0)


def test_a_shorter_log_says_where_it_stands() -> None:
    assert "partition 0 was read to offset 9, and now stands at 3" in str(rewound(P0, 9, 3))
