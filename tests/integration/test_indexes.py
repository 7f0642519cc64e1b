"""The optional indexes: built and dropped beside writers, and used by what people ask the views."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from benchmarks.views import PLANS, explain, fill, nodes, popular
from streams.commands import indexes as indexes_command
from streams.postgres import session as session_module
from streams.postgres.database import Database
from streams.postgres.indexes import INDEXES, PROFILES, create, of_profile, states
from tests.acceptance.commands import FAUST, Finished, finish
from tests.conftest import migrated

#: Enough that a plan over all of them is not the cheapest.
ROWS = 40_000


@pytest.fixture
async def connection(settings_environment: dict[str, str]) -> AsyncIterator[asyncpg.Connection[Any]]:
    schema = settings_environment["SINK_SCHEMA"]
    await migrated(settings_environment["DATABASE_URL"], schema)
    opened: asyncpg.Connection[Any] = await asyncpg.connect(
        settings_environment["DATABASE_URL"], server_settings={"search_path": schema}
    )
    yield opened
    await opened.close()


async def command(environment: dict[str, str], folder: Path, *arguments: str) -> Finished:
    done = await finish([*FAUST, *arguments], environment, folder, 120)
    assert done.code == 0, done.errors
    return done


async def used_by_plans(connection: asyncpg.Connection[Any]) -> dict[str, tuple[set[str], bool]]:
    """The optional indexes that each plan uses, and whether it reads a whole partition."""
    found = {}
    wanted = await popular(connection)
    for name, (statement, _) in PLANS.items():
        plan = nodes((await explain(connection, statement.format(**wanted), run=False))["Plan"])
        whole = any("Seq Scan" in n["Node Type"] and n["Relation Name"].startswith("records") for n in plan)
        found[name] = ({n["Index Name"] for n in plan if n.get("Index Name", "").startswith("ix_")}, whole)
    return found


async def test_the_plans_use_the_indexes(
    connection: asyncpg.Connection[Any], settings_environment: dict[str, str], tmp_path: Path
) -> None:
    await fill(connection, ROWS)
    for name, (used, whole) in (await used_by_plans(connection)).items():
        assert (used, whole) == (set(), name != "a profile's posts, newest first")

    made = await command(settings_environment, tmp_path, "indexes", "create", "--profile", "appview")
    assert [line.split(":")[0] for line in made.output.splitlines()] == [index.name for index in of_profile("appview")]
    await connection.execute("ANALYZE")
    for name, (used, whole) in (await used_by_plans(connection)).items():
        assert (used, whole) == ({PLANS[name][1]}, False), name

    again = await command(settings_environment, tmp_path, "indexes", "create", "--profile", "appview")
    assert again.output.count(": ready\n") == len(of_profile("appview"))
    refreshed = await command(settings_environment, tmp_path, "aggregates", "refresh")
    assert [line.split(":")[0] for line in refreshed.output.splitlines()] == ["follow_counts", "post_counts"]
    assert "rows" in (await command(settings_environment, tmp_path, "aggregates", "refresh", "post_counts")).output
    assert "empty" not in (await command(settings_environment, tmp_path, "aggregates", "status")).output


async def test_beside_a_writer_and_after_an_interruption(
    connection: asyncpg.Connection[Any], settings_environment: dict[str, str], tmp_path: Path
) -> None:
    await connection.execute("CREATE INDEX mine ON records_like (cid)")
    # What a build leaves that was interrupted: an index that is not valid.
    await connection.execute(
        "INSERT INTO records (did, collection, rkey, rev, record, time) "
        "SELECT 'did:plc:a', 'app.bsky.feed.like', n::text, 'r', '{}', now() FROM generate_series(1, 2) AS n"
    )
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY ix_like_post ON records_like (did)")
    status = await command(settings_environment, tmp_path, "indexes", "status", "--json")
    assert {row["name"]: row["state"] for row in json.loads(status.output)}["ix_like_post"] == "invalid"

    writing = asyncio.Event()

    async def write() -> int:
        """A writer that goes on while the indexes are built."""
        own: asyncpg.Connection[Any] = await asyncpg.connect(
            settings_environment["DATABASE_URL"],
            server_settings={"search_path": settings_environment["SINK_SCHEMA"], "lock_timeout": "5s"},
        )
        written = 0
        while not writing.is_set():
            written += 1
            await own.execute(
                "INSERT INTO records (did, collection, rkey, rev, record, time) "
                "VALUES ('did:plc:b', 'app.bsky.feed.like', $1, 'r', '{}', now())", str(written),
            )  # fmt: skip
            await asyncio.sleep(0.002)
        await own.close()
        return written

    writer = asyncio.create_task(write())
    await command(settings_environment, tmp_path, "indexes", "create")
    writing.set()
    assert await writer > 0
    status = await command(settings_environment, tmp_path, "indexes", "status", "--json")
    assert {row["state"] for row in json.loads(status.output)} == {"ready"}

    await command(settings_environment, tmp_path, "indexes", "drop")
    left = await connection.fetch(
        "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND indexname LIKE 'ix_%'"
    )
    assert left == []
    assert await connection.fetchval("SELECT to_regclass('mine')") is not None


async def test_a_build_waits_for_an_open_transaction_and_is_not_begun_again(
    connection: asyncpg.Connection[Any],
    settings_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(session_module.SINK, "lock_timeout", "500")
    monkeypatch.setattr(indexes_command, "LOOK_EVERY", 0.1)
    index = next(index for index in INDEXES if index.name == "ix_like_post")
    database = Database(settings_environment["DATABASE_URL"], settings_environment["SINK_SCHEMA"])
    oid = f"SELECT '{index.name}'::regclass::oid"
    watcher = indexes_command._watcher(database)
    reader: asyncpg.Connection[Any] = await asyncpg.connect(
        settings_environment["DATABASE_URL"], server_settings={"search_path": settings_environment["SINK_SCHEMA"]}
    )
    try:
        async with reader.transaction(isolation="repeatable_read"):
            await reader.fetchval("SELECT count(*) FROM records_like")
            building = asyncio.create_task(create(database, index, watcher))
            while (await states(database, (index,)))[0].waits_for is None:
                assert not building.done()
                await asyncio.sleep(0.05)
            first = await connection.fetchval(oid)
            await asyncio.sleep(2)
            [state] = await states(database, (index,))
            assert (state.state, state.waits_for) == ("building", await reader.fetchval("SELECT pg_backend_pid()"))
        await building
        [state] = await states(database, (index,))
        assert (state.state, await connection.fetchval(oid)) == ("ready", first)
    finally:
        await reader.close()
        await database.close()
    assert capsys.readouterr().out.count("waits for the transaction of pid") == 1


async def test_a_value_that_postgres_refuses_is_a_sentence(
    connection: asyncpg.Connection[Any], settings_environment: dict[str, str], tmp_path: Path
) -> None:
    """A view of the user's own, which cannot be computed."""
    await connection.execute("CREATE MATERIALIZED VIEW mine AS SELECT 1 / count(*) AS n FROM records WITH NO DATA")
    done = await finish([*FAUST, "aggregates", "refresh", "mine"], settings_environment, tmp_path)
    assert (done.code, done.errors) == (
        4, "Postgres refuses a value (22012: division by zero): see what it names.\n"
    )  # fmt: skip


async def test_one_builder_at_a_time(
    connection: asyncpg.Connection[Any], settings_environment: dict[str, str], tmp_path: Path
) -> None:
    schema = settings_environment["SINK_SCHEMA"]
    await connection.execute(f"SELECT pg_advisory_lock(hashtextextended('atproto-streams indexes {schema}', 0))")
    done = await finish([*FAUST, "indexes", "create"], settings_environment, tmp_path)
    assert (done.code, "Another process builds" in done.errors) == (4, True)


def test_every_index_belongs_to_a_profile() -> None:
    assert len({index.name for index in INDEXES}) == len(INDEXES)
    assert all(index.profiles and set(index.profiles) <= set(PROFILES) for index in INDEXES)
