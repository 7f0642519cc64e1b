"""The sink: a slice of one partition becomes rows, in one transaction that also moves the partition's position.

It is steps 4 to 6 of the commit path (docs/architecture.md): (4) merge the slice (``postgres/batch.py``), (5) apply it
by one call (``postgres/apply.py``), guarded by the position that the slice begins at, (6) which is one transaction.
Only when ``write`` has returned may the slice be acknowledged. It never asks Kafka for anything.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import asyncpg

from streams.errors import DatabaseError, MismatchError
from streams.messages import GapKind
from streams.postgres.apply import BatchArguments, apply_batch
from streams.postgres.batch import Batch, BatchBuilder, TopicRecord, payload
from streams.postgres.database import Abandoned, Connection, Database, longer
from streams.postgres.new_rows import Expectation
from streams.postgres.queries import query
from streams.runtime.drills import WorkerPoint, crash_point
from streams.text import printable

#: SQLSTATE that ``hold_position`` raises where the topic is another than the one whose position is stored.
RECREATED: Final = "AT001"


class Fenced(Exception):  # noqa: N818 (the usual word)
    """The partition does not stand where the slice begins: another worker wrote it. Seek anew."""


class Revoked(Fenced):
    """The partition was taken from us while the database was away. Whether the slice was written is not known."""


@dataclass(frozen=True, slots=True)
class AppliedWatermark:
    """A watermark: every event of the run up to ``seq`` is applied. ``time`` is its frame's time."""

    run: int
    seq: int
    time: datetime | None


@dataclass(frozen=True, slots=True)
class Written:
    """The effect of a write, and where the partition stands after it. received = applied + skipped + dead, in both."""

    received: int = 0
    applied: int = 0
    skipped: int = 0
    dead: int = 0
    total_received: int = 0
    total_applied: int = 0
    total_skipped: int = 0
    total_dead: int = 0
    #: Records handed to the database, by collection: those that the slice did not itself supersede.
    by_collection: Mapping[str, int] = field(default_factory=dict)
    #: Records in which a NUL became U+FFFD.
    replaced: int = 0
    watermark: AppliedWatermark | None = None


