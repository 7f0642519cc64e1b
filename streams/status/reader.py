"""Reads a Status from Kafka and Postgres: cheap enough for once a second, however much the schema holds.

Nothing counts records. Of each collection there is what the workers counted as they sent it to Postgres (the Faust
table ``collections``): a measure of traffic, not the number of rows that stand. Rates are differences of successive
gatherings, and what the ingest says of itself. Where the ingest does not report, the newest watermark is read from the
topic.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    KafkaError,
    NotCoordinatorForGroupError,
)

from streams import __version__
from streams.errors import DatabaseError, MismatchError
from streams.kafka.access import explained, kafka_client_options
from streams.kafka.members import changelog, members
from streams.kafka.topic import assign_paused, describe_topic
from streams.kafka.watermarks import last_watermark
from streams.postgres.database import Connection, Database
from streams.postgres.processes import Pause, Seen, pause_of, processes
from streams.postgres.queries import query
from streams.settings import Settings
from streams.status.coverage import GapTimes, Times, stretches
from streams.status.lag import SinkStanding, StandingReader
from streams.status.model import Counted, Letter, Partition, Paused, Process, Rates, Status
from streams.status.process import DOWN_AFTER, IngestState, WorkerState, plan_text
from streams.status.table_counts import Changelog
from streams.status.troubles import Beside, reaches_head, troubles
from streams.text import as_time

#: Seconds that Kafka, or Postgres, may take to answer.
PATIENCE: Final = 10.0
#: Seconds over which rates are taken.
WINDOW: Final = 10.0
#: Dead letters that are shown.
LETTERS: Final = 10
#: A process that did not end in order is shown for so long after it was last seen, in seconds.
SHOW_LOST: Final = 600.0
#: Seconds between two looks into the topic while no ingest reports, and into the counts of collections.
_LOOK_EVERY: Final = 2.0
#: What the looks fetch at a time.
_FETCH_BYTES: Final = 256 * 1024


class _Rows(msgspec.Struct, frozen=True):
    """What Postgres holds, beside the offsets."""

    schema: str | None
    seen: list[Seen]
    pause: Pause | None
    runs: list[Any]
    dead_letters: int
    gaps: int
    letters: tuple[Letter, ...]
    gap_rows: tuple[GapTimes, ...]
    cursor: str | None


class _Told(msgspec.Struct, frozen=True):
    """What Kafka says, and where the sink stands against it."""

    standing: SinkStanding
    members: tuple[str, ...] | None
    collections: tuple[Counted, ...]
    newest: dt.datetime | None
    trouble: str | None


class Speeds:
    """Rates by the differences of what was counted within the last WINDOW seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int, int]] = deque()

    def add(self, now: float, ends: int, received: int, lag: int) -> None:
        """Take in the sum of the topic's ends, the events received, and the lag. What goes back begins anew."""
        if self._samples and (ends < self._samples[-1][1] or received < self._samples[-1][2]):
            self._samples.clear()
        self._samples.append((now, ends, received, lag))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()

    def rates(self) -> tuple[float, float] | tuple[None, None]:
        """Messages a second into Kafka, and events a second into Postgres."""
        (then, ends, received, _), (now, ends_now, received_now, _) = self._samples[0], self._samples[-1]
        if now - then < 0.5:
            return None, None
        return (ends_now - ends) / (now - then), (received_now - received) / (now - then)

    def lag_grows(self) -> float | None:
        """Messages a second by which the lag became more; None before it was watched for as long as that takes."""
        (then, _, _, before), (now, _, _, lag) = self._samples[0], self._samples[-1]
        return (lag - before) / (now - then) if now - then >= WINDOW / 2 else None


