"""A feed, as `app.bsky.feed.getFeedSkeleton` answers it: post URIs, newest first, with a cursor for the next page.

    python examples/feed.py timeline did:plc:ewvi7nxzyoun6zhxrhs64oiz
    python examples/feed.py keyword butterfly --limit 20
    python examples/feed.py keyword butterfly --cursor "$CURSOR"

`timeline` has the posts of those whom the account follows; `keyword` the posts whose text contains the word. Each is
one query over the views `posts` and `follows`: put it behind your web framework's handler as it is.

The cursor is the place after the last post of a page, (time, URI): unlike an offset it neither repeats nor skips posts
when new ones come in, and costs the same on every page. `faust -A streams.agents indexes create` builds the index
that `timeline` uses.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any, Final

import asyncpg

from streams.errors import StreamsError
from streams.postgres.session import reading
from streams.settings import load_settings

#: The condition of a page: after the cursor ($1 in microseconds, $2), newest first, $3 at most. A post whose
#: `created_at` cannot be read is in no feed; one that claims to be of the future comes when its time has come.
PAGE: Final = """
    (created_at, uri) < (timestamptz 'epoch' + $1::bigint * interval '1 microsecond', $2::text)
    ORDER BY created_at DESC, uri DESC LIMIT $3
"""

#: A page of each account that is followed, then the newest of them: short index scans in place of one long sort.
TIMELINE: Final = f"""
SELECT uri, (extract(epoch FROM created_at) * 1000000)::bigint AS us
FROM (SELECT DISTINCT following_did FROM follows WHERE follower_did = $4) AS followed
CROSS JOIN LATERAL (SELECT uri, created_at FROM posts WHERE author_did = followed.following_did AND {PAGE}) AS post
ORDER BY created_at DESC, uri DESC LIMIT $3
"""  # noqa: S608 (PAGE is ours)

#: Reads all posts back from the cursor; for a busy service add a pg_trgm index and write `text ILIKE`.
KEYWORD: Final = f"""
SELECT uri, (extract(epoch FROM created_at) * 1000000)::bigint AS us
FROM posts WHERE strpos(lower(text), lower($4)) > 0 AND {PAGE}
"""  # noqa: S608

QUERIES: Final = {"timeline": TIMELINE, "keyword": KEYWORD}


async def feed(
    connection: asyncpg.Connection[Any], kind: str, of: str, limit: int, cursor: str | None
) -> dict[str, Any]:
    """One page. Raises ValueError where the cursor is none of ours."""
    before_us, before_uri = read_cursor(cursor)
    rows = await connection.fetch(QUERIES[kind], before_us, before_uri, limit, of)
    page: dict[str, Any] = {"feed": [{"post": row["uri"]} for row in rows]}
    if len(rows) == limit:  # a shorter page is the last one: it has no cursor
        page["cursor"] = f"{rows[-1]['us']}::{rows[-1]['uri']}"
    return page


def read_cursor(cursor: str | None) -> tuple[int, str]:
    """The place that a cursor names; now, where there is none."""
    if cursor is None:
        return time.time_ns() // 1000, ""
    us, separator, uri = cursor.partition("::")
    if not separator or "\0" in uri or abs(int(us)) >= 2**53:
        raise ValueError(cursor)
    return int(us), uri


async def answer(kind: str, of: str, limit: int, cursor: str | None) -> dict[str, Any]:
    """One page from the deployment that the settings name."""
    settings = load_settings()
    async with reading(settings.database_dsn(), settings.sink_schema) as connection:
        return await feed(connection, kind, of, limit, cursor)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(QUERIES), help="which feed")
    parser.add_argument("of", metavar="DID|WORD", help="whose timeline, or the word")
    parser.add_argument("--limit", type=int, default=50, choices=range(1, 101), metavar="1..100", help="default 50")
    parser.add_argument("--cursor", help="from the page before")
    arguments = parser.parse_args()
    try:
        page = asyncio.run(answer(arguments.kind, arguments.of, arguments.limit, arguments.cursor))
    except ValueError:
        parser.error("this is no cursor of this feed")
    except (StreamsError, asyncpg.PostgresError, OSError) as error:
        sys.exit(str(error))
    print(json.dumps(page))


if __name__ == "__main__":
    main()
