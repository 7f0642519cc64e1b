"""The typed views against the lexicons: field by field, for whatever a stranger may have written."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.postgres.indexes import INDEXES
from streams.postgres.lexicon_views import create_view, make_view
from streams.postgres.lexicons import Lexicons
from tests.conftest import migrated
from tests.support import lexicon_model as model
from tests.support import lexicon_sets

SCHEMA = "firehose"
#: The columns around a lexicon's own.
COMMON = {"uri", "did", "rkey", "cid", "created_at"}
Row = tuple[str, str, str, Any]


class Views:
    """A schema whose records are given."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.connection = connection

    async def hold(self, rows: list[Row]) -> None:
        """Write (did, collection, rkey, record); the record may be JSON text."""
        await self.connection.execute("TRUNCATE records, actors")
        bodies = [record if isinstance(record, Raw) else json.dumps(record) for *_, record in rows]
        await self.connection.execute(
            "INSERT INTO records (did, collection, rkey, rev, cid, record, time) "
            "SELECT did, collection, rkey, 'rev', 'cid', body::jsonb, now() "
            "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS new (did, collection, rkey, body)",
            *([row[column] for row in rows] for column in range(3)), bodies,
        )  # fmt: skip

    async def show(self, view: str, order: str = "rkey") -> list[dict[str, Any]]:
        return [plain(row) for row in await self.connection.fetch(f"SELECT * FROM {view} ORDER BY {order}")]


class Raw(str):
    """JSON that Python's own writer would not write."""

    __slots__ = ()


def plain(row: asyncpg.Record) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in {"indexed_at", "rev"}}


@pytest.fixture
async def views(dsn: str) -> AsyncIterator[Views]:
    async with opened(dsn) as made:
        yield made


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Views]:
    await migrated(dsn, SCHEMA)
    connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn, server_settings={"search_path": SCHEMA})
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    try:
        yield Views(connection)
    finally:
        await connection.close()


#: Wrong for most fields, and unpleasant for all.
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**62, "", "x", "it's \"quoted\"; DROP TABLE records; --", "\u202e\u0007\u001b[31m",
    [], {}, [[]], ["a", "b"], ["a", 1], ["a", None], [{"type": "string"}], {"$link": 5}, {"$link": "bafy"},
    {"ref": {"$link": []}}, {"ref": {"$link": "bafyref"}}, {"cid": "bafyold", "mimeType": "image/png"},
    {"uri": 5, "cid": {}}, {"uri": "at://did:plc:a/app.bsky.feed.post/1", "cid": "bafy"},
    {"parent": {"uri": "at://p", "cid": 7}, "root": []}, {"$type": "x", "a": {"b": {"c": [1, {"d": None}]}}},
    "0000-00-00", "tomorrow", "now", "epoch", "infinity", "2024-02-30T00:00:00Z", "2023-02-29T00:00:00Z",
    "2024-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "2024-04-31T00:00:00Z",
    "2024-13-01T00:00:00Z", "2024-00-10T00:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.9999999Z",
    "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:60Z", "2024-01-01T24:00:00Z", "2024-01-01T00:00:00", "2024-01-01",
    "2024-01-01 00:00:00Z", "2024-01-01t00:00:00z", "2024-01-01T00:00:00z", "+292277026596-12-04T15:30:08Z",
    "-0001-01-01T00:00:00Z", "2024-01-01T00:00:00.123456789123456789Z", "2024-01-01T00:00:00." + "1" * 21 + "Z",
    "2024-01-01T00:00:00+99:99", "2024-01-01T00:00:00+15:59", "2024-01-01T00:00:00-16:00", "2024-01-01T00:00:00+0100",
    "2024-01-01T00:00:00-00:00",
    "2024-01-01T12:34:56.7+05:30", "٢٠٢٤-٠١-٠١T٠٠:٠٠:٠٠Z", "2024-01-01T00:00:00Z\n", " 2024-01-01T00:00:00Z",
]  # fmt: skip
#: Numbers that only JSON has, and what a bigint makes of them.
NUMBERS: list[tuple[Raw, Any]] = [
    (Raw("1e999"), None), (Raw("-1e999"), None), (Raw("1e3"), 1000), (Raw("1.0"), 1), (Raw("-0"), 0),
    (Raw("1e-999"), None), (Raw("9223372036854775807"), 2**63 - 1), (Raw("9223372036854775808"), None),
    (Raw("-9223372036854775808"), -(2**63)), (Raw("123456789012345678901234567890"), None),
]  # fmt: skip


