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


@pytest.mark.usefixtures("schema")
async def test_what_is_refused(settings_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "entry.json").write_text(json.dumps(ENTRY))
    (tmp_path / "query.json").write_text(json.dumps({**ENTRY, "defs": {"main": {"type": "query"}}}))
    (tmp_path / "text.json").write_text("not JSON")
    for arguments, why in (
        (("create", "nowhere.json"), "nowhere.json cannot be read: No such file or directory."),
        (("create", "query.json"), "query.json gives no view: com.whtwnd.blog.entry is not the lexicon of a record."),
        (("create", "text.json"), "text.json is not JSON."),
        (("create", "entry.json", "--name", "records"), "records was not made by this command: give another --name."),
        (("create", "entry.json", "--name", "posts", "--replace"), "posts was not made by this command"),
        (("drop", "posts"), "posts was not made by this command"),
        (("drop", "nothing"), "There is no view nothing in the schema"),
    ):
        done = await views(settings_environment, tmp_path, *arguments)
        assert (done.code, why in done.errors) == (2, True), done.errors
        assert done.errors.count("\n") == 1
