"""The accounts of the growing table are the same on the server as in the batches."""

from __future__ import annotations

import asyncpg

from benchmarks.growth_rows import ACCOUNTS, did_of, fill_statement
from tests.conftest import SettingsFactory, migrated


async def test_the_server_fills_with_the_accounts_that_are_measured(settings: SettingsFactory) -> None:
    made = settings()
    await migrated(made.database_dsn(), made.sink_schema)
    connection = await asyncpg.connect(made.database_dsn(), server_settings={"search_path": made.sink_schema})
    try:
        await connection.execute(fill_statement(0, 2000))
        rows = await connection.fetch("SELECT did, collection FROM records")
        [one] = await connection.fetchrow("SELECT 'did:plc:' || translate(left(md5('5'), 24), '0189', 'wxyz')")
    finally:
        await connection.close()
    assert len(rows) == 2000
    assert one == did_of(5)
    assert len({row["did"] for row in rows}) > 1900
    assert sum(row["collection"] == "app.bsky.feed.like" for row in rows) == 1200
    known = {did_of(account) for account in range(ACCOUNTS // 20)}
    assert known & {row["did"] for row in rows}