async def parallel(connection: asyncpg.Connection[Any]) -> str:
    """The setting that puts every query into a worker; it had another name before Postgres 16."""
    found = await connection.fetchval(
        "SELECT name FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode')"
    )
    return str(found)


def hostile_rows(nsid: str) -> list[Row]:
    """One row for each property and value, and for records that are no objects."""
    made: list[Any] = [{name: value} for name in model.properties(nsid) for value in HOSTILE]
    made += [value for value in HOSTILE if value is not None]
    made.append(dict.fromkeys(model.properties(nsid), "x" * 1_000_000))
    return rows_of(nsid, made)


def rows_of(nsid: str, records: list[Any]) -> list[Row]:
    """A lexicon with one key only has one row an account."""
    key = model.only_key(nsid)
    return [(f"did:plc:{n:06}", nsid, key or f"key{n:06}", record) for n, record in enumerate(records)]


def rows_of_any(nsid: str, records: list[Any]) -> list[Row]:
    return [(f"did:plc:{n:06}", nsid, f"key{n:06}", record) for n, record in enumerate(records)]


@pytest.mark.parametrize("nsid", model.nsids())
async def test_hostile_values(views: Views, nsid: str) -> None:
    rows = hostile_rows(nsid)
    await views.hold(rows)
    # In a parallel worker too, where an exception could not be caught.
    await views.connection.execute(f"SET {await parallel(views.connection)} = on")
    view, account = model.VIEWS[nsid]
    shown = await views.show(view, account)
    expected = [model.expected_row(nsid, did, rkey, "cid", record) for did, _, rkey, record in rows]
    assert [list(row) for row in shown] == [list(row) for row in expected]
    for have, want in zip(shown, expected, strict=True):
        assert have == want
    await views.connection.fetch(f"SELECT {account} FROM {view} ORDER BY created_at DESC, uri")


async def test_no_record_of_a_stranger_stops_an_index_or_a_count(views: Views) -> None:
    """Texts that no index would hold, in every field that has one; before the indexes are built, and after."""
    long: list[Any] = ["x" * 3_000, "é" * 2_000, random_text(20_000)]
    rows: list[Row] = []
    for nsid in model.nsids():
        for value in long:
            reference = {"uri": f"at://x/app.bsky.feed.post/{value}", "cid": value}
            embeds = {"$type": "app.bsky.embed.record", "record": reference}
            for whatever in (value, [value], reference, {"root": reference, "parent": reference}, embeds):
                record = dict.fromkeys(model.properties(nsid), whatever)
                rows.append((f"did:plc:{len(rows):06}", nsid, model.only_key(nsid) or "k", record))
    await views.hold(rows)
    for index in INDEXES:
        await views.connection.execute(index.statement)
    await views.hold(rows)
    for name in ("post_counts", "follow_counts"):
        await views.connection.execute(f"REFRESH MATERIALIZED VIEW {name}")


def random_text(length: int) -> str:
    """What does not compress."""
    source = Random(4)
    return "".join(source.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(length))


async def test_numbers_that_only_json_has(views: Views) -> None:
    rows = rows_of("app.bsky.actor.status", [Raw(f'{{"durationMinutes": {raw}}}') for raw, _ in NUMBERS])
    rows += [("did:plc:x", "app.bsky.feed.post", "k", Raw('{"createdAt": 1e999, "text": 1e999}'))]
    await views.hold(rows)
    assert [row["duration_minutes"] for row in await views.show("statuses", "did")] == [want for _, want in NUMBERS]
    assert [(row["text"], row["created_at"]) for row in await views.show("posts")] == [(None, None)]


def valid(schema: dict[str, Any], name: str) -> Any:  # noqa: PLR0911 (one a type)
    """A value that the lexicon allows."""
    if schema.get("ref") == "app.bsky.feed.post#replyRef":
        return {part: {"uri": f"at://{part}", "cid": f"bafy{part}"} for part in ("parent", "root")}
    if schema.get("ref") == "com.atproto.repo.strongRef":
        return {"uri": f"at://{name}", "cid": f"bafy{name}"}
    if schema.get("ref") in model.STRINGS:
        return name
    match schema["type"]:
        case "string":
            return "2024-05-06T07:08:09.123Z" if schema.get("format") == "datetime" else f"the {name}"
        case "integer":
            return 42
        case "boolean":
            return True
        case "blob":
            return {"$type": "blob", "ref": {"$link": f"bafy{name}"}, "mimeType": "image/png", "size": 1}
        case "array":
            return [valid(schema["items"], name)]
        case _:
            return {"$type": name}


