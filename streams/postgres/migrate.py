"""The schema's version: made, brought forward, and checked."""

from __future__ import annotations

import logging
from typing import Final

from streams.errors import DatabaseError, MismatchError
from streams.postgres.database import Connection, Database
from streams.postgres.queries import cursor_table, migrations, query
from streams.runtime.drills import WorkerPoint, crash_point

log = logging.getLogger(__name__)

#: The oldest Postgres that has what the schema uses (SQL function bodies by RETURN).
MIN_SERVER: Final = 140_000


class NotMigratedError(MismatchError):
    """The schema is missing, or a worker of this program has still to bring it forward."""


async def migrate_schema(database: Database) -> None:
    """Bring the schema to this program's version, creating it where it is missing. Safe in parallel.

    Raises MismatchError where the schema is not ours or newer than this program, DatabaseError where we may not.
    """
    crash_point(WorkerPoint.MIGRATION_BEFORE)
    await database.run(lambda connection: _migrate(connection, database))
    crash_point(WorkerPoint.MIGRATION_AFTER)


async def check_schema(database: Database) -> None:
    """Refuse a schema that is not ours, or not of this program's version; nothing is written.

    Raises MismatchError where it is missing, not ours, older or newer; DatabaseError where the server is too old.
    """
    if not await database.run(lambda connection: _is_current(connection, database)):
        raise NotMigratedError(
            f"The schema {database.schema} at {database.place} is missing, or of an older version than this program",
            "start a worker once (faust -A streams.agents worker), which makes it or brings it forward.",
        )


async def _migrate(connection: Connection, database: Database) -> None:
    if await _is_current(connection, database):
        return
    async with connection.transaction():
        await connection.execute(query("lock_migrations"))
        state = await connection.fetchrow(query("schema_state"), database.schema)
        assert state is not None
        if not state["there"]:
            await connection.execute(f'CREATE SCHEMA "{database.schema}"')
        if not state["cursor"]:
            await connection.execute(cursor_table())
        await _settle_schema(connection, database)
        if not state["ours"]:
            await connection.execute(query("create_migrations"))
        held = await connection.fetchval(query("migrations"))
        for migration in migrations():
            if migration.version > held:
                await connection.execute(migration.sql)
                crash_point(WorkerPoint.MIGRATION_INSIDE)
                await connection.execute(query("add_migration"), migration.version, migration.name)
                log.info("Schema %s: migration %s applied.", database.schema, migration.name)


async def _settle_schema(connection: Connection, database: Database) -> None:
    """Set the schema for this transaction, and check it: what is made without a name must not fall into another one.

    Raises DatabaseError where it does not hold.
    """
    if await connection.fetchval(query("settle_schema"), f'"{database.schema}"') != database.schema:
        raise DatabaseError(
            f"Postgres at {database.place} does not let us use the schema {database.schema}, so nothing is made",
            "grant our user all on it.",
        )


async def _is_current(connection: Connection, database: Database) -> bool:
    """Return True where nothing is to be done. Raises MismatchError or DatabaseError where nothing may be done."""
    state = await connection.fetchrow(query("schema_state"), database.schema)
    assert state is not None
    if state["server_version"] < MIN_SERVER:
        raise DatabaseError(f"Postgres at {database.place} is older than version 14", "use a newer one.")
    if not state["ours"]:
        if state["there"] and not state["empty"]:
            raise MismatchError(
                f"The schema {database.schema} at {database.place} holds what is not ours",
                "set SINK_SCHEMA to another.",
            )
        return False
    held, known = await connection.fetchval(query("migrations")), migrations()[-1].version
    if held > known:
        raise MismatchError(
            f"The schema {database.schema} at {database.place} has version {held}, this program knows {known}",
            "run a newer program, or set SINK_SCHEMA to another.",
        )
    return bool(held == known and state["cursor"])
