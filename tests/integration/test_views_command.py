"""``views``: a lexicon file becomes a view; what is not ours is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.acceptance.commands import FAUST, Finished, finish
from tests.conftest import migrated

ENTRY = {
    "lexicon": 1,
    "id": "com.whtwnd.blog.entry",
    "defs": {
        "main": {
            "type": "record",
            "description": "A 'blog' entry.",
            "key": "tid",
            "record": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "description": "The title; DROP TABLE records; --'"},
                    "createdAt": {"type": "string", "format": "datetime"},
                    'x" y': {"type": "integer"},
                },
            },
        }
    },
}


@pytest.fixture
async def schema(settings_environment: dict[str, str]) -> str:
    name = settings_environment["SINK_SCHEMA"]
    await migrated(settings_environment["DATABASE_URL"], name)
    return name


async def views(environment: dict[str, str], folder: Path, *arguments: str) -> Finished:
    return await finish([*FAUST, "views", *arguments], environment, folder)


async def test_a_view_of_any_lexicon(settings_environment: dict[str, str], schema: str, tmp_path: Path) -> None:
    (tmp_path / "entry.json").write_text(json.dumps(ENTRY))
    connection: asyncpg.Connection[Any] = await asyncpg.connect(settings_environment["DATABASE_URL"])
    await connection.execute(f'SET search_path = "{schema}"')
    await connection.execute(
        "INSERT INTO records (did, collection, rkey, rev, cid, record, time) "
        "VALUES ('did:plc:a', $1, 'k', 'r', 'c', $2, now())",
        "com.whtwnd.blog.entry", json.dumps({"title": "Hello", "createdAt": "tomorrow", 'x" y': "5"}),
    )  # fmt: skip

    made = await views(settings_environment, tmp_path, "create", "entry.json")
    assert made.code == 0, made.errors
    assert made.output == f"{schema}.blog_entry: the records of com.whtwnd.blog.entry, 9 columns\n"
    [row] = await connection.fetch("SELECT * FROM blog_entry")
    assert row["uri"] == "at://did:plc:a/com.whtwnd.blog.entry/k"
    assert (row["title"], row["created_at"], row['x" y']) == ("Hello", None, None)

    again = await views(settings_environment, tmp_path, "create", "entry.json")
    assert again.code == 2
    assert "--replace" in again.errors
    assert (await views(settings_environment, tmp_path, "create", "entry.json", "--replace")).code == 0
    await connection.execute("CREATE VIEW mine AS SELECT * FROM blog_entry")
    kept = await views(settings_environment, tmp_path, "drop", "blog_entry")
    assert (kept.code, kept.errors) == (2, "Other views are built on blog_entry: drop them first.\n")
    await connection.execute("DROP VIEW mine")
    listed = await views(settings_environment, tmp_path, "list", "--json")
    assert {"posts", "likes", "users", "post_counts", "blog_entry"} <= {
        row["name"] for row in json.loads(listed.output)
    }
    shown = await views(settings_environment, tmp_path, "show", "entry.json")
    assert shown.output.startswith('CREATE VIEW "blog_entry" AS')
    assert (await views(settings_environment, tmp_path, "drop", "blog_entry")).output == "dropped blog_entry\n"
    assert await connection.fetchval("SELECT to_regclass('blog_entry')") is None
    await connection.close()


def lexicon(nsid: str, **properties: object) -> dict[str, Any]:
    main = {"type": "record", "key": "tid", "record": {"type": "object", "properties": properties}}
    return {"lexicon": 1, "id": nsid, "defs": {"main": main}}


def write(folder: Path, **files: object) -> None:
    """Write each as JSON, or a text as it is; `a__b` is the file `b.json` in the folder `a`."""
    for name, content in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


SHARED = {"lexicon": 1, "id": "com.example.shop.defs", "defs": {
    "state": {"type": "string", "knownValues": ["#open"]}, "parts": {"type": "array", "items": {"type": "unknown"}},
}}  # fmt: skip
ITEM = lexicon(
    "com.example.shop.item",
    state={"type": "ref", "ref": "com.example.shop.defs#state"},
    parts={"type": "ref", "ref": "com.example.shop.defs#parts"},
)


async def columns_of(environment: dict[str, str], schema: str, view: str) -> dict[str, str]:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(environment["DATABASE_URL"])
    try:
        rows = await connection.fetch(
            "SELECT attname, atttypid::regtype::text AS type FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0", f"{schema}.{view}",
        )  # fmt: skip
    finally:
        await connection.close()
    return {row["attname"]: row["type"] for row in rows}


async def test_a_definition_is_found_in_the_files_that_are_given(
    settings_environment: dict[str, str], schema: str, tmp_path: Path
) -> None:
    """Alone it is jsonb, and said; with its file, or its folder, it has its type."""
    write(tmp_path, item=ITEM, shared=SHARED)
    alone = await views(settings_environment, tmp_path, "create", "item.json")
    assert alone.output == (
        f"{schema}.shop_item: the records of com.example.shop.item, 9 columns; as they stand, because these "
        "definitions are not given: com.example.shop.defs#state, com.example.shop.defs#parts\n"
    )
    types = await columns_of(settings_environment, schema, "shop_item")
    assert (types["state"], types["parts"]) == ("jsonb", "jsonb")
    for order in (("item.json", "shared.json"), ("shared.json", "item.json")):
        with_file = await views(settings_environment, tmp_path, "create", *order, "--replace")
        assert with_file.output == f"{schema}.shop_item: the records of com.example.shop.item, 9 columns\n"
    assert (await columns_of(settings_environment, schema, "shop_item"))["state"] == "text"


async def test_a_folder_gives_a_view_of_each_record(
    settings_environment: dict[str, str], schema: str, tmp_path: Path
) -> None:
    write(
        tmp_path, lex__shop__item=ITEM, lex__shop__defs=SHARED, lex__blog__entry=ENTRY, lex__package={"name": "x"},
        lex__bad="{", lex__node_modules__copy=ITEM, lex__app__post=lexicon("app.bsky.feed.post"),
        lex__query={"lexicon": 1, "id": "com.example.shop.getItem", "defs": {"main": {"type": "query"}}},
    )  # fmt: skip
    made = await views(settings_environment, tmp_path, "create", "lex")
    assert made.code == 0, made.errors
    assert made.output.splitlines() == [
        f"{schema}.blog_entry: the records of com.whtwnd.blog.entry, 9 columns",
        f"{schema}.shop_item: the records of com.example.shop.item, 9 columns",
    ]
    assert made.errors.splitlines() == [
        "Passed over, a view came with the schema: lex/app/post.json.",
        "Passed over, not JSON: lex/bad.json.",
        "Passed over, no lexicon: lex/package.json.",
    ]
    assert (await columns_of(settings_environment, schema, "shop_item"))["state"] == "text"
    # All of them or none: the one that is there already stops the other.
    await views(settings_environment, tmp_path, "drop", "blog_entry")
    again = await views(settings_environment, tmp_path, "create", "lex")
    assert (again.code, "shop_item of com.example.shop.item already" in again.errors) == (2, True), again.errors
    assert not await columns_of(settings_environment, schema, "blog_entry")


async def test_a_name_that_is_taken_never_costs_another_lexicon_its_view(
    settings_environment: dict[str, str], schema: str, tmp_path: Path
) -> None:
    write(tmp_path, entry=ENTRY, other=lexicon("org.example.blog.entry", mood={"type": "string"}))
    await views(settings_environment, tmp_path, "create", "entry.json")
    for arguments, name in (
        (("other.json",), "example_blog_entry"),
        (("other.json", "--replace"), "example_blog_entry"),
    ):
        made = await views(settings_environment, tmp_path, "create", *arguments)
        assert made.output == f"{schema}.{name}: the records of org.example.blog.entry, 8 columns\n", made.errors
    again = await views(settings_environment, tmp_path, "create", "other.json")
    assert again.errors == (
        "There is a view example_blog_entry of org.example.blog.entry already: --replace replaces it.\n"
    )
    by_name = await views(settings_environment, tmp_path, "create", "other.json", "--name", "blog_entry", "--replace")
    assert by_name.errors == "blog_entry is the view of com.whtwnd.blog.entry: give another --name.\n"
    assert "title" in await columns_of(settings_environment, schema, "blog_entry")


@pytest.mark.usefixtures("schema")
async def test_what_is_refused(settings_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "entry.json").write_text(json.dumps(ENTRY))
    (tmp_path / "query.json").write_text(json.dumps({**ENTRY, "defs": {"main": {"type": "query"}}}))
    (tmp_path / "text.json").write_text("not JSON")
    write(tmp_path, item=ITEM)
    for arguments, why in (
        (("create", "nowhere.json"), "nowhere.json cannot be read: No such file or directory."),
        (("create", "query.json"), "query.json gives no view: com.whtwnd.blog.entry is not the lexicon of a record."),
        (("create", "text.json"), "text.json is not JSON."),
        (("create", "entry.json", "item.json", "--name", "x"), "--name names one view, and 2 lexicons of records"),
        (("create", "entry.json", "--name", "records"), "records was not made by this command: give another --name."),
        (("create", "entry.json", "--name", "posts", "--replace"), "posts was not made by this command"),
        (("drop", "posts"), "posts was not made by this command"),
        (("drop", "nothing"), "There is no view nothing in the schema"),
    ):
        done = await views(settings_environment, tmp_path, *arguments)
        assert (done.code, why in done.errors) == (2, True), done.errors
        assert done.errors.count("\n") == 1