@pytest.mark.parametrize("nsid", model.nsids())
async def test_a_valid_record_fills_every_column(views: Views, nsid: str) -> None:
    record = {name: valid(schema, name) for name, schema in model.properties(nsid).items()}
    await views.hold(rows_of(nsid, [record]))
    [row] = await views.show(model.VIEWS[nsid][0])
    assert row == model.expected_row(nsid, "did:plc:000000", row["rkey"], "cid", record)
    claims = "createdAt" in model.properties(nsid)
    assert [name for name, value in row.items() if value is None and (claims or name != "created_at")] == []


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_a_property_refers_to_its_value_is_shown(views: Views, seed: int) -> None:
    """Every type, behind refs from file to file, with files that are given and one that is not."""
    made = lexicon_sets.make(seed)
    view = make_view(made.lexicons[lexicon_sets.RECORD], None, Lexicons(made.given))
    await views.connection.execute(create_view(view))
    try:
        await views.hold(rows_of_any(lexicon_sets.RECORD, [made.record, dict.fromkeys(made.record), {}]))
        full, *empty = await views.show("shop_item")
    finally:
        await views.connection.execute("DROP VIEW shop_item")
    own = {name: value for name, value in full.items() if name not in COMMON}
    assert own == made.expected
    assert None not in own.values()
    # A property that is null, or is not there, is NULL, of whatever type it is.
    assert {value for row in empty for name, value in row.items() if name not in COMMON} == {None}


async def test_a_stranger_cannot_break_a_view_that_refers_to_other_files(views: Views) -> None:
    made = lexicon_sets.make(1)
    view = make_view(made.lexicons[lexicon_sets.RECORD], None, Lexicons(made.given))
    await views.connection.execute(create_view(view))
    try:
        await views.hold(rows_of_any(lexicon_sets.RECORD, [dict.fromkeys(made.record, value) for value in HOSTILE]))
        await views.connection.execute(f"SET {await parallel(views.connection)} = on")
        assert len(await views.show("shop_item")) == len(HOSTILE)
    finally:
        await views.connection.execute("DROP VIEW shop_item")


#: What the sink lets into jsonb: no NUL, no half of a surrogate pair.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts
dates = st.datetimes().map(lambda d: d.isoformat() + "Z") | st.from_regex(
    r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,8})?(Z|\+0[0-9]:30)", fullmatch=True
)
names = st.sampled_from(["uri", "cid", "parent", "root", "ref", "$link", "$type"])
values = st.recursive(
    scalars | dates, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)


