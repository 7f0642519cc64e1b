"""From a frame's body to the topic's messages: Jetstream's JSON, one message an operation. Pure; the hot path.

What is not as the protocol says costs the operation it stands in, never the rest of the frame: it is returned as a
``BadOp``, and becomes a dead letter.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Container
from hashlib import sha256
from typing import Any, Final, NamedTuple

import libipld
import msgspec
import orjson

from streams.protocol.atjson import decode_record, encode_with_record
from streams.protocol.cbor_size import MAX_VALUES, has_too_many_values
from streams.protocol.frames import FrameError, Scan, search_block
from streams.protocol.syntax import is_did, is_nsid, is_rkey
from streams.protocol.tid import MAX_TIME_US
from streams.text import printable

#: Frame types of older versions of the protocol, and #info: they carry nothing that we store.
SKIPPED_TYPES: Final = frozenset({"#handle", "#migrate", "#tombstone", "#info"})
#: The other types, with what is taken of their bodies.
_ABOUT_ACCOUNTS: Final = {"#identity": ("handle",), "#account": ("active", "status"), "#sync": ("rev",)}
#: Largest event in bytes: under the topic's max.message.bytes, with room for the key and the batch's header.
MAX_EVENT_BYTES: Final = 8 * 1024 * 1024 - 16 * 1024
#: Most operations and bytes of events that one frame may make: the protocol allows 200 and 5 MB, in either case less
#: than this; a hostile frame may name one block a hundred thousand times.
MAX_OPS: Final = 1000
MAX_FRAME_EVENTS_BYTES: Final = 32 * 1024 * 1024
#: From how many operations on one scan of the CAR is cheaper than a search for each.
_SCAN_FROM_OPS: Final = 4
_MAX_SEQ: Final = 1 << 53
#: Longest DID (https://atproto.com/specs/did) and rev in characters; a rev is a TID of 13.
MAX_DID: Final = 2048
MAX_REV: Final = 64
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TEXT_OR_NONE: Final = (str, type(None))

_multibase = libipld.encode_multibase
_dumps = orjson.dumps
_from_iso = dt.datetime.fromisoformat

Keep = Callable[[str], bool]


class BadOp(NamedTuple):
    """An operation that could not be decoded: why, and the bytes to keep."""

    reason: str
    payload: bytes


class Events(msgspec.Struct, frozen=True):
    """The result of one frame: the messages of ``did``, in order, the bad operations, and how many were filtered."""

    did: str
    values: list[bytes]
    bad: list[BadOp]
    filtered: int


def frame_seq(body: dict[str, Any]) -> int:
    """Return the frame's sequence number. Raises FrameError where it has none."""
    seq = body.get("seq")
    if type(seq) is not int or not 0 <= seq < _MAX_SEQ:
        raise FrameError("the frame has no seq")
    return seq


