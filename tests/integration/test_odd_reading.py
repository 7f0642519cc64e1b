"""A run that is read at relays that are silent, limited or refusing: what is in the topic, and how it ends."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from streams.errors import RelayError
from streams.ingestion.session import IngestSession, Options
from streams.kafka.topic import ensure_topic
from streams.messages import NOT_KEPT, NOTHING_SHOWN, OLD_NOT_SHOWN, Gap, Run
from streams.settings import Settings
from streams.sources.firehose.plan import Request
from tests.conftest import SettingsFactory
from tests.integration.test_resume import PARTITIONS, in_topic
from tests.support.relays import SECOND, OddRelay, answer

DAY = 86_400


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("streams.sources.firehose.probing", "streams.sources.firehose.start"):
        monkeypatch.setattr(f"{module}.SILENCE", 0.5)
    monkeypatch.setattr("streams.sources.firehose.start.QUIET", 0.5)
    monkeypatch.setattr("streams.sources.firehose.start.EXPECTED", 1.5)


async def session_of(
    settings: SettingsFactory, relay: OddRelay, *, follow: bool = False
) -> tuple[Settings, IngestSession]:
    made = settings(relay_url=relay.url, kafka_partitions=PARTITIONS, ingest_idle_seconds=1.0)
    request = Request(1, False, None, time.time_ns() // 1000)
    return made, IngestSession(made, Options(request, follow=follow, standby=False), await ensure_topic(made))


async def controls(settings: Settings, kind: type[Any]) -> list[Any]:
    return [control for control in (await in_topic(settings))[1] if isinstance(control, kind)]


async def seqs(settings: Settings) -> list[int]:
    return sorted({found[0] for found in (await in_topic(settings))[0]})


async def test_a_relay_that_shows_nothing_ends_with_a_gap_that_says_so(settings: SettingsFactory) -> None:
    async with OddRelay([], live=False) as relay:
        made, session = await session_of(settings, relay)
        await asyncio.wait_for(session.run(), 120)
    [gap] = await controls(made, Gap)
    [run] = await controls(made, Run)
    assert (gap.reason, gap.from_time) == (NOTHING_SHOWN, run.asked_from)
    assert gap.to_time >= run.asked_from + DAY * SECOND
    assert run.oldest_time is None


async def test_what_never_comes_from_the_oldest_cursor_ends_with_a_gap(settings: SettingsFactory) -> None:
    async with OddRelay.of(50, DAY, late=lambda _: None) as relay:
        made, session = await session_of(settings, relay)
        await asyncio.wait_for(session.run(), 120)
    [gap] = await controls(made, Gap)
    assert (gap.reason, gap.to_seq) == (OLD_NOT_SHOWN, 1049)
    assert await seqs(made) == []


async def test_a_relay_that_shows_its_first_frame_late_is_looked_at_again(settings: SettingsFactory) -> None:
    """It was taken for one that has nothing; what it keeps, and what not, is known with its first frame."""
    relay = OddRelay([], live=False)
    async with relay:
        made, session = await session_of(settings, relay, follow=True)
        task = asyncio.create_task(session.run())
        while session.connections == 0:  # noqa: ASYNC110 (a count, as the reader has it)
            await asyncio.sleep(0.05)
        relay.frames = OddRelay.of(50, DAY / 2).frames
        session._reader.reconnect("test")  # type: ignore[union-attr]
        while session.counts.events < 50:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        session.stop()
        await asyncio.wait_for(task, 60)
    assert await seqs(made) == [seq for seq, _ in relay.frames]
    [first, second] = await controls(made, Run)
    assert (first.oldest_seq, second.oldest_seq) == (None, 1000)
    assert first.run < second.run
    [gap] = await controls(made, Gap)
    assert (gap.reason, gap.from_time, gap.to_seq) == (NOT_KEPT, first.asked_from, 999)


async def test_a_first_frame_of_the_reading_connection_may_be_late(settings: SettingsFactory) -> None:
    """Longer than INGEST_IDLE_SECONDS, on a relay that sends nothing live: that is not its head."""
    async with OddRelay.of(50, DAY / 2, live=False) as relay:
        made, session = await session_of(settings, relay)
        relay._late = lambda _: 0.0 if session.connections == 0 and not session.started else 2.5
        await asyncio.wait_for(session.run(), 120)
    assert await seqs(made) == [seq for seq, _ in relay.frames]


@pytest.mark.parametrize("refusal", [answer(429, Retry_After="1"), answer(403)])
async def test_a_reading_connection_that_is_refused_for_a_while(settings: SettingsFactory, refusal: Any) -> None:
    async with OddRelay.of(50, DAY / 2) as relay:
        made, session = await session_of(settings, relay)
        left = [refusal, refusal]
        relay._answers = lambda *_: left.pop() if session.started and left else None
        await asyncio.wait_for(session.run(), 120)
    assert not left
    assert await seqs(made) == [seq for seq, _ in relay.frames]


async def test_a_relay_that_refuses_us_again_and_again_ends_it(
    settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.runtime.waiting.FIRST", 0.05)
    async with OddRelay.of(50, DAY / 2) as relay:
        _, session = await session_of(settings, relay)
        relay._answers = lambda *_: answer(403) if session.started else None
        with pytest.raises(RelayError, match="HTTP 403"):
            await asyncio.wait_for(session.run(), 120)


async def test_a_resumed_cursor_that_is_refused_is_replaced_and_what_is_lost_is_a_gap(
    settings: SettingsFactory,
) -> None:
    """As a relay does that says "cursor too old" by an HTTP answer: the oldest that it takes is asked for."""
    body = json.dumps({"error": "OutdatedCursor", "message": "too old"})
    async with OddRelay.of(50, DAY / 2) as relay:
        made, session = await session_of(settings, relay)
        await asyncio.wait_for(session.run(), 120)
        now = time.time_ns() // 1000
        relay.frames += [(seq, now + seq) for seq in range(1050, 1100)]
        relay._answers = lambda cursor, _: answer(400, body) if cursor is not None and cursor < 1069 else None
        _, again = await session_of(settings, relay)
        again = IngestSession(made, again.options, again.info)
        await asyncio.wait_for(again.run(), 120)
    assert await seqs(made) == [*range(1000, 1050), *range(1070, 1100)]
    gaps = await controls(made, Gap)
    assert [(gap.from_seq, gap.to_seq) for gap in gaps if gap.from_seq is not None] == [(1050, 1069)]
