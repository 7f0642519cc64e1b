"""What survives the decoders, in a real Postgres: no slice is refused as a whole, and every view can be read."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import asyncpg

from streams.local.postgres import Postgres
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.sink_postgres import PostgresSink
from tests.fuzz import frames, messages
from tests.fuzz.through import Ingest, Message, Worker, must

#: Messages of a slice at most; each partition gets its slices in turn.
SLICE = 400
_PLC = re.compile(rb"did:plc:[a-z2-7]{24}").fullmatch
PARTITIONS = 3


@dataclass
class Rows:
    """What was written, and what stands in the tables."""

    messages: int = 0
    slices: int = 0
    received: int = 0
    applied: int = 0
    skipped: int = 0
    dead: int = 0
    refused: int = 0
    records: int = 0
    views: int = 0


def survivors(seed: int, count: int) -> Iterator[Message]:
    """``count`` messages that the worker would hand to Postgres: of one topic, in our format."""
    worker, number, r = Worker(), 0, Random(seed)
    found = 0
    while found < count:
        pairs: list[tuple[bytes | None, bytes | None]]
        if number % 3:
            pairs = [(message.key, message.value) for message in messages.case(seed, number).messages]
        else:
            ingest = Ingest(filtered=False)
            for data in frames.case(seed, number).frames:
                ingest.take(data)
            pairs = list(ingest.tape.messages)[:20]
        number += 1
        for pair in pairs:
            key, value = _of_somebody_else(r, *pair)
            batch = worker.build([Message(0, key, value)], filtered=False)
            if batch is not None and batch.topic_id in (None, "t") and found < count:
                yield Message(found, key, value)
                found += 1


def _of_somebody_else(r: Random, key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None]:
    """The message of another account, mostly: the seeds' few accounts would supersede and delete all their records."""
    if key is None or value is None or not _PLC(key) or r.random() < 0.3:
        return key, value
    other = b"did:plc:" + bytes(r.choices(b"abcdefghijklmnopqrstuvwxyz234567", k=24))
    return other, value.replace(key, other)


async def write(dsn: str, schema: str, count: int, seed: int) -> Rows:
    """Write ``count`` survivors into a schema, which is made. Raises WrongError where anything does not add up."""
    r, result = Random(seed), Rows()
    database = Database(dsn, schema, 2)
    await database.start()
    try:
        await migrate_schema(database)
        sink = PostgresSink(database, topic="fuzz", group="fuzz")
        offsets = await sink.positions(set(range(PARTITIONS)), dict.fromkeys(range(PARTITIONS), 0))
        waiting = list(survivors(seed, count))
        while waiting:
            size = r.choice((1, 7, 50, SLICE))
            partition = result.slices % PARTITIONS
            await _slice(sink, partition, offsets, waiting[:size], result)
            del waiting[:size]
    finally:
        await database.close()
    await _look(dsn, schema, result)
    return result


def in_own_postgres(count: int, seed: int) -> Rows:
    """The same in a Postgres that is started for it and thrown away."""
    with tempfile.TemporaryDirectory(prefix="atproto-streams-fuzz-") as folder:
        server = Postgres(Path(folder) / "postgres", Path(folder) / "logs", fsync=False)
        Path(folder).chmod(0o755)
        server.start()
        try:
            return asyncio.run(write(server.dsn, "fuzz", count, seed))
        finally:
            server.stop()


async def _slice(
    sink: PostgresSink, partition: int, offsets: dict[int, int], part: list[Message], result: Rows
) -> None:
    base = offsets[partition]
    moved = [Message(base + i, message.key, message.value) for i, message in enumerate(part)]
    batch = Worker().build(moved, filtered=False)
    assert batch is not None
    written = await sink.write(partition, base, base + len(moved), moved)
    must(written.received == batch.received, f"the slice at {base} received {written.received}, not {batch.received}")
    must(written.received == written.applied + written.skipped + written.dead, f"the slice at {base} does not add up")
    must(min(written.applied, written.skipped, written.dead) >= 0, f"a negative count in the slice at {base}")
    offsets[partition] += len(moved)
    result.slices += 1
    result.messages += len(moved)
    result.received += written.received
    result.applied += written.applied
    result.skipped += written.skipped
    result.dead += written.dead


async def _look(dsn: str, schema: str, result: Rows) -> None:
    """Read every table and view to the end, in the types that a client gets."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": schema})
    try:
        totals = await connection.fetchrow(
            "SELECT sum(received), sum(applied), sum(skipped), sum(dead) FROM sink_offsets"
        )
        must(
            tuple(totals) == (result.received, result.applied, result.skipped, result.dead),
            "sink_offsets has other totals",
        )
        result.refused = await connection.fetchval(
            "SELECT count(*) FROM dead_letters WHERE reason LIKE 'Postgres refuses%'"
        )
        result.records = await connection.fetchval("SELECT count(*) FROM records")
        names = await connection.fetch(
            "SELECT c.oid::regclass::text FROM pg_class AS c"
            " WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition",
            schema,
        )
        for (name,) in names:
            await connection.fetch(f"SELECT * FROM {name}")
            result.views += 1
    finally:
        await connection.close()
