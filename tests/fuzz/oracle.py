"""What must become of a frame, worked out without the product's decoders.

Strictly readable frames and operations must come through; what a lenient reader cannot read must not. What is between
(bytes that only some decoders take) may do either, but whatever comes out must be what the block says.
"""

from __future__ import annotations

import base64
import functools
import json
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import cbor2

from tests.fuzz import rules, seeds
from tests.fuzz.cbor import Link, NotStrictError, load, load_all
from tests.fuzz.hostile import CID_PREFIX
from tests.fuzz.rules import Fate

MAX_OPS: Final = 1000
MAX_FRAME: Final = 6 * 1024 * 1024
MAX_SEQ: Final = 1 << 53
#: Most data items of a frame or a record: no record of the protocol's 1 MiB has more.
MAX_ITEMS: Final = 1 << 20
#: Sizes that are beyond doubt: below it every frame's events and every record fit, whatever JSON makes of them.
SURELY_SMALL: Final = 1_000_000


@dataclass
class Expected:
    """What must come of a frame. ``frame``: True events of it, False a dead letter of the whole, None not judged."""

    frame: Fate
    kind: str | None = None
    body: dict[str, Any] | None = None
    seq: int | None = None


def expect(data: bytes) -> Expected:  # noqa: PLR0911 (one a reason)
    """The judgement of one frame."""
    if len(data) > MAX_FRAME:
        return Expected(False)
    try:
        values = load_all(data)
    except (NotStrictError, RecursionError):
        return Expected(None)
    if len(data) > MAX_ITEMS and sum(map(items, values)) > MAX_ITEMS:
        return Expected(False)
    if len(values) != 2 or type(values[0]) is not dict or type(values[1]) is not dict:
        return Expected(False)
    header, body = values
    kind, op = header.get("t"), header.get("op")
    if type(op) is not int or op != 1 or type(kind) is not str:
        return Expected(None if op in (-1, 1) else False)
    seq = body.get("seq")
    if kind in ("#info", "#handle", "#migrate", "#tombstone"):
        return Expected(None, kind, body)
    if type(seq) is not int or not 0 <= seq < MAX_SEQ:
        return Expected(False, kind, body)
    judge = {"#commit": _commit, "#identity": _identity, "#account": _account, "#sync": _sync}.get(kind)
    return Expected(judge(body) if judge else False, kind, body, seq)


def _commit(body: dict[str, Any]) -> Fate:
    ops, since = body.get("ops"), body.get("since")
    if type(ops) is not list or type(body.get("rev")) is not str or type(body.get("blocks")) not in (bytes, Link):
        return False
    if type(body["blocks"]) is Link:
        return None
    if not (since is None or type(since) is str) or len(ops) > MAX_OPS:
        return False
    if body.get("tooBig") and not ops:
        return False
    cids = Counter(str(op.get("cid")) for op in ops if type(op) is dict)
    swollen = len(body["blocks"]) * 6 * max(cids.values(), default=1)
    small = swollen + len(ops) * (len(body["rev"]) + len(since or "") + 3000) < 30 * SURELY_SMALL
    return rules.both(rules.did(body.get("repo")), small or None)


def _about(body: dict[str, Any]) -> Fate:
    fate = rules.did(body.get("did"))
    return rules.both(fate, True if _plain(body.get("time")) else None)


def _plain(value: Any) -> bool:
    """Whether JSON can surely say it, in a short text."""
    return value is None or type(value) is bool or (type(value) is str and len(value) < 100_000)


def _identity(body: dict[str, Any]) -> Fate:
    return rules.both(_about(body), True if _plain(body.get("handle")) else None)


def _account(body: dict[str, Any]) -> Fate:
    if type(body.get("active")) is not bool:
        return False
    return rules.both(_about(body), True if _plain(body.get("status")) else None)


def _sync(body: dict[str, Any]) -> Fate:
    if body.get("rev") is None:
        return False
    return rules.both(_about(body), True if _plain(body["rev"]) else None)


