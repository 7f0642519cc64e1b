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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from aiokafka.errors import KafkaError

from streams import __version__
from streams.errors import DatabaseError
from streams.kafka.client import explained
from streams.postgres.database import Database
from streams.postgres.processes import ProcessRow
from streams.runtime.rates import Speeds
from streams.settings import Settings
from streams.status.coverage import Times, stretches
from streams.status.kafka_side import KafkaFacts, KafkaSide
from streams.status.lag import SinkLag
from streams.status.model import Partition, Paused, Process, Rates, Status
from streams.status.postgres_side import Rows, read_rows
from streams.status.process import IngestState, WorkerState, plan_text
from streams.status.troubles import Context, reaches_head, troubles

#: Seconds that Kafka, or Postgres, may take to answer.
TIMEOUT: Final = 10.0


class StatusReader:
    """A reader of the Status; see ``status_reader``. It connects when it first needs to, and again after an error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: Database | None = None
        self._kafka: KafkaSide | None = None
        self._speeds = Speeds()

    async def gather(self) -> Status:
        """Return the deployment now. Raises SettingsError, BrokerError, DatabaseError."""
        database = self._open_database()
        rows = await self._ask_database(database)
        found = tuple(_process(row) for row in rows.processes)
        try:
            async with asyncio.timeout(TIMEOUT):
                facts = await (await self._open_kafka()).facts(database, _reported(found))
        except (KafkaError, TimeoutError) as error:
            await self._close_kafka()
            await self._ask_database(database)  # Postgres may have gone away just now: then its error counts
            raise await explained(self._settings, error) from None
        lag = facts.lag
        self._speeds.add(time.monotonic(), sum(p.end for p in lag.partitions), lag.received, lag.pending)
        return _status(self._settings, facts, rows, found, self._speeds)

    def _open_database(self) -> Database:
        if self._database is None:
            self._database = Database(self._settings.database_dsn(), self._settings.sink_schema, 2, quiet=True)
        return self._database

    async def _ask_database(self, database: Database) -> Rows:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await read_rows(database, self._settings)
        except TimeoutError:
            raise DatabaseError(
                f"Postgres at {database.place} cannot be reached", "start it, or correct DATABASE_URL."
            ) from None

    async def _open_kafka(self) -> KafkaSide:
        kafka, self._kafka = self._kafka or KafkaSide(self._settings), None
        try:
            await kafka.open()
        except BaseException:  # given up half way: the next caller connects again
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
    """Make a reader with its own connections, opened by its first ``gather``."""
    made = StatusReader(settings)
    try:
        yield made
    finally:
        await made.close()


def _status(settings: Settings, facts: KafkaFacts, rows: Rows, found: tuple[Process, ...], speeds: Speeds) -> Status:
    lag = facts.lag
    last, begun = (rows.runs[0], rows.runs[-1]) if rows.runs else (None, None)
    marks = [p.watermark_time for p in lag.partitions]
    covered_to = min((m for m in marks if m is not None), default=None) if marks and None not in marks else None
    newest = _latest(facts.newest, covered_to)
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
        partitions=_partitions(lag, found),
        lag=lag.pending,
        received=lag.received,
        applied=lag.applied,
        skipped=lag.skipped,
        dead=lag.dead,
        dead_letters=rows.dead_letters,
        gaps=rows.gaps,
        rates=rates,
        seconds_left=None,
        paused=None if rows.pause is None
        else Paused(rows.pause.asked_at, rows.pause.asked_by, rows.pause.reason, rows.pause.ingest),
        processes=found,
        coverage=stretches(Times(asked_from, oldest, covered_from, covered_to, newest, head), rows.gap_rows),
        collections=facts.collections,
        last_letters=rows.letters,
        troubles=(),
        odd_claims=lag.odd_claims,
    )  # fmt: skip
    context = Context(facts.members, rows.schema, facts.trouble, rows.gap_rows, newest, speeds.lag_grows())
    left = seconds_left(status.lag, rates, ingest.left if ingest else None, all_read=reaches_head(newest, status))
    return msgspec.structs.replace(status, seconds_left=left if last else None, troubles=troubles(status, context))


def seconds_left(lag: int, rates: Rates, ingest_left: float | None, *, all_read: bool) -> float | None:
    """Return the seconds until all that was asked for is in Postgres, at these rates; None where that is not known.

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


def _partitions(lag: SinkLag, found: tuple[Process, ...]) -> tuple[Partition, ...]:
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
        for p in lag.partitions
    )  # fmt: skip


def _process(row: ProcessRow) -> Process:
    """Return the process of a row, with what it said where this version can read it."""
    worker: WorkerState | None = None
    ingest: IngestState | None = None
    with contextlib.suppress(msgspec.MsgspecError):
        if row.kind == "worker":
            worker = msgspec.json.decode(row.state, type=WorkerState)
        else:
            ingest = msgspec.json.decode(row.state, type=IngestState)
    return Process(
        kind="worker" if row.kind == "worker" else "ingest",
        host=row.host,
        pid=row.pid,
        version=row.version,
        alive=row.alive,
        started_at=row.started_at,
        seen_at=row.seen_at,
        ended_at=row.ended_at,
        worker=worker,
        ingest=ingest,
    )


def _reported(found: tuple[Process, ...]) -> dt.datetime | None:
    return next((p.ingest.time for p in found if p.alive and p.ingest is not None), None)


def _latest(*moments: dt.datetime | None) -> dt.datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)
