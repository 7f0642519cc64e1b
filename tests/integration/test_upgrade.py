"""From every released version of the schema to today's: nothing is lost, and it is as if it had been made today."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from streams.errors import MismatchError
from streams.messages import NOT_KEPT, OLD_NOT_SHOWN
from streams.postgres.cursor import write_cursor
from streams.postgres.database import Database
from streams.postgres.migrate import check_schema, migrate_schema
from streams.postgres.queries import cursor_table, migrations, query
from streams.protocol.tid import tid_from_us
from streams.sink_postgres import PostgresSink
from tests.acceptance.commands import FAUST, WORKER, finish, free_port
from tests.support import merge_model as model

#: The released migrations, never to be changed: databases have run them. At a release add the new ones (`sha256sum
#: streams/postgres/migrations/*`), and put into tests/fixtures/schemas what writes rows as that version did.
RELEASED = {
    "0001_tables": "766579253caf3453cdd22570eebb1ccbd464fe420393a8a9534c99e2275baefa",
    "0002_write_path": "60806efeb56901961e2ec166347677615b0e13e7f1c8456dd9e0299d9d9bb9b5",
    "0003_cursor": "4883f40831ae5de0a7cf3cdbfb3963ef2a03626bc12eb4d61e0a44aaa65f4466",
    "0004_views": "0680d8c84a2ae709390f863826d321b098d900ab7a25da21463db14b49dc3db7",
    "0005_bisection": "9ba7e4b9b1cd1d0ed4faf74b75ca8403fb0baf16158751b6beee5a6fd2433d79",
    "0006_processes": "f9c80a1199fc8bccd2ddec69b2e318efa6730851b79586eb35d095704b42bed0",
}
SCHEMAS = Path(__file__).parents[1] / "fixtures" / "schemas"
NEWEST = migrations()[-1].version

#: What a schema consists of, as names and definitions. Names of the schema itself are taken out.
STRUCTURE = {
    "relations": """
        SELECT c.relname, c.relkind, c.relpersistence, c.reloptions, pg_get_expr(c.relpartbound, c.oid),
               pg_get_partkeydef(c.oid), obj_description(c.oid, 'pg_class'), c.relacl::text
        FROM pg_class AS c WHERE c.relnamespace = $1::regnamespace""",
    "columns": """
        SELECT c.relname, a.attname, row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
               format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attgenerated,
               a.attidentity, a.attcollation::regcollation::text, a.attstorage, a.attstattarget,
               col_description(c.oid, a.attnum)
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = $1::regnamespace""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated,
               obj_description(oid, 'pg_constraint')
        FROM pg_constraint WHERE connamespace = $1::regnamespace""",
    "indexes": """
        SELECT c.relname, pg_get_indexdef(c.oid), i.indisvalid
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE c.relnamespace = $1::regnamespace""",
    "functions": """
        SELECT oid::regprocedure::text, pg_get_functiondef(oid), obj_description(oid, 'pg_proc'), proacl::text
        FROM pg_proc WHERE pronamespace = $1::regnamespace AND prokind IN ('f', 'p')""",
    "views": """
        SELECT relname, pg_get_viewdef(oid) FROM pg_class
        WHERE relnamespace = $1::regnamespace AND relkind IN ('v', 'm')""",
    "triggers": """
        SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
        WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal""",
    "types": """
        SELECT typname, typtype, obj_description(oid, 'pg_type') FROM pg_type WHERE typnamespace = $1::regnamespace""",
}
TABLES = """
SELECT c.relname, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname <> 'atproto_streams_migrations'
GROUP BY 1
"""


async def connect(dsn: str, schema: str) -> asyncpg.Connection[Any]:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(
        dsn, server_settings={"search_path": schema, "timezone": "UTC"}
    )
    return connection


async def build(dsn: str, schema: str, version: int) -> None:
    """The schema as that version made it, and what that version wrote into it."""
    connection = await connect(dsn, schema)
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(cursor_table())
    await connection.execute(query("create_migrations"))
    for migration in migrations()[:version]:
        await connection.execute(migration.sql)
        await connection.execute(query("add_migration"), migration.version, migration.name)
    for script in sorted(SCHEMAS.glob("*.sql")):
        if int(script.stem) <= version:
            await connection.execute(script.read_text())
    await connection.close()


async def migrate(dsn: str, schema: str) -> None:
    database = Database(dsn, schema)
    await migrate_schema(database)
    await check_schema(database)
    await database.close()


async def structure(dsn: str, schema: str) -> dict[str, list[str]]:
    connection = await connect(dsn, schema)
    found = {}
    for part, statement in STRUCTURE.items():
        rows = await connection.fetch(statement, schema)
        found[part] = sorted(re.sub(rf"\b{schema}\.", "", repr(tuple(row))) for row in rows)
    await connection.close()
    return found


async def contents(dsn: str, schema: str, tables: dict[str, str]) -> dict[str, list[str]]:
    connection = await connect(dsn, schema)
    statement = "SELECT to_jsonb(t)::text FROM (SELECT {} FROM {}) AS t ORDER BY 1"
    found = {
        name: [row[0] for row in await connection.fetch(statement.format(columns, name))]
        for name, columns in {**tables, "public.firehose_cursor": "service, cursor, last_event_time"}.items()
    }
    await connection.close()
    return found


def test_released_migrations_are_as_they_were_released() -> None:
    names = [migration.name for migration in migrations()]
    assert names[: len(RELEASED)] == list(RELEASED)
    for migration in migrations():
        digest = hashlib.sha256(migration.sql.encode()).hexdigest()
        assert RELEASED.get(migration.name, digest) == digest, (
            f"{migration.name} was released and must not change: write another migration"
        )


@pytest.mark.parametrize("version", range(1, NEWEST))
async def test_an_older_schema_is_brought_forward(dsn: str, version: int) -> None:
    await build(dsn, "old_schema", version)
    connection = await connect(dsn, "old_schema")
    tables = {row["relname"]: row["columns"] for row in await connection.fetch(TABLES, "old_schema")}
    before = await contents(dsn, "old_schema", tables)
    assert all(rows for name, rows in before.items() if version >= 3 or name != "public.firehose_cursor"), before

    await migrate(dsn, "old_schema")
    assert await contents(dsn, "old_schema", tables) == before
    held = await connection.fetch("SELECT version, name FROM atproto_streams_migrations ORDER BY 1")
    assert [tuple(row) for row in held] == [(m.version, m.name) for m in migrations()]
    await migrate(dsn, "new_schema")
    old, new = await structure(dsn, "old_schema"), await structure(dsn, "new_schema")
    for part in STRUCTURE:
        assert old[part] == new[part], part

    await goes_on(dsn, connection)
    await connection.close()


async def test_rows_of_before_get_their_kind(dsn: str) -> None:
    """And those that a worker of the version before writes while it is not restarted yet."""
    await build(dsn, "old_schema", 7)
    connection = await connect(dsn, "old_schema")
    await connection.execute("DELETE FROM dead_letters; DELETE FROM gaps")
    letters = [  # offset, did, whether it has a time, reason, kind
        (1, "did:plc:a", True, "Postgres refuses the record: x", "message"),
        (2, "did:plc:a", True, "not an event of ours: the key is not the DID", "foreign"),
        (3, None, True, "not an event of ours: no valid DID", "foreign"),
        (4, "did:plc:a", False, "create a/b: the record cannot be decoded", "operation"),
        (5, None, False, "not DAG-CBOR: x", "frame"),
        (6, None, False, "not an event of ours: no key, and no control message", "foreign"),
    ]
    insert = (
        'INSERT INTO dead_letters (topic, partition, "offset", did, time, reason) '
        "VALUES ('one', $1, $2, $3, CASE WHEN $4 THEN now() END, $5)"
    )
    await connection.executemany(insert, [(0, *letter[:4]) for letter in letters])
    await connection.execute(insert, 1, 5, None, False, "not DAG-CBOR: x")
    add = "INSERT INTO gaps (topic, partition, \"offset\", reason) VALUES ('one', 0, $1, $2)"
    for offset, reason in enumerate((NOT_KEPT, OLD_NOT_SHOWN, "the topic no longer holds the offsets 1 to 2", "lost")):
        await connection.execute(add, offset, reason)
    await migrate(dsn, "old_schema")
    rows = await connection.fetch('SELECT "offset", kind FROM dead_letters WHERE partition = 0 ORDER BY 1')
    assert [tuple(row) for row in rows] == [(letter[0], letter[-1]) for letter in letters]
    assert await connection.fetchval("SELECT kind FROM dead_letters WHERE partition = 1") == "foreign"
    kinds = [row[0] for row in await connection.fetch('SELECT kind FROM gaps ORDER BY "offset"')]
    assert kinds == ["not_kept", "not_known", "expired", "other"]
    written = {"offset": 9, "did": "did:plc:new", "time": 1, "reason": "x", "payload": ""}
    assert await connection.fetchval("SELECT bury('one', 0, $1)", json.dumps([written])) == 1
    assert await connection.fetchval('SELECT kind FROM dead_letters WHERE "offset" = 9') == "message"
    await connection.close()


async def goes_on(dsn: str, look: asyncpg.Connection[Any]) -> None:
    """Today's sink stands where the old one stood, and goes on."""
    database = Database(dsn, "old_schema")
    before = await look.fetchrow("SELECT * FROM sink_offsets WHERE partition = 0 AND topic = $1", "one")
    assert before is not None
    sink = PostgresSink(database, topic="one", group="g")
    position = (await sink.positions({0}, {0: 0}))[0]
    assert position == before["next_offset"]
    now = time.time_ns() // 1000
    post = {"rev": tid_from_us(now, 1), "operation": "delete", "collection": "app.bsky.feed.post", "rkey": "1"}
    event = {"did": "did:plc:one", "time_us": now, "kind": "commit", "seq": 99, "commit": post}
    written = await sink.write(0, position, position + 1, [model.message(position, event)])
    assert (written.applied, written.total_received) == (1, before["received"] + 1)
    assert await look.fetchval(
        "SELECT record IS NULL FROM records WHERE did = 'did:plc:one' AND rkey = '1' AND seq = 99"
    )
    for view in await look.fetch("SELECT viewname FROM pg_views WHERE schemaname = 'old_schema'"):
        await look.fetch(f"SELECT * FROM {view['viewname']}")
    cursor = await write_cursor(database, topic="one", group="g", service="upgraded", partitions=1)
    assert cursor is not None
    assert cursor.seq == before["watermark_seq"]
    await database.close()


