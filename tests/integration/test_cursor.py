"""firehose_cursor: the lowest watermark of all partitions, never back, except where a run asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import asyncpg
import pytest

from streams.messages import Run, Watermark, encode_control
from streams.postgres.cursor import CursorPosition, DatabasePoint, read_resume_point, write_cursor
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.sink_postgres import PostgresSink

BEGIN = 1_700_000_000_000_000
PARTITIONS = 2


@dataclass(frozen=True)
class Message:
    """A Kafka record, as far as the sink looks at it."""

    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class Stage:
    """A sink, and a look at the table."""

    database: Database
    sink: PostgresSink
    look: Any

    async def send(self, partition: int, *messages: Any) -> None:
        base = (await self.sink.positions({partition}, {partition: 0}))[partition]
        records = [Message(base + i, None, encode_control(m)) for i, m in enumerate(messages)]
        await self.sink.write(partition, base, base + len(records), records)

    async def marks(self, *seqs: int, run: int = 1) -> None:
        for partition, seq in enumerate(seqs):
            await self.send(
                partition, Watermark(relay="r", run=run, topic_id="t", seq=seq, time=BEGIN + seq * 1_000_000)
            )

    async def begin(self, run: int, mode: Literal["start", "resume", "restart", "reset", "overlap"]) -> None:
        await self.send(
            0,
            Run(relay="r", run=run, topic_id="t", mode=mode, days=-1, asked_from=None, oldest_seq=None,
                oldest_time=None, from_seq=0, head_seq=None, head_time=None),
        )  # fmt: skip

    async def read(self) -> int | None:
        return (await read_resume_point(self.database, topic="t", service="backfill")).seq

    async def write(self) -> CursorPosition | None:
        return await write_cursor(self.database, topic="t", group="g", service="backfill", partitions=PARTITIONS)

    async def row(self) -> Any:
        return await self.look.fetchrow("SELECT * FROM firehose_cursor WHERE service = 'backfill'")


@pytest.fixture
async def stage(dsn: str) -> AsyncIterator[Stage]:
    database = Database(dsn, "firehose", 4)
    await migrate_schema(database)
    look = await asyncpg.connect(dsn)
    yield Stage(database, PostgresSink(database, topic="t", group="g"), look)
    await look.close()
    await database.close()


def utc(seq: int) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=BEGIN, seconds=seq)).replace(tzinfo=None)


async def test_it_waits_for_every_partition_and_takes_the_lowest(stage: Stage) -> None:
    assert await stage.write() is None
    await stage.marks(9)
    assert await stage.write() is None
    assert await stage.row() is None
    await stage.marks(9, 7)
    assert await stage.write() == CursorPosition(7, utc(7), 1)
    row = await stage.row()
    assert (row["cursor"], row["last_event_time"]) == ("7", utc(7))
    assert abs(row["updated_at"] - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)
    await stage.begin(1, "start")
    point = await read_resume_point(stage.database, topic="t", service="backfill")
    assert point == DatabasePoint("t", 7, utc(7), 1, "r")


async def test_partitions_of_two_runs_have_no_common_position(stage: Stage) -> None:
    await stage.marks(7, 7)
    await stage.write()
    await stage.marks(20, run=2)
    assert await stage.write() is None
    assert (await stage.row())["cursor"] == "7"
    await stage.marks(20, 21, run=2)
    assert await stage.write() == CursorPosition(20, utc(20), 2)


@pytest.mark.parametrize(
    ("mode", "after"), [("start", 50), ("resume", 50), ("restart", 7), ("reset", 7), ("overlap", 7)]
)
async def test_it_goes_back_only_where_the_run_does(stage: Stage, mode: Any, after: int) -> None:
    await stage.marks(50, 50)
    await stage.write()
    await stage.begin(2, mode)
    await stage.marks(7, 8, run=2)
    written = await stage.write()
    assert written is not None
    assert written.seq == after


@pytest.mark.parametrize(
    ("text", "seq"),
    [("123", 123), ("123|4", 123), (" 12 ", 12), ("", None), ("x", None), (None, None), ("1" * 30, None), ("-1", None)],
)
async def test_older_forms_are_read(stage: Stage, text: str | None, seq: int | None) -> None:
    await stage.look.execute("INSERT INTO firehose_cursor (service, cursor) VALUES ('backfill', $1)", text)
    assert await stage.read() == seq
    await stage.marks(50, 50)
    written = await stage.write()
    assert written is not None
    assert written.seq == max(50, seq or 0)
    assert await stage.look.fetchval("SELECT count(*) FROM firehose_cursor") == 1


async def test_a_restart_that_was_resumed_before_the_sink_caught_up_still_goes_back(stage: Stage) -> None:
    await stage.marks(90, 90, run=1)
    await stage.write()
    await stage.begin(2, "restart")
    await stage.begin(3, "resume")
    await stage.marks(10, 10, run=3)
    assert await stage.write() == CursorPosition(10, utc(10), 3)
    await stage.marks(12, 12, run=3)
    await stage.begin(4, "resume")
    await stage.write()
    await stage.marks(11, 11, run=4)
    assert await stage.write() == CursorPosition(12, utc(12), 4)


async def test_no_row_is_no_position(stage: Stage) -> None:
    assert await read_resume_point(stage.database, topic="t", service="other") == DatabasePoint(
        None, None, None, None, None
    )


async def test_a_watermark_without_a_time_keeps_the_old_time(stage: Stage) -> None:
    await stage.marks(5, 5)
    await stage.write()
    for partition in range(PARTITIONS):
        await stage.send(partition, Watermark(relay="r", run=2, topic_id="t", seq=5, time=None))
    assert await stage.write() == CursorPosition(5, utc(5), 2)


async def test_many_writers_at_once_never_go_back(stage: Stage) -> None:
    await stage.begin(1, "restart")
    await stage.marks(1, 1)
    seen: list[int] = []

    async def writer() -> None:
        for _ in range(15):
            await stage.write()

    async def reader() -> None:
        for seq in range(2, 30):
            await stage.marks(seq, seq)
            seen.append(await stage.read() or 0)

    await asyncio.gather(writer(), writer(), reader())
    assert seen == sorted(seen)
    assert await stage.write() == CursorPosition(29, utc(29), 1)
    assert await stage.look.fetchval("SELECT count(*) FROM firehose_cursor") == 1


async def test_a_table_without_the_unique_constraint_serves(stage: Stage) -> None:
    await stage.look.execute(
        "DROP TABLE firehose_cursor; CREATE TABLE firehose_cursor (service text, cursor text, "
        "last_event_time timestamp, updated_at timestamp, note text)"
    )
    for seq in (3, 4):
        await stage.marks(seq, seq)
        assert await stage.write() == CursorPosition(seq, utc(seq), 1)
    assert await stage.look.fetchval("SELECT count(*) FROM firehose_cursor") == 1
