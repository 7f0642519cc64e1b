"""Positions that an operator sets: those of the sink, back, and the row of a service in ``firehose_cursor``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from streams.errors import SettingsError
from streams.postgres.database import Connection, Database
from streams.postgres.queries import query


@dataclass(frozen=True, slots=True)
class Moved:
    """Positions that were set back, as (from, to), and the partitions that stood there or before it already."""

    back: Mapping[int, tuple[int, int]]
    stayed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CursorRow:
    """A row of ``firehose_cursor``; times are UTC without a zone, as the table has them."""

    service: str
    cursor: str | None
    time: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class PartitionPosition:
    """A partition of the sink: its next offset and its last watermark."""

    next_offset: int
    run: int | None
    seq: int | None
    time: datetime | None


async def move_back(
    database: Database, topic: str, group: str, targets: Mapping[int, int], *, strict: bool, dry_run: bool
) -> Moved:
    """Set positions back, all of them in one transaction, while no worker writes; ``dry_run`` only says which.

    What was counted stays counted. Raises SettingsError where the group has read nothing of a partition that was meant,
    and, if ``strict``, where a target is ahead of the position.
    """

    async def call(connection: Connection) -> Moved:
        async with connection.transaction():
            rows = await connection.fetch(query("lock_positions"), topic, group)
            moved = _moves({row["partition"]: row["next_offset"] for row in rows}, topic, group, targets, strict=strict)
            if not dry_run and moved.back:
                numbers, offsets = list(moved.back), [to for _, to in moved.back.values()]
                await connection.execute(query("move_back"), topic, group, numbers, offsets)
            return moved

    return await database.run(call)


def _moves(held: Mapping[int, int], topic: str, group: str, targets: Mapping[int, int], *, strict: bool) -> Moved:
    if not held:
        raise SettingsError(
            f"The group {group} has read nothing of {topic}", "set SINK_GROUP and SINK_SCHEMA to those that are filled."
        )
    back, stayed = {}, []
    for partition, to in sorted(targets.items()):
        stands = held.get(partition)
        if stands is None and strict:
            raise SettingsError(f"The group {group} has read nothing of {topic}/{partition}: it begins by itself.")
        if stands is not None and strict and to > stands:
            raise SettingsError(
                f"{topic}/{partition} stands at {stands}, and {to} is ahead of it: what lies between would never be "
                "read.",
                "A replay only goes back; to go forward start a worker.",
            )
        if stands is not None and to < stands:
            back[partition] = (stands, to)
        else:
            stayed.append(partition)
    return Moved(back, tuple(stayed))


async def sink_positions(database: Database, topic: str, group: str) -> dict[int, PartitionPosition]:
    """Return where the sink stands, for each partition that has a row."""
    return {
        row["partition"]: PartitionPosition(
            row["next_offset"], row["watermark_run"], row["watermark_seq"], row["watermark_time"]
        )
        for row in await database.fetch("cursor_sources", topic, group)
    }


def lowest(held: Mapping[int, PartitionPosition], partitions: int) -> tuple[int, PartitionPosition] | None:
    """Return the partition whose watermark the cursor is: the lowest, where each has one of the same run. Else None."""
    marked = [(n, row) for n, row in held.items() if row.seq is not None and n < partitions]
    if len(marked) < partitions or len({row.run for _, row in marked}) != 1:
        return None
    return min(marked, key=lambda pair: (pair[1].seq, pair[0]))


async def cursors(database: Database) -> list[CursorRow]:
    """Return all services' rows, by name."""
    return [CursorRow(*row) for row in await database.fetch("cursors")]


async def set_cursor(database: Database, service: str, seq: int) -> None:
    """Have the service's row say ``seq``, in the order of its other writers. Its event's time is not known."""

    async def call(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(query("lock_cursor"), service)
            if await connection.fetchval(query("set_cursor"), service, str(seq)) is None:
                await connection.execute(query("add_cursor"), service, str(seq))

    await database.run(call)
