"""How long indexes, counts and four usual queries take at many rows: ``python -m benchmarks.views --rows 10000000``.

Fills a schema of its own by SQL with records like the network's (likes above all, a few posts that everybody likes), in
an embedded Postgres that is removed afterwards. Prints a table of Markdown, as docs/performance.md has it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any, Final

import asyncpg

from streams.local.postgres import Postgres
from streams.postgres.database import Database
from streams.postgres.indexes import INDEXES, PREFIX
from streams.postgres.migrate import migrate_schema
from streams.postgres.session import reading

SCHEMA: Final = "firehose"
#: Of 100 rows so many are likes, posts, follows, reposts; the last one is a profile.
LIKES, POSTS, FOLLOWS, REPOSTS = 55, 22, 14, 8

#: What people ask, and the index that must answer it.
PLANS: Final = {
    "a profile's posts, newest first": (
        "SELECT * FROM posts WHERE author_did = '{did}' ORDER BY created_at DESC LIMIT 50", "ix_post_author"),
    "a post's likes": ("SELECT user_did, created_at FROM likes WHERE post_uri = '{post}'", "ix_like_post"),
    "a thread": ("SELECT * FROM posts WHERE root_uri = '{post}' ORDER BY created_at", "ix_post_root"),
    "a follower list": (
        "SELECT follower_did FROM follows WHERE following_did = '{did}' ORDER BY created_at DESC LIMIT 100",
        "ix_follow_subject"),
}  # fmt: skip

COUNTS: Final = (
    "SELECT count(*) FROM records",
    "SELECT count(*) FROM likes",
    "SELECT count(*) FROM posts",
    "SELECT count(*) FROM posts WHERE created_at > now() - interval '1 day'",
    "REFRESH MATERIALIZED VIEW post_counts",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY post_counts",
    "REFRESH MATERIALIZED VIEW follow_counts",
)

_DID: Final = "'did:plc:' || lpad(to_hex({}), 24, 'z')"
#: The n-th account or post, chosen so that a few are chosen often.
_POPULAR: Final = "(power(random(), 4) * {})::bigint"
_POST: Final = f"'at://' || {_DID.format('p % accounts')} || '/app.bsky.feed.post/3k' || lpad(p::text, 11, '0')"


def _fill(collection: str, count: int, record: str, *, accounts: int, posts: int) -> str:
    return f"""
        INSERT INTO records (seq, time, did, collection, rkey, rev, cid, record)
        SELECT n, now() - n * interval '1 ms', {_DID.format("who")}, '{collection}', '3k' || lpad(n::text, 11, '0'),
               '3k' || lpad(n::text, 11, '0'), 'bafyrei' || md5(n::text) || left(md5((n + 1)::text), 20), {record}
        FROM (SELECT n, {accounts} AS accounts, {_POPULAR.format(posts)} AS p,
                     CASE WHEN '{collection}' = 'app.bsky.feed.post' THEN n % {accounts}
                          ELSE (random() * {accounts})::bigint END AS who,
                     to_char(now() - n * interval '50 ms', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS said
              FROM generate_series(1, {count}) AS n) AS made"""


async def fill(connection: asyncpg.Connection[Any], rows: int) -> None:
    """About ``rows`` records: posts first, then what refers to them."""
    share = rows // 100
    accounts, posts = max(rows // 50, 10), share * POSTS
    subject = f"jsonb_build_object('uri', {_POST}, 'cid', 'bafyrei' || md5(p::text) || left(md5(said), 20))"
    a_like = f"jsonb_build_object('$type', 'app.bsky.feed.like', 'subject', {subject}, 'createdAt', said)"
    text = "left(repeat(md5(n::text) || ' ', 6), 20 + (n % 180)::integer)"
    reply = f"jsonb_build_object('root', {subject}, 'parent', {subject})"
    a_post = (
        f"jsonb_build_object('$type', 'app.bsky.feed.post', 'text', {text}, 'langs', jsonb_build_array('en'), "
        f"'createdAt', said) || CASE WHEN n % 3 = 0 THEN jsonb_build_object('reply', {reply}) ELSE '{{}}' END"
    )
    whom = _DID.format("p % accounts")
    a_follow = f"jsonb_build_object('$type', 'app.bsky.graph.follow', 'subject', {whom}, 'createdAt', said)"
    a_profile = (
        "jsonb_build_object('$type', 'app.bsky.actor.profile', 'displayName', 'Somebody ' || n, 'createdAt', said)"
    )
    for collection, number, record in (
        ("app.bsky.feed.post", POSTS, a_post), ("app.bsky.feed.like", LIKES, a_like),
        ("app.bsky.feed.repost", REPOSTS, a_like), ("app.bsky.graph.follow", FOLLOWS, a_follow),
        ("app.bsky.actor.profile", 1, a_profile),
    ):  # fmt: skip
        await connection.execute(
            _fill(collection, share * number, record, accounts=accounts, posts=posts), timeout=7200
        )  # fmt: skip
    await connection.execute(
        f"INSERT INTO actors (did, handle, active) SELECT {_DID.format('n')}, 'user' || n || '.test', n % 100 > 0 "
        f"FROM generate_series(0, {accounts}) AS n", timeout=600,
    )  # fmt: skip
    await connection.execute("VACUUM (ANALYZE)", timeout=7200)


async def popular(connection: asyncpg.Connection[Any]) -> dict[str, str]:
    """A post with many likes and its author: what the plans ask for."""
    row = await connection.fetchrow(
        "SELECT post_uri, count(*) FROM (SELECT post_uri FROM likes LIMIT 100000) AS few "
        "WHERE split_part(post_uri, '/', 3) NOT IN (SELECT did FROM actors WHERE hidden) "
        "GROUP BY 1 ORDER BY 2 DESC OFFSET 5 LIMIT 1"
    )
    assert row is not None
    return {"post": row["post_uri"], "did": row["post_uri"].split("/")[2]}


async def explain(connection: asyncpg.Connection[Any], statement: str, *, run: bool) -> dict[str, Any]:
    """The plan as Postgres describes it in JSON; with its times where it is run."""
    how = "ANALYZE, FORMAT JSON" if run else "FORMAT JSON"
    found = json.loads(await connection.fetchval(f"EXPLAIN ({how}) {statement}", timeout=600))
    return dict(found[0])


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's nodes."""
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


class Bench:
    """The measurements, each of which prints its table."""

    def __init__(self, connection: asyncpg.Connection[Any], rows: int) -> None:
        self.connection = connection
        self.rows = rows

    async def timed(self, statement: str) -> tuple[float, Any]:
        """Seconds, and the first value."""
        began = time.monotonic()
        result = await self.connection.fetchval(statement, timeout=7200)
        return time.monotonic() - began, result

    async def load(self) -> None:
        """Fill the tables, and say how large they are."""
        began = time.monotonic()
        await fill(self.connection, self.rows)
        print(f"filled with {self.rows} rows in {time.monotonic() - began:.0f} s\n", flush=True)
        _, table = await self.timed("SELECT sum(pg_table_size(relid)) FROM pg_partition_tree('records')")
        _, keys = await self.timed("SELECT sum(pg_indexes_size(relid)) FROM pg_partition_tree('records')")
        print(f"rows {table / self.rows:.0f} bytes each, their key {keys / self.rows:.0f}\n", flush=True)

    async def plans(self, wanted: dict[str, str]) -> dict[str, tuple[float, str]]:
        """Of each query: milliseconds when warm, and the optional indexes that it uses."""
        found = {}
        for name, (statement, _) in PLANS.items():
            await explain(self.connection, statement.format(**wanted), run=True)
            plan = await explain(self.connection, statement.format(**wanted), run=True)
            used = [node["Index Name"] for node in nodes(plan["Plan"]) if node.get("Index Name", "").startswith(PREFIX)]
            found[name] = plan["Execution Time"], ", ".join(used) or "none"
        return found

    async def indexes(self) -> None:
        """Build each."""
        print("| index | for | seconds | MB |\n|---|---|---|---|")
        await self.connection.execute("SET maintenance_work_mem = '256MB'")
        for index in INDEXES:
            seconds, _ = await self.timed(index.statement)
            _, taken = await self.timed(f"SELECT pg_relation_size('{index.name}')")
            print(f"| `{index.name}` | {index.answers} | {seconds:.0f} | {taken / 1e6:.0f} |", flush=True)
        await self.connection.execute("ANALYZE", timeout=3600)

    async def counts(self) -> None:
        """Counting, and what is counted once for all."""
        print("\n| what | seconds | result |\n|---|---|---|")
        for statement in COUNTS:
            seconds, result = await self.timed(statement)
            print(f"| `{statement}` | {seconds:.1f} | {'' if result is None else result} |", flush=True)


async def measure(dsn: str, rows: int) -> None:
    """Fill, measure, print."""
    database = Database(dsn, SCHEMA, 1)
    await migrate_schema(database)
    await database.close()
    async with reading(dsn, SCHEMA) as connection:
        await connection.execute("SET jit = off")
        bench = Bench(connection, rows)
        await bench.load()
        wanted = await popular(connection)
        before = await bench.plans(wanted)
        await bench.indexes()
        print("\n| query | ms with the index | ms without | plan |\n|---|---|---|---|")
        for name, (took, used) in (await bench.plans(wanted)).items():
            print(f"| {name} | {took:.1f} | {before[name][0]:.0f} | {used} |", flush=True)
        await bench.counts()


def main() -> None:
    """Run it in a Postgres of its own."""
    parser = argparse.ArgumentParser(description="Index builds, plans and counts at many rows.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(".local/benchmark-views"))
    arguments = parser.parse_args()
    server = Postgres(arguments.folder, arguments.folder, fsync=False)
    try:
        server.start()
        asyncio.run(measure(server.dsn, arguments.rows))
    finally:
        server.stop()
        shutil.rmtree(arguments.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
