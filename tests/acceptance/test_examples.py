"""The examples as their readers start them, against generated traffic: what they say is what the relay's model says."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.acceptance.commands import Finished, finish
from tests.acceptance.filled import Filled

EXAMPLES = Path(__file__).parents[2] / "examples"
LIKE, FOLLOW, POST = "app.bsky.feed.like", "app.bsky.graph.follow", "app.bsky.feed.post"

Record = dict[str, Any]


async def run(filled: Filled, name: str, *arguments: str, code: int = 0) -> Finished:
    """Run one; it ends with that code and without a traceback."""
    done = await finish([sys.executable, str(EXAMPLES / name), *arguments], filled.environment, filled.folder)
    assert done.code == code, done.output + done.errors
    assert "Traceback" not in done.errors
    return done


def visible(filled: Filled, collection: str) -> Iterator[tuple[str, str, Record]]:
    """(DID, URI, value) of the collection's records, without those of hidden accounts."""
    accounts = filled.oracle["accounts"]
    for did, records in filled.oracle["records"].items():
        if did in accounts and (accounts[did]["hidden"] or accounts[did]["deleted"]):
            continue
        for key, record in records.items():
            if key.startswith(f"{collection}/"):
                yield did, f"at://{did}/{key}", record["value"]


def created(record: Record) -> datetime | None:
    """The record's own time, where it is one. The generator's claims are well formed, or far from it."""
    try:
        time = datetime.fromisoformat(record["createdAt"])
    except (KeyError, TypeError, ValueError):
        return None
    return time if time.tzinfo else None


def text_of(record: Record) -> str:
    return str(record["text"]).replace("\0", "\ufffd")


# -- trending


async def test_trending_counts_what_the_relay_sent(filled: Filled) -> None:
    found = json.loads((await run(filled, "trending.py", "--hours", "20", "--top", "25", "--json")).output)
    since, until = datetime.fromisoformat(found["since"]), datetime.fromisoformat(found["until"])
    last = filled.oracle["last_time"]
    assert last is not None
    assert abs(until - datetime.fromisoformat(last)) < timedelta(seconds=1)
    assert until - since == timedelta(hours=20)

    def recent(collection: str) -> Iterator[tuple[str, str, Record]]:
        return (row for row in visible(filled, collection) if (at := created(row[2])) and since < at <= until)

    likes: dict[str, set[str]] = defaultdict(set)
    for did, _, record in recent(LIKE):
        likes[record["subject"]["uri"]].add(did)
    texts = {uri: text_of(record) for _, uri, record in visible(filled, POST)}
    expected = sorted(((-len(by), uri) for uri, by in likes.items()))[:25]
    assert [(-post["likes"], post["uri"]) for post in found["posts"]] == expected
    assert [post["text"] for post in found["posts"]] == [texts.get(uri) for _, uri in expected]

    followers: dict[str, set[str]] = defaultdict(set)
    for did, _, record in recent(FOLLOW):
        followers[record["subject"]].add(did)
    expected = sorted(((-len(by), did) for did, by in followers.items()))[:25]
    assert [(-account["followers"], account["did"]) for account in found["accounts"]] == expected

    now = Counter(tag for _, _, record in recent(POST) for tag in {t.lower() for t in record.get("tags", ())})
    assert {tag["tag"]: tag["now"] for tag in found["tags"]} == dict(now)
    assert set(now) == {"art", "🦋"}


async def test_trending_for_people_has_nothing_that_moves_a_cursor(filled: Filled) -> None:
    output = (await run(filled, "trending.py", "--hours", "100", "--top", "2000")).output
    assert "Most liked posts" in output
    assert "\\x1b[31mred" in output  # the generator's hostile texts were there, and are harmless
    assert [c for c in output if not c.isprintable() and c != "\n"] == []


# -- feeds


async def all_pages(filled: Filled, *arguments: str) -> list[str]:
    """The posts of every page, each page asked for with the cursor of the one before."""
    found: list[str] = []
    cursor: list[str] = []
    for _ in range(60):
        page = json.loads((await run(filled, "feed.py", *arguments, *cursor)).output)
        found.extend(item["post"] for item in page["feed"])
        if "cursor" not in page:
            return found
        cursor = ["--cursor", page["cursor"]]
    raise AssertionError("the feed does not end")


def newest_first(posts: list[tuple[datetime, str]]) -> list[str]:
    """In a feed's order, without those of the future."""
    return [uri for at, uri in sorted(posts, reverse=True) if at <= datetime.now(UTC)]


async def test_a_timeline_has_the_posts_of_those_who_are_followed(filled: Filled) -> None:
    follows: dict[str, set[str]] = defaultdict(set)
    for did, _, record in visible(filled, FOLLOW):
        follows[did].add(record["subject"])
    posts: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for did, uri, record in visible(filled, POST):
        if (at := created(record)) is not None:
            posts[did].append((at, uri))

    def expected(did: str) -> list[str]:
        return newest_first([post for followed in follows[did] for post in posts[followed]])

    reader = max(follows, key=lambda did: min(len(expected(did)), 250))
    assert len(expected(reader)) > 2
    limit = len(expected(reader)) // 2
    assert await all_pages(filled, "timeline", reader, "--limit", str(min(limit, 100))) == expected(reader)
    assert await all_pages(filled, "timeline", "did:plc:nobody") == []