async def refused(dsn: str, schema: str) -> str:
    database = Database(dsn, schema)
    with pytest.raises(MismatchError) as caught:
        await check_schema(database)
    await database.close()
    return str(caught.value)


async def test_commands_refuse_what_is_not_of_their_version(
    settings_environment: dict[str, str], dsn: str, tmp_path: Path
) -> None:
    schema = settings_environment["SINK_SCHEMA"]
    connection = await connect(dsn, schema)
    assert "start a worker once" in await refused(dsn, schema)
    assert await connection.fetchval("SELECT to_regnamespace($1)", schema) is None
    await build(dsn, "old_schema", 1)
    if NEWEST > 1:
        assert "start a worker once" in await refused(dsn, "old_schema")

    await migrate(dsn, schema)
    await connection.execute(query("add_migration"), NEWEST + 1, "later")
    assert "run a newer program" in await refused(dsn, schema)
    environment = {**settings_environment, "WORKER_WEB_PORT": str(free_port())}
    prune = [*FAUST, "prune", "--gaps-older-than", "1"]
    ends = await asyncio.gather(*(finish(command, environment, tmp_path) for command in (WORKER, prune)))
    for done in ends:
        assert done.code == 6, done.errors
        assert f"has version {NEWEST + 1}, this program knows {NEWEST}" in done.errors
        assert "Traceback" not in done.errors + done.output
        assert str(urlsplit(dsn).password) not in done.errors
    await connection.close()