def test_random_records(dsn: str) -> None:
    """Hypothesis runs outside the loop: many records an example, one statement each."""

    @settings(max_examples=15, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        nsid = data.draw(st.sampled_from(model.nsids()))
        record = st.fixed_dictionaries({}, optional=dict.fromkeys(model.properties(nsid), values))
        rows = rows_of(nsid, data.draw(st.lists(record, min_size=10, max_size=30)))

        async def compare() -> None:
            async with opened(dsn) as views:
                await views.hold(rows)
                view, account = model.VIEWS[nsid]
                for have, (did, _, rkey, value) in zip(await views.show(view, account), rows, strict=True):
                    assert have == model.expected_row(nsid, did, rkey, "cid", value)

        asyncio.run(compare())

    check()


async def test_comments_are_the_lexicons(views: Views) -> None:
    for nsid in model.nsids():
        view = model.VIEWS[nsid][0]
        comment = await views.connection.fetchval("SELECT obj_description($1::regclass)", view)
        assert comment.startswith(f"{nsid}: ")
        rows = await views.connection.fetch(
            "SELECT attname, col_description(attrelid, attnum) AS said FROM pg_attribute "
            "WHERE attrelid = $1::regclass AND attnum > 0", view,
        )  # fmt: skip
        said = {row["attname"]: row["said"] for row in rows}
        for name, schema in model.properties(nsid).items():
            column = "created_at" if name == "createdAt" else next(iter(model.columns(nsid, name, schema, None)))
            if schema.get("description"):
                assert said[column] == schema["description"].strip()


async def test_accounts_that_are_not_active_are_hidden(views: Views) -> None:
    rows = [("did:plc:a", nsid, model.only_key(nsid) or "k", {}) for nsid in model.nsids()]
    await views.hold([*rows, *(("did:plc:b", *rest) for _, *rest in rows)])  # type: ignore[list-item]
    shown = [view for view, _ in model.VIEWS.values()]

    async def counts() -> set[int]:
        return {len(await views.show(view, "uri")) for view in shown} | {len(await views.show("users", "did"))}

    assert await counts() == {2}
    await views.connection.execute(
        "INSERT INTO actors (did, handle, active, status) VALUES ('did:plc:a', 'a.test', false, 'deactivated')"
    )
    assert await counts() == {1}
    await views.connection.execute("UPDATE actors SET active = true, status = NULL")
    assert await counts() == {2}
    assert [(row["handle"], row["active"]) for row in await views.show("users", "did")] == [
        ("a.test", True),
        (None, True),
    ]
    # An account that was seen and has no profile is a user too; a deleted record is nowhere.
    await views.connection.execute("INSERT INTO actors (did, handle) VALUES ('did:plc:c', 'c.test')")
    await views.connection.execute("UPDATE records SET record = NULL WHERE did = 'did:plc:b'")
    assert [row["did"] for row in await views.show("users", "did")] == ["did:plc:a", "did:plc:c"]
    await views.connection.execute(f"ALTER SCHEMA {SCHEMA} RENAME TO renamed")
    await views.connection.execute("SET search_path = renamed")
    assert len(await views.show("posts", "uri")) == 1


async def test_counts(views: Views) -> None:
    def did(n: int) -> str:
        return f"did:plc:{n:06}"

    post = [f"at://{did(n)}/app.bsky.feed.post/p" for n in range(3)]
    rows: list[Row] = [
        (did(n), "app.bsky.feed.like", f"l{m}", {"subject": {"uri": post[m]}}) for n in range(9) for m in {0, n % 3}
    ]
    rows.append((did(5), "app.bsky.feed.like", "twice", {"subject": {"uri": post[0]}}))
    rows += [(did(n), "app.bsky.feed.repost", "r", {"subject": {"uri": post[1]}}) for n in range(4)]
    rows += [(did(n), "app.bsky.feed.post", "reply", {"reply": {"parent": {"uri": post[n % 2]}}}) for n in range(5)]
    quote = {"$type": "app.bsky.embed.record", "record": {"uri": post[2]}}
    with_media = {"$type": "app.bsky.embed.recordWithMedia", "record": {"record": {"uri": post[2]}}}
    rows += [
        (did(1), "app.bsky.feed.post", "q1", {"embed": quote}),
        (did(2), "app.bsky.feed.post", "q2", {"embed": with_media}),
    ]
    rows += [
        (did(1), "app.bsky.feed.post", "list", {"embed": {**quote, "record": {"uri": "at://x/app.bsky.graph.list/l"}}})
    ]
    rows += [(did(n), "app.bsky.graph.follow", f"f{m}", {"subject": did(m)}) for n in range(4) for m in range(n)]
    await views.hold(rows)
    for name in ("post_counts", "follow_counts"):
        await views.connection.execute(f"REFRESH MATERIALIZED VIEW {name}")

    likes = {(row[0], row[3]["subject"]["uri"]) for row in rows if row[1] == "app.bsky.feed.like"}
    liked = Counter(uri for _, uri in likes)
    counts = {row["post_uri"]: row for row in await views.show("post_counts", "post_uri")}
    assert {uri: row["likes"] for uri, row in counts.items()} == {uri: liked[uri] for uri in post}
    assert [counts[uri]["reposts"] for uri in post] == [0, 4, 0]
    assert [counts[uri]["replies"] for uri in post] == [3, 2, 0]
    assert [counts[uri]["quotes"] for uri in post] == [0, 0, 2]
    follows = await views.show("follow_counts", "did")
    assert [(row["followers"], row["following"]) for row in follows] == [(3, 0), (2, 1), (1, 2), (0, 3)]