async def test_a_keyword_feed_pages_through_all_posts_with_the_word(filled: Filled) -> None:
    posts = [
        (at, uri)
        for _, uri, record in visible(filled, POST)
        if "straße" in text_of(record).lower() and (at := created(record)) is not None
    ]
    assert len(posts) > 3
    assert await all_pages(filled, "keyword", "STRAße", "--limit", "97") == newest_first(posts)
    done = await run(filled, "feed.py", "keyword", "x", "--cursor", "10 o'clock", code=2)
    assert "no cursor" in done.errors


# -- the consumer


async def test_a_consumer_has_every_event_and_goes_on_where_it_stopped(filled: Filled) -> None:
    messages = [message for message in await filled.deployment.messages() if "did" in message and "seq" in message]
    sent = [
        {name: value for name, value in message.items() if name not in ("partition", "offset")} for message in messages
    ]
    events = [event for event in sent if event["kind"] in {"commit", "identity", "account", "sync"}]
    assert len(events) > 5_000
    take = ["--group", "everything", "--from-beginning", "--collection", "*", "--json", "--count"]
    first = await run(filled, "consume.py", *take, "777")
    second = await run(filled, "consume.py", *take, str(len(events) - 777))
    lines = [first.output.splitlines(), second.output.splitlines()]
    assert [len(part) for part in lines] == [777, len(events) - 777]
    seen = [json.loads(line) for part in lines for line in part]
    assert sorted(map(json.dumps, seen)) == sorted(map(json.dumps, events))


async def test_a_consumer_of_new_posts_prints_them_harmlessly(filled: Filled) -> None:
    done = await run(filled, "consume.py", "--group", "posts", "--from-beginning", "--count", "300")
    assert done.errors.startswith("taken: ")
    assert "create" in done.errors
    assert [c for c in done.output if not c.isprintable() and c != "\n"] == []
    assert all(line.startswith("did:") for line in done.output.splitlines())


async def test_a_topic_that_is_not_there_is_a_sentence(filled: Filled) -> None:
    arguments = [sys.executable, str(EXAMPLES / "consume.py")]
    done = await finish(arguments, {**filled.environment, "KAFKA_TOPIC": "no.such"}, filled.folder)
    assert done.code == 1
    assert done.errors.startswith("There is no topic no.such")


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
async def test_kcat_reads_the_same(filled: Filled) -> None:
    command = ["kcat", "-b", filled.bootstrap_servers, "-t", "firehose.events", "-C", "-q", "-o", "beginning", "-e"]
    done = await finish([*command, "-f", "%k %s\n"], {}, filled.folder)
    assert done.code == 0, done.errors
    events = [line for line in done.output.splitlines() if line.startswith("did:")]
    messages = [message for message in await filled.deployment.messages() if message["kind"] == "commit"]
    assert len(events) >= len(messages) > 5_000


# -- Parquet


async def test_a_view_as_parquet(filled: Filled) -> None:
    out = filled.folder / "posts.parquet"
    done = await run(filled, "export_parquet.py", "--view", "posts", "--out", str(out))
    posts = {uri: record for _, uri, record in visible(filled, POST)}
    assert done.output.startswith(f"{len(posts):,} rows of posts in ")
    rows = parquet.read_table(out).to_pylist()
    assert {row["uri"]: row["text"] for row in rows} == {uri: text_of(record) for uri, record in posts.items()}
    assert len(rows) == len(posts)
    for row in rows:
        record = posts[row["uri"]]
        assert row["created_at"] == created(record)
        assert row["langs"] == record["langs"]
        assert row["parent_uri"] == record.get("reply", {}).get("parent", {}).get("uri")
        assert (row["embed"] is None) == ("embed" not in record)
    assert [path.name for path in filled.folder.glob("posts.parquet*")] == ["posts.parquet"]


async def test_a_day_as_parquet(filled: Filled) -> None:
    likes = [at for *_, record in visible(filled, LIKE) if (at := created(record)) is not None]
    middle = sorted(likes)[len(likes) // 2]
    out = filled.folder / "likes.parquet"
    bounds = ["--since", (middle - timedelta(hours=3)).isoformat(), "--until", middle.isoformat()]
    await run(filled, "export_parquet.py", "--view", "likes", *bounds, "--out", str(out))
    expected = sum(middle - timedelta(hours=3) <= at < middle for at in likes)
    assert parquet.read_metadata(out).num_rows == expected > 0


async def test_a_view_that_is_not_there_leaves_no_file(filled: Filled) -> None:
    out = filled.folder / "none.parquet"
    done = await run(filled, "export_parquet.py", "--view", "pots", "--out", str(out), code=1)
    assert 'relation "pots" does not exist' in done.errors
    done = await run(filled, "export_parquet.py", "--view", 'posts"; --', "--out", str(out), code=2)
    assert "is not a valid name" in done.errors
    assert list(filled.folder.glob("none*")) == []
