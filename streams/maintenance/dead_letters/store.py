"""Dead letters in Postgres: found, counted and purged."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any, Final

from streams.maintenance.dead_letters.letter import Letter, letter_of
from streams.postgres.database import Database

#: Letters that one statement purges.
PURGE_CHUNK: Final = 10_000


@dataclass(frozen=True)
class LetterFilter:
    """A choice of letters: a condition that is not None must hold. ``reason`` is a part of it, in any case."""

    topic: str
    reason: str | None = None
    did: str | None = None
    collection: str | None = None
    partition: int | None = None
    since: datetime | None = None
    before: datetime | None = None

    @property
    def everything(self) -> bool:
        """Return True where nothing but the topic is asked for."""
        return not any(value is not None for value in astuple(self)[1:])


async def count(database: Database, which: LetterFilter) -> tuple[int, datetime]:
    """Return how many letters there are, and the server's time then."""
    row = await database.fetchrow("count_letters", *astuple(which))
    assert row is not None
    return row["count"], row["now"]


async def newest(database: Database, which: LetterFilter, limit: int) -> list[dict[str, Any]]:
    """Return the letters that were written last, without their payloads but with their ``bytes``."""
    return [dict(row) for row in await database.fetch("list_letters", *astuple(which), limit)]


async def by_reason(database: Database, which: LetterFilter) -> list[dict[str, Any]]:
    """Return how many letters have each reason (60 characters of it), the most first, and their first and last time."""
    return [dict(row) for row in await database.fetch("summarize_letters", *astuple(which))]


async def find(database: Database, topic: str, partition: int, offset: int) -> Letter | None:
    """Return one letter, with its payload."""
    row = await database.fetchrow("letter", topic, partition, offset)
    return None if row is None else letter_of(dict(row))


async def purge(database: Database, which: LetterFilter) -> int:
    """Delete letters; how many. One that somebody holds stays, and so do the counts: they are a history."""
    total = 0
    while gone := int(await database.fetchval("purge_letters", *astuple(which), PURGE_CHUNK)):
        total += gone
    return total


async def partitions(database: Database, which: LetterFilter) -> list[int]:
    """Return the partitions that have letters."""
    return [row[0] for row in await database.fetch("partitions_of_letters", *astuple(which))]
