"""A typed view from a lexicon: which columns a record has, by which expressions. Pure: JSON in, SQL out.

A value that is not of the lexicon's type is NULL, never an error: records are written by strangers. The functions that
see to that (``lex_text`` …) are in ``migrations/0004_views.sql``, which also holds what ``make_view`` gives for the
lexicons in ``streams/lexicons``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.firehose.syntax import is_nsid

#: Formats of strings that are names: they are compared, not read, so byte by byte.
_NAMES: Final = frozenset(
    {"at-identifier", "at-uri", "cid", "did", "handle", "language", "nsid", "record-key", "tid", "uri"}
)
_STRONG_REF: Final = "com.atproto.repo.strongRef"
#: Bytes of a Postgres identifier.
_MAX_NAME: Final = 63
#: The columns that every view has, around the lexicon's own.
_COMMON: Final = {
    "uri": "The record's AT URI.",
    "rkey": "The record's key in its collection.",
    "cid": "The CID of the record's present version.",
    "created_at": "The time that the record claims; NULL where it has none that can be read.",
    "indexed_at": "When the record was written here.",
    "rev": "The repository's revision that made this version.",
}


class LexiconError(ValueError):
    """The JSON is not the lexicon of a record; the text says why."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a view: an SQL expression over a row of ``visible_records``."""

    name: str
    expression: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A view over one collection; ``key`` is the only record key that the lexicon allows, if it allows one only."""

    name: str
    nsid: str
    columns: tuple[Column, ...]
    comment: str
    key: str | None = None


Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Naming:
    """How a view and its columns are called where the lexicon's own names are not what people know.

    ``columns``: for a property, its columns as (name, path in the record, kind), in place of what its type would give.
    """

    view: str
    did: str = "did"
    columns: Mapping[str, tuple[tuple[str, Path, str], ...]] = field(default_factory=dict)


def _reference(name: str, uri: str, cid: str) -> dict[str, tuple[tuple[str, Path, str], ...]]:
    return {name: ((uri, (name, "uri"), "name"), (cid, (name, "cid"), "name"))}


_SUBJECT: Final = _reference("subject", "post_uri", "subject_cid")
_VIA: Final = _reference("via", "via", "via_cid")


def _renamed(**names: str) -> dict[str, tuple[tuple[str, Path, str], ...]]:
    return {name: ((column, (name,), "name"),) for name, column in names.items()}


#: The names that AppView users know.
NAMINGS: Final[Mapping[str, Naming]] = {
    "app.bsky.feed.post": Naming("posts", "author_did", {"reply": (
        ("parent_uri", ("reply", "parent", "uri"), "name"), ("parent_cid", ("reply", "parent", "cid"), "name"),
        ("root_uri", ("reply", "root", "uri"), "name"), ("root_cid", ("reply", "root", "cid"), "name"),
    )}),
    "app.bsky.feed.like": Naming("likes", "user_did", {**_SUBJECT, **_VIA}),
    "app.bsky.feed.repost": Naming("reposts", "user_did", {**_SUBJECT, **_VIA}),
    "app.bsky.graph.follow": Naming("follows", "follower_did", {**_renamed(subject="following_did"), **_VIA}),
    "app.bsky.graph.block": Naming("blocks", "blocker_did", _renamed(subject="blocked_did")),
    "app.bsky.graph.list": Naming("lists", "creator_did", {"purpose": (("purpose", ("purpose",), "text"),)}),
    "app.bsky.graph.listitem": Naming("list_items", "creator_did", _renamed(subject="subject_did", list="list_uri")),
    "app.bsky.graph.listblock": Naming("list_blocks", "blocker_did", _renamed(subject="list_uri")),
    "app.bsky.graph.starterpack": Naming("starter_packs", "creator_did", _renamed(list="list_uri")),
    "app.bsky.graph.verification": Naming("verifications", "issuer_did", _renamed(subject="subject_did")),
    "app.bsky.feed.generator": Naming("feed_generators", "creator_did"),
    "app.bsky.feed.threadgate": Naming("thread_gates", "author_did", _renamed(post="post_uri")),
    "app.bsky.feed.postgate": Naming("post_gates", "author_did", _renamed(post="post_uri")),
    "app.bsky.actor.profile": Naming("profiles"),
    "app.bsky.actor.status": Naming("statuses"),
    "app.bsky.actor.contentVisibilityDeclaration": Naming("content_visibility_declarations"),
    "app.bsky.graph.referencelistoptout": Naming("reference_list_opt_outs", "did", _renamed(subject="list_uri")),
    "app.bsky.labeler.service": Naming("labeler_services", "creator_did", {
        "reasonTypes": (("reason_types", ("reasonTypes",), "texts"),),
        "subjectTypes": (("subject_types", ("subjectTypes",), "texts"),),
    }),
    "chat.bsky.actor.declaration": Naming("chat_declarations"),
    "app.bsky.notification.declaration": Naming("notification_declarations"),
}  # fmt: skip

_EXPRESSIONS: Final = {
    "text": "lex_text({})",
    "name": 'lex_name({}) COLLATE "C"',
    "integer": "lex_integer({})",
    "boolean": "lex_boolean({})",
    "datetime": "lex_datetime({})",
    "texts": "lex_texts({})",
    "cid": 'lex_cid({}) COLLATE "C"',
    "object": "lex_object({})",
    "array": "lex_array({})",
}


def make_view(lexicon: object, name: str | None = None) -> View:
    """The view of a record lexicon; its own name is that of ``NAMINGS``, else from the NSID's last two parts.

    Raises LexiconError where it is no lexicon of a record.
    """
    nsid, main, properties = _parts(lexicon)
    naming = NAMINGS.get(nsid) or Naming(_snake("_".join(nsid.split(".")[-2:])))
    taken = {*_COMMON, naming.did}
    head = [
        Column("uri", "'at://' || did || '/' || collection || '/' || rkey", _COMMON["uri"]),
        Column(naming.did, "did", "The account that holds the record."),
        *(Column(common, common, _COMMON[common]) for common in ("rkey", "cid")),
    ]
    body = list(_body(nsid, lexicon, properties, naming, taken))
    created = properties.get("createdAt")
    claimed = "lex_datetime(record -> 'createdAt')" if created is not None else "NULL::timestamptz"
    said = created.get("description") if isinstance(created, dict) else None
    tail = [
        Column("created_at", claimed, _text(said) or _COMMON["created_at"]),
        *(Column(common, common, _COMMON[common]) for common in ("indexed_at", "rev")),
    ]
    key = main.get("key")
    literal = key.removeprefix("literal:") if isinstance(key, str) and key.startswith("literal:") else None
    comment = f"{nsid}: {_text(main.get('description')) or 'records of this collection'}"
    return View(_short(name or naming.view), nsid, (*head, *body, *tail), comment, literal)


def create_view(view: View) -> str:
    """The statements that make the view and its comments. Names are unqualified: the search_path decides."""
    name = quoted(view.name)
    columns = ",\n".join(
        f"    {c.expression}" + ("" if c.expression == c.name else f" AS {quoted(c.name)}") for c in view.columns
    )
    where = f"collection = {literal(view.nsid)}" + (f" AND rkey = {literal(view.key)}" if view.key else "")
    comments = [
        f"COMMENT ON COLUMN {name}.{quoted(c.name)} IS {literal(c.comment)};" for c in view.columns if c.comment
    ]
    return "\n".join([
        f"CREATE VIEW {name} AS\nSELECT\n{columns}\nFROM visible_records\nWHERE {where};",
        f"COMMENT ON VIEW {name} IS {literal(view.comment)};", *comments, "",
    ])  # fmt: skip


def quoted(name: str) -> str:
    """An SQL identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string, whatever is in it. NULs, which Postgres has no place for, are left out."""
    text = text.replace("\0", "")
    plain = "'" + text.replace("'", "''") + "'"
    return "E" + plain.replace("\\", "\\\\") if "\\" in text else plain


def _parts(lexicon: object) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """NSID, main definition and properties. Raises LexiconError."""
    if not isinstance(lexicon, dict) or lexicon.get("lexicon") != 1:
        raise LexiconError("it is no lexicon of version 1")
    nsid, defs = lexicon.get("id"), lexicon.get("defs")
    if not isinstance(nsid, str) or not is_nsid(nsid):
        raise LexiconError("its id is no NSID")
    main = defs.get("main") if isinstance(defs, dict) else None
    if not isinstance(main, dict) or main.get("type") != "record":
        raise LexiconError(f"{nsid} is not the lexicon of a record")
    record = main.get("record")
    properties = record.get("properties", {}) if isinstance(record, dict) else None
    if not isinstance(properties, dict):
        raise LexiconError(f"{nsid} has no properties")
    return nsid, main, properties


def _body(
    nsid: str,
    lexicon: Any,  # noqa: ANN401 (JSON)
    properties: Mapping[str, Any],
    naming: Naming,
    taken: set[str],
) -> Iterator[Column]:
    """The lexicon's own columns, in its order; a name that is taken gets ``record_`` before it."""
    for name, given in properties.items():
        if name == "createdAt":
            continue
        schema = _resolved(given, nsid, lexicon["defs"])
        for column, path, kind in naming.columns.get(name) or _columns(name, schema):
            chosen = _free(column, taken)
            taken.add(chosen)
            said = given.get("description") if isinstance(given, dict) else None
            value = "record" + "".join(f" -> {literal(part)}" for part in path)
            yield Column(chosen, _EXPRESSIONS[kind].format(value), _text(said) or None)


