"""Which lexicons the files and folders that a person names give, and which they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams.errors import SettingsError
from streams.postgres.lexicon_files import read_lexicons


def record(nsid: str) -> dict[str, Any]:
    return {"lexicon": 1, "id": nsid, "defs": {"main": {"type": "record", "record": {"type": "object"}}}}


SHARED = {"lexicon": 1, "id": "com.example.shop.defs", "defs": {"state": {"type": "string"}}}
FILES = {
    "item.json": record("com.example.shop.item"), "shared.json": SHARED, "other.json": SHARED | {"defs": {}},
    "query.json": {"lexicon": 1, "id": "com.example.shop.get", "defs": {"main": {"type": "query"}}},
    "copy/shared.json": SHARED, "list.json": [], "empty/tsconfig.json": {}, "two.json": {"lexicon": 2, "id": "a.b.c"},
    "post/post.json": record("app.bsky.feed.post"), "no-defs.json": {"lexicon": 1, "id": "com.example.shop.none"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    (tmp_path / "text.json").write_text("not JSON")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{}")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "marked.json").write_text(json.dumps(record("com.example.marked")), "utf-8-sig")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("nowhere.json",), "nowhere.json cannot be read: No such file or directory."),
        (("shared.json",), "shared.json gives no view: com.example.shop.defs is not the lexicon of a record."),
        (("query.json",), "query.json gives no view: com.example.shop.get is not the lexicon of a record."),
        (("no-defs.json",), "no-defs.json gives no view: com.example.shop.none is not the lexicon of a record."),
        (
            ("shared.json", "query.json"),
            "There is no lexicon of a record that needs a view among 2 lexicons in shared.json, query.json.",
        ),
        (("empty",), "There is no lexicon of a record that needs a view among 0 lexicons in empty."),
        (("post",), "There is no lexicon of a record that needs a view among 1 lexicons in post."),
        (("item.json", "list.json"), "list.json gives no view: it is not a lexicon of version 1."),
        (("item.json", "two.json"), "two.json gives no view: it is not a lexicon of version 1."),
        (("item.json", "text.json"), "text.json is not JSON."),
        (("item.json", "bytes.json"), "bytes.json is not JSON."),
        (("item.json", "deep.json"), "deep.json is not JSON."),
        (
            ("item.json", "shared.json", "other.json"),
            "shared.json and other.json are both com.example.shop.defs, and differ: give one of them.",
        ),
    ],
)
def test_what_is_refused_in_one_sentence(names: tuple[str, ...], why: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_lexicons(map(Path, names))
    assert str(error.value) == why


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "records"),
    [
        (("item.json", "shared.json"), ["item.json"]),
        (("shared.json", "copy", "item.json", "item.json"), ["item.json"]),
        (("item.json", "no-defs.json"), ["item.json"]),
        (("marked.json", "item.json"), ["marked.json", "item.json"]),
        (("post/post.json",), ["post/post.json"]),  # named itself: the person wants it, under a name of its own
    ],
)
def test_which_of_them_become_views(names: tuple[str, ...], records: list[str]) -> None:
    assert [str(path) for path, _ in read_lexicons(map(Path, names)).records] == records


def test_what_a_folder_holds_besides_is_passed_over_and_said(folder: Path) -> None:
    (folder / "other.json").unlink()
    given = read_lexicons([folder])
    assert [path.name for path, _ in given.records] == ["item.json", "marked.json"]
    passed_over = {kind: [path.name for path in paths] for kind, paths in given.passed_over.items()}
    assert passed_over == {
        "not JSON": ["bytes.json", "deep.json", "text.json"],
        "no lexicon": ["tsconfig.json", "list.json", "two.json"],
        "a view came with the schema": ["post.json"],
    }


@pytest.mark.usefixtures("folder")
def test_the_lexicons_that_ship_are_looked_in_at_last() -> None:
    lexicons = read_lexicons([Path("item.json")]).lexicons
    found = lexicons.follow({"type": "ref", "ref": "app.bsky.feed.post#replyRef"}, "com.example.shop.item")
    assert (found.type, found.home) == ("object", "app.bsky.feed.post")
