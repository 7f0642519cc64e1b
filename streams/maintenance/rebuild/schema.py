"""A schema that is being filled beside the live one: its state, its lock, its seed, and what it takes over.

What a rebuild must know of itself when it is begun again stands in its table ``rebuild_state``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import asyncpg

from streams.errors import HeldError, MismatchError
from streams.postgres.database import FOR_EVER, Connection, Database, unlimited
from streams.postgres.failures import NotOursError
from streams.postgres.migrate import migrate_schema
from streams.postgres.queries import query
from streams.postgres.sql_text import literal, quoted
from streams.text import printable

_NAMED: Final = re.compile(r"(?<![\w.])(live|rebuilt)(?=\.|'::| GRANT)")
#: Seconds for which the lock of a process that was just killed is waited for.
LOCK_TIMEOUT: Final = 3.0
#: Seconds between two looks whether the session that holds the lock is still there.
LOCK_LOOK: Final = 2.0


@dataclass(frozen=True, slots=True)
class PartitionStart:
    """Where a rebuild began in a partition; ``time`` (µs) and ``seq`` are those of the first event there, if any.

    Of what is below ``covered`` the seed has the rows; what is below ``passed`` was therefore not read.
    """

    offset: int
    time: int | None = None
    seq: int | None = None
    covered: int = 0
    passed: int = 0


@dataclass(frozen=True, slots=True)
class RebuildState:
    """The state of a rebuild, as its schema holds it. ``begins`` by partition; one that is missing began at 0."""

    topic: str
    group: str
    live: str
    begins: Mapping[int, PartitionStart]
    seed: bool
    seeded: bool


def both(name: str, live: str, rebuilt: str) -> str:
    """Return the query of that name, with the two schemas' names in the place of ``live`` and ``rebuilt``."""
    names = {"live": quoted(live), "rebuilt": quoted(rebuilt)}
    return _NAMED.sub(lambda found: names[found.group(1)], query(name))


async def hold(database: Database, schema: str, held: Callable[[], object]) -> None:
    """Keep the schema's lock until cancelled; ``held`` is called when we have it. Raises HeldError."""

    async def call(connection: Connection) -> None:
        end = asyncio.get_running_loop().time() + LOCK_TIMEOUT
        while not await connection.fetchval(query("lock_rebuild"), schema):
            if asyncio.get_running_loop().time() > end:
                raise HeldError(f"Another rebuild fills the schema {schema}", "let it finish, or stop it.")
            await asyncio.sleep(0.2)
        held()
        while True:
            await asyncio.sleep(LOCK_LOOK)
            await connection.fetchval("SELECT 1")

    await database.run(call)


async def rebuild_state(database: Database, live: str, schema: str) -> RebuildState | None:
    """Return the state of a rebuild that was begun; None for an empty schema. Raises MismatchError for another's."""

    async def call(connection: Connection) -> RebuildState | None:
        row = await connection.fetchrow(query("rebuild_there"), schema)
        assert row is not None
        if not row["there"]:
            return None
        found = await connection.fetchrow(both("rebuild_state", live, schema)) if row["begun"] else None
        if found is not None:
            return _state(found)
        # One that was killed between its schema and its state has nothing in it.
        if not await connection.fetchval(both("rebuild_empty", live, schema)):
            raise MismatchError(
                f"The schema {schema} holds rows, and no rebuild made it", "give another --schema, or drop it first."
            )
        return None

    try:
        return await database.run(call)
    except NotOursError:
        raise MismatchError(f"The schema {schema} is not ours", "give another --schema.") from None


def _state(row: asyncpg.Record) -> RebuildState:
    begins = {int(partition): PartitionStart(**begin) for partition, begin in json.loads(row["begins"]).items()}
    return RebuildState(row["topic"], row["consumer_group"], row["live"], begins, row["seed"], row["seeded"])


def _text(begins: Mapping[int, PartitionStart]) -> str:
    return json.dumps({str(partition): asdict(begin) for partition, begin in begins.items()})