def frame_time(body: dict[str, Any]) -> int | None:
    """Return the frame's ``time`` in µs since the epoch; None where it has none that can be used (it is informal)."""
    try:
        elapsed = _from_iso(body["time"]) - _EPOCH
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    time = (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
    return time if 0 <= time <= MAX_TIME_US else None  # "9999-12-31T23:59:59-23:59" is a day after it


def event_identity(kind: str, body: dict[str, Any], data: bytes) -> tuple[str, str]:
    """Return the DID and the rev that tell a frame's event from others of its seq, where it is not an ordinary commit.

    What has no rev is known by its type and by what it says; its time is not part of that, for some servers write the
    time of sending. A frame without a DID, or with one or a rev that is longer than any, is known by its bytes.
    """
    did, rev = body.get("did", body.get("repo")), body.get("rev")
    if type(did) is not str or len(did) > MAX_DID or (type(rev) is str and len(rev) > MAX_REV):
        return "", sha256(data).hexdigest()
    if type(rev) is str:
        return did, f"{kind} {rev}"
    return did, f"{kind} {body.get('active') is True} {_word(body.get('status'))} {_word(body.get('handle'))}"


def decode_events(
    kind: str, body: dict[str, Any], seq: int, time_us: int, keep: Keep | None, *,
    place: dict[str, int] | None = None, known: Container[str] = (),
) -> Events:  # fmt: skip
    """Return the messages of a frame of type ``kind``. ``keep`` says which collections go into the topic (None: all).

    ``place``: what is said of where the frame stands, a ``messages.Place``; commits, which have a rev, do without.
    ``known``: DIDs that were checked before; those of commits are not checked again.
    Raises FrameError where nothing of the frame can be used.
    """
    if kind == "#commit":
        return _commit(body, seq, time_us, keep, known)
    if kind in _ABOUT_ACCOUNTS:
        return _about_account(body, seq, time_us, kind[1:], place)
    raise FrameError(f"unknown frame type {printable(kind)}")


def _commit(body: dict[str, Any], seq: int, time_us: int, keep: Keep | None, known: Container[str]) -> Events:
    did, rev, since, car, ops = _parts_of_commit(body, known)
    values: list[bytes] = []
    bad: list[BadOp] = []
    filtered = size = 0
    few = len(ops) < _SCAN_FROM_OPS
    scan: Scan | None = None
    for op in ops:
        try:
            collection, rkey = _split_path(op["path"])
            if keep is not None and not keep(collection):
                filtered += 1
                continue
            action = op["action"]
            block: bytes | None = b""
            if action in {"create", "update"}:
                cid = op["cid"]
                block = search_block(car, cid) if few else None
                if block is None:
                    scan = scan or Scan(car)
                    block = scan.block(cid)
                if len(block) > MAX_VALUES and has_too_many_values(block):
                    raise FrameError(f"the record has more than {MAX_VALUES} values")
                # Made at once, with all its keys: a dict that grows is copied.
                commit = {
                    "rev": rev, "operation": action, "collection": collection, "rkey": rkey,
                    "record": decode_record(block), "cid": _multibase("b", cid),
                }  # fmt: skip
            elif action == "delete":
                commit = {"rev": rev, "operation": action, "collection": collection, "rkey": rkey}
            else:
                raise FrameError(f"unknown action {_word(action)}")
            if since is not None:
                commit["since"] = since
            message = {"did": did, "time_us": time_us, "kind": "commit", "seq": seq, "commit": commit}
            value = encode_with_record(message, commit, block) if block else _dumps(message)
            if len(value) > MAX_EVENT_BYTES:
                raise FrameError(f"the record is too large for the topic: {len(value)} bytes")
            values.append(value)
            size += len(value)
        except Exception as error:
            # The blocks of the commit are kept once, not with each of its operations.
            scan = scan or Scan(car)
            block = _block_of(op, scan)
            size += len(block)
            block = block or (b"" if bad else car)
            bad.append(BadOp(f"{_op_name(op)}: {_reason(error)}", block))
        if size > MAX_FRAME_EVENTS_BYTES:
            raise FrameError(f"the commit makes more than {MAX_FRAME_EVENTS_BYTES} bytes of events and dead letters")
    return Events(did, values, bad, filtered)


def _parts_of_commit(body: dict[str, Any], known: Container[str]) -> tuple[str, str, str | None, bytes, list[Any]]:
    """Return did, rev, since, blocks and ops. Raises FrameError where one of them is missing, or not as it must be."""
    try:
        did, rev, car, ops = body["repo"], body["rev"], body["blocks"], body["ops"]
    except KeyError as error:
        raise FrameError(f"the commit has no {error.args[0]}") from None
    if type(did) is not str or (did not in known and not is_did(did)):
        raise FrameError("the commit's repo is not a valid DID")
    since = body.get("since")
    if type(rev) is not str or type(ops) is not list or type(car) is not bytes or type(since) not in _TEXT_OR_NONE:
        raise FrameError("the commit's rev, since, ops or blocks have a wrong type")
    if len(ops) > MAX_OPS:
        raise FrameError(f"the commit has {len(ops)} operations: more than any may have")
    if not ops and body.get("tooBig"):
        raise FrameError("tooBig: the relay left the operations out")
    return did, rev, since, car, ops


def _split_path(path: str) -> tuple[str, str]:
    collection, slash, rkey = path.partition("/")
    if not slash or not is_nsid(collection) or not is_rkey(rkey):
        raise FrameError("the path is not a valid collection/rkey")
    return collection, rkey


def _about_account(body: dict[str, Any], seq: int, time_us: int, kind: str, place: dict[str, int] | None) -> Events:
    fields = _ABOUT_ACCOUNTS["#" + kind]
    did = body.get("did")
    if type(did) is not str or not is_did(did):
        raise FrameError(f"the {kind} frame's did is not a valid DID")
    about: dict[str, Any] = {"did": did, "seq": seq, "time": body.get("time")}
    about.update((field, body[field]) for field in fields if body.get(field) is not None)
    if (kind == "account" and type(about.get("active")) is not bool) or (kind == "sync" and "rev" not in about):
        raise FrameError(f"the {kind} frame has no {fields[0]}")
    try:
        message: dict[str, Any] = {"did": did, "time_us": time_us, "kind": kind, "seq": seq, kind: about}
        if place is not None:
            message["place"] = place
        value = _dumps(message)
    except orjson.JSONEncodeError as error:
        raise FrameError(f"the {kind} frame cannot be written as JSON: {error}") from None
    if len(value) > MAX_EVENT_BYTES:
        raise FrameError(f"the {kind} frame is too large for the topic: {len(value)} bytes")
    return Events(did, [value], [], 0)


def _op_name(op: object) -> str:
    return f"{_word(op.get('action'))} {_word(op.get('path'), 300)}" if isinstance(op, dict) else "operation"


def _word(value: object, limit: int = 100) -> str:
    """Return a hostile string, cut; of another value the name of its type, for its text may have no end."""
    return printable(value, limit) if isinstance(value, str) else type(value).__name__


def _reason(error: Exception) -> str:
    if isinstance(error, FrameError):
        return str(error)
    if isinstance(error, KeyError):
        return f"the operation has no {error.args[0]}"
    return f"the record cannot be decoded: {printable(f'{type(error).__name__}: {error}', 200)}"


def _block_of(op: object, scan: Scan) -> bytes:
    """Return the block of a bad operation, as evidence; nothing where it has none."""
    try:
        return scan.block(op["cid"])  # type: ignore[index]
    except Exception:
        return b""
