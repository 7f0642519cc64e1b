"""Sets of lexicons that refer to one another, and valid records of them: what a typed view must show in full.

Made from the specification's types, with nothing of the product's code. ``Made.expected`` has the columns as the view
must have them: never NULL, whatever is referred to, and whether the file that defines it is given or not.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from random import Random
from typing import Any

RECORD = "com.example.shop.item"
#: Where a property's definition may stand: beside it, in a file that is given, in one that is not.
HOMES = (RECORD, "com.example.shop.defs", "org.example.other.thing", "net.example.absent.defs")
ABSENT = HOMES[-1]
CID = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
PLAIN = ("string", "long", "token", "datetime", "name", "integer", "boolean", "bytes", "cid-link", "blob", "unknown")
NESTED = ("object", "array", "strings", "tokens", "union", "closed", "strongRef")


@dataclass
class Made:
    """Lexicons by NSID, of which one is the record's; a valid record; what its view shows, by column."""

    lexicons: dict[str, dict[str, Any]]
    record: dict[str, Any] = field(default_factory=dict)
    expected: dict[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> list[dict[str, Any]]:
        """All but the absent one."""
        return [lexicon for nsid, lexicon in self.lexicons.items() if nsid != ABSENT]


def make(seed: int) -> Made:
    """A property for each type: as it is, and behind up to four refs, which may go from file to file."""
    random = Random(seed)
    made = Made({nsid: {"lexicon": 1, "id": nsid, "defs": {}} for nsid in HOMES})
    properties: dict[str, Any] = {}
    for number, kind in enumerate((*PLAIN, *NESTED) * 2):
        name = f"p{number}"
        schema, value, shown = _type(kind, random)
        path = [random.choice(HOMES) for _ in range(random.randrange(5) if number >= len((*PLAIN, *NESTED)) else 0)]
        for at, target in reversed(list(zip([RECORD, *path], path, strict=False))):
            definitions = made.lexicons[target]["defs"]
            part = f"{name}x{len(definitions)}"
            definitions[part] = schema
            schema = {"type": "ref", "ref": _ref(at, target, part, random)}
        properties[name] = schema | random.choice([{}, {"description": "A 'quoted' \\ thing; --"}, {"nullable": True}])
        made.record[name] = value
        if ABSENT in path:
            made.expected[name] = value
        elif kind == "strongRef":
            made.expected |= {f"{name}_{part}": shown[part] for part in ("uri", "cid")}
        else:
            made.expected[name] = shown
    made.lexicons[RECORD]["defs"]["main"] = {
        "type": "record", "key": "tid",
        "record": {"type": "object", "required": list(properties), "properties": properties},
    }  # fmt: skip
    return made


def _ref(at: str, target: str, part: str, random: Random) -> str:
    return f"#{part}" if at == target and random.random() < 0.7 else f"{target}#{part}"


def _type(kind: str, random: Random) -> tuple[dict[str, Any], Any, Any]:
    """Return a schema of the kind, a valid value, and what the view shows of it."""
    if kind == "datetime":
        day = random.randrange(10, 28)
        at = dt.datetime(2024, 5, day, 7, 8, 9, 123_000, tzinfo=dt.UTC)
        return {"type": "string", "format": "datetime"}, f"2024-05-{day}T07:08:09.123Z", at
    schema, *values = random.choice(_TYPES[kind])
    value = random.choice(values)
    blob = kind in ("blob", "cid-link")
    return schema, value, CID if blob else value


_OBJECT: Any = {"$type": "com.example.shop.defs#open", "city": "y", "deep": [{"a": None}]}
_TOKEN = "com.example.shop.defs#open"
_HINTS: list[dict[str, Any]] = [{"enum": ["open"]}, {"const": "open"}, {"knownValues": ["x"]}, {"default": "shut"}]
_NAMES = ["did", "at-uri", "uri", "handle", "cid", "nsid", "tid", "language", "record-key", "at-identifier"]
_REFS: list[list[str]] = [[], ["app.bsky.embed.images", "#nowhere"], ["net.example.absent.defs#thing"]]
_ITEMS: list[dict[str, Any]] = [{"type": "integer"}, {"type": "unknown"}, {"type": "array", "items": {}}, {}]
#: For each kind its schemas, each with valid values.
_TYPES: dict[str, list[tuple[dict[str, Any], *tuple[Any, ...]]]] = {
    "string": [({"type": "string", **hint}, "open") for hint in _HINTS],
    "long": [({"type": "string", "maxLength": 30_000}, "y" * 9_000)],
    "token": [({"type": "token"}, _TOKEN)],
    "name": [({"type": "string", "format": form}, "did:plc:a") for form in _NAMES],
    "integer": [({"type": "integer", "default": 3}, 0, -1, 7, 2**53, -(2**63), 2**63 - 1)],
    "boolean": [({"type": "boolean", "const": False}, False)],
    "bytes": [({"type": "bytes", "maxLength": 9}, {"$bytes": "AQI"})],
    "cid-link": [({"type": "cid-link"}, {"$link": CID})],
    "blob": [(
        {"type": "blob"}, {"$type": "blob", "ref": {"$link": CID}, "mimeType": "image/png", "size": 1},
        {"cid": CID, "mimeType": "image/png"},
    )],
    "unknown": [({"type": "unknown"}, _OBJECT, [1], {"a": {}})],
    "object": [({"type": "object", "properties": {}}, _OBJECT, {})],
    "array": [({"type": "array", "items": items}, [], [1], [[2]], [_OBJECT]) for items in _ITEMS],
    "strings": [({"type": "array", "items": {"type": "string"}}, [], ["a", "b"], ["x" * 5_000])],
    "tokens": [({"type": "array", "items": {"type": "token"}}, [_TOKEN])],
    "union": [({"type": "union", "refs": refs}, _OBJECT) for refs in _REFS],
    "closed": [({"type": "union", "refs": refs, "closed": True}, _OBJECT) for refs in _REFS],
    "strongRef": [({"type": "ref", "ref": "com.atproto.repo.strongRef"}, {"uri": "at://did:plc:a/x.y/k", "cid": CID})],
}  # fmt: skip
