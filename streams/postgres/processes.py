"""The tables ``processes`` and ``pauses``: who is there and what they say of themselves, and who was told to wait."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

import asyncpg

from streams.postgres.database import Connection, Database
from streams.postgres.queries import query


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process as its row says; ``state`` is its JSON. ``seconds_ago`` it was last seen, by the database's clock."""

    id: uuid.UUID
    kind: str
    host: str
    pid: int
    version: str
    started_at: dt.datetime
    seen_at: dt.datetime
    ended_at: dt.datetime | None
    state: str
    alive: bool
    seconds_ago: float


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """The identity of a process. ``kind``: worker or ingest."""

    id: uuid.UUID
    kind: str
    topic: str
    group: str
    host: str
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class Pause:
    """That the workers of a group were told to wait, and the ingest of its topic too if ``ingest``."""

    ingest: bool
    reason: str
    asked_by: str
    asked_at: dt.datetime


async def beat(database: Database, me: ProcessIdentity, state: bytes) -> Pause | None:
    """Write what a process says of itself (JSON); returns the pause that it must keep."""

    async def call(connection: Connection) -> Pause | None:
        who = me.id, me.kind, me.topic, me.group, me.host, me.pid, me.version
        await connection.execute(query("beat"), *who, state.decode())
        return _pause(await connection.fetchrow(query("pause_of"), me.topic, me.group))

    return await database.run(call)


async def last_beat(database: Database, process: uuid.UUID) -> None:
    """Write that the process ends in order."""
    await database.execute("last_beat", process)


async def processes(database: Database, topic: str, group: str, down_after: float) -> list[ProcessRow]:
    """Return the processes of a deployment, those that are there first."""
    return [ProcessRow(**dict(row)) for row in await database.fetch("processes", topic, group, down_after)]


async def count_workers(database: Database, topic: str, group: str, down_after: float) -> int:
    """Return how many workers of the group are there."""
    return int(await database.fetchval("count_workers", topic, group, down_after))


async def pause_of(database: Database, topic: str, group: str) -> Pause | None:
    """Return the pause that holds, if any."""
    return _pause(await database.fetchrow("pause_of", topic, group))


def _pause(row: asyncpg.Record | None) -> Pause | None:
    return None if row is None else Pause(**dict(row))


async def set_pause(database: Database, topic: str, group: str, *, ingest: bool, reason: str, asked_by: str) -> None:
    """Have the group's workers wait until ``end_pause``, and the ingest too."""
    await database.execute("add_pause", topic, group, ingest, reason, asked_by)


async def end_pause(database: Database, topic: str, group: str) -> dt.datetime | None:
    """End the pause; returns since when it was, None where there was none."""
    row = await database.fetchrow("end_pause", topic, group)
    return None if row is None else row["asked_at"]
