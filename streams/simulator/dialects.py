"""One frame written in another way: another seq or time, CBOR that is not canonical, or a stream of another kind.

What a frame means stays as it is. A frame that cannot be decoded is returned unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from streams.simulator.recording import Frame, frame_parts, iso_time
from streams.simulator.repository import encode_value

#: Ways to write a frame that are CBOR, but not DAG-CBOR's canonical form.
LOOSE_KINDS: Final = {
    "loose_header": "the header's keys in the order {op, t}, as Jetstream's own simulator writes them",
    "loose_integers": "the header's op and the body's seq in eight bytes",
    "loose_keys": "the body's keys in reverse order",
}
#: The `time` of a frame in canonical form: its key, and a text of 24 characters. No frame has the same before it.
_TIME: Final = re.compile(rb"(dtime\x78\x18).{24}", re.DOTALL)


def is_commit(data: bytes) -> bool:
    """Return True if a frame is a #commit."""
    parts = frame_parts(data)
    return parts is not None and parts[0].get("t") == "#commit"


def author(data: bytes) -> str | None:
    """Return the DID that a frame is about; None where it names none."""
    parts = frame_parts(data)
    did = parts and (parts[1].get("repo") or parts[1].get("did"))
    return did if isinstance(did, str) else None


def with_values(data: bytes, **values: object) -> bytes:
    """Return the frame with other values in its body: ``with_values(data, seq=7)``."""
    parts = frame_parts(data)
    return data if parts is None else encode_value(parts[0]) + encode_value(parts[1] | values)


def sent_at(data: bytes, time_us: int) -> bytes:
    """Return the frame with this time as its `time`. The frame must be in canonical form."""
    return _TIME.sub(lambda found: found[1] + iso_time(time_us).encode(), data, count=1)


def loosened(data: bytes, kind: str) -> bytes:
    """Return the frame in one of LOOSE_KINDS."""
    parts = frame_parts(data)
    if parts is None:
        return data
    header, body = (sorted(part.items(), key=lambda item: (len(item[0]), item[0])) for part in parts)
    if kind == "loose_header":
        header = [(key, parts[0][key]) for key in ("op", "t") if key in parts[0]]
    elif kind == "loose_keys":
        body.reverse()
    long = kind == "loose_integers"
    return _map(header, ("op",) if long else ()) + _map(body, ("seq",) if long else ())


def _map(items: list[tuple[str, Any]], long: Iterable[str]) -> bytes:
    """Return a CBOR map of fewer than 24 items in this order, the integers of ``long`` in eight bytes."""
    written = (
        encode_value(key) + (b"\x1b" + value.to_bytes(8, "big") if key in long else encode_value(value))
        for key, value in items
    )
    return bytes((0xA0 | len(items),)) + b"".join(written)


def as_jetstream(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Return the same events as a Jetstream sends them: a JSON text message for each operation."""
    for frame in frames:
        parts = frame_parts(frame.data)
        if parts is None:
            continue
        kind, body = str(parts[0].get("t", ""))[1:], parts[1]
        event = {"did": author(frame.data), "time_us": frame.time_us, "kind": kind}
        contents = [_operation(body, op) for op in body.get("ops") or ()] if kind == "commit" else [{"seq": frame.seq}]
        for content in contents:
            yield Frame(frame.seq, frame.time_us, orjson.dumps(event | {kind: content}), text=True)


def _operation(body: dict[str, Any], op: dict[str, Any]) -> dict[str, Any]:
    collection, _, rkey = op["path"].partition("/")
    told = {"rev": body["rev"], "operation": op["action"], "collection": collection, "rkey": rkey}
    return told if op.get("cid") is None else told | {"record": {"$type": collection}}


def as_labels(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Return a labeler's #labels frames, one in place of each frame."""
    for frame in frames:
        did = author(frame.data) or "did:plc:nobody"
        label = {
            "src": "did:plc:labeler", "uri": did, "val": "spam", "cts": iso_time(frame.time_us), "ver": 1,
            "sig": bytes(64),
        }  # fmt: skip
        data = encode_value({"op": 1, "t": "#labels"}) + encode_value({"seq": frame.seq, "labels": [label]})
        yield frame._replace(data=data)
