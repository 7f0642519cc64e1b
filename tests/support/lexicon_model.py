"""What a typed view must show of a record, from the lexicon's JSON alone: nothing of the product's SQL or naming code.

The names are those that the README promises: the lexicon's in snake case, and the few that AppView users know better.
"""

from __future__ import annotations

import calendar
import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

LEXICONS = Path(__file__).parents[2] / "streams" / "lexicons"

#: View and the column of the account, by collection.
VIEWS = {
    "app.bsky.feed.post": ("posts", "author_did"),
    "app.bsky.feed.like": ("likes", "user_did"),
    "app.bsky.feed.repost": ("reposts", "user_did"),
    "app.bsky.feed.generator": ("feed_generators", "creator_did"),
    "app.bsky.feed.threadgate": ("thread_gates", "author_did"),
    "app.bsky.feed.postgate": ("post_gates", "author_did"),
    "app.bsky.graph.follow": ("follows", "follower_did"),
    "app.bsky.graph.block": ("blocks", "blocker_did"),
    "app.bsky.graph.list": ("lists", "creator_did"),
    "app.bsky.graph.listitem": ("list_items", "creator_did"),
    "app.bsky.graph.listblock": ("list_blocks", "blocker_did"),
    "app.bsky.graph.starterpack": ("starter_packs", "creator_did"),
    "app.bsky.graph.verification": ("verifications", "issuer_did"),
    "app.bsky.actor.profile": ("profiles", "did"),
    "app.bsky.actor.status": ("statuses", "did"),
    "app.bsky.actor.contentVisibilityDeclaration": ("content_visibility_declarations", "did"),
    "app.bsky.graph.referencelistoptout": ("reference_list_opt_outs", "did"),
    "app.bsky.labeler.service": ("labeler_services", "creator_did"),
    "app.bsky.notification.declaration": ("notification_declarations", "did"),
    "chat.bsky.actor.declaration": ("chat_declarations", "did"),
}
#: Properties whose column has another name than the lexicon's.
RENAMED = {
    ("app.bsky.graph.follow", "subject"): "following_did",
    ("app.bsky.graph.block", "subject"): "blocked_did",
    ("app.bsky.graph.listitem", "subject"): "subject_did",
    ("app.bsky.graph.listitem", "list"): "list_uri",
    ("app.bsky.graph.listblock", "subject"): "list_uri",
    ("app.bsky.graph.referencelistoptout", "subject"): "list_uri",
    ("app.bsky.graph.starterpack", "list"): "list_uri",
    ("app.bsky.graph.verification", "subject"): "subject_did",
    ("app.bsky.feed.threadgate", "post"): "post_uri",
    ("app.bsky.feed.postgate", "post"): "post_uri",
}
#: What other files' definitions are, where a property refers to one that is no object.
STRINGS = {
    "app.bsky.graph.defs#listPurpose", "com.atproto.moderation.defs#reasonType",
    "com.atproto.moderation.defs#subjectType",
}  # fmt: skip


def lexicon(nsid: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((LEXICONS / f"{nsid}.json").read_text())
    return loaded


def nsids() -> list[str]:
    return sorted(path.stem for path in LEXICONS.glob("*.json"))


def properties(nsid: str) -> dict[str, Any]:
    found: dict[str, Any] = lexicon(nsid)["defs"]["main"]["record"]["properties"]
    for schema in found.values():
        # A reference without a file is to a definition of its own.
        if schema.get("ref", "").startswith("#"):
            schema["ref"] = nsid + schema["ref"]
    return found


def only_key(nsid: str) -> str | None:
    key = lexicon(nsid)["defs"]["main"].get("key", "")
    return key.removeprefix("literal:") if key.startswith("literal:") else None


def expected_row(nsid: str, did: str, rkey: str, cid: str | None, record: Any) -> dict[str, Any]:
    """The row, but for indexed_at and rev."""
    value = record if isinstance(record, dict) else {}
    row: dict[str, Any] = {"uri": f"at://{did}/{nsid}/{rkey}", VIEWS[nsid][1]: did, "rkey": rkey, "cid": cid}
    for name, schema in properties(nsid).items():
        if name != "createdAt":
            row |= columns(nsid, name, schema, value.get(name))
    row["created_at"] = moment(value.get("createdAt")) if "createdAt" in properties(nsid) else None
    return row


def columns(nsid: str, name: str, schema: dict[str, Any], value: Any) -> dict[str, Any]:
    column = RENAMED.get((nsid, name)) or re.sub("([A-Z])", lambda m: "_" + m[1].lower(), name)
    if schema["type"] == "ref" and schema["ref"] == "app.bsky.feed.post#replyRef":
        return {
            f"{part}_{field}": name_of(at(at(value, part), field))
            for part in ("parent", "root")
            for field in ("uri", "cid")
        }
    if schema["type"] == "ref" and schema["ref"] == "com.atproto.repo.strongRef":
        uri, cid = f"{column}_uri", f"{column}_cid"
        if name == "via":
            uri = "via"
        if name == "subject":
            uri = "post_uri"
        return {uri: name_of(at(value, "uri")), cid: name_of(at(value, "cid"))}
    return {column: typed(schema, value)}


def typed(schema: dict[str, Any], value: Any) -> Any:  # noqa: PLR0911 (one a type)
    kind = "string" if schema.get("ref") in STRINGS else schema["type"]
    if kind == "string" and schema.get("format") in NAMES:
        return name_of(value)
    if kind == "string":
        return moment(value) if schema.get("format") == "datetime" else text(value)
    if kind == "integer":
        whole = type(value) is int or (type(value) is float and value == value // 1)
        return int(value) if whole and -(2**63) <= value < 2**63 else None
    if kind == "boolean":
        return value if type(value) is bool else None
    if kind == "blob":
        found = [text(at(at(value, "ref"), "$link")), text(at(value, "$link")), text(at(value, "cid"))]
        return next((cid for cid in found if cid is not None), None)
    if kind == "array":
        if type(value) is not list:
            return None
        items = schema["items"]
        if items["type"] == "string" or items.get("ref") in STRINGS:
            return value if all(name_of(item) is not None for item in value) else None
        return value
    return value if type(value) is dict else None


def at(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


#: Formats of strings that name something. Longer than this they name nothing, and no index would hold them.
NAMES = {"at-identifier", "at-uri", "cid", "did", "handle", "language", "nsid", "record-key", "tid", "uri"}
LONGEST = 2600


def name_of(value: Any) -> str | None:
    return value if type(value) is str and len(value.encode()) <= LONGEST else None


def text(value: Any) -> str | None:
    return value if type(value) is str else None


def moment(value: Any) -> dt.datetime | None:
    """A lexicon's datetime, read digit by digit."""
    found = type(value) is str and re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,20}))?(?:(Z)|([+-])([0-9]{2}):([0-9]{2}))",
        value,
    )
    if not found:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, zulu, sign, ahead, ahead_minutes = found.groups()[6:]
    if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        return None
    if (
        value.endswith("-00:00")
        or hour > 23
        or minute > 59
        or second > 59
        or (not zulu and (int(ahead) > 15 or int(ahead_minutes) > 59))
    ):
        return None
    offset = dt.timedelta() if zulu else dt.timedelta(hours=int(ahead), minutes=int(ahead_minutes))
    try:
        read = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
        read += dt.timedelta(microseconds=round(float(f"0.{fraction or 0}") * 1_000_000))
        return read - (-offset if sign == "-" else offset)
    except OverflowError:
        return None
