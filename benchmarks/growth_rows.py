"""The rows of the growing table: those that fill it, made by the server, and those that are measured. Pure.

The account of a row is random, and both kinds name accounts alike, so a new row's key lies anywhere in the index.
"""

from __future__ import annotations

from hashlib import md5
from random import Random
from typing import Any, Final, NamedTuple

import orjson

from streams.protocol.tid import tid_from_us

ACCOUNTS: Final = 2_000_000
#: The collections, each with the end of its share of 100 rows.
MIX: Final = (
    (60, "app.bsky.feed.like"), (75, "app.bsky.graph.follow"), (88, "app.bsky.feed.post"),
    (98, "app.bsky.feed.repost"), (100, "app.bsky.graph.block"),
)  # fmt: skip
#: Time of the first row that is measured, in µs: after those that fill.
FIRST_MEASURED: Final = 1_790_000_000_000_000
#: The digits of a hash, as a DID's alphabet has them.
_HEX, _LETTERS = "0189", "wxyz"


class GrowthMessage(NamedTuple):
    """A message of the topic."""

    offset: int
    key: bytes
    value: bytes


def did_of(account: int) -> str:
    """Return the DID of the n-th account."""
    digits = md5(str(account).encode(), usedforsecurity=False).hexdigest()[:24]
    return "did:plc:" + digits.translate(str.maketrans(_HEX, _LETTERS))


def collection_of(share: int) -> str:
    """Return the collection of a row, by its share of 0 to 99."""
    return next(name for end, name in MIX if share < end)


def fill_statement(first: int, until: int) -> str:
    """Return the statement that inserts the rows ``first`` to ``until`` - 1, in key order, which is quickest."""
    cases = " ".join(f"WHEN share < {end} THEN '{name}'" for end, name in MIX)
    did = f"'did:plc:' || translate(left(md5(account::text), 24), '{_HEX}', '{_LETTERS}')"
    cid = "'bafyrei' || md5(n::text) || left(md5((n + 1)::text), 20)"
    return f"""
        INSERT INTO records (seq, time, did, collection, rkey, rev, cid, record)
        SELECT n, to_timestamp(1780000000 + n / 1000.0), {did}, CASE {cases} END,
               '3a' || lpad(n::text, 11, '2'), '3a' || lpad(n::text, 11, '2'), {cid},
               jsonb_build_object('$type', CASE {cases} END, 'createdAt', '2026-06-01T00:00:00.000Z', 'subject',
                   jsonb_build_object('cid', {cid}, 'uri', 'at://' || {did} || '/app.bsky.feed.post/3kabcdefghij2'))
        FROM (SELECT n, floor(random() * {ACCOUNTS})::integer AS account, n % 100 AS share
              FROM generate_series({first}, {until - 1}) AS n) AS made
        ORDER BY 3, 4, 5"""


def messages(random: Random, first: int, count: int) -> list[GrowthMessage]:
    """Return new rows of random accounts, as messages from the offset ``first`` on."""
    return [_message(random, offset) for offset in range(first, first + count)]


def _message(random: Random, offset: int) -> GrowthMessage:
    did, collection = did_of(random.randrange(ACCOUNTS)), collection_of(random.randrange(100))
    time_us = FIRST_MEASURED + offset * 1000
    rev = tid_from_us(time_us, 1)
    cid = "bafyrei" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz234567", k=52))
    subject = {"cid": cid, "uri": f"at://{did}/app.bsky.feed.post/3kabcdefghij2"}
    record: dict[str, Any] = {"$type": collection, "createdAt": "2026-06-01T00:00:00.000Z", "subject": subject}
    commit = {"rev": rev, "operation": "create", "collection": collection, "rkey": rev, "record": record, "cid": cid}
    event = {"did": did, "time_us": time_us, "kind": "commit", "seq": offset + 1, "commit": commit}
    return GrowthMessage(offset, did.encode(), orjson.dumps(event))
