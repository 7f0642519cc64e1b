"""Relays that limit connections, answer late, or are none: what they have is taken, or a sentence says why not."""

from __future__ import annotations

import asyncio
import time

import pytest

from streams.errors import StreamsError
from streams.simulator.dialects import as_jetstream, as_labels
from streams.simulator.manner import Manner, Speech
from streams.simulator.oracle import Oracle
from streams.simulator.relay import DevRelay
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Traffic
from tests.conftest import SettingsFactory
from tests.support.whole_way import Ways


@pytest.fixture
def ways(settings: SettingsFactory) -> Ways:
    return Ways(settings)


async def problems_of(ways: Ways, faults: str, seed: int) -> list[str]:
    """All that the relay has, by its rules: what is not as it must be."""
    oracle = Oracle()
    end_us = time.time_ns() // 1000 - 60_000_000
    frames = Traffic(Plan(200, seed=seed, days_span=0.2, end_us=end_us, accounts=20), oracle).frames()
    async with DevRelay(FrameStore(frames), faults=faults.split()) as relay:
        way = await ways.way(relay.url)
        await way.ingest()
    await way.apply()
    return [*await way.differences(oracle.state()), *await way.gaps()]


async def test_limits_and_late_answers_are_waited_for(ways: Ways) -> None:
    inputs = (
        "limit:count=2,seconds=6", "limit:count=1,seconds=4,retry=date", "limit:count=2,seconds=6,retry=none", "single",
        "single limit:count=2,seconds=5", "late:seconds=5,count=0", "refuse:status=429,retry=seconds,seconds=3",
        "refuse:status=503,retry=date,seconds=3",
    )  # fmt: skip
    found = await asyncio.gather(
        *(problems_of(ways, each, seed) for seed, each in enumerate(inputs)), return_exceptions=True
    )
    assert dict(zip(inputs, found, strict=True)) == {each: [] for each in inputs}


@pytest.mark.parametrize("speech", [Speech.JETSTREAM, Speech.LABELS])
async def test_a_stream_of_another_kind_ends_with_a_sentence(ways: Ways, speech: Speech) -> None:
    frames = Traffic(Plan(200, seed=1, end_us=time.time_ns() // 1000)).frames()
    other = as_jetstream(frames) if speech is Speech.JETSTREAM else as_labels(frames)
    async with DevRelay(FrameStore(other), manner=Manner(speech=speech)) as relay:
        way = await ways.way(relay.url)
        with pytest.raises(StreamsError) as ended:
            await way.ingest()
    assert ended.value.exit_code == 5
