"""The row in ``firehose_cursor``: derived from ``sink_offsets``, for the services that read that table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from streams.postgres.database import Connection, Database
from streams.postgres.queries import query
from streams.runtime.drills import WorkerPoint, crash_point


@dataclass(frozen=True, slots=True)
class CursorPosition:
    """A position in a relay's sequence. ``time`` is UTC without a zone, as the table has it; ``run``: if written."""

    seq: int
    time: datetime | None
    run: int | None = None


async def write_cursor(
    database: Database, *, topic: str, group: str, service: str, partitions: int
) -> CursorPosition | None:
    """Write the lowest watermark over the topic's partitions; returns what stands there now.

    None, and nothing written, until each partition has a watermark of the same run. It never goes back, except in a run
    that was a restart, a reset or an overlap. Any number of workers may call it. Raises what ``Database.run`` raises.
    """

    async def call(connection: Connection) -> CursorPosition | None:
        crash_point(WorkerPoint.CURSOR_BEFORE_WRITE)
        row = await connection.fetchrow(query("write_cursor"), topic, group, service, partitions)
        crash_point(WorkerPoint.CURSOR_AFTER_WRITE)
        return None if row is None or row["seq"] is None else CursorPosition(row["seq"], row["event_time"], row["run"])

    return await database.run(call)


@dataclass(frozen=True, slots=True)
class DatabasePoint:
    """A topic as the database knows it: id, the cursor's seq and time (UTC, no zone), the newest run and relay."""

    topic_id: str | None
    seq: int | None
    time: datetime | None
    run: int | None
    relay: str | None


async def read_resume_point(database: Database, *, topic: str, service: str) -> DatabasePoint:
    """Return where a topic without watermarks can be resumed; the cursor may have the older form ``seq|n``."""
    row = await database.fetchrow("resume_point", topic, service)
    assert row is not None
    return DatabasePoint(row["topic_id"], row["seq"], row["event_time"], row["run"], row["relay"])
