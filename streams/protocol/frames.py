"""One frame of subscribeRepos, from bytes to a header, a body and its blocks. Pure.

A frame is two DAG-CBOR objects: ``{op, t}`` and a body (https://atproto.com/specs/event-stream). Where the strict
decoder refuses them, as a relay's own CBOR library may write them, a tolerant one reads them. Blocks stand in a CAR
(https://ipld.io/specs/transport/car/carv1/); a block is what its CID's hash says it is, wherever it was found.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import libipld

from streams.protocol.cbor_size import MAX_VALUES, has_too_many_values
from streams.protocol.tolerant import decode_tolerantly
from streams.text import printable

#: CIDv1, dag-cbor, sha2-256, 32 bytes: what records have (https://atproto.com/specs/data-model).
_RECORD_CID_PREFIX: Final = b"\x01\x71\x12\x20"
_CID_LENGTH: Final = 36
#: The protocol's 5 MB, with room.
MAX_FRAME_BYTES: Final = 6 * 1024 * 1024
#: Occurrences of a CID that are looked at before the CAR is scanned: a hostile one may hold a CID 100,000 times.
_MAX_TRIES: Final = 200

_decode_two = libipld.decode_dag_cbor_multi


class FrameError(ValueError):
    """A frame, or an operation in one, that is not as the protocol says. Its text is a dead letter's reason."""


class ErrorFrame(Exception):  # noqa: N818 (the protocol's name for it)
    """The relay's ``{op: -1}``: it closes the stream after it. ``name`` as FutureCursor or ConsumerTooSlow."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.name = name


def split_frame(data: bytes, on_tolerated: Callable[[], None] = lambda: None) -> tuple[str, dict[str, Any]]:
    """Return the type (``#commit``, …) and the body. ``on_tolerated``: it is CBOR, but not in DAG-CBOR's one form.

    Raises FrameError where it is not a frame, ErrorFrame where the relay reports an error.
    """
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"the frame has {len(data)} bytes: more than any may have")
    if len(data) > MAX_VALUES and has_too_many_values(data):
        raise FrameError(f"the frame has more than {MAX_VALUES} values")
    try:
        parts = _decode_two(data)
    except Exception as error:  # the decoder's own errors have no common base
        parts = _tolerated(data, error)
        on_tolerated()
    if len(parts) != 2:
        raise FrameError(f"a frame is two objects, this has {len(parts)}")
    header, body = parts
    if type(header) is not dict or type(body) is not dict:
        raise FrameError("the header or the body is not a map")
    op = header.get("op")
    if op == -1:
        raise ErrorFrame(_word(body.get("error") or "error"), _word(body.get("message") or ""))
    kind = header.get("t")
    if op != 1 or type(kind) is not str:
        raise FrameError(f"unknown op {_word(op)} or type {_word(kind)}")
    return kind, body


def _tolerated(data: bytes, refusal: Exception) -> list[Any]:
    try:
        return decode_tolerantly(data)
    except ValueError:
        raise FrameError(f"not DAG-CBOR: {printable(repr(refusal), 120)}") from None


class Scan:
    """The sections of one CAR, read when they are first asked for, and only once; of a broken one, what can be read.

    A frame may have many operations, and a CAR 100,000 sections: what one of them has cost, the others need not pay.
    """

    __slots__ = ("_car", "_found", "_refused", "_why")

    def __init__(self, car: bytes) -> None:
        self._car = car
        self._found: dict[bytes, tuple[int, int]] | None = None
        self._refused: dict[bytes, str] = {}
        self._why = "the record's block is missing"

    def block(self, cid: bytes) -> bytes:
        """Return the block of a CID. Raises FrameError where it is missing or is not what the CID says."""
        if self._found is None:
            self._found = {}
            try:
                _scan(self._car, self._found)
            except FrameError as error:
                self._why = str(error)
        if cid not in self._found:
            raise FrameError(self._refused.get(cid, self._why))
        try:
            return checked_block(self._found, self._car, cid)
        except FrameError as error:
            self._refused[cid] = str(error)
            del self._found[cid]  # it is not hashed again
            raise


def search_block(car: bytes, cid: bytes) -> bytes | None:
    """Look for the block of a CID from the end of the CAR, where records are. Return None if it must be scanned.

    An occurrence behind 0x00 is a link to the block, not the block (DAG-CBOR writes a CID as tag 42 with a leading
    zero); only the hash decides. Raises FrameError where the CID is not that of a record.
    """
    if len(cid) != _CID_LENGTH or not cid.startswith(_RECORD_CID_PREFIX):
        raise FrameError("not a CID of a record (dag-cbor, sha2-256)")
    digest = cid[4:]
    tries = _MAX_TRIES
    at = car.rfind(cid)
    while at > 2:
        low = car[at - 1]
        if low:
            # A section's length is a varint before the CID; one or two bytes hold up to 16 KB, which is nearly all.
            before = car[at - 2]
            block = car[at + _CID_LENGTH : at + (low << 7 | before & 127 if before > 127 else low)]
            if sha256(block).digest() == digest:
                return block
        tries -= 1
        if not tries:
            break
        at = car.rfind(cid, 0, at)
    return None


def _scan(car: bytes, found: dict[bytes, tuple[int, int]]) -> None:
    end = len(car)
    try:
        header, at = _varint(car, 0)
        at += header
        while at < end:
            # _varint(), without a call where it has one or two bytes: there is a section for each operation, and more.
            length = car[at]
            at += 1
            if length > 127:
                if car[at] < 128:
                    length = length & 127 | car[at] << 7
                    at += 1
                else:
                    length, at = _varint(car, at - 1)
            stop = at + length
            if length < _CID_LENGTH or stop > end:
                raise FrameError("a section of the CAR is cut")
            found[car[at : at + _CID_LENGTH]] = (at + _CID_LENGTH, stop)
            at = stop
    except IndexError:
        raise FrameError("the CAR is cut") from None


def checked_block(index: dict[bytes, tuple[int, int]], car: bytes, cid: bytes) -> bytes:
    """Return the block of a CID by a scan's index. Raises FrameError if it is missing or not what the CID says."""
    place = index.get(cid)
    if place is None:
        raise FrameError("the record's block is missing")
    if not cid.startswith(_RECORD_CID_PREFIX):
        raise FrameError("not a CID of a record (dag-cbor, sha2-256)")
    block = car[place[0] : place[1]]
    if sha256(block).digest() != cid[4:]:
        raise FrameError("the record's block has another hash than its CID")
    return block


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift += 7
        at += 1
        if byte < 128:
            return value, at
        if shift > 28:
            raise FrameError("a varint of the CAR is too long")


def _word(value: object) -> str:
    """Return a hostile word or number as text; of another value the name of its type, for its text may have no end."""
    return printable(str(value), 120) if isinstance(value, str | int | float | None) else type(value).__name__
