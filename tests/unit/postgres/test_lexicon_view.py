"""Views from lexicons: what is committed is what the lexicons give, and any lexicon gives a view, or a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.postgres.lexicon_views import NAMINGS, create_view, make_view, view_names
from streams.postgres.lexicons import LexiconError, Lexicons
from streams.postgres.queries import migrations
from streams.postgres.sql_text import literal, quoted

LEXICONS = Path(__file__).parents[3] / "streams" / "lexicons"


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
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 640}},
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


OTHER = {
    "lexicon": 1,
    "id": "com.example.defs",
    "defs": {
        "main": {"type": "object", "properties": {}},
        "state": {"type": "string", "knownValues": ["com.example.defs#open"]},
        "open": {"type": "token"},
        "parts": {"type": "array", "items": {"type": "ref", "ref": "#state"}},
        "things": {"type": "array", "items": {"type": "ref", "ref": "net.absent.defs#x"}},
        "amount": {"type": "integer"},
        "link": {"type": "cid-link"},
        "data": {"type": "bytes"},
        "any": {"type": "unknown"},
        "one": {"type": "union", "refs": ["#main", "net.absent.defs#x"]},
        "either": {"type": "union", "refs": ["#state", "#main"]},
        "chain": {"type": "ref", "ref": "#next"},
        "next": {"type": "ref", "ref": "com.example.thing#back"},
        "round": {"type": "ref", "ref": "com.example.thing#round"},
        "strong": {"type": "ref", "ref": "com.atproto.repo.strongRef#main"},
        "lost": {"type": "ref", "ref": "#nowhere"},
        "odd": "no schema",
    },
}


@pytest.mark.parametrize(
    ("ref", "expression"),
    [
        ("com.example.defs#state", "lex_text({})"),
        ("lex:com.example.defs#state", "lex_text({})"),
        ("com.example.defs#open", "lex_text({})"),
        ("com.example.defs", "lex_object({})"),
        ("com.example.defs#main", "lex_object({})"),
        ("com.example.defs#amount", "lex_integer({})"),
        ("com.example.defs#link", 'lex_cid({}) COLLATE "C"'),
        ("com.example.defs#data", "lex_object({})"),
        ("com.example.defs#things", "lex_array({})"),
        ("com.example.defs#one", "lex_object({})"),
        ("com.example.defs#chain", "lex_datetime({})"),
        ("app.bsky.actor.profile", "nullif({}, 'null'::jsonb)"),
        *(
            (f"com.example.defs#{name}", "nullif({}, 'null'::jsonb)")
            for name in ("any", "either", "round", "lost", "odd")
        ),
        ("net.absent.defs#x", "nullif({}, 'null'::jsonb)"),
        ("#nowhere", "nullif({}, 'null'::jsonb)"),
        ("#mine", "nullif({}, 'null'::jsonb)"),
        (5, "nullif({}, 'null'::jsonb)"),
        (None, "nullif({}, 'null'::jsonb)"),
    ],
)
def test_a_ref_is_read_as_what_it_leads_to_or_as_it_stands(ref: object, expression: str) -> None:
    given = lexicon({"x": {"type": "ref", "ref": ref}})
    given["defs"] |= {
        "back": {"type": "string", "format": "datetime"},
        "round": {"type": "ref", "ref": "com.example.defs#round"},
        "mine": {"type": "ref", "ref": "#mine"},
    }
    view = make_view(given, None, Lexicons([given, OTHER]))
    assert view.columns[4].expression == expression.format("record -> 'x'")
    assert (view.unknown != ()) == (expression.startswith("nullif") and ref not in ANSWERED)


#: Refs that lead to a definition, of which nothing is known.
ANSWERED = ("com.example.defs#any", "com.example.defs#either")


def test_a_ref_to_a_strong_ref_has_its_two_columns() -> None:
    given = lexicon({"x": {"type": "ref", "ref": "com.example.defs#strong"}})
    view = make_view(given, None, Lexicons([given, OTHER]))
    assert [column.name for column in view.columns[4:6]] == ["x_uri", "x_cid"]
    assert view.unknown == ()


def test_an_array_of_texts_of_any_length_is_not_cut_off() -> None:
    for items, is_long in (
        ({"type": "string"}, True),
        ({"type": "string", "maxLength": 10_000}, True),
        ({"type": "ref", "ref": "#long"}, True),
        ({"type": "string", "maxLength": 640}, False),
        ({"type": "string", "format": "at-uri"}, False),
        ({"type": "token"}, False),
    ):
        given = lexicon({"x": {"type": "array", "items": items}})
        given["defs"]["long"] = {"type": "string"}
        assert ("lex_texts(" not in make_view(given).columns[4].expression) == is_long


@pytest.mark.parametrize(
    ("schema", "own"),
    [
        ({"type": "string", "format": "datetime"}, None),
        ({"type": "ref", "ref": "#when"}, None),
        ({"type": "integer"}, "lex_integer(record -> 'createdAt')"),
        ({"type": "string"}, "lex_text(record -> 'createdAt')"),
        ({"type": "ref", "ref": "net.absent.defs#x"}, "nullif(record -> 'createdAt', 'null'::jsonb)"),
        ({"type": "unknown"}, "nullif(record -> 'createdAt', 'null'::jsonb)"),
    ],
)
def test_a_created_at_that_is_no_datetime_is_shown_too(schema: dict[str, Any], own: str | None) -> None:
    given = lexicon({"createdAt": schema})
    given["defs"]["when"] = {"type": "string", "format": "datetime"}
    columns = {column.name: column.expression for column in make_view(given).columns}
    assert columns["created_at"] == "lex_datetime(record -> 'createdAt')"
    assert columns.get("record_created_at") == own


def test_names_of_views_grow_towards_the_authority() -> None:
    assert view_names("com.whtwnd.blog.entry") == ("blog_entry", "whtwnd_blog_entry", "com_whtwnd_blog_entry")
    assert view_names("app.bsky.feed.post") == ("posts",)
    longest = view_names(".".join(["a" * 60] * 5))
    assert len(set(longest)) == len(longest)
    assert all(len(name.encode()) <= 63 for name in longest)


def test_more_properties_than_a_view_has_columns() -> None:
    with pytest.raises(LexiconError, match="more properties"):
        make_view(lexicon({f"p{number}": {"type": "string"} for number in range(1700)}))


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
        ([], "not a lexicon"), ({"lexicon": 2}, "not a lexicon"), ({"lexicon": 1, "id": "x"}, "not a valid NSID"),
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