class StatusReader:
    """Gathers while it is open; see ``status_reader``. Connects when it first needs to, and again after an error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: Database | None = None
        self._kafka: _Kafka | None = None
        self._speeds = Speeds()

    async def gather(self) -> Status:
        """The deployment now. Raises SettingsError, and BrokerError or DatabaseError where one does not answer."""
        database = self._open_database()
        rows = await self._ask_database(database)
        found = tuple(_process(seen) for seen in rows.seen)
        try:
            async with asyncio.timeout(PATIENCE):
                told = await (await self._open_kafka()).told(database, _reported(found))
        except (KafkaError, TimeoutError) as error:
            await self._close_kafka()
            await self._ask_database(database)  # it may have been Postgres that went away just now
            raise await explained(self._settings, error) from None
        standing = told.standing
        self._speeds.add(time.monotonic(), sum(p.end for p in standing.partitions), standing.received, standing.pending)
        return _status(self._settings, told, rows, found, self._speeds)

    def _open_database(self) -> Database:
        if self._database is None:
            self._database = Database(self._settings.database_dsn(), self._settings.sink_schema, 2, quiet=True)
        return self._database

    async def _ask_database(self, database: Database) -> _Rows:
        try:
            async with asyncio.timeout(PATIENCE):
                return await _rows(database, self._settings)
        except TimeoutError:
            raise DatabaseError(
                f"Postgres at {database.place} cannot be reached: start it, or correct DATABASE_URL."
            ) from None

    async def _open_kafka(self) -> _Kafka:
        kafka, self._kafka = self._kafka or _Kafka(self._settings), None
        try:
            await kafka.open()
        except BaseException:  # given up half way: whoever asks next begins anew
            await kafka.close()
            raise
        self._kafka = kafka
        return kafka

    async def _close_kafka(self) -> None:
        kafka, self._kafka = self._kafka, None
        if kafka is not None:
            await kafka.close()

    async def close(self) -> None:
        """Close what is open."""
        await self._close_kafka()
        if self._database is not None:
            await self._database.close()


@asynccontextmanager
async def status_reader(settings: Settings) -> AsyncIterator[StatusReader]:
    """A reader with its own connections, opened by its first ``gather``."""
    made = StatusReader(settings)
    try:
        yield made
    finally:
        await made.close()


class _Kafka:
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
        for client in (self._consumer, self._admin):
            if client is not None:
                with contextlib.suppress(KafkaError, TimeoutError):
                    async with asyncio.timeout(2.0):
                        await (client.stop() if isinstance(client, AIOKafkaConsumer) else client.close())

    async def told(self, database: Database, reported: dt.datetime | None) -> _Told:
        """All answers. ``reported``: up to when the ingest says that it is."""
        assert self._admin is not None
        standing = SinkStanding((), 0, 0, 0, 0)
        if self._consumer is not None:
            standing = await StandingReader(self._settings, database, self._consumer, self._tps).sink()
        return _Told(
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


async def _rows(database: Database, settings: Settings) -> _Rows:
    """Everything from Postgres but the offsets. What is not there yet is empty."""
    topic, group = settings.kafka_topic, settings.sink_group
    schema: str | None = None
    try:
        await database.check()
    except MismatchError as error:
        schema = str(error)

    async def call(connection: Connection) -> list[list[Any]]:
        return [
            await _fetch(connection, name, *arguments)
            for name, arguments in (
                ("status_runs", (topic,)),
                ("status_counts", (topic,)),
                ("status_letters", (topic, LETTERS)),
                ("status_gaps", (topic,)),
                ("cursor_text", (settings.cursor_service,)),
            )
        ]

    runs, counts, letters, gaps, cursor = await database.run(call)
    seen: list[Seen] = []
    pause: Pause | None = None
    with contextlib.suppress(MismatchError):  # a schema from before they were
        seen = of_interest(await processes(database, topic, group, DOWN_AFTER))
        pause = await pause_of(database, topic, group)
    return _Rows(
        schema=schema,
        seen=seen,
        pause=pause,
        runs=runs,
        dead_letters=counts[0]["dead_letters"] if counts else 0,
        gaps=counts[0]["gaps"] if counts else 0,
        letters=tuple(Letter(*row) for row in letters),
        gap_rows=tuple(GapTimes(*row) for row in gaps),
        cursor=cursor[0]["cursor"] if cursor else None,
    )


async def _fetch(connection: Connection, name: str, *arguments: object) -> list[Any]:
    try:
        return list(await connection.fetch(query(name), *arguments))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedColumnError):
        return []


def _status(settings: Settings, told: _Told, rows: _Rows, found: tuple[Process, ...], speeds: Speeds) -> Status:
    standing = told.standing
    last, begun = (rows.runs[0], rows.runs[-1]) if rows.runs else (None, None)
    marks = [p.watermark_time for p in standing.partitions]
    covered_to = min((m for m in marks if m is not None), default=None) if marks and None not in marks else None
    newest = _latest(told.newest, covered_to)
    ingest = next((p.ingest for p in found if p.alive and p.ingest is not None), None)
    head = _latest(newest, last["head_time"] if last else None, ingest.head if ingest else None)
    oldest = begun["oldest_time"] if begun else None
    asked_from = begun["asked_from"] if begun else None
    covered_from = _latest(asked_from, oldest) if oldest is not None else None  # a silent relay proves nothing
    into_kafka, into_postgres = speeds.rates()
    rates = Rates(ingest.rate if ingest else None, into_kafka, into_postgres)
    status = Status(
        at=dt.datetime.now(dt.UTC),
        version=__version__,
        topic=settings.kafka_topic,
        schema=settings.sink_schema,
        group=settings.sink_group,
        relay=last["relay"] if last else None,
        run=last["run"] if last else None,
        plan=plan_text(last["mode"], last["days"]) if last else None,
        asked_days=last["days"] if last else None,
        asked_from=asked_from,
        covered_from=covered_from,
        covered_to=covered_to,
        head=head,
        cursor=rows.cursor,
        partitions=_partitions(standing, found),
        lag=standing.pending,
        received=standing.received,
        applied=standing.applied,
        skipped=standing.skipped,
        dead=standing.dead,
        dead_letters=rows.dead_letters,
        gaps=rows.gaps,
        rates=rates,
        seconds_left=None,
        paused=None if rows.pause is None
        else Paused(rows.pause.asked_at, rows.pause.asked_by, rows.pause.reason, rows.pause.ingest),
        processes=found,
        coverage=stretches(Times(asked_from, oldest, covered_from, covered_to, newest, head), rows.gap_rows),
        collections=told.collections,
        last_letters=rows.letters,
        troubles=(),
        odd_claims=standing.odd_claims,
    )  # fmt: skip
    beside = Beside(told.members, rows.schema, told.trouble, rows.gap_rows, newest, speeds.lag_grows())
    left = seconds_left(status.lag, rates, ingest.left if ingest else None, all_read=reaches_head(newest, status))
    return msgspec.structs.replace(status, seconds_left=left if last else None, troubles=troubles(status, beside))


def seconds_left(lag: int, rates: Rates, ingest_left: float | None, *, all_read: bool) -> float | None:
    """Seconds until all that was asked for is in Postgres, at these rates; None where that cannot be said.

    What the ingest will yet bring counts too, while it says how long it will take. ``all_read``: that is nothing.
    """
    if ingest_left is None and not all_read:
        return None
    to_come = (rates.kafka or 0.0) * (ingest_left or 0.0)
    if lag + to_come < 1:
        return ingest_left or 0.0
    if not rates.postgres:
        return None
    return max((lag + to_come) / rates.postgres, ingest_left or 0.0)


def _partitions(standing: SinkStanding, found: tuple[Process, ...]) -> tuple[Partition, ...]:
    holders = {
        number: f"{process.host}:{process.pid}"
        for process in found
        if process.alive and process.worker is not None
        for number in process.worker.partitions
    }
    return tuple(
        Partition(
            p.partition, p.begin, p.next_offset, p.end, p.pending, p.watermark_seq, p.watermark_time,
            holders.get(p.partition),
        )
        for p in standing.partitions
    )  # fmt: skip


def _process(seen: Seen) -> Process:
    """The process of a row, with what it said where this version can read it."""
    worker: WorkerState | None = None
    ingest: IngestState | None = None
    with contextlib.suppress(msgspec.MsgspecError):
        if seen.kind == "worker":
            worker = msgspec.json.decode(seen.state, type=WorkerState)
        else:
            ingest = msgspec.json.decode(seen.state, type=IngestState)
    return Process(
        kind="worker" if seen.kind == "worker" else "ingest",
        host=seen.host,
        pid=seen.pid,
        version=seen.version,
        alive=seen.alive,
        started_at=seen.started_at,
        seen_at=seen.seen_at,
        ended_at=seen.ended_at,
        worker=worker,
        ingest=ingest,
    )


def of_interest(seen: list[Seen]) -> list[Seen]:
    """Those that are there; the last of a kind of which none is; workers that did not end in order, for a while."""
    kept, kinds = [], {one.kind for one in seen if one.alive}
    for one in seen:
        lost = one.kind == "worker" and one.ended_at is None and one.seconds_ago < SHOW_LOST
        if one.alive or lost or one.kind not in kinds:
            kept.append(one)
        kinds.add(one.kind)
    return kept


def _reported(found: tuple[Process, ...]) -> dt.datetime | None:
    return next((p.ingest.time for p in found if p.alive and p.ingest is not None), None)


def _latest(*moments: dt.datetime | None) -> dt.datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)
