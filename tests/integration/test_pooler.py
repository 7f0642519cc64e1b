"""Postgres behind a real pgbouncer: sessions are ours, or it is said in a sentence; no table falls into ``public``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from streams.errors import DatabaseError, StreamsError
from streams.postgres import database as database_module
from streams.postgres.database import Database
from streams.postgres.migrate import check_schema, migrate_schema
from streams.postgres.session import Pooling
from streams.status.doctor import check_up, postgres
from tests.conftest import SettingsFactory, migrated
from tests.support.pgbouncer import needed, pgbouncer

pytestmark = needed

#: What everybody is told to write where a pooler refuses a startup parameter.
IGNORED = "synchronous_commit, jit, search_path, timezone, statement_timeout, lock_timeout, options, extra_float_digits"


async def in_public(dsn: str) -> set[str]:
    """The tables and views in ``public``, but for the cursor's."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
    )
    await connection.close()
    return {row[0] for row in rows} - {"firehose_cursor"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ignore_startup_parameters": IGNORED},
        {"server_reset_query": ""},
        {"server_round_robin": 1, "default_pool_size": 5},
        {"default_pool_size": 1, "query_wait_timeout": 60},
        {"server_lifetime": 1, "server_idle_timeout": 1},
        {"server_check_query": "", "server_fast_close": 1},
        {"application_name_add_host": 1},
    ],
    ids=str,
)
async def test_a_pool_of_sessions_is_as_postgres_itself(dsn: str, tmp_path: Path, options: dict[str, Any]) -> None:
    with pgbouncer(dsn, tmp_path, **options) as pooler:
        await migrated(pooler.url, "mine")
        database = Database(pooler.url, "mine", 1)
        await check_schema(database)
        assert database.pooling is Pooling.SESSION
        for name, value in (("search_path", '"mine"'), ("synchronous_commit", "off"), ("lock_timeout", "20s")):
            assert await database.run(lambda c, name=name: c.fetchval(f"SHOW {name}")) == value
        await database.close()
    assert await in_public(dsn) == set()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ignore_startup_parameters": IGNORED},
        {"server_reset_query_always": 1},
        {"server_round_robin": 1, "default_pool_size": 3},
        {"default_pool_size": 1},
        {"min_pool_size": 4},
    ],
    ids=str,
)
async def test_shared_sessions_are_refused(dsn: str, tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    with pgbouncer(dsn, tmp_path, mode, **options) as pooler:
        database = Database(pooler.url, "mine", 2)
        with pytest.raises(DatabaseError, match=f"pooler in {mode} mode.*session mode") as refusal:
            await database.start()
        await database.close()
        assert "\n" not in str(refusal.value)
        # Nothing of ours is left in sessions that are others'.
        other = await asyncpg.connect(pooler.url, statement_cache_size=0)
        assert await other.fetchval("SHOW search_path") == '"$user", public'
        await other.close()
    assert await in_public(dsn) == set()


async def test_what_another_client_left_does_no_harm(dsn: str, tmp_path: Path) -> None:
    """Without server_reset_query a session comes as the client before left it."""
    with pgbouncer(dsn, tmp_path, server_reset_query="", default_pool_size=1, query_wait_timeout=60) as pooler:
        other = await asyncpg.connect(pooler.url)
        await other.execute(
            "SET search_path = public; SET default_transaction_read_only = on; SET statement_timeout = 1;"
            "RESET statement_timeout; SELECT pg_advisory_lock(1)"
        )
        for number in range(1, 60):  # the names that our driver gives, too
            await other.execute(f"PREPARE __asyncpg_stmt_{number:x}__ AS SELECT 1")
        await other.close()
        await migrated(pooler.url, "mine")
        # And what we leave is nothing.
        other = await asyncpg.connect(pooler.url, statement_cache_size=0)
        assert await other.fetchval("SHOW search_path") == '"$user", public'
        assert await other.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        await other.close()
    assert await in_public(dsn) == set()


@pytest.mark.parametrize(
    "swap",
    ["DISCARD ALL", "SET search_path = public", "RESET ALL", "RESET search_path", "SET search_path = mine, public",
     "SET atproto_streams.session = 'somebody'"],
)  # fmt: skip
async def test_a_session_that_is_no_longer_ours_is_not_used(dsn: str, swap: str) -> None:
    """As where a pooler gives us another one: the settings are gone."""
    database = Database(dsn, "mine", 1)
    await database.run(lambda c: c.execute(swap))
    with pytest.raises(DatabaseError, match=r"search_path.*pooler"):
        await migrate_schema(database)
    await database.close()
    assert await in_public(dsn) == set()


async def test_a_pooler_that_changes_its_mode_is_noticed(dsn: str, tmp_path: Path) -> None:
    with pgbouncer(dsn, tmp_path) as pooler:
        await migrated(pooler.url, "mine")
        database = Database(pooler.url, "mine", 2)
        await database.start()
        pooler.reload("transaction")

        async def other_sessions() -> None:
            while True:  # until a session is another's, or the pooler has cut ours
                holder = await asyncpg.connect(pooler.url, statement_cache_size=0)
                await holder.execute("BEGIN")
                try:
                    await database.run(lambda c: c.execute("SELECT 1"))
                finally:
                    holder.terminate()

        with pytest.raises(DatabaseError, match="session"):
            await asyncio.wait_for(other_sessions(), 60)
        await database.close()
    assert await in_public(dsn) == set()


async def test_sessions_that_the_pooler_closed_are_opened_again(dsn: str, tmp_path: Path) -> None:
    with pgbouncer(dsn, tmp_path) as pooler:
        database = Database(pooler.url, "mine", 1)
        assert await database.run(lambda c: c.fetchval("SHOW search_path")) == '"mine"'
        pooler.stop()
        pooler.start()
        look = await asyncpg.connect(dsn)
        assert await database.run(lambda c: c.fetchval("SHOW search_path")) == '"mine"'
        await look.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'atproto%'"
        )
        assert await database.run(lambda c: c.fetchval("SHOW search_path")) == '"mine"'
        await look.close()
        await database.close()


