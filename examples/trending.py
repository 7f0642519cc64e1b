"""What is trending: the most liked posts, the fastest rising tags, the accounts with most new followers.

    python examples/trending.py --hours 6 --top 5
    python examples/trending.py --json | jq '.posts[0]'

Plain SQL over the views `posts`, `likes`, `follows` and `users` of the deployment that the settings name (DATABASE_URL
and SINK_SCHEMA; without DATABASE_URL the embedded Postgres). The hours end where the data ends, not now, which is what
one wants to see after a backfill. The times are the records' own `created_at`, which is a claim: a like that claims to
come from the future is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from streams.errors import SettingsError, StreamsError
from streams.postgres.session import reading
from streams.settings import Settings, load_settings

Rows = list[dict[str, Any]]

#: Up to where the topic is applied in every partition.
COVERED_UNTIL: Final = """
SELECT max(until) FROM (SELECT min(watermark_time) AS until FROM sink_offsets GROUP BY topic, consumer_group) AS covered
"""

#: First the counts, then the few posts that won, by their key: the join does not read the other millions.
MOST_LIKED: Final = """
SELECT liked.post_uri AS uri, liked.likes, users.handle, post.text
FROM (
    SELECT post_uri, count(DISTINCT user_did) AS likes
    FROM likes
    WHERE created_at > $1 AND created_at <= $2 AND post_uri IS NOT NULL
    GROUP BY post_uri
    ORDER BY likes DESC, post_uri
    LIMIT $3
) AS liked
LEFT JOIN LATERAL (
    SELECT author_did, text FROM posts
    WHERE author_did = split_part(liked.post_uri, '/', 3) AND rkey = split_part(liked.post_uri, '/', 5)
      AND uri = liked.post_uri
) AS post ON true
LEFT JOIN LATERAL (SELECT handle FROM users WHERE did = post.author_did) AS users ON true
ORDER BY liked.likes DESC, uri
"""

#: Tags of both kinds: the record's own, and the hashtags in the text (facets). A post counts once for each tag.
RISING_TAGS: Final = """
WITH tagged AS (
    SELECT DISTINCT uri, created_at > $1 AS recent, lower(tag) AS tag
    FROM posts CROSS JOIN LATERAL (
        SELECT unnest(tags)
        UNION ALL
        SELECT jsonb_path_query(facets, '$[*].features[*] ? (@."$type" == "app.bsky.richtext.facet#tag").tag') #>> '{}'
    ) AS found (tag)
    WHERE created_at > $1 - ($2 - $1) AND created_at <= $2 AND tag <> ''
)
SELECT tag, count(*) FILTER (WHERE recent) AS now, count(*) FILTER (WHERE NOT recent) AS before
FROM tagged
GROUP BY tag
HAVING count(*) FILTER (WHERE recent) > count(*) FILTER (WHERE NOT recent)
ORDER BY count(*) FILTER (WHERE recent) - count(*) FILTER (WHERE NOT recent) DESC, tag
LIMIT $3
"""

MOST_FOLLOWED: Final = """
SELECT followed.did, followed.followers, users.handle, users.display_name
FROM (
    SELECT following_did AS did, count(DISTINCT follower_did) AS followers
    FROM follows
    WHERE created_at > $1 AND created_at <= $2 AND following_did IS NOT NULL
    GROUP BY following_did
    ORDER BY followers DESC, following_did
    LIMIT $3
) AS followed
LEFT JOIN LATERAL (SELECT handle, display_name FROM users WHERE users.did = followed.did) AS users ON true
ORDER BY followed.followers DESC, followed.did
"""


async def report(settings: Settings, hours: float, top: int) -> dict[str, Any]:
    """The three lists over the last ``hours`` of what is covered."""
    async with (
        reading(settings.database_dsn(), settings.sink_schema) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),  # one moment for all of it
    ):
        until: datetime | None = await connection.fetchval(COVERED_UNTIL)
        if until is None:
            raise SettingsError(f"The schema {settings.sink_schema} is empty", "`make run` fills it.")
        since = until - timedelta(hours=hours)
        posts, tags, accounts = [
            [dict(row) for row in await connection.fetch(query, since, until, top)]
            for query in (MOST_LIKED, RISING_TAGS, MOST_FOLLOWED)
        ]
    return {"since": since.isoformat(), "until": until.isoformat(), "posts": posts, "tags": tags, "accounts": accounts}


def print_report(found: dict[str, Any]) -> None:
    """The report for people."""
    print(f"From {found['since']} to {found['until']}")
    print("\nMost liked posts")
    for post in found["posts"]:
        print(f"{post['likes']:>8,}  {printable(post['text'], 100)}")
        print(f"{'':>8}  {printable(post['uri'], 200)}  {printable(post['handle'], 60)}".rstrip())
    print("\nFastest rising tags: posts, and posts in the hours before")
    for tag in found["tags"]:
        print(f"{tag['now']:>8,}  {tag['before']:>8,}  #{printable(tag['tag'], 60)}")
    print("\nMost new followers")
    for account in found["accounts"]:
        names = [account["handle"] or account["did"], account["display_name"]]
        print(f"{account['followers']:>8,}  {'  '.join(printable(name, 60) for name in names)}".rstrip())


def printable(text: str | None, width: int) -> str:
    """A stranger's text on one line of a terminal: what would move the cursor, colour or reorder it is escaped."""
    text = text or ""
    cut = text if len(text) <= width else text[: width - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24, help="how far back from the end of the data (default 24)")
    parser.add_argument("--top", type=int, default=10, help="length of each list (default 10)")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of text")
    arguments = parser.parse_args()
    try:
        found = asyncio.run(report(load_settings(), arguments.hours, arguments.top))
    except (StreamsError, asyncpg.PostgresError, OSError) as error:
        sys.exit(str(error))
    if arguments.json:
        print(json.dumps(found))  # ASCII: hostile characters are \u escapes
    else:
        print_report(found)


if __name__ == "__main__":
    main()
