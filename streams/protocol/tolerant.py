"""Read CBOR that is right, but not in DAG-CBOR's one form. Pure; slow, for the headers and bodies of frames alone.

Keys in any order, numbers and lengths longer than need be, indefinite lengths, short floats: what a general library
writes. The values are those that the strict decoder gives of the same in its form: a link (tag 42) is its CID's bytes.
A record is never read so: its CID is of its bytes.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import libipld

#: Most values, and levels of nesting. A commit of 1,000 operations has 10,000: a decoder in Python is not given more.
MAX_TOLERATED_VALUES: Final = 1 << 16
MAX_DEPTH: Final = 200

_LINK: Final = 42
#: "This is CBOR": a tag that says nothing of its value.
_SELF_DESCRIBED: Final = 55_799
_INDEFINITE: Final = 31
_BREAK: Final = 0xFF
_SIMPLE: Final = {20: False, 21: True, 22: None, 23: None}  # 23: undefined
_FLOATS: Final = {25: ">e", 26: ">f", 27: ">d"}


def decode_tolerantly(data: bytes) -> list[Any]:
    """Return the values of all items in ``data``, one after the other.

    Raises ValueError where it is not well-formed CBOR, holds what DAG-CBOR does not know, or is too large or too deep.
    """
    reader = _Reader(data)
    items = []
    while reader.at < len(data):
        items.append(reader.item(0))
    return items


class _Reader:
    """A reader of CBOR: its place in the bytes, and how many values may still come."""

    __slots__ = ("_data", "_left", "at")

    def __init__(self, data: bytes) -> None:
        self.at = 0
        self._data = data
        self._left = MAX_TOLERATED_VALUES

    def item(self, depth: int) -> Any:  # noqa: ANN401, PLR0911 (any value; one a type)
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise ValueError("too many values, or too deep")
        major, info = self._head()
        if major == 7:
            return self._simple(info)
        if info == _INDEFINITE:
            return self._indefinite(major, depth)
        number = self._number(info)
        if major == 0:
            return number
        if major == 1:
            return -1 - number
        if major == 2:
            return self._take(number)
        if major == 3:
            return self._take(number).decode()
        if major == 6:
            return self._tagged(number, depth)
        if number > self._left:  # before anything is made of it
            raise ValueError("too many values")
        if major == 4:
            return [self.item(depth + 1) for _ in range(number)]
        values: dict[str, Any] = {}
        for _ in range(number):
            self._entry(values, depth)
        return values

    def _indefinite(self, major: int, depth: int) -> Any:  # noqa: ANN401
        """Return the value of an item that ends with a break: chunks of bytes or text, items, or entries."""
        if major in {2, 3}:
            chunks = []
            while not self._ends():
                self._left -= 1
                kind, info = self._head()
                if kind != major or self._left < 0:
                    raise ValueError("a chunk of another type, or too many")
                chunk = self._take(self._number(info))
                chunks.append(chunk if major == 2 else chunk.decode().encode())  # each is UTF-8 by itself
            data = b"".join(chunks)
            return data if major == 2 else data.decode()
        if major == 4:
            items = []
            while not self._ends():
                items.append(self.item(depth + 1))
            return items
        if major == 5:
            values: dict[str, Any] = {}
            while not self._ends():
                self._entry(values, depth)
            return values
        raise ValueError("no indefinite length for this type")

    def _entry(self, values: dict[str, Any], depth: int) -> None:
        key = self.item(depth + 1)
        if type(key) is not str or key in values:
            raise ValueError("a key is not text, or stands twice")
        values[key] = self.item(depth + 1)

    def _tagged(self, tag: int, depth: int) -> Any:  # noqa: ANN401
        value = self.item(depth + 1)
        if tag == _SELF_DESCRIBED:
            return value
        if tag != _LINK or type(value) is not bytes or len(value) > 255:
            raise ValueError("a tag that DAG-CBOR does not know")
        # The strict decoder says whether it is a CID, and what is given for it.
        return libipld.decode_dag_cbor(b"\xd8\x2a\x58" + bytes((len(value),)) + value)

    def _simple(self, info: int) -> bool | float | None:
        if info in _SIMPLE:
            return _SIMPLE[info]
        form = _FLOATS.get(info)
        if form is None:
            raise ValueError("a simple value that DAG-CBOR does not know")
        (number,) = struct.unpack(form, self._take(struct.calcsize(form)))
        if not math.isfinite(number):
            raise ValueError("a number is not finite")
        return float(number)

    def _head(self) -> tuple[int, int]:
        """Read the next item's type and the rest of its first byte."""
        (first,) = self._take(1)
        return first >> 5, first & 31

    def _number(self, info: int) -> int:
        """Return the head's number, which is in the head itself or in the 1, 2, 4 or 8 bytes behind it."""
        if info < 24:
            return info
        if info > 27:
            raise ValueError("no such length")
        return int.from_bytes(self._take(1 << info - 24), "big")

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._data):
            raise ValueError("it is cut")
        data = self._data[self.at : end]
        self.at = end
        return data

    def _ends(self) -> bool:
        """Return True if a break comes next, and pass over it."""
        if self._data[self.at : self.at + 1] != bytes((_BREAK,)):
            return False
        self.at += 1
        return True