async def test_a_full_pooler_is_waited_for_and_then_a_sentence(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgbouncer(dsn, tmp_path, max_client_conn=2) as pooler:
        first, second = [await asyncpg.connect(pooler.url) for _ in range(2)]
        database = Database(pooler.url, "mine", 1)
        waiting = asyncio.create_task(database.run(lambda c: c.fetchval("SELECT 1")))
        async with asyncio.timeout(60):
            while not database.is_away:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await first.close()
        await second.close()
        assert await asyncio.wait_for(waiting, 60) == 1
        await database.close()

        monkeypatch.setattr(database_module, "REFUSAL_TIMEOUT", 0.5)
        first, second = [await asyncpg.connect(pooler.url) for _ in range(2)]
        database = Database(pooler.url, "mine", 1)
        with pytest.raises(DatabaseError, match=r"refused every connection.*max_client_conn"):
            await asyncio.wait_for(database.run(lambda c: c.fetchval("SELECT 1")), 60)
        await first.close()
        await second.close()


async def test_a_password_that_the_pooler_does_not_know(dsn: str, tmp_path: Path) -> None:
    with pgbouncer(dsn, tmp_path) as pooler:
        url = pooler.target._replace(netloc=f"postgres:hunter2@127.0.0.1:{pooler.port}").geturl()
        database = Database(url, "mine", 1)
        with pytest.raises(StreamsError, match="password") as refusal:
            await database.start(timeout=0.5)
        assert "hunter2" not in str(refusal.value)
        assert refusal.value.exit_code == 4


async def test_doctor_looks(settings: SettingsFactory, tmp_path: Path) -> None:
    made = settings()
    with pgbouncer(made.database_dsn(), tmp_path) as pooler:
        await migrated(pooler.url, made.sink_schema)
        found = await postgres(settings(database_url=pooler.url))
        assert [f.what for f in found if f.state == "fail"] == []
        assert "through a pooler" in found[0].text
    with pgbouncer(made.database_dsn(), tmp_path, "transaction") as pooler:
        findings = await check_up(settings(database_url=pooler.url, relay_url="ws://127.0.0.1:9/"))
        [failed] = [f for f in findings if f.what == "Postgres"]
        assert (failed.state, failed.code) == ("fail", 4)
        assert "transaction mode" in failed.text
        assert "session mode" in failed.mend