async def begin(database: Database, state: RebuildState) -> None:
    """Make the schema, and write down what the rebuild must know of itself."""
    await migrate_schema(database)

    async def call(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(both("create_rebuild", state.live, database.schema))
            if await connection.fetchrow(both("rebuild_state", state.live, database.schema)) is None:
                await connection.execute(
                    both("add_rebuild", state.live, database.schema),
                    state.topic, state.group, state.live, _text(state.begins), state.seed,
                )  # fmt: skip

    await database.run(call)


async def copied(connection: Connection, table: str, live: str, rebuilt: str) -> str:
    """Copy what the rebuilt schema's table does not have; returns Postgres' word on it."""
    columns = await connection.fetchval(both("seed_columns", live, rebuilt), table)
    return await connection.execute(
        f"INSERT INTO {quoted(rebuilt)}.{table} ({columns}) SELECT {columns} FROM {quoted(live)}.{table} "  # noqa: S608
        "ON CONFLICT DO NOTHING",
        timeout=FOR_EVER,
    )


async def seed(database: Database, live: str, group: str, keep_going: Callable[[], bool]) -> int:
    """Copy the live records and accounts, in one transaction; returns how many rows. A second call does nothing.

    Up to where the live ``group`` stood then is written down. Raises Abandoned where ``keep_going`` says no: then
    nothing was copied.
    """

    async def call(connection: Connection) -> int:
        rows = 0
        async with unlimited(connection), connection.transaction(isolation="repeatable_read"):
            found = await connection.fetchrow(both("rebuild_state", live, database.schema))
            if found is not None and not found["seeded"]:
                for table in ("actors", "records"):
                    rows += int((await copied(connection, table, live, database.schema)).split()[-1])
                held = await connection.fetch(both("live_positions", live, database.schema), found["topic"], group)
                covered = {row["partition"]: row["next_offset"] for row in held}
                begins = {p: replace(b, covered=covered.get(p, 0)) for p, b in _state(found).begins.items()}
                await connection.execute(both("set_seeded", live, database.schema), _text(begins))
        return rows

    return await database.run(call, keep_going=keep_going)


async def pass_over(database: Database, live: str, partition: int, offset: int) -> None:
    """Write down that what is before the offset is not read: the topic has lost it, and the seed has its rows."""
    await database.run(lambda c: c.execute(both("pass_over", live, database.schema), str(partition), offset))


async def take_over(
    live: Database, rebuilt: Database, tell: Callable[[str], None], keep_going: Callable[[], bool]
) -> None:
    """Make in the rebuilt schema the views and indexes that only the live one has, and fill what it has filled.

    Raises Abandoned where ``keep_going`` says no; MismatchError for what cannot be made of the rebuilt rows. What was
    made is there.
    """

    async def execute(what: str, *statements: str) -> None:
        async def call(connection: Connection) -> None:
            async with unlimited(connection), connection.transaction():
                for statement in statements:
                    await connection.execute(statement, timeout=FOR_EVER)

        try:
            await rebuilt.run(call, keep_going=keep_going)
        except asyncpg.PostgresError as error:  # what the rows themselves forbid: all else has its sentence already
            raise MismatchError(
                f"The {what} of {live.schema} cannot be made in {rebuilt.schema} ({printable(str(error), 300)})",
                f"drop it in {live.schema}, swap, and make it again.",
            ) from None

    async def wanted(name: str) -> list[asyncpg.Record]:
        return await live.run(lambda connection: connection.fetch(both(name, live.schema, rebuilt.schema)))

    for view in await wanted("views_to_carry"):
        await execute(f"view {view['name']}", *_view(view))
        tell(f"made the view {view['name']}")
    for index in await wanted("indexes_to_carry"):
        await execute(f"index {index['name']}", index["definition"])
        tell(f"built the index {index['name']}")
    for aggregate in await wanted("aggregates_to_fill"):
        name = aggregate["name"]
        await execute(f"filled view {name}", f"REFRESH MATERIALIZED VIEW {quoted(name)}")
        tell(f"filled {name}")


def _view(row: asyncpg.Record) -> list[str]:
    kind = "MATERIALIZED VIEW" if row["materialized"] else "VIEW"
    options = f" WITH ({row['options']})" if row["options"] else ""
    statements = [f"CREATE {kind} {quoted(row['name'])}{options} AS {row['definition'].rstrip(';')}"]
    if row["comment"]:
        statements.append(f"COMMENT ON {kind} {quoted(row['name'])} IS {literal(row['comment'])}")
    return [*statements, *row["comments"]]
