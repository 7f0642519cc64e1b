"""A typed view from a lexicon: which columns a record has, by which expressions. Pure: JSON in, SQL out.

A value that is not of the lexicon's type is NULL, never an error: records are written by strangers. The functions that
see to that (``lex_text`` …) are in ``migrations/0004_views.sql``, which also holds what ``make_view`` gives for the
lexicons in ``streams/lexicons``. Where the type is not known the column has the value as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.postgres.lexicons import Definition, LexiconError, Lexicons, is_record, lexicon_id
from streams.postgres.sql_text import literal, quoted

#: Formats of strings that are names: they are compared, not read, so byte by byte.
_NAMES: Final = frozenset(
    {"at-identifier", "at-uri", "cid", "did", "handle", "language", "nsid", "record-key", "tid", "uri"}
)
#: Most bytes of a name that an index holds (``lex_name``, ``lex_texts``).
_MAX_INDEXED: Final = 2600
#: Bytes of a Postgres identifier.
_MAX_NAME: Final = 63
#: Columns of a view: Postgres allows 1,664 in what a query gives.
_MAX_COLUMNS: Final = 1600
#: The columns that every view has, around the lexicon's own.
_COMMON: Final = {
    "uri": "The record's AT URI.",
    "rkey": "The record's key in its collection.",
    "cid": "The CID of the record's present version.",
    "created_at": "The time that the record claims; NULL where it has none that can be read.",
    "indexed_at": "When the record was written here.",
    "rev": "The repository's revision that made this version.",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a view: an SQL expression over a row of ``visible_records``."""

    name: str
    expression: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A view over one collection; ``key`` is the only record key that the lexicon allows, if it allows one only.

    ``unknown``: the refs that led to no definition, so that their columns are the values as they stand.
    """

    name: str
    nsid: str
    columns: tuple[Column, ...]
    comment: str
    key: str | None = None
    unknown: tuple[str, ...] = ()


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
        "policies": (("policies", ("policies",), "object"),),
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
    # Texts of any length. No exception: one cannot be caught in a parallel worker.
    "long texts": "CASE WHEN jsonb_typeof({0}) = 'array' AND NOT {0} @? 'strict $[*] ? (@.type() <> \"string\")'"
                  " THEN ARRAY(SELECT jsonb_array_elements_text(CASE jsonb_typeof({0}) WHEN 'array' THEN {0} END)) END",
    "cid": 'lex_cid({}) COLLATE "C"',
    "object": "lex_object({})",
    "array": "lex_array({})",
    "as it stands": "nullif({}, 'null'::jsonb)",
}  # fmt: skip


#: Types whose values are read by one function. A token's value is its name; bytes are ``{"$bytes": …}``.
_KINDS: Final = {
    "integer": "integer", "boolean": "boolean", "blob": "cid", "cid-link": "cid", "token": "text",
    "object": "object", "record": "object", "bytes": "object",
}  # fmt: skip


def make_view(lexicon: object, name: str | None = None, others: Lexicons | None = None) -> View:
    """Return the view of a record lexicon, under the first of ``view_names`` where no other name is given.

    ``others``: the lexicons to which it may refer. Raises LexiconError where it is not the lexicon of a record.
    """
    nsid, main, properties = _parts(lexicon)
    known = others if others is not None else Lexicons([lexicon])
    naming = NAMINGS.get(nsid) or Naming(view_names(nsid)[0])
    taken = {*_COMMON, naming.did}
    head = [
        Column("uri", "'at://' || did || '/' || collection || '/' || rkey", _COMMON["uri"]),
        Column(naming.did, "did", "The account that holds the record."),
        *(Column(common, common, _COMMON[common]) for common in ("rkey", "cid")),
    ]
    body = list(_body(nsid, known, properties, naming, taken))
    created = properties.get("createdAt")
    claimed = "lex_datetime(record -> 'createdAt')" if created is not None else "NULL::timestamptz"
    said = created.get("description") if isinstance(created, dict) else None
    tail = [
        Column("created_at", claimed, _text(said) or _COMMON["created_at"]),
        *(Column(common, common, _COMMON[common]) for common in ("indexed_at", "rev")),
    ]
    columns = (*head, *body, *tail)
    if len(columns) > _MAX_COLUMNS:
        raise LexiconError(f"{nsid} has more properties than a view has columns")
    key = main.get("key")
    literal = key.removeprefix("literal:") if isinstance(key, str) and key.startswith("literal:") else None
    comment = f"{nsid}: {_text(main.get('description')) or 'records of this collection'}"
    return View(_short(name or naming.view), nsid, columns, comment, literal, _unknown(nsid, known, properties, naming))


def view_names(nsid: str) -> tuple[str, ...]:
    """Return the names that a view of this lexicon may have, the shortest first; one only where people know it."""
    if nsid in NAMINGS:
        return (NAMINGS[nsid].view,)
    parts = nsid.split(".")
    names = (_short(_snake("_".join(parts[-count:]))) for count in range(2, len(parts) + 1))
    return tuple(dict.fromkeys(names))


def create_view(view: View) -> str:
    """Return the statements that make the view and its comments. Names are unqualified: the search_path decides."""
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


def _parts(lexicon: object) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """Return NSID, main definition and properties. Raises LexiconError."""
    nsid = lexicon_id(lexicon)
    if not isinstance(lexicon, dict) or not is_record(lexicon):
        raise LexiconError(f"{nsid} is not the lexicon of a record")
    main = lexicon["defs"]["main"]
    record = main.get("record")
    properties = record.get("properties", {}) if isinstance(record, dict) else None
    if not isinstance(properties, dict):
        raise LexiconError(f"{nsid} has no properties")
    return nsid, main, properties


def _body(
    nsid: str, known: Lexicons, properties: Mapping[str, Any], naming: Naming, taken: set[str]
) -> Iterator[Column]:
    """Yield the lexicon's own columns, in its order; a name that is taken gets ``record_`` before it.

    A createdAt that is not a datetime has a column of its own, too: ``created_at`` is a time or NULL.
    """
    for name, given in properties.items():
        found = known.follow(given, nsid)
        if name == "createdAt" and _kind(found, known) == "datetime":
            continue
        for column, path, kind in naming.columns.get(name) or _columns(name, found, known):
            chosen = _free(column, taken)
            taken.add(chosen)
            said = given.get("description") if isinstance(given, dict) else None
            value = "record" + "".join(f" -> {literal(part)}" for part in path)
            yield Column(
                chosen, _EXPRESSIONS[kind].format(f"({value})" if kind == "long texts" else value), _text(said) or None
            )


def _unknown(nsid: str, known: Lexicons, properties: Mapping[str, Any], naming: Naming) -> tuple[str, ...]:
    """Return the refs of properties that lead to nothing."""
    ends = [known.follow(given, nsid) for name, given in properties.items() if name not in naming.columns]
    return tuple(dict.fromkeys(str(end.schema["ref"]) for end in ends if end.type == "ref" and not end.is_strong_ref))


def _free(column: str, taken: set[str]) -> str:
    """Return the column's name, or the first that is free of ``record_``, ``record2_`` … before it."""
    chosen, number = _short(column), 1
    while chosen in taken:
        chosen = _short(f"record{number if number > 1 else ''}_{column}")
        number += 1
    return chosen


