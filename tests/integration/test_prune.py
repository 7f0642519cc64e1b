"""``prune``: what is old enough goes, in batches, beside a writing sink; never what the topic could bring back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from streams.commands import prune
from streams.kafka.topic import ensure_topic
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.postgres.queries import query
from tests.acceptance.commands import FAUST, Finished, finish
from tests.conftest import SettingsFactory
from tests.support.patience import PATIENCE

FILL = """
INSERT INTO records (did, collection, rkey, rev, time, indexed_at, cid, record)
SELECT 'did:plc:' || n % 50, collection, 'k' || n, '3l' || n, now(), now() - n % 40 * interval '1 day',
       CASE WHEN n % 4 > 0 THEN 'bafy' END, CASE WHEN n % 4 > 0 THEN '{"a": 1}'::jsonb END
FROM generate_series(1, 20000) AS n,
     unnest(ARRAY['app.bsky.feed.like', 'app.bsky.feed.post', 'com.example.x']) AS collection;
INSERT INTO dead_letters (topic, partition, "offset", reason, created_at)
SELECT 't', 0, n, 'r' || n, now() - n % 40 * interval '1 day' FROM generate_series(1, 400) AS n;
INSERT INTO gaps (topic, partition, "offset", reason, created_at)
SELECT 't', 0, n, 'r', now() - n % 40 * interval '1 day' FROM generate_series(1, 400) AS n;
"""
COUNTS = """
SELECT (SELECT count(*) FROM records) AS records, (SELECT count(*) FROM records WHERE record IS NULL) AS tombstones,
       (SELECT count(*) FROM dead_letters) AS dead_letters, (SELECT count(*) FROM gaps) AS gaps
"""
EVERYTHING = ("--dead-letters-older-than", "30", "--gaps-older-than", "30")
#: n % 40 > 29 and n % 4 = 0: 32 and 36 (and 30 days to the second are older than 30 days).
OLD_TOMBSTONES, OLD_OTHERS = 3 * 500 * 2, 10 * 10


async def filled(made: Any) -> asyncpg.Connection[Any]:
    database = Database(made.database_dsn(), made.sink_schema)
    await migrate_schema(database)
    await database.close()
    look: asyncpg.Connection[Any] = await asyncpg.connect(
        made.database_dsn(), server_settings={"search_path": made.sink_schema}
    )
    await look.execute(FILL)
    return look


async def counts(look: Any) -> dict[str, int]:
    return dict(await look.fetchrow(COUNTS))


async def test_old_rows_go_and_the_topics_retention_is_respected(
    settings: SettingsFactory, settings_environment: dict[str, str], tmp_path: Path
) -> None:
    async def run(*arguments: str) -> Finished:
        return await finish([*FAUST, "prune", *arguments], settings_environment, tmp_path)

    made = settings(kafka_retention_hours=31 * 24, kafka_partitions=1)
    await ensure_topic(made)
    look = await filled(made)
    before = await counts(look)

    young, nothing, counted = await asyncio.gather(
        run("--tombstones-older-than", "30"),
        run("--dry-run"),
        run("--tombstones-older-than", "30", *EVERYTHING, "--force", "--dry-run", "--json"),
    )
    assert (young.code, nothing.code, counted.code) == (2, 2, 0), counted.errors
    assert "keeps its events for 31 days" in young.errors
    assert "--force" in young.errors
    expected = {"tombstones": OLD_TOMBSTONES, "dead_letters": OLD_OTHERS, "gaps": OLD_OTHERS}
    assert json.loads(counted.output) == {**expected, "dry_run": True}
    assert await counts(look) == before

    done = await run("--tombstones-older-than", "31", *EVERYTHING)
    assert done.code == 0, done.errors
    assert f"tombstones older than 31 days: {OLD_TOMBSTONES:,} removed." in done.output
    after = await counts(look)
    assert {what: before[what] - after[what] for what in expected} == expected
    assert before["records"] - after["records"] == OLD_TOMBSTONES
    await look.close()


async def test_batches_pass_over_what_somebody_writes(
    settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small batches; a row that is being rewritten stays, and neither waits for the other."""
    monkeypatch.setattr(prune, "BLOCKS", 7)
    made = settings()
    look = await filled(made)
    database = Database(made.database_dsn(), made.sink_schema)
    writer = await asyncpg.connect(made.database_dsn(), server_settings={"search_path": made.sink_schema})
    async with writer.transaction():
        await writer.execute("UPDATE records SET rev = rev || 'x', indexed_at = now() WHERE rkey = 'k36'")
        async with asyncio.timeout(PATIENCE):
            gone = [
                await prune._prune(database, what, 31.0, dry_run=False, tell=None)
                for what in ("tombstones", "dead_letters", "gaps", "tombstones")
            ]
    assert gone == [OLD_TOMBSTONES - 3, 9 * 10, 9 * 10, 0]
    assert await look.fetchval("SELECT count(*) FROM records WHERE rkey = 'k36'") == 3
    plan = await look.fetch("EXPLAIN " + QUERY_OF_A_BATCH)
    assert not any("Seq Scan" in row[0] for row in plan), "\n".join(row[0] for row in plan)
    await writer.close()
    await database.close()
    await look.close()


QUERY_OF_A_BATCH = (
    query("prune_tombstones").replace("$1", "now()").replace("$2::bigint", "0").replace("$3::bigint", "7")
)
