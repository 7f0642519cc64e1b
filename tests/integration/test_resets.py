"""A relay whose sequence begins anew, in every way that relays do it: all that it has is taken, and one gap says so."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from streams.simulator.manner import Beyond, Manner
from streams.simulator.oracle import Oracle, State
from streams.simulator.recording import Frame
from streams.simulator.relay import DevRelay
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Reset, Traffic
from tests.conftest import SettingsFactory
from tests.support.whole_way import FOR_EVER, Ways

OLD, NEW, LIVE = 200, 400, 100
FIRST = 5_000_000_001
#: Seconds for a relay that answers a cursor beyond its head with silence: a first frame is waited for that long.
PATIENT = 150.0


@pytest.fixture
def ways(settings: SettingsFactory) -> Ways:
    return Ways(settings)


def traffic(seed: int, reset_to: int) -> tuple[list[Frame], State]:
    """Two sequences, and what must come of both."""
    oracle = Oracle()
    plan = Plan(
        OLD + NEW, seed=seed, days_span=0.2, end_us=time.time_ns() // 1000 - 60_000_000, accounts=40, first_seq=FIRST,
        resets=(Reset(OLD, reset_to),),
    )  # fmt: skip
    frames = list(Traffic(plan, oracle).frames())
    assert oracle.state()["expected_resets"] == 1
    return frames, oracle.state()


def _is_there(relay: DevRelay, begins: int) -> bool:
    """Whether a client that has a position is at the end of the old sequence."""
    return any(c.open and c.cursor and c.first_index is not None and c.first_index + c.sent == begins
               for c in relay.connections)  # fmt: skip


async def problems_of(ways: Ways, seed: int, reset_to: int, manner: Manner, *, there: bool) -> list[str]:
    """The reset happens while an ingest is there, or while none is: what is not as it must be."""
    frames, oracle = traffic(seed, reset_to)
    begins = next(index for index, frame in enumerate(frames) if frame.anew)
    relay = DevRelay(FrameStore(frames), published=begins, manner=manner)
    async with relay:
        way = await ways.way(relay.url)
        last, left = oracle["last_seq"], len(frames) - begins - LIVE
        seconds = PATIENT if manner.beyond is Beyond.SILENT else FOR_EVER
        assert last is not None
        assert left > 0
        if not there:
            await way.ingest()
            relay.publish(left)
            await way.follow(last, relay, seconds)
        else:
            await way.follow(frames[begins - 1].seq)
            following = asyncio.create_task(way.follow(last, relay, seconds))
            while not following.done() and not _is_there(relay, begins):  # noqa: ASYNC110 (nobody tells it)
                await asyncio.sleep(0.1)
            relay.publish(left)
            await following
    await way.apply()
    problems, gaps = await way.differences(oracle), await way.gaps()
    if len(gaps) != 1 or "reset" not in gaps[0]:
        problems.append(f"gaps: {gaps}")
    return problems


#: Where a new sequence begins: anew, a little below the old one, with the same numbers, and then grown beyond it.
BEGINNINGS = (1, FIRST - 3000, FIRST, FIRST + 150)
#: Of a store that has both: under numbers that are another's, too, nobody can ask for an event.
BESIDE = BEGINNINGS[:2]
#: With LONG=1: also relays that answer with silence, which takes minutes.
LONG = bool(os.environ.get("LONG"))


async def all_right(ways: Ways, inputs: list[tuple[int, Manner]], *, there: bool) -> None:
    """Every input at once: most of their time is waiting."""
    found = await asyncio.gather(
        *(problems_of(ways, n, reset_to, manner, there=there) for n, (reset_to, manner) in enumerate(inputs)),
        return_exceptions=True,
    )
    problems = [f"{reset_to}, {manner.beyond}: {what!r}" for (reset_to, manner), what in zip(inputs, found, strict=True)
                if what != []]  # fmt: skip
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("there", [False, True])
async def test_a_sequence_that_begins_anew(ways: Ways, there: bool) -> None:
    manners = [Manner(beyond=beyond, cut_at_reset=True) for beyond in Beyond if LONG or beyond is not Beyond.SILENT]
    await all_right(ways, [(reset_to, manner) for manner in manners for reset_to in BEGINNINGS], there=there)


@pytest.mark.parametrize("there", [False, True])
async def test_a_store_that_keeps_the_old_sequence(ways: Ways, there: bool) -> None:
    manner = Manner(cut_at_reset=True, keep_old=True)
    await all_right(ways, [(reset_to, manner) for reset_to in BESIDE], there=there)
