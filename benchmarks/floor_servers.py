"""The pieces of the floor that need a server: one produce request a megabyte, a fetch, a COPY.

They use parts of aiokafka that are not its interface (docs/gotchas.md).
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from benchmarks.cpu import CpuLedger
from benchmarks.procfs import FamilySample, postgres_kind, read_title, sample_family
from streams.postgres.batch import BatchBuilder
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema

_BATCH: Final = 896 * 1024
_MB: Final = 1 << 20
#: Rows of one COPY: as many as a batch of the worker has.
_ROWS: Final = 4000
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_COLUMNS: Final = ("did", "collection", "rkey", "rev", "cid", "record", "seq", "time")


class Message(NamedTuple):
    """A message of the topic. ``offset``: where it would stand."""

    key: bytes
    value: bytes
    offset: int = 0


async def produce(messages: Sequence[Message], servers: str, topic: str, kafka: int) -> dict[str, float]:
    """Return the seconds to send batches that are ready, one request each; and the broker's."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", compression_type="zstd", linger_ms=0, max_batch_size=_BATCH,
        max_request_size=8 * _MB,
    )  # fmt: skip
    await producer.start()
    try:
        batches = _ready(producer, messages)
        before, began = _sample(kafka), time.process_time()
        for batch in batches:
            await (await producer.send_batch(batch, topic, partition=0))
        seconds = time.process_time() - began
        return {"produce": seconds, "kafka": _spent(kafka, before)}
    finally:
        await producer.stop()


def _ready(producer: AIOKafkaProducer, messages: Sequence[Message]) -> list[Any]:
    """Return the messages in batches that are already compressed."""
    found = [producer.create_batch()]
    for message in messages:
        if found[-1].append(timestamp=None, key=message.key, value=message.value) is None:
            found.append(producer.create_batch())
            found[-1].append(timestamp=None, key=message.key, value=message.value)
    for batch in found:
        batch._build()
    return found


async def fetch(count: int, servers: str, topic: str, kafka: int) -> dict[str, float]:
    """Return the seconds to fetch so many messages and to go through their records; and the broker's."""
    client = AIOKafkaClient(bootstrap_servers=servers)
    await client.bootstrap()
    try:
        await client.set_topics([topic])
        node = client.cluster.leader_for_partition(TopicPartition(topic, 0))
        before, began = _sample(kafka), time.process_time()
        offset = 0
        while offset < count:
            request = FetchRequest(500, 1, 4 * _MB, 0, [(topic, [(0, offset, 4 * _MB)])])
            response = await client.send(node, request)
            records = MemoryRecords(response.topics[0][1][0][-1])
            while (batch := records.next_batch()) is not None:
                for record in batch:
                    offset = record.offset + 1
        seconds = time.process_time() - began
        return {"fetch": seconds, "kafka fetch": _spent(kafka, before)}
    finally:
        await client.close()


async def copy(messages: Sequence[Message], dsn: str, schema: str, postgres: int) -> dict[str, float]:
    """Return the seconds to COPY the messages' rows into the sink's own table, in key order; and the backend's."""
    database = Database(dsn, schema, 1)
    await migrate_schema(database)
    await database.close()
    numbered = [message._replace(offset=number) for number, message in enumerate(messages)]
    # All in one batch: COPY cannot write a key twice.
    rows = BatchBuilder().build(numbered, time.time_ns() // 1000).stages[0].rows.values()
    made = [(*row[:5], row[5] and row[5].decode(), row[6], _EPOCH + dt.timedelta(microseconds=row[7])) for row in rows]
    parts = [sorted(made[first : first + _ROWS], key=lambda row: row[:3]) for first in range(0, len(made), _ROWS)]
    connection = await asyncpg.connect(dsn)
    try:
        await connection.copy_records_to_table("records", records=[], columns=_COLUMNS, schema_name=schema)
        before, began = _sample(postgres), time.process_time()
        for part in parts:
            await connection.copy_records_to_table("records", records=part, columns=_COLUMNS, schema_name=schema)
        seconds = time.process_time() - began
        return {"copy client": seconds, "copy backend": _spent(postgres, before, "backend")}
    finally:
        await connection.close()


def _sample(root: int) -> FamilySample:
    sample = sample_family(root, lambda pid: postgres_kind(read_title(pid)))
    assert sample is not None, f"the server {root} is gone"
    return sample


def _spent(root: int, before: FamilySample, kind: str | None = None) -> float:
    """Return the seconds of a family since a sample, all or of one kind."""
    ledger = CpuLedger(before)
    ledger.add(_sample(root))
    spent = ledger.spent()
    return sum(spent.values()) if kind is None else spent.get(kind, 0.0)
