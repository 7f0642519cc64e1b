"""The schema: made once, by whoever comes first; never over what is not ours; refusals in one sentence."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from streams.errors import DatabaseError, MismatchError, StreamsError
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.postgres.queries import migrations, query
from streams.sink_postgres import PostgresSink
from tests.conftest import migrated


def at(dsn: str, *, user: str | None = None, port: int | None = None, path: str | None = None) -> str:
    url = urlsplit(dsn)
    password = "top-secret" if user else url.password or "top-secret"
    netloc = f"{user or url.username or 'postgres'}:{password}@{url.hostname}:{port or url.port}"
    return urlunsplit((url.scheme, netloc, path or url.path, url.query, ""))


async def refusal(dsn: str, schema: str = "firehose") -> StreamsError:
    database = Database(dsn, schema, 1)
    with pytest.raises(StreamsError) as caught:
        await database.start(timeout=1.0)
        await migrate_schema(database)
    await database.close()
    password = urlsplit(dsn).password
    assert password is None or password not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_migrations_are_numbered_without_holes() -> None:
    assert [m.version for m in migrations()] == list(range(1, len(migrations()) + 1))
    assert query("positions").startswith("-- Where")
    with pytest.raises(KeyError):
        query("nothing")


async def test_many_at_once_migrate_once(dsn: str) -> None:
    await asyncio.gather(*(migrated(dsn, schema) for schema in ("a", "a", "a", "b", "b")))
    await migrated(dsn, "a")
    connection = await asyncpg.connect(dsn)
    for schema in "ab":
        versions = await connection.fetch(f"SELECT version FROM {schema}.atproto_streams_migrations ORDER BY 1")
        assert [row[0] for row in versions] == [m.version for m in migrations()]
    await connection.close()


async def test_a_schema_works_under_another_name(dsn: str) -> None:
    """The swap after a rebuild renames schemas."""
    await migrated(dsn, "old")
    connection = await asyncpg.connect(dsn)
    await connection.execute("ALTER SCHEMA old RENAME TO new")
    database = Database(dsn, "new", 1)
    await migrate_schema(database)
    sink = PostgresSink(database, topic="t", group="g")
    await sink.positions({0}, {0: 0})
    assert (await sink.write(0, 0, 1, [])).received == 0
    await database.close()
    await connection.close()


async def test_an_empty_schema_is_taken_and_a_foreign_one_is_not(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE SCHEMA mine; CREATE SCHEMA theirs; CREATE TABLE theirs.records (id int)")
    await migrated(dsn, "mine")
    error = await refusal(dsn, "theirs")
    assert isinstance(error, MismatchError)
    assert "SINK_SCHEMA" in str(error)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'theirs'") == 1
    await connection.close()


async def test_a_newer_schema_is_refused(dsn: str) -> None:
    await migrated(dsn, "firehose")
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO firehose.atproto_streams_migrations VALUES (999, 'later')")
    assert "run a newer program" in str(await refusal(dsn))
    await connection.close()


async def test_an_existing_cursor_table_is_used_as_it_is(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "CREATE TABLE firehose_cursor (service text, cursor text, last_event_time timestamp, "
        "updated_at timestamp, note text)"
    )
    await migrated(dsn, "firehose")
    columns = await connection.fetchval(
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 'firehose_cursor'"
    )
    assert columns == 5
    await connection.close()


async def test_refusals_say_what_to_do(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    database = urlsplit(dsn).path.lstrip("/")
    role = f"weak_{database}"
    await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'top-secret'")
    try:
        expected = {
            at(dsn, user="nobody_of_that_name"): "correct the user and the password",
            at(dsn, path="/no_such_database"): "there is no such database",
            at(dsn, port=1): "cannot be reached",
            at(dsn, user=role): "grant our user CREATE",
        }
        for address, says in expected.items():
            error = await refusal(address)
            assert isinstance(error, DatabaseError)
            assert says in str(error)
        await connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        assert "point DATABASE_URL at the primary" in str(await refusal(dsn))
    finally:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"DROP ROLE {role}")
        await connection.close()


async def test_a_schema_that_vanishes_is_a_sentence(dsn: str) -> None:
    await migrated(dsn, "firehose")
    database = Database(dsn, "firehose", 1)
    sink = PostgresSink(database, topic="t", group="g")
    await sink.positions({0}, {0: 0})
    connection = await asyncpg.connect(dsn)
    await connection.execute("DROP SCHEMA firehose CASCADE")
    with pytest.raises(MismatchError, match="not as we made it"):
        await sink.write(0, 0, 1, [])
    await database.close()
    await connection.close()
