"""The indexes that are built after the load: which there are, for whom, and how each is built without stopping writers.

They stand on the partitions of ``records``: CREATE INDEX CONCURRENTLY does not take a partitioned table. Their
expressions are those of the views (``migrations/0004_views.sql``), or no query on a view would use them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from streams.errors import DatabaseError
from streams.postgres.database import FOR_EVER, Connection, Database, unlimited
from streams.postgres.queries import query

#: How all of them are called: what has another name is the user's own.
PREFIX: Final = "ix_"


@dataclass(frozen=True, slots=True)
class Index:
    """An index on ``table``, and the question that it answers."""

    name: str
    profiles: tuple[str, ...]
    table: str
    definition: str
    answers: str

    @property
    def statement(self) -> str:
        """Return the statement that builds it while others read and write."""
        return f"CREATE INDEX CONCURRENTLY {self.name} ON {self.table} {self.definition}"


def _name(*path: str) -> str:
    return "(lex_name(record" + "".join(f" -> '{part}'" for part in path) + ')) COLLATE "C"'


_PARENT, _ROOT, _SUBJECT_URI = _name("reply", "parent", "uri"), _name("reply", "root", "uri"), _name("subject", "uri")
_SUBJECT, _LIST = _name("subject"), _name("list")
_CREATED: Final = "lex_datetime(record -> 'createdAt')"
_URI: Final = "('at://' || did || '/' || collection || '/' || rkey)"
_BOTH: Final = ("appview", "analytics")
_APPVIEW: Final = ("appview",)
_ANALYTICS: Final = ("analytics",)

#: The words of the view's column `text`; the first 10,000 characters, as a tsvector has at most a megabyte.
_WORDS: Final = "to_tsvector('simple'::regconfig, left(lex_text(record -> 'text'), 10000))"

INDEXES: Final = (
    Index("ix_post_author", _APPVIEW, "records_post", f"(did, ({_CREATED}) DESC)", "an account's posts, newest first"),
    Index("ix_post_uri", _APPVIEW, "records_post", f"({_URI})", "a post by its AT URI"),
    Index("ix_post_parent", _APPVIEW, "records_post", f"({_PARENT})", "the replies to a post"),
    Index("ix_post_root", _APPVIEW, "records_post", f"({_ROOT}, ({_CREATED}))", "a thread, in order"),
    Index("ix_post_created", _BOTH, "records_post", f"(({_CREATED}))", "posts of a time"),
    Index("ix_post_tags", _ANALYTICS, "records_post", "USING gin (lex_texts(record -> 'tags'))", "posts with a tag"),
    Index("ix_post_langs", _ANALYTICS, "records_post", "USING gin (lex_texts(record -> 'langs'))", "posts by language"),
    Index("ix_post_words", _ANALYTICS, "records_post", f"USING gin ({_WORDS})", "posts with words"),
    Index("ix_like_post", _APPVIEW, "records_like", f"({_SUBJECT_URI})", "a post's likes"),
    Index("ix_like_author", _APPVIEW, "records_like", f"(did, ({_CREATED}) DESC)", "what an account likes"),
    Index("ix_like_created", _ANALYTICS, "records_like", f"(({_CREATED}))", "likes of a time"),
    Index("ix_repost_post", _APPVIEW, "records_repost", f"({_SUBJECT_URI})", "a post's reposts"),
    Index("ix_repost_created", _ANALYTICS, "records_repost", f"(({_CREATED}))", "reposts of a time"),
    Index("ix_follow_subject", _APPVIEW, "records_follow", f"({_SUBJECT}, ({_CREATED}) DESC)", "followers by time"),
    Index("ix_follow_created", _ANALYTICS, "records_follow", f"(({_CREATED}))", "follows of a time"),
    Index("ix_block_subject", _APPVIEW, "records_block", f"({_SUBJECT})", "who blocks an account"),
    Index("ix_list_item_list", _APPVIEW, "records_list_item", f"({_LIST})", "a list's members"),
    Index("ix_list_item_subject", _APPVIEW, "records_list_item", f"({_SUBJECT})", "an account's lists"),
    Index("ix_actor_handle", _APPVIEW, "actors", "(lower(handle))", "an account by its handle"),
)  # fmt: skip
PROFILES: Final = ("appview", "analytics")


@dataclass(frozen=True, slots=True)
class IndexState:
    """The state of an index: missing, building, invalid (its build was interrupted) or ready.

    ``waits_for``: the pid of the session in Postgres whose transaction a build waits for.
    """

    index: Index
    state: str
    size: int
    percent: float | None = None
    waits_for: int | None = None


#: Awaits a build, and shows how far it is.
Watch = Callable[[Awaitable[Any], Index], Awaitable[None]]


def of_profile(profile: str | None) -> tuple[Index, ...]:
    """Return the indexes of a profile; all of them for None."""
    return tuple(index for index in INDEXES if profile is None or profile in index.profiles)


async def states(database: Database, indexes: tuple[Index, ...]) -> list[IndexState]:
    """Return the state of each index, in the order given."""
    rows = await database.fetch("index_states", [index.name for index in indexes])
    known = {row["name"]: row for row in rows}
    return [_state(index, known.get(index.name)) for index in indexes]


def _state(index: Index, row: asyncpg.Record | None) -> IndexState:
    if row is None:
        return IndexState(index, "missing", 0)
    if row["building"]:
        total = row["total"] or 0
        percent = min(100.0, 100.0 * row["done"] / total) if total else None
        return IndexState(index, "building", row["size"], percent, row["waits_for"])
    return IndexState(index, "ready" if row["valid"] else "invalid", row["size"])


async def create(database: Database, index: Index, watch: Watch) -> float:
    """Build one index while others read and write; what an interrupted build left is removed first.

    ``watch`` awaits the build and shows how far it is. Returns the seconds that it took. Raises DatabaseError where
    another process builds indexes, and what ``Database.run`` raises.
    """
    began = time.monotonic()

    async def call(connection: Connection) -> None:
        async with _alone(connection, database.schema):
            row = await connection.fetchrow(query("index_states"), [index.name])
            if row is not None and row["valid"]:
                return
            if row is not None:
                await connection.execute(_drop(index), timeout=FOR_EVER)
            await watch(connection.execute(index.statement, timeout=FOR_EVER), index)

    await database.run(call)
    return time.monotonic() - began


async def drop(database: Database, index: Index) -> bool:
    """Drop one index while others read and write. Whether there was one. Raises as ``create``."""

    async def call(connection: Connection) -> bool:
        async with _alone(connection, database.schema):
            there = bool(await connection.fetch(query("index_states"), [index.name]))
            await connection.execute(_drop(index), timeout=FOR_EVER)
            return there

    return await database.run(call)


def _drop(index: Index) -> str:
    return f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}"


@asynccontextmanager
async def _alone(connection: Connection, schema: str) -> AsyncIterator[None]:
    """Keep others from building or dropping, and statements from being cut short. Raises DatabaseError."""
    if not await connection.fetchval(query("lock_indexes"), schema):
        raise DatabaseError("Another process builds or drops indexes in this schema", "let it finish, or stop it.")
    try:
        async with unlimited(connection):
            # A build waits for every transaction that was there before it: one that gave up would be built again.
            await connection.execute("SET lock_timeout = 0")
            yield
    finally:
        if not connection.is_closed():  # a session that is gone holds nothing
            await connection.restore("lock_timeout")
            await connection.fetchval(query("unlock_indexes"), schema)