class PostgresSink:
    """Writes one topic's slices for one consumer group. ``keep`` says which collections are stored (None: all)."""

    def __init__(
        self, database: Database, *, topic: str, group: str, keep: Callable[[str], bool] | None = None
    ) -> None:
        self._database = database
        self._topic = topic
        self._group = group
        self._builder = BatchBuilder(keep)
        #: Where each partition stood after our last write, and its totals then.
        self._last: dict[int, tuple[int, Written]] = {}
        self._expectations: defaultdict[int, Expectation] = defaultdict(Expectation)

    async def positions(self, partitions: set[int], default: Mapping[int, int]) -> dict[int, int]:
        """Return the next offset of each partition; one without a row gets one at its ``default``, if it has that."""

        async def call(connection: Connection) -> dict[int, int]:
            crash_point(WorkerPoint.POSITIONS_BEFORE)
            new = {p: offset for p, offset in default.items() if p in partitions}
            await connection.execute(
                query("add_positions"), self._topic, self._group, list(new.keys()), list(new.values())
            )
            crash_point(WorkerPoint.POSITIONS_AFTER)
            rows = await connection.fetch(query("positions"), self._topic, self._group, sorted(partitions))
            return {row["partition"]: row["next_offset"] for row in rows}

        return await self._database.run(call)

    async def totals(self, partitions: set[int]) -> dict[int, Written]:
        """Return the totals and the watermark of each partition that has a row."""
        rows = await self._database.fetch("positions", self._topic, self._group, sorted(partitions))
        return {row["partition"]: _totals(row) for row in rows}

    async def jump(self, partition: int, position: int, log_start: int) -> None:
        """Move a position that the log no longer holds to the log's start: what lies between is a row in ``gaps``.

        Raises Fenced where the partition does not stand at ``position`` any more.
        """
        reason = f"the topic no longer holds the offsets {position} to {log_start - 1}"
        failures: list[BaseException] = []

        async def call(connection: Connection) -> bool:
            gap = (position, log_start, reason, GapKind.EXPIRED)
            if await connection.fetchval(query("jump"), self._topic, self._group, partition, *gap) is not None:
                return True
            row = await self._row(connection, partition)
            return bool(failures and row is not None and row["next_offset"] == log_start)

        if not await self._database.run(call, failures=failures):
            raise Fenced(f"{self._topic}/{partition} does not stand at {position} any more")

    async def write(
        self,
        partition: int,
        base: int,
        next_offset: int,
        records: Sequence[TopicRecord],
        still_ours: Callable[[], bool] = lambda: True,
    ) -> Written:
        """Apply the slice from ``base`` to ``next_offset``, or nothing.

        Transient errors are retried in place while ``still_ours``. Raises Fenced; Revoked; MismatchError where the
        topic was re-created or its format is newer; DatabaseError where the operator must act.
        """
        # (4) Merge: no I/O, no await.
        batch = self._builder.build(records, now_us=time.time_ns() // 1000)
        arguments = BatchArguments(
            self._topic, partition, self._group, base, next_offset,
            batch.grouped(expect_new=self._expectations[partition].holds()), batch.extras(), batch.received,
            batch.topic_id, batch.watermark,
        )  # fmt: skip
        failures: list[BaseException] = []

        crash_point(WorkerPoint.SLICE_BEFORE_APPLY)

        # (5) Apply: one statement, which is one transaction, so a frozen worker holds none open.
        async def whole(connection: Connection, payloads: Sequence[str] | None = None) -> asyncpg.Record | None:
            async with longer(connection, failures) as timeout:
                row = await apply_batch(connection, arguments, payloads=payloads, timeout=timeout)
            # A commit whose answer was lost looks like a fence when it is repeated.
            return row or (await self._row(connection, partition) if failures else None)

        # A row that Postgres refuses costs one more call: the same, searched for such rows, in one transaction too.
        async def one_by_one(connection: Connection) -> asyncpg.Record | None:
            values = {record.offset: record.value for record in records}
            return await whole(connection, [payload(values[offset]) for offset in arguments.rows.columns.offsets])

        try:
            try:
                row = await self._database.run(whole, keep_going=still_ours, failures=failures)
            except asyncpg.PostgresError as error:
                if error.sqlstate == RECREATED:
                    raise self._recreated(batch) from None
                row = await self._one_by_one(one_by_one, base, still_ours, failures)
        except Abandoned:
            raise Revoked(f"{self._topic}/{partition} was taken away while Postgres did not answer") from None
        # (6) Commit: done by this call, or by the one whose answer was lost; or another worker was here.
        if row is None or row["next_offset"] != next_offset:
            raise Fenced(f"{self._topic}/{partition} does not stand at {base} any more")
        return self._written(row, batch, arguments)

    async def _one_by_one(
        self,
        call: Callable[[Connection], Awaitable[asyncpg.Record | None]],
        base: int,
        still_ours: Callable[[], bool],
        failures: list[BaseException],
    ) -> asyncpg.Record | None:
        try:
            return await self._database.run(call, keep_going=still_ours, failures=failures)
        except asyncpg.PostgresError as error:
            raise DatabaseError(
                f"Postgres refuses the slice of {self._topic} at offset {base} as a whole ({error.sqlstate}: "
                f"{printable(str(error))})",
                "this is a fault of this program, please report it.",
            ) from error

    async def _row(self, connection: Connection, partition: int) -> asyncpg.Record | None:
        return await connection.fetchrow(query("positions"), self._topic, self._group, [partition])

    def _recreated(self, batch: Batch) -> MismatchError:
        return MismatchError(
            f"The topic {self._topic} was re-created (its id is {printable(batch.topic_id or '')} now): what "
            f"{self._group} has applied is of the old one.",
            "Set SINK_GROUP and SINK_SCHEMA to new ones.",
        )

    def _written(self, row: asyncpg.Record, batch: Batch, arguments: BatchArguments) -> Written:
        """Return what the write did: where a lost answer did not say it, the totals less what they were before."""
        partition, base = arguments.partition, arguments.base
        self._expectations[partition].note(wrong=row.get("known"))
        totals = _totals(row)
        if "batch_applied" in row:
            applied, dead = row["batch_applied"], row["batch_dead"]
            received = batch.received
        else:
            before_offset, before = self._last.get(partition, (None, totals))
            before = before if before_offset == base else totals
            received = totals.total_received - before.total_received
            applied, dead = totals.total_applied - before.total_applied, totals.total_dead - before.total_dead
        written = replace(
            totals,
            received=received,
            applied=applied,
            skipped=received - applied - dead,
            dead=dead,
            by_collection=Counter(arguments.rows.columns.collections),
            replaced=batch.replaced,
        )
        self._last[partition] = (row["next_offset"], written)
        return written


def _totals(row: asyncpg.Record) -> Written:
    run = row["watermark_run"]
    return Written(
        total_received=row["received"],
        total_applied=row["applied"],
        total_skipped=row["skipped"],
        total_dead=row["dead"],
        watermark=None if run is None else AppliedWatermark(run, row["watermark_seq"], row["watermark_time"]),
    )
