"""How fast the ingest may read: the budget, what the relay's window demands, and when the window runs out."""

from __future__ import annotations

import asyncio
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from streams.ingestion.pace import BURST_BYTES, NEED, SAFE, Budget, IngestPace, Outlook, WindowPace, loss, needed_speed
from streams.resources.ingest_budget import LEAST, ingest_budget
from streams.settings import Settings
from streams.sources.source import ReadProgress

MB = 1e6
DAY = 86_400
AGGRESSIVE: dict[str, object] = {"backfill_profile": "aggressive", "backfill_use_idle": False}
#: The clock at the start, µs.
START = 1_800_000_000_000_000


class Relay:
    """A relay that keeps ``keeps`` seconds, and an ingest ``behind`` seconds behind; ``density``: bytes a second."""

    def __init__(self, pace: WindowPace, *, behind: float, keeps: float | None, density: float = 3 * MB) -> None:
        self.pace, self.density = pace, density
        self.now, self.received = 0.0, 0
        self.position = START - int(behind * 1e6)
        self.oldest = None if keeps is None else START - int(keeps * 1e6)
        self.head: int | None = START
        self.size: float = math.inf

    def second(self, rate: float, *, give_way: bool = True, waits: bool = False) -> Outlook:
        """Read for a second at so many bytes a second."""
        self.now += 1
        self.received += int(rate)
        self.position += int(rate / self.density * 1e6)
        progress = ReadProgress(
            self.now, START + int(self.now * 1e6), self.received, self.position, self.oldest, START, self.head, waits,
            int(self.received / self.size),
        )  # fmt: skip
        return self.pace.judge(progress, give_way=give_way)

    def seconds(self, n: int, rate: float, **how: bool) -> Outlook:
        return [self.second(rate, **how) for _ in range(n)][-1]


def test_the_budget_holds_while_it_is_fast_enough() -> None:
    relay = Relay(WindowPace(1 * MB), behind=DAY, keeps=3 * DAY, density=0.1 * MB)
    outlook = relay.seconds(20, 1 * MB)
    assert (outlook.rate, outlook.demanded) == (1 * MB, False)
    assert outlook.speed == pytest.approx(10)
    assert outlook.bytes_rate == pytest.approx(1 * MB)
    assert outlook.left == pytest.approx(DAY / 10, rel=0.01)
    assert (outlook.window_left, outlook.loses) == (None, False)
    assert relay.second(1 * MB, give_way=False).rate is None


def test_a_window_that_would_run_out_demands_more_than_the_budget() -> None:
    relay = Relay(WindowPace(1 * MB), behind=DAY, keeps=4 * DAY)
    outlook = relay.seconds(20, 1 * MB)
    assert outlook.speed == pytest.approx(1 / 3, rel=0.01)
    assert outlook.demanded
    assert outlook.rate == pytest.approx(NEED * 3 * MB, rel=0.01)
    assert outlook.window_left == pytest.approx(3 * DAY / (2 / 3), rel=0.01)
    assert outlook.left == pytest.approx(DAY * 3, rel=0.01)
    assert not outlook.loses  # it ends at the head as it was, in time
    relay.head = None
    outlook = relay.second(1 * MB)
    assert outlook.loses  # live, it never would
    assert "at this pace (0.3 x real time) the relay will drop what is not yet taken in 4d" in loss(outlook)


def test_the_rate_that_is_demanded_catches_up() -> None:
    """Whatever the traffic: an ingest that reads what it may is faster than the clock."""
    for density in (0.2 * MB, 2 * MB, 20 * MB):
        relay = Relay(WindowPace(1 * MB), behind=DAY, keeps=DAY + SAFE * 2, density=density)
        relay.head = None
        rate: float | None = 1 * MB
        for _ in range(100):
            assert rate is not None
            outlook = relay.second(rate)
            rate = outlook.rate
        assert outlook.speed is not None
        assert outlook.speed >= NEED * 0.99
        assert not outlook.loses


def test_at_the_windows_edge_there_is_no_limit_and_then_it_settles() -> None:
    relay = Relay(WindowPace(1 * MB), behind=DAY, keeps=DAY)
    assert relay.second(1 * MB).rate is None
    outlook = relay.seconds(60, 30 * MB)  # ten times as fast as the clock: nine minutes from the edge
    assert outlook.rate is not None
    assert 1 * MB < outlook.rate < 30 * MB
    outlook = relay.seconds(600, 30 * MB)
    assert outlook.rate == pytest.approx(NEED * 3 * MB, rel=0.05)