def _free(column: str, taken: set[str]) -> str:
    """The column's name, or the first that is free of ``record_``, ``record2_`` … before it."""
    chosen, number = _short(column), 1
    while chosen in taken:
        chosen = _short(f"record{number if number > 1 else ''}_{column}")
        number += 1
    return chosen


def _columns(name: str, schema: Mapping[str, Any]) -> tuple[tuple[str, Path, str], ...]:
    """The columns of a property by its type."""
    column = _snake(name)
    if schema.get("type") == "ref" and schema.get("ref") == _STRONG_REF:
        return tuple((f"{column}_{part}", (name, part), "name") for part in ("uri", "cid"))
    return ((column, (name,), _kind(schema)),)


def _kind(schema: Mapping[str, Any]) -> str:
    """Which function reads a value of this schema."""
    match schema.get("type"):
        case "string":
            form = schema.get("format")
            return "datetime" if form == "datetime" else "name" if form in _NAMES else "text"
        case "integer" | "boolean" as plain:
            return str(plain)
        case "blob" | "cid-link":
            return "cid"
        case "array":
            items = schema.get("items")
            return "texts" if isinstance(items, dict) and items.get("type") == "string" else "array"
        case _:
            return "object"


def _resolved(schema: object, nsid: str, defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, or what it refers to in the same file."""
    if not isinstance(schema, dict):
        return {}
    if schema.get("type") == "ref":
        home, _, name = str(schema.get("ref", "")).partition("#")
        target = defs.get(name or "main") if home in {"", nsid} else None
        return target if isinstance(target, dict) and target.get("type") != "ref" else schema
    return schema


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _short(name: str) -> str:
    """What fits into an identifier; never empty."""
    return name.replace("\0", "").encode()[:_MAX_NAME].decode(errors="ignore") or "_"


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
