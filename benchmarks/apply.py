"""Apply alone: batches that were prepared before, by ``apply_batch`` into an empty schema, as many at once as a worker.

The rest of the worker takes no part: no fetching, no merging, no Faust.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.figures import Figures, Measured, figures_of
from benchmarks.sampling import Sampler
from benchmarks.servers import connected, wal_position
from benchmarks.stages import Site
from benchmarks.verify import check_rows
from streams.kafka.topic import ensure_topic, read_from, reader
from streams.postgres.apply import BatchArguments, apply_batch
from streams.postgres.batch import BatchBuilder
from streams.postgres.database import Connection, Database
from streams.postgres.migrate import migrate_schema
from streams.settings import Settings
from streams.sink_postgres import PostgresSink

#: Messages of a batch: the most that a worker puts into one transaction.
BATCH: Final = 4000


async def apply_alone(site: Site, filled: Settings) -> tuple[Figures, Settings]:
    """Measure the batches of a filled topic, in a schema of their own, whose settings are returned too.

    Only the time of applying counts.
    """
    schema = site.servers.settings(site.relay.url).sink_schema
    settings = filled.model_copy(update={"sink_schema": schema, "sink_group": schema})
    info = await ensure_topic(settings)
    abreast = settings.backfill_max_concurrent
    database = Database(settings.database_dsn(), schema, abreast)
    seconds = client = 0.0
    try:
        await migrate_schema(database)
        partitions = list(range(info.partitions))
        await PostgresSink(database, topic=info.name, group=schema).positions(
            set(partitions), dict.fromkeys(partitions, 0)
        )
        async with connected(site.servers.dsn) as look, reader(settings, info.partitions) as (consumer, tps):
            before = await wal_position(look)
            apart = frozenset((look.get_server_pid(),))
            async with Sampler({"postgres": site.servers.pids()["postgres"]}, apart=apart) as sampler:
                for first in range(0, len(tps), abreast):
                    prepared = [prepare(settings, tp, await read(consumer, tp)) for tp in tps[first : first + abreast]]
                    began, used = time.monotonic(), time.process_time()
                    await asyncio.gather(*(_apply(database, batches) for batches in prepared))
                    seconds += time.monotonic() - began
                    client += time.process_time() - used
                usage = sampler.usage()
            await database.close()
            wal = (await wal_position(look)).since(before)
            rows = int(await look.fetchval(f"SELECT sum(applied) FROM {schema}.sink_offsets"))
    finally:
        await database.close()
    await check_rows(settings, site.relay.oracle, site.events)
    cpu = {**usage.cpu, "client": client}
    measured = Measured(
        site.events, seconds, cpu, usage.postgres, rows=rows, wal_bytes=wal.bytes, wal_images=wal.images
    )
    return figures_of(measured), settings


async def read(consumer: AIOKafkaConsumer, tp: TopicPartition) -> list[Any]:
    """Return all messages of a partition."""
    [end] = (await consumer.end_offsets([tp])).values()
    found: list[Any] = []
    read_from(consumer, {tp: 0})
    while len(found) < end:
        for records in (await consumer.getmany(tp, timeout_ms=10_000)).values():
            found += records
    consumer.pause(tp)
    return found


def prepare(settings: Settings, tp: TopicPartition, records: Sequence[Any]) -> list[BatchArguments]:
    """Return a partition's messages as batches, each as a worker would hand it to Postgres."""
    builder, now_us, found = BatchBuilder(), time.time_ns() // 1000, []
    for first in range(0, len(records), BATCH):
        part = records[first : first + BATCH]
        batch = builder.build(part, now_us)
        found.append(
            BatchArguments(
                settings.kafka_topic, tp.partition, settings.sink_group, part[0].offset, part[-1].offset + 1,
                batch.grouped(expect_new=True), batch.extras(), batch.received, batch.topic_id, batch.watermark,
            )
        )  # fmt: skip
    return found


async def _apply(database: Database, batches: Sequence[BatchArguments]) -> None:
    """Apply one partition's batches in order."""
    for batch in batches:

        async def call(connection: Connection, batch: BatchArguments = batch) -> Any:  # noqa: ANN401 (a row)
            return await apply_batch(connection, batch)

        if await database.run(call) is None:
            sys.exit(f"Partition {batch.partition} does not stand at {batch.base}.")