def test_live_traffic_is_not_paced() -> None:
    relay = Relay(WindowPace(1 * MB), behind=10, keeps=DAY)
    outlook = relay.seconds(15, 2 * MB)
    assert (outlook.rate, outlook.window_left) == (None, None)


def test_a_relay_that_sends_nothing_loses_nothing() -> None:
    relay = Relay(WindowPace(1 * MB), behind=100, keeps=DAY)
    assert relay.seconds(15, 0, waits=True).window_left is None
    away = relay.seconds(15, 0, waits=False)
    assert away.window_left == pytest.approx(DAY - 100 - relay.now, abs=5)
    assert away.loses


def test_what_is_not_known_is_not_said() -> None:
    pace = WindowPace(1 * MB)
    outlook = pace.judge(ReadProgress(0.0, START, 0, None, None, START, None), give_way=True)
    assert outlook == Outlook(1 * MB, False, None, 0.0, None, None)
    relay = Relay(WindowPace(1 * MB), behind=DAY, keeps=None)
    assert relay.seconds(20, 1 * MB).window_left is None


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_the_nearer_the_edge_the_more_is_needed(a: float, b: float) -> None:
    assert needed_speed(None) == NEED
    assert needed_speed(0.0) == math.inf
    assert needed_speed(min(a, b)) >= needed_speed(max(a, b)) >= NEED


@given(st.lists(st.tuples(st.integers(1, 300_000), st.floats(0, 0.2)), min_size=1, max_size=200), st.floats(1e5, 1e7))
def test_never_more_than_the_rate_and_one_burst(reads: list[tuple[int, float]], rate: float) -> None:
    budget, now, total = Budget(), 0.0, 0
    budget.set_rate(now, rate)
    for size, pause in reads:
        total += size
        wait = budget.spend(now, size)
        assert total <= rate * now + max(rate / 4, BURST_BYTES) + size
        now += max(wait, pause)
    assert budget.spend(now, 0) <= 1e-6


def test_without_a_rate_nothing_waits() -> None:
    budget = Budget()
    assert budget.spend(0.0, 1 << 40) == 0
    budget.set_rate(1.0, 1000.0)
    assert budget.spend(1.0, 2000) == 2.0


@pytest.mark.parametrize(
    ("settings", "workers", "size", "budget"),
    [
        ({}, 1, 4_000, LEAST),  # 2.5 events/s
        ({}, 0, 4_000, LEAST),
        ({"backfill_profile": "balanced"}, 1, 4_000, LEAST),  # 100
        ({"backfill_profile": "balanced"}, 4, 4_000, 2 * MB),
        ({"backfill_profile": "aggressive"}, 1, 4_000, 5 * MB),  # 1,000
        ({"backfill_profile": "aggressive"}, 0, 4_000, 5 * MB),
        ({"backfill_profile": "aggressive"}, 3, 4_000, 15 * MB),
        ({"backfill_profile": "aggressive"}, 1, 500, LEAST),
        ({"backfill_batch_size": 1_000, "backfill_batch_delay_ms": 500}, 1, 4_000, 10 * MB),
        # What the user says rules.
        ({"backfill_profile": "aggressive", "ingest_busy_mb_per_s": 1}, 3, 4_000, 1 * MB),
        ({"ingest_busy_mb_per_s": 0.25}, 1, 4_000, 0.25 * MB),
        ({"ingest_busy_mb_per_s": 0}, 1, 4_000, None),
        ({"backfill_profile": "unlimited"}, 1, 4_000, None),
        ({"backfill_profile": "unlimited", "ingest_busy_mb_per_s": 1}, 1, 4_000, None),
    ],
)
def test_the_budget_is_what_the_workers_can_apply(
    settings: dict[str, object], workers: int, size: float, budget: float | None
) -> None:
    assert ingest_budget(made(**settings), workers, size) == budget


def test_the_size_of_an_event_is_measured() -> None:
    """Whatever its frames are: at `aggressive` the ingest reads a quarter more events than a worker can apply."""
    for size in (900, 4_000, 30_000):
        pace, settings = WindowPace(1 * MB), made(**AGGRESSIVE)
        relay = Relay(pace, behind=DAY, keeps=None, density=0.5 * MB)
        relay.size = size
        rate: float | None = pace.budget
        for _ in range(40):
            assert rate is not None
            rate = relay.second(rate).rate
            pace.budget = ingest_budget(settings, 1, pace.bytes_an_event) or 0.0
        assert rate is not None
        assert rate / size == pytest.approx(1_250, rel=0.02)


