"""The part of a Status that Postgres knows, but for the offsets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any, Final

import asyncpg
import msgspec

from streams.errors import MismatchError
from streams.messages import GapKind
from streams.postgres.database import Connection, Database
from streams.postgres.migrate import check_schema
from streams.postgres.processes import Pause, ProcessRow, pause_of, processes
from streams.postgres.queries import query
from streams.settings import Settings
from streams.status.coverage import GapTimes
from streams.status.model import LetterSummary
from streams.status.process import DOWN_AFTER, WorkerState

#: Dead letters that are shown.
LETTERS: Final = 10
#: A process that did not end in order is shown for so long after it was last seen, in seconds.
SHOW_LOST: Final = 600.0


class Rows(msgspec.Struct, frozen=True):
    """The answers of Postgres, but for the offsets."""

    schema: str | None
    processes: list[ProcessRow]
    pause: Pause | None
    runs: list[Any]
    dead_letters: int
    gaps: int
    letters: tuple[LetterSummary, ...]
    gap_rows: tuple[GapTimes, ...]
    cursor: str | None


async def read_rows(database: Database, settings: Settings) -> Rows:
    """Read everything from Postgres but the offsets. What is not there yet is empty."""
    topic, group = settings.kafka_topic, settings.sink_group
    schema: str | None = None
    try:
        await check_schema(database)
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
    found: list[ProcessRow] = []
    pause: Pause | None = None
    with contextlib.suppress(MismatchError):  # a schema of a version without these tables
        found = of_interest(await processes(database, topic, group, DOWN_AFTER))
        pause = await pause_of(database, topic, group)
    return Rows(
        schema=schema,
        processes=found,
        pause=pause,
        runs=runs,
        dead_letters=counts[0]["dead_letters"] if counts else 0,
        gaps=counts[0]["gaps"] if counts else 0,
        letters=tuple(LetterSummary(*row) for row in letters),
        gap_rows=tuple(_gap_times(row) for row in gaps),
        cursor=cursor[0]["cursor"] if cursor else None,
    )


async def worker_page(database: Database, settings: Settings, pid: int) -> str | None:
    """Return the address of the live page of a worker on this machine, once its heartbeat has said it."""
    with contextlib.suppress(MismatchError, msgspec.MsgspecError):  # no schema yet, or one of another version
        for row in await processes(database, settings.kafka_topic, settings.sink_group, DOWN_AFTER):
            if row.kind == "worker" and row.alive and (row.host, row.pid) == (socket.gethostname(), pid):
                return msgspec.json.decode(row.state, type=WorkerState).web
    return None


def _gap_times(row: Mapping[str, Any]) -> GapTimes:
    return GapTimes(row["from_time"], row["to_time"], row["reason"], row["created_at"], GapKind(row["kind"]))


async def _fetch(connection: Connection, name: str, *arguments: object) -> list[Any]:
    try:
        return list(await connection.fetch(query(name), *arguments))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedColumnError):
        return []


def of_interest(rows: list[ProcessRow]) -> list[ProcessRow]:
    """Return the live processes; the last of a kind of which none lives; lost workers, for a while."""
    kept, kinds = [], {one.kind for one in rows if one.alive}
    for one in rows:
        lost = one.kind == "worker" and one.ended_at is None and one.seconds_ago < SHOW_LOST
        if one.alive or lost or one.kind not in kinds:
            kept.append(one)
        kinds.add(one.kind)
    return kept
