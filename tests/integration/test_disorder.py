"""What a relay sent once is in Postgres, whatever the order of its seqs, its clocks and its form: by the real way.

Each test runs several inputs of a kind at once, for most of their time is waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from streams.simulator.arrangement import arranged
from streams.simulator.faults import parse_fault
from streams.simulator.manner import Manner, Order
from streams.simulator.oracle import Oracle, State
from streams.simulator.recording import Frame
from streams.simulator.relay import DevRelay
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Traffic
from tests.conftest import SettingsFactory
from tests.support.whole_way import Ways

EVENTS = 500


def traffic(seed: int, **plan: int) -> tuple[list[Frame], State]:
    """Frames, and what must come of them."""
    oracle = Oracle()
    end_us = time.time_ns() // 1000 - 60_000_000
    frames = list(Traffic(Plan(EVENTS, seed=seed, days_span=0.2, end_us=end_us, accounts=40, **plan), oracle).frames())
    return frames, oracle.state()


@pytest.fixture
def ways(settings: SettingsFactory) -> Ways:
    return Ways(settings)


@asynccontextmanager
async def serving(frames: Sequence[Frame], **how: object) -> AsyncIterator[DevRelay]:
    async with DevRelay(FrameStore(frames), **how) as relay:  # type: ignore[arg-type]
        yield relay


async def exact(
    ways: Ways,
    faults: str,
    manner: Manner | None = None,
    *,
    on_connections: str = "",
    seed: int = 1,
) -> list[str]:
    """One stream, put in disorder, taken to the head: a sentence for all that is not as it must be."""
    frames, oracle = traffic(seed)
    stream = arranged(frames, [parse_fault(fault) for fault in faults.split()])
    async with serving(stream, manner=manner, faults=on_connections.split()) as relay:
        way = await ways.way(relay.url)
        try:
            session = await way.ingest()
        except TimeoutError:
            return ["the ingest never ends"]
        connections = len(relay.connections)
    await way.apply()
    problems = await way.differences(oracle)
    problems += [f"a gap that is none: {reason}" for reason in await way.gaps()]
    problems += [f"a dead letter: {reason}" for reason in await way.letters()]
    if connections > 100:  # the search for the head alone may take eighty looks
        problems.append(f"{connections} connections")
    if session.counts.events > 3 * EVENTS:
        problems.append(f"{session.counts.events} events were taken of {EVENTS}")
    return problems


async def all_exact(ways: Ways, *inputs: str, orders: Sequence[Order] = (Order.SEQ,)) -> None:
    """Every input with every order of looking up a cursor, at once."""
    cases = [(each, order) for each in inputs for order in orders]
    found = await asyncio.gather(
        *(exact(ways, each, Manner(order=order), seed=n) for n, (each, order) in enumerate(cases))
    )
    assert dict(zip(cases, found, strict=True)) == {case: [] for case in cases}


async def test_a_stream_in_order_is_exact(ways: Ways) -> None:
    assert await exact(ways, "") == []


async def test_events_that_overtake_others(ways: Ways) -> None:
    await all_exact(
        ways, "overtake:scatter=1,count=1,by=49", "overtake:scatter=6,count=1,by=30",
        "overtake:scatter=2,count=60,by=90",
        "overtake:scatter=4,count=10,by=10", "overtake:after=1,count=20,by=5", "overtake:every=60,count=2,by=3",
        orders=list(Order),
    )  # fmt: skip


async def test_neighbours_and_repeats(ways: Ways) -> None:
    await all_exact(
        ways, "swap:scatter=1", "swap:scatter=60", "swap:every=2", "repeat:scatter=3,count=1",
        "repeat:scatter=5,count=100",
        "repeat:every=20,count=2 swap:every=9 overtake:scatter=3,count=4,by=40",
    )  # fmt: skip


async def test_a_lone_seq_that_is_far_off(ways: Ways) -> None:
    await all_exact(
        ways, "ahead:scatter=1", "ahead:scatter=5,jump=900", "ahead:scatter=2,jump=4000000000",
        "behind:scatter=1,jump=100",
        "behind:after=300,jump=200 behind:after=200,jump=30",
        "ahead:scatter=3 behind:after=300,jump=150 swap:scatter=9",
        orders=list(Order),
    )  # fmt: skip
    # Below all that the relay keeps: one that looks at each seq never sends it.
    await all_exact(ways, "behind:scatter=4,jump=4999000000", "behind:scatter=1,jump=9000", orders=[Order.PLACE])


async def test_two_events_under_one_seq(ways: Ways) -> None:
    await all_exact(
        ways, "same_seq:scatter=1", "same_seq:scatter=30", "same_seq:every=5",
        "same_seq:scatter=4 clock_ahead:scatter=4",
        "same_seq:scatter=4 clock_behind:scatter=4", "same_seq:scatter=4 swap:scatter=30",
    )  # fmt: skip


async def test_clocks_that_are_wrong(ways: Ways) -> None:
    await all_exact(
        ways, "clock_ahead:pds=5", "clock_behind:scatter=6,count=5", "clock_ahead:scatter=1,count=200,seconds=86400",
        "clock_ahead:scatter=1,count=1,seconds=2300000000", "clock_behind:scatter=1,count=30,seconds=5000000000",
        "clock_ahead:scatter=9,count=3,seconds=7200 swap:scatter=20 ahead:scatter=2",
    )  # fmt: skip


async def test_frames_that_are_not_canonical(ways: Ways) -> None:
    await all_exact(
        ways, "loose_header:every=1", "loose_integers:every=1", "loose_keys:every=1", "loose_header:scatter=3",
        "loose_header:every=1 loose_keys:every=1", "loose_keys:scatter=3 swap:scatter=5",
    )  # fmt: skip


async def test_a_time_that_is_that_of_sending(ways: Ways) -> None:
    """Every reconnect then sends known frames with a newer time: that is no reset."""
    manner = Manner(sent_times=True)
    found = await asyncio.gather(
        *(exact(ways, faults, manner, on_connections=drops) for faults, drops in (
            ("", ""), ("", "drop:after=150"), ("swap:scatter=9", "drop:after=100 close:after=120"),
            ("overtake:scatter=3", "drop:after=200 drop:after=20"), ("", "duplicate:after=200,count=60"),
            ("", "rewind:after=300,count=200"),
        ))
    )  # fmt: skip
    assert found == [[]] * 6


async def test_connections_that_break_amid_the_disorder(ways: Ways) -> None:
    inputs = (
        "overtake:after=100,count=5,by=20 drop:after=110", "swap:after=200 drop:after=201",
        "ahead:after=50 drop:after=60",
        "ahead:after=50 drop:after=51 drop:after=2", "same_seq:after=90 close:after=92",
        "clock_ahead:after=50 drop:after=55",
        "overtake:after=100,count=50,by=100 drop:after=130 drop:after=30,hard=1",
    )  # fmt: skip
    found = await asyncio.gather(*(exact(ways, "", on_connections=each, seed=n) for n, each in enumerate(inputs)))
    assert dict(zip(inputs, found, strict=True)) == {each: [] for each in inputs}