async def test_an_ingest_reads_what_so_many_workers_can_apply() -> None:
    pace = IngestPace(made(**AGGRESSIVE), lambda _: None)
    source = Stuck()
    running = asyncio.create_task(pace.run(source.progress))
    for workers, rate in ((1, 5 * MB), (2, 10 * MB)):
        pace.workers = workers
        async with asyncio.timeout(60):
            while pace.outlook.rate != pytest.approx(rate):
                source.events += 200
                source.received += 800_000
                pace.received(800_000)
                await asyncio.sleep(0.05)
    running.cancel()
    assert pace.mode == ("paced", "10.0 MB/s: BACKFILL_USE_IDLE is off")


class Stuck:
    """A reading that stands a day behind, and does not move."""

    def __init__(self) -> None:
        self.position = time.time_ns() // 1000 - DAY * 1_000_000
        self.events = 0
        self.received = 0

    def progress(self) -> ReadProgress:
        now = time.time_ns() // 1000
        return ReadProgress(time.monotonic(), now, self.received, self.position, None, now, None, events=self.events)


def made(**settings: object) -> Settings:
    return Settings(_env_file=None, **settings)  # type: ignore[arg-type, call-arg]


async def test_the_reading_is_held_for_as_long_as_the_budget_says() -> None:
    changes: list[bool] = []
    pace = IngestPace(made(backfill_use_idle=False), changes.append)
    assert not IngestPace(made(backfill_profile="unlimited"), changes.append).is_paced
    assert pace.is_paced  # before the first look at the machine, too
    running = asyncio.create_task(pace.run(Stuck().progress))
    began = time.monotonic()
    for _ in range(14):
        pace.received(100_000)
        while changes and changes[-1]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    took = time.monotonic() - began
    running.cancel()
    assert took > 1.0  # 1.4 MB at 1 MB/s, after a burst of a quarter
    assert changes[:2] == [True, False]
    assert pace.mode == ("paced", "1.0 MB/s: BACKFILL_USE_IDLE is off")


def test_it_warns_once_a_minute_and_says_when_it_is_over() -> None:
    pace = IngestPace(made(), lambda _: None)
    relay = Relay(pace._window, behind=DAY, keeps=2 * DAY)
    relay.head = None
    with capture_logs() as said:
        for second in range(75):
            pace.outlook = relay.second(1 * MB)
            pace._warn(float(second))
        for second in range(75, 90):
            pace.outlook = relay.second(6 * MB)
            pace._warn(float(second))
    lines = [line["event"] for line in said]
    assert [line["log_level"] for line in said] == ["warning", "warning", "info"]
    assert "(0.3 x real time) the relay will drop what is not yet taken in 1d" in lines[0]
    assert "will be taken before the relay drops it" in lines[2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "reads 1 MB/s, more where the relay's window demands it, while the machine is busy with other work"),
        ({"backfill_use_idle": False}, "reads 1 MB/s, more where the relay's window demands it."),
        ({"ingest_busy_mb_per_s": 0}, "as fast as it goes."),
        ({"backfill_profile": "unlimited"}, "as fast as it goes."),
        (
            AGGRESSIVE,
            "reads 8.75 MB/s, more where the relay's window demands it. That is what the worker's settings can",
        ),
        (
            AGGRESSIVE | {"ingest_busy_mb_per_s": 0.5},
            "demands it. That is less than the worker's settings can apply: INGEST_BUSY",
        ),
        (AGGRESSIVE | {"ingest_busy_mb_per_s": 50}, "reads 50 MB/s, more where the relay's window demands it."),
    ],
)
def test_it_says_what_it_will_do(settings: dict[str, object], words: str) -> None:
    assert words in IngestPace(made(**settings), lambda _: None).plan()


@pytest.mark.parametrize("away", [False, True])
def test_the_window_is_warned_of_only_where_reading_can_change_it(away: bool) -> None:
    """While the relay gives no connection nothing can be taken, at any pace: that is said as what it is."""
    pace = IngestPace(Settings(), lambda _: None)
    pace.outlook = Outlook(None, False, 0.0, 0.0, None, 3 * 3600.0)
    for now in (0.0, 10.0):
        pace._window.judge(ReadProgress(now, START, 0, START, START, START, None), give_way=True)
    with capture_logs() as logs:
        pace._warn(10.0, away=away)
    said = [line["event"] for line in logs]
    assert said == ([] if away else [
        "[BACKFILL] Window: nothing is taken now, and the relay will drop what is not yet taken in 3h00m"
    ])  # fmt: skip