def _columns(name: str, found: Definition, known: Lexicons) -> tuple[tuple[str, Path, str], ...]:
    """Return the columns of a property by its type."""
    column = _snake(name)
    if found.is_strong_ref:
        return tuple((f"{column}_{part}", (name, part), "name") for part in ("uri", "cid"))
    return ((column, (name,), _kind(found, known)),)


def _kind(found: Definition, known: Lexicons) -> str:
    """Return which function reads a value of this schema; nothing is known of most that the specification lacks."""
    if found.type == "string":
        return _string_kind(found)
    if found.type == "array":
        return _array_kind(known.follow(found.schema.get("items"), found.home))
    if found.type == "union":
        return "object" if _is_of_objects(found, known) else "as it stands"
    return _KINDS.get(found.type, "as it stands") if isinstance(found.type, str) else "as it stands"


def _string_kind(found: Definition) -> str:
    form = found.schema.get("format")
    return "datetime" if form == "datetime" else "name" if isinstance(form, str) and form in _NAMES else "text"


def _array_kind(items: Definition) -> str:
    """Return which function reads an array of such items."""
    if items.type not in ("string", "token"):
        return "array"
    most = items.schema.get("maxLength")
    is_short = items.type == "token" or _string_kind(items) != "text"
    return "texts" if is_short or (isinstance(most, int) and most <= _MAX_INDEXED) else "long texts"


def _is_of_objects(union: Definition, known: Lexicons) -> bool:
    """Return True for a union of objects, as the specification has it: no ref is known to lead to anything else."""
    refs = union.schema.get("refs")
    ends = [known.follow({"type": "ref", "ref": ref}, union.home) for ref in refs] if isinstance(refs, list) else []
    return all(end.type in ("ref", "object", "record") for end in ends)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _short(name: str) -> str:
    """Return what fits into an identifier; never empty."""
    return name.replace("\0", "").encode()[:_MAX_NAME].decode(errors="ignore") or "_"


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
