"""Views from lexicons: what is committed is what the lexicons give, and any lexicon gives a view, or a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.postgres.lexicon_view import NAMINGS, LexiconError, create_view, literal, make_view, quoted
from streams.postgres.queries import migrations

LEXICONS = Path(__file__).parents[2] / "streams" / "lexicons"


def lexicon(properties: dict[str, Any], **main: object) -> dict[str, Any]:
    record = {"type": "object", "properties": properties}
    return {"lexicon": 1, "id": "com.example.thing", "defs": {"main": {"type": "record", **main, "record": record}}}


@pytest.mark.parametrize("nsid", sorted(path.stem for path in LEXICONS.glob("*.json")))
def test_the_migrations_hold_what_the_lexicons_give(nsid: str) -> None:
    """A lexicon that is updated asks for a new migration."""
    assert nsid in NAMINGS
    statements = create_view(make_view(json.loads((LEXICONS / f"{nsid}.json").read_text())))
    assert any(statements in migration.sql for migration in migrations())


def test_types_become_columns() -> None:
    view = make_view(
        lexicon({
            "title": {"type": "string", "description": "What it is called."},
            "site": {"type": "string", "format": "at-uri"},
            "publishedAt": {"type": "string", "format": "datetime"},
            "pageCount": {"type": "integer"},
            "isDraft": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "coverImage": {"type": "blob"},
            "prior": {"type": "ref", "ref": "com.atproto.repo.strongRef"},
            "theme": {"type": "ref", "ref": "com.example.thing#theme"},
            "anything": {"type": "unknown"},
            "pages": {"type": "array", "items": {"type": "union", "refs": []}},
            "createdAt": {"type": "string", "format": "datetime"},
        })
    )  # fmt: skip
    columns = {column.name: column.expression for column in view.columns}
    assert view.name == "example_thing"
    assert list(columns)[:4] == ["uri", "did", "rkey", "cid"]
    assert list(columns)[-3:] == ["created_at", "indexed_at", "rev"]
    assert columns["title"] == "lex_text(record -> 'title')"
    assert columns["site"] == "lex_name(record -> 'site') COLLATE \"C\""
    assert columns["published_at"] == "lex_datetime(record -> 'publishedAt')"
    assert columns["page_count"] == "lex_integer(record -> 'pageCount')"
    assert columns["tags"] == "lex_texts(record -> 'tags')"
    assert columns["cover_image"] == "lex_cid(record -> 'coverImage') COLLATE \"C\""
    assert columns["prior_uri"] == "lex_name(record -> 'prior' -> 'uri') COLLATE \"C\""
    assert columns["theme"] == columns["anything"].replace("anything", "theme")
    assert columns["pages"] == "lex_array(record -> 'pages')"
    assert 'COMMENT ON COLUMN "example_thing"."title" IS \'What it is called.\';' in create_view(view)


def test_a_reference_in_the_same_file_is_followed() -> None:
    given = lexicon({"mood": {"type": "ref", "ref": "#mood"}})
    given["defs"]["mood"] = {"type": "string", "knownValues": ["fine"]}
    assert make_view(given).columns[4].expression == "lex_text(record -> 'mood')"


def test_names_that_are_taken() -> None:
    view = make_view(
        lexicon({"did": {"type": "string"}, "rev": {"type": "integer"}, "record_rev": {"type": "integer"}})
    )
    names = [column.name for column in view.columns]
    assert names[4:7] == ["record_did", "record_rev", "record_record_rev"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "no lexicon"), ({"lexicon": 2}, "no lexicon"), ({"lexicon": 1, "id": "x"}, "no NSID"),
        ({"lexicon": 1, "id": "com.example.thing", "defs": {"main": {"type": "query"}}}, "not the lexicon of a record"),
        ({"lexicon": 1, "id": "com.example.thing", "defs": []}, "not the lexicon of a record"),
        ({"lexicon": 1, "id": "com.example.thing", "defs": {"main": {"type": "record", "record": 5}}}, "no properties"),
    ],
)  # fmt: skip
def test_what_is_no_record_lexicon(given: object, why: str) -> None:
    with pytest.raises(LexiconError, match=why):
        make_view(given)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=80), json_values, max_size=6))
def test_hostile_lexicons_give_a_view(properties: dict[str, Any]) -> None:
    view = make_view(lexicon(properties))
    names = [column.name for column in view.columns]
    assert len(set(names)) == len(names)
    assert all(0 < len(name.encode()) <= 63 for name in names)
    create_view(view)


@given(st.text())
def test_quoting(text: str) -> None:
    assert re.fullmatch(r'"(?:[^"]|"")*"', quoted(text), re.DOTALL)
    assert re.fullmatch(r"E?'(?:[^']|'')*'", literal(text), re.DOTALL)
