"""A relay's stream through the real ingest, Kafka, the sink and Postgres, all in this process; and what came of it.

The worker's part is its sink: ``PostgresSink`` gets the topic in slices as the worker cuts them. Many ways can run at
once (``Ways``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from streams.ingestion.session import IngestSession, Options
from streams.kafka.topic import TopicInfo, ensure_topic, read_from, reader
from streams.kafka.watermarks import read_state
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.postgres.session import reading
from streams.settings import Settings
from streams.simulator.compare import compare
from streams.simulator.oracle import State
from streams.simulator.relay import DevRelay
from streams.sink_postgres import PostgresSink
from streams.sources.firehose.plan import Request

#: Messages of a slice at most.
SLICE = 500
#: Seconds after which an ingest counts as one that never ends.
FOR_EVER = 60.0
#: Seconds without a frame after which an ingest has settled what came last, has connected again where it must, and
#: has looked at what a relay keeps whose sequence began anew.
QUIET = 15.0
#: Frames that come live every tenth of a second.
LIVE_AT_ONCE = 3


@dataclass(frozen=True)
class Way:
    """One topic, one schema, and the address of a relay in the settings."""

    settings: Settings
    info: TopicInfo

    @classmethod
    async def of(cls, settings: Settings) -> Way:
        """Make the topic."""
        return cls(settings, await ensure_topic(settings))

    def at(self, url: str) -> Way:
        """The same way from another relay."""
        return Way(self.settings.model_copy(update={"relay_url": url}), self.info)

    # -- the ingest

    def session(self, *, days: int = -1, follow: bool = False) -> IngestSession:
        """An ingest that has not begun."""
        request = Request(days, False, None, time.time_ns() // 1000)
        return IngestSession(self.settings, Options(request, follow=follow, standby=False), self.info)

    async def ingest(self, *, days: int = -1, seconds: float = FOR_EVER) -> IngestSession:
        """Take all up to the head. Raises TimeoutError where that never ends, and what the ingest raises."""
        session = self.session(days=days)
        async with asyncio.timeout(seconds):
            await session.run()
        return session

    async def mark(self) -> int | None:
        """The seq of the topic's lowest watermark."""
        lowest = (await read_state(self.settings, self.info)).lowest
        return lowest.seq if lowest is not None else None

    async def follow(self, until: int, live: DevRelay | None = None, seconds: float = FOR_EVER) -> IngestSession:
        """Take what comes until the watermark is at a seq; once connected, ``live`` lets out what is left, bit by bit.

        Raises AssertionError where the watermark never comes to that seq.
        """

        async def arrived(_: IngestSession) -> bool:
            return await self.mark() == until

        try:
            return await self._follow(arrived, live, seconds)
        except TimeoutError:
            raise AssertionError(f"the watermark stands at {await self.mark()}, not at {until}") from None

    async def follow_until_quiet(self, live: DevRelay, seconds: float = FOR_EVER) -> IngestSession:
        """Take what comes, bit by bit, until the relay has said all and is quiet. Raises TimeoutError."""
        frames, since = -1, time.monotonic()

        async def quiet(session: IngestSession) -> bool:
            nonlocal frames, since
            if session.counts.frames != frames or live.head_index < len(live.store):
                frames, since = session.counts.frames, time.monotonic()
            return time.monotonic() - since > QUIET

        return await self._follow(quiet, live, seconds)

    async def _follow(
        self, done: Callable[[IngestSession], Awaitable[bool]], live: DevRelay | None, seconds: float
    ) -> IngestSession:
        session = self.session(follow=True)
        running = asyncio.create_task(session.run())
        try:
            async with asyncio.timeout(seconds):
                while not running.done() and not await done(session):
                    if live is not None and session.connections:
                        live.publish(LIVE_AT_ONCE)
                    await asyncio.sleep(0.1)
        finally:
            session.stop()
            await asyncio.wait({running}, timeout=30)
        running.result()
        return session

    # -- the sink

    async def apply(self) -> None:
        """Write what the topic holds, and was not written yet, into the schema."""
        database = Database(self.settings.database_dsn(), self.settings.sink_schema, 2)
        await database.start()
        try:
            await migrate_schema(database)
            sink = PostgresSink(database, topic=self.info.name, group=self.settings.sink_group)
            partitions = range(self.info.partitions)
            at = await sink.positions(set(partitions), dict.fromkeys(partitions, 0))
            async with reader(self.settings, self.info.partitions) as (consumer, tps):
                ends = await consumer.end_offsets(tps)
                read_from(consumer, {tp: at[tp.partition] for tp in tps})
                while any(at[tp.partition] < ends[tp] for tp in tps):
                    for tp, batch in (await consumer.getmany(timeout_ms=500)).items():
                        for begin in range(0, len(batch), SLICE):
                            part = batch[begin : begin + SLICE]
                            base, at[tp.partition] = at[tp.partition], part[-1].offset + 1
                            await sink.write(tp.partition, base, at[tp.partition], part)
        finally:
            await database.close()

    # -- what came of it

    async def differences(self, oracle: State) -> list[str]:
        """A sentence for each thing that is not as the oracle says; also for counts that do not add up."""
        schema = self.settings.sink_schema
        async with reading(self.settings.database_dsn(), schema) as connection:
            problems = await compare(connection, schema, oracle)
        counts = await self.counts()
        if counts["received"] != counts["applied"] + counts["skipped"] + counts["dead"]:
            problems.append(f"the counts do not add up: {counts}")
        return problems

    async def counts(self) -> dict[str, int]:
        """What the sink counted, all partitions together."""
        [row] = await self.rows(
            "SELECT sum(received)::bigint AS received, sum(applied)::bigint AS applied, "
            "sum(skipped)::bigint AS skipped, sum(dead)::bigint AS dead FROM sink_offsets"
        )
        return row

    async def gaps(self) -> list[str]:
        """The reasons of all gaps."""
        return [row["reason"] for row in await self.rows("SELECT reason FROM gaps ORDER BY 1")]

    async def letters(self) -> list[str]:
        """The reasons of all dead letters."""
        return [row["reason"] for row in await self.rows("SELECT reason FROM dead_letters ORDER BY 1")]

    async def rows(self, statement: str) -> list[dict[str, Any]]:
        """The rows of a query in the schema."""
        connection = await asyncpg.connect(self.settings.database_dsn())
        try:
            await connection.execute("SELECT set_config('search_path', $1, false)", self.settings.sink_schema)
            return [dict(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()


class Ways:
    """Ways through one Kafka and one database, each with a topic and a schema of its own."""

    def __init__(self, settings: Callable[..., Settings]) -> None:
        self._settings = settings
        self._made = 0

    async def way(self, url: str) -> Way:
        """A new one."""
        self._made += 1
        made = self._settings(kafka_partitions=2, ingest_idle_seconds=1.5, relay_url=url)
        names = {"kafka_topic": f"{made.kafka_topic}.{self._made}", "sink_schema": f"{made.sink_schema}_{self._made}"}
        return await Way.of(made.model_copy(update=names))
