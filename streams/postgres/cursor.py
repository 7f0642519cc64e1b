"""The row in ``firehose_cursor``: derived from ``sink_offsets``, for the services that read that table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from streams.postgres.database import Connection, Database
from streams.postgres.queries import query


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
        row = await connection.fetchrow(query("write_cursor"), topic, group, service, partitions)
        return None if row is None or row["seq"] is None else CursorPosition(row["seq"], row["event_time"], row["run"])

    return await database.run(call)


async def read_cursor(database: Database, *, service: str) -> CursorPosition | None:
    """The row's position (also in the older form ``seq|n``), or None where there is none that can be read."""

    async def call(connection: Connection) -> CursorPosition | None:
        row = await connection.fetchrow(query("read_cursor"), service)
        return None if row is None or row["seq"] is None else CursorPosition(row["seq"], row["event_time"])

    return await database.run(call)