class Archive:
    """The blocks of a commit."""

    def __init__(self, car: bytes) -> None:
        self.car = car

    @functools.cached_property
    def sections(self) -> dict[bytes, bytes] | None:
        """The blocks by CID, the last of each; None where the CAR is not whole."""
        try:
            return dict(seeds.blocks_of(self.car))
        except ValueError:
            return None

    def block(self, cid: bytes) -> bytes | None:
        """The block of a CID where there is no doubt about it."""
        block = (self.sections or {}).get(cid)
        return block if block is not None and sha256(block).digest() == cid[4:] else None

    def anywhere(self, cid: bytes) -> bytes | None:
        """Any bytes behind the CID that have its hash, whatever length stands before it."""
        at = self.car.find(cid)
        while at != -1:
            ends = {
                at + sum((byte & 127) << 7 * i for i, byte in enumerate(self.car[at - n : at]))
                for n in range(1, min(at, 5) + 1)
            }
            for end in (*ends, at + self.car[at - 1], len(self.car)):
                block = self.car[at + 36 : end]
                if sha256(block).digest() == cid[4:]:
                    return block
            at = self.car.find(cid, at + 1)
        return None


def operation(op: Any, rev: str, since: Any, archive: Archive) -> Fate:  # noqa: PLR0911 (one a reason)
    """Whether an operation becomes an event."""
    if type(op) is not dict:
        return False
    action, path = op.get("action"), rules.path(op.get("path"))
    if type(action) is not str or action not in ("create", "update", "delete") or path is False:
        return False
    if len(rev) + len(since or "") > SURELY_SMALL:
        return None
    if action == "delete":
        return path
    cid = op.get("cid")
    if type(cid) is not Link:
        return None if type(cid) is bytes and cid.startswith(CID_PREFIX) else False
    if not cid.cid.startswith(CID_PREFIX):
        return False
    block = archive.block(cid.cid)
    if block is None:
        return None  # the CAR is broken, and the block may be found all the same
    return rules.both(path, record_fate(block))


def record_fate(block: bytes) -> Fate:
    """Whether a block can be written as a record's JSON."""
    try:
        value = load(block)
    except (NotStrictError, RecursionError):
        return None if _lenient(block) is not _NOTHING else False
    if len(block) > MAX_ITEMS and items(value) > MAX_ITEMS:
        return False
    return rules.both(sayable(value), len(block) < SURELY_SMALL or None)


def items(value: Any) -> int:
    """The data items of a value (RFC 8949): a map's keys are some, and a link is two, its tag and its bytes."""
    match value:
        case Link():
            return 2
        case dict():
            return 1 + len(value) + sum(map(items, value.values()))
        case list():
            return 1 + sum(map(items, value))
    return 1


def sayable(value: Any) -> Fate:
    """Whether JSON, as orjson writes it, has a form for the value: integers have at most 64 bits."""
    if type(value) is int:
        return -(1 << 63) <= value < 1 << 64
    if type(value) is dict:
        return rules.both(*map(sayable, value.values()))
    return rules.both(*map(sayable, value)) if type(value) is list else True


_NOTHING: Final = object()


def _lenient(block: bytes) -> Any:
    """What cbor2 reads, with links; ``_NOTHING`` where even it reads nothing."""
    try:
        return cbor2.loads(block)
    except Exception:
        return _NOTHING


def json_form(value: Any) -> Any:
    """The protocol's JSON form of what either reader gives."""
    match value:
        case Link():
            return {"$link": "b" + base64.b32encode(value.cid).decode().lower().rstrip("=")}
        case cbor2.CBORTag():
            return {"$link": "b" + base64.b32encode(value.value[1:]).decode().lower().rstrip("=")}
        case bytes():
            return {"$bytes": base64.b64encode(value).decode().rstrip("=")}
        case dict():
            return {key: json_form(inner) for key, inner in value.items()}
        case list() | tuple():
            return [json_form(inner) for inner in value]
    return value


def same(record: Any, block: bytes) -> bool:
    """Whether a record in an event is what the block says."""
    try:
        value = load(block)
    except (NotStrictError, RecursionError):
        value = _lenient(block)
    return value is not _NOTHING and canonical(json_form(value)) == canonical(record)


def canonical(value: Any) -> str:
    """JSON in which 1 and 1.0 and True differ, and the order of keys does not."""
    return json.dumps(value, sort_keys=True)
