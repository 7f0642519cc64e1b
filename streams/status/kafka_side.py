"""What Kafka says of a deployment, and where the sink stands against it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    KafkaError,
    NotCoordinatorForGroupError,
)

from streams.kafka.client import kafka_client_options
from streams.kafka.groups import changelog, members
from streams.kafka.topic import assign_paused, describe_topic
from streams.kafka.watermarks import last_watermark
from streams.postgres.database import Database
from streams.settings import Settings
from streams.status.lag import LagReader, SinkLag
from streams.status.model import Counted
from streams.status.table_counts import Changelog
from streams.text import as_time

#: Seconds between two looks into the topic while no ingest reports, and into the counts of collections.
_LOOK_EVERY: Final = 2.0
#: What the looks fetch at a time.
_FETCH_BYTES: Final = 256 * 1024


class Told(msgspec.Struct, frozen=True):
    """What Kafka says, and where the sink stands against it."""

    standing: SinkLag
    members: tuple[str, ...] | None
    collections: tuple[Counted, ...]
    newest: dt.datetime | None
    trouble: str | None


class KafkaSide:
    """The questions to Kafka: one admin client, one consumer without a group."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._tps: list[TopicPartition] = []
        self._counts: Changelog | None = None
        self._collections: tuple[Counted, ...] = ()
        self._counted_at = self._looked_at = -_LOOK_EVERY
        self._looked_end = -1
        self._newest: dt.datetime | None = None
        self.topic_trouble: str | None = None

    async def open(self) -> None:
        """Connect, if we are not; look for the topic and for the table's changelog until they are there."""
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(**kafka_client_options(self._settings), request_timeout_ms=5_000)
            await self._admin.start()
        if self._tps and self._counts is not None:
            return
        name = self._settings.kafka_topic
        topic = await describe_topic(self._admin, name)
        self.topic_trouble = None if topic else f"There is no topic {name} yet: the ingest, or a worker, makes it."
        if topic is None:
            return
        log = await describe_topic(self._admin, changelog(self._settings, "collections"))
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **kafka_client_options(self._settings), group_id=None, enable_auto_commit=False,
                auto_offset_reset="none", max_partition_fetch_bytes=_FETCH_BYTES, fetch_max_bytes=4 * _FETCH_BYTES,
                request_timeout_ms=5_000,
            )  # fmt: skip
            self._consumer = consumer
            await consumer.start()
        self._tps = [TopicPartition(name, number) for number in range(topic.partitions)]
        logs = [TopicPartition(log.name, number) for number in range(log.partitions)] if log else []
        assign_paused(self._consumer, [*self._tps, *logs])
        self._counts = Changelog(self._consumer, logs) if logs else None

    async def close(self) -> None:
        """Close what is open."""
        for client in (self._consumer, self._admin):
            if client is not None:
                with contextlib.suppress(KafkaError, TimeoutError):
                    async with asyncio.timeout(2.0):
                        await (client.stop() if isinstance(client, AIOKafkaConsumer) else client.close())

    async def told(self, database: Database, reported: dt.datetime | None) -> Told:
        """All answers. ``reported``: up to when the ingest says that it is."""
        assert self._admin is not None
        standing = SinkLag((), 0, 0, 0, 0)
        if self._consumer is not None:
            standing = await LagReader(self._settings, database, self._consumer, self._tps).sink()
        return Told(
            standing,
            await self._members(self._admin),
            await self._count(),
            reported or await self._newest_watermark(),
            self.topic_trouble,
        )

    async def _members(self, admin: AIOKafkaAdminClient) -> tuple[str, ...] | None:
        """The hosts of the workers; None where the broker does not know, or we may not ask."""
        try:
            return tuple(await members(admin, self._settings))
        except (CoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupAuthorizationFailedError):
            return None

    async def _count(self) -> tuple[Counted, ...]:
        """Rows sent to Postgres by collection, the most first."""
        is_due = time.monotonic() - self._counted_at >= _LOOK_EVERY
        if self._counts is not None and (is_due or self._counts.is_behind):
            self._counted_at = time.monotonic()
            sums: dict[str, int] = {}
            for counts in await self._counts.values():
                for name, count in counts.items():
                    sums[name] = sums.get(name, 0) + int(count)
            ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
            self._collections = tuple(Counted(name, count) for name, count in ordered)
        return self._collections

    async def _newest_watermark(self) -> dt.datetime | None:
        """The time up to which Kafka has everything."""
        if self._consumer is None:
            return None
        tp = self._tps[0]
        [end] = (await self._consumer.end_offsets([tp])).values()
        if end != self._looked_end and time.monotonic() - self._looked_at >= _LOOK_EVERY:
            [begin] = (await self._consumer.beginning_offsets([tp])).values()
            mark = await last_watermark(self._consumer, tp, begin, end)
            self._consumer.pause(*self._consumer.assignment())
            self._looked_end, self._looked_at = end, time.monotonic()
            self._newest = None if mark is None else as_time(mark.time)
        return self._newest
