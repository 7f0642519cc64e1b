"""How far the sink is behind the topic: offsets and ends of every partition, counts, gaps, dead letters.

Read from Kafka and Postgres only, so that it says the same from anywhere, whether a worker runs or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.errors import MismatchError
from streams.kafka.topic import TopicInfo, reader
from streams.postgres.database import Database
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition: ``next_offset`` is what the sink applies next; the log is from ``begin`` to before ``end``."""

    partition: int
    begin: int
    next_offset: int
    end: int
    watermark_seq: int | None
    watermark_time: datetime | None

    @property
    def pending(self) -> int:
        """Messages in Kafka that are not in Postgres yet. Messages that retention already removed do not count."""
        return max(self.end - max(self.next_offset, self.begin), 0)


@dataclass(frozen=True, slots=True)
class SinkLag:
    """All partitions, and the sums of their counts. received = applied + skipped + dead.

    ``odd_claims``: events about accounts whose time is more than an hour from that of their place in the stream.
    """

    partitions: tuple[PartitionLag, ...]
    received: int
    applied: int
    skipped: int
    dead: int
    odd_claims: int = 0

    @property
    def pending(self) -> int:
        """Messages in Kafka that are not in Postgres."""
        return sum(partition.pending for partition in self.partitions)

    @property
    def messages(self) -> int:
        """Messages of the topic that are applied."""
        return sum(partition.next_offset for partition in self.partitions)


@dataclass(frozen=True, slots=True)
class Holdings:
    """The contents of a schema, counted. ``gaps``: from, to (times or None), reason."""

    collections: tuple[tuple[str, int], ...]
    accounts: int
    covered_from: datetime | None
    covered_to: datetime | None
    gaps: tuple[tuple[datetime | None, datetime | None, str], ...]
    dead_letters: tuple[tuple[str, int], ...]
    cursor: str | None


class LagReader:
    """A reader of the lag with open connections; see ``lag_reader``."""

    def __init__(
        self, settings: Settings, database: Database, consumer: AIOKafkaConsumer, tps: list[TopicPartition]
    ) -> None:
        self._settings = settings
        self.database = database
        self._consumer = consumer
        self._tps = tps

    async def lag(self) -> SinkLag:
        """Return the lag now. A schema that is not there yet has applied nothing."""
        ends = await self._consumer.end_offsets(self._tps)
        begins = await self._consumer.beginning_offsets(self._tps)
        rows = {row["partition"]: row for row in await self._offsets()}
        partitions = []
        for tp in self._tps:
            row = rows.get(tp.partition)
            partitions.append(
                PartitionLag(
                    tp.partition,
                    begins[tp],
                    row["next_offset"] if row else begins[tp],
                    ends[tp],
                    row["watermark_seq"] if row else None,
                    row["watermark_time"] if row else None,
                )
            )
        counts = ("received", "applied", "skipped", "dead", "odd_claims")
        sums = [sum(row[name] for row in rows.values()) for name in counts]
        return SinkLag(tuple(partitions), *sums)

    async def positions(self) -> dict[int, int]:
        """Return the next offset of every partition that the sink has ever been given."""
        return {row["partition"]: row["next_offset"] for row in await self._offsets()}

    async def _offsets(self) -> list[Any]:
        try:
            return await self.database.fetch("sink_positions", self._settings.kafka_topic, self._settings.sink_group)
        except MismatchError:  # the worker has not made it yet
            return []

    async def holdings(self) -> Holdings:
        """Return what the schema holds now. It counts every record, so it takes a while on a large schema."""
        topic, group = self._settings.kafka_topic, self._settings.sink_group
        collections = await self.database.fetch("count_collections")
        [[accounts]] = await self.database.fetch("count_actors")
        covered_from = await self.database.fetch("covered_from", topic)
        [[covered_to]] = await self.database.fetch("covered_to", topic, group)
        gaps = await self.database.fetch("gaps", topic)
        dead = await self.database.fetch("count_dead_letters", topic)
        cursor = await self.database.fetch("cursor_text", self._settings.cursor_service)
        return Holdings(
            collections=tuple((row[0], row[1]) for row in collections),
            accounts=accounts,
            covered_from=covered_from[0][0] if covered_from else None,
            covered_to=covered_to,
            gaps=tuple((row[0], row[1], row[2]) for row in gaps),
            dead_letters=tuple((row[0], row[1]) for row in dead),
            cursor=cursor[0][0] if cursor else None,
        )


@asynccontextmanager
async def lag_reader(settings: Settings, info: TopicInfo) -> AsyncIterator[LagReader]:
    """Open a reader with its own connections. Raises BrokerError, DatabaseError."""
    database = Database(settings.database_dsn(), settings.sink_schema, 1)
    try:
        await database.start()
        async with reader(settings, info.partitions) as (consumer, tps):
            yield LagReader(settings, database, consumer, tps)
    finally:
        await database.close()
