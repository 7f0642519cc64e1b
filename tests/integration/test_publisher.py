"""Watermarks on a broker that refuses a batch: none stands over what Kafka has not got, and the failure is told.

The topic takes no batch of more than SMALL bytes, so that a large one is refused, at once and for good.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka.admin import NewTopic

from streams.kafka.client import admin_client
from streams.kafka.publisher import Publisher, SendError
from streams.kafka.topic import TopicInfo, ensure_topic, partition_for
from streams.kafka.watermarks import read_state
from streams.messages import StreamPosition, Watermark
from streams.settings import Settings
from tests.conftest import SettingsFactory
from tests.support.patience import PATIENCE

SMALL = 3000
PARTITIONS = 2
#: A DID of partition 0; what it sends is refused.
DID = next(did for did in (f"did:plc:{n}" for n in range(99)) if partition_for(did.encode(), PARTITIONS) == 0)
REFUSED = os.urandom(2 * SMALL)


def marks_of(run: int, topic_id: str = "t") -> Callable[[StreamPosition], Watermark]:
    return lambda position: Watermark(relay="r", run=run, topic_id=topic_id, seq=position.seq, time=position.time)


@dataclass
class Site:
    """A publisher whose run has begun, at seq 1."""

    settings: Settings
    info: TopicInfo
    publisher: Publisher
    position: StreamPosition = StreamPosition(1, None)  # noqa: RUF009 (frozen)
    changes: list[bool] = field(default_factory=list)

    async def marked(self) -> dict[int, int]:
        """The seq of each partition's last watermark."""
        state = await read_state(self.settings, self.info)
        return {partition: mark.seq for partition, mark in state.watermarks.items()}

    async def refused(self) -> None:
        """Wait until the broker's refusal is known; then a little, for what may be sent after it."""
        async with asyncio.timeout(PATIENCE):
            while self.publisher.failure is None:  # noqa: ASYNC110 (its callers are told by on_change)
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)


@asynccontextmanager
async def begun(settings: Settings) -> AsyncIterator[Site]:
    async with admin_client(settings) as admin:
        configs = {"max.message.bytes": str(SMALL)}
        await admin.create_topics([NewTopic(settings.kafka_topic, PARTITIONS, 1, topic_configs=configs)])
    info = await ensure_topic(settings)
    publisher = Publisher(settings, info, budget=1 << 20, on_change=lambda: None)
    await publisher.start()
    site = Site(settings, info, publisher)
    publisher.begin_run(marks_of(1), lambda: site.position)
    await publisher.write_watermarks()
    try:
        yield site
    finally:
        await publisher.stop()


async def test_a_refused_batch_gets_no_watermark_and_is_told(settings: SettingsFactory) -> None:
    async with begun(settings()) as site:
        assert await site.marked() == {0: 1, 1: 1}
        site.publisher.add(DID, [REFUSED])
        site.position = StreamPosition(7, 70)
        with pytest.raises(SendError):
            await site.publisher.write_watermarks()
        await site.refused()
        with pytest.raises(SendError):
            await site.publisher.drain()
        assert site.publisher.durable == StreamPosition(1, None)
        assert await site.marked() == {0: 1, 1: 1}


async def test_a_watermark_covers_only_what_was_there_when_it_began(settings: SettingsFactory) -> None:
    async with begun(settings()) as site:
        site.publisher.add(DID, [b"{}"])
        site.position = StreamPosition(7, 70)
        writing = asyncio.create_task(site.publisher.write_watermarks())
        await asyncio.sleep(0)  # it waits for the batch by now
        site.position = StreamPosition(9, 90)
        await writing
        assert site.publisher.durable == StreamPosition(7, 70)
        assert await site.marked() == {0: 7, 1: 7}


async def test_a_position_is_durable_only_when_its_watermarks_are(settings: SettingsFactory) -> None:
    async with begun(settings()) as site:
        site.publisher.begin_run(marks_of(2, REFUSED.hex()), lambda: StreamPosition(7, 70))
        with pytest.raises(SendError):
            await site.publisher.write_watermarks()
        assert site.publisher.durable is None


async def test_a_watermark_of_the_run_before_makes_nothing_of_this_one_durable(settings: SettingsFactory) -> None:
    async with begun(settings()) as site:
        site.position = StreamPosition(7, 70)
        writing = asyncio.create_task(site.publisher.write_watermarks())
        await asyncio.sleep(0)
        site.publisher.begin_run(marks_of(2), lambda: StreamPosition(3, None))  # the relay's sequence was reset
        await writing
        assert site.publisher.durable is None
        await site.publisher.write_watermarks()
        assert site.publisher.durable == StreamPosition(3, None)
        state = await read_state(site.settings, site.info)
        assert {(mark.run, mark.seq) for mark in state.watermarks.values()} == {(2, 3)}
