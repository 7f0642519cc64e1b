"""DAG-CBOR once more, for the fuzzer: writers of what is wrong and of other forms of CBOR, and a strict reader.

Written from RFC 8949 and https://ipld.io/specs/codecs/dag-cbor/spec/; shares nothing with the product's decoders.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from random import Random
from typing import Any, Final

#: Levels of nesting that the strict reader follows; what is deeper is not judged.
MAX_DEPTH: Final = 200
_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}


class NotStrictError(ValueError):
    """The bytes are not strict DAG-CBOR, or too deep to say."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that the writer copies as they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A CID: its bytes, without the leading zero of tag 42."""

    cid: bytes


def head(major: int, number: int) -> bytes:
    """The shortest head of an item; ``major`` is 0 to 7."""
    top = major << 5
    if number < 24:
        return bytes((top | number,))
    for info, width in _WIDTHS.items():
        if number < 1 << 8 * width:
            return bytes((top | info,)) + number.to_bytes(width, "big")
    raise ValueError("a head holds 64 bits")


def dump(value: Any, *, ordered: bool = True) -> bytes:
    """A value as DAG-CBOR; ``ordered`` False leaves the keys of maps in the order in which they stand."""
    out: list[bytes] = []
    _write(out.append, value, ordered)
    return b"".join(out)


def _write(put: Any, value: Any, ordered: bool) -> None:  # noqa: PLR0912 (one a type)
    match value:
        case Raw():
            put(value.data)
        case str():
            text = value.encode("utf-8", "surrogatepass")
            put(head(3, len(text)) + text)
        case None:
            put(b"\xf6")
        case bool():
            put(b"\xf5" if value else b"\xf4")
        case int():
            put(head(0, value) if value >= 0 else head(1, -1 - value))
        case bytes():
            put(head(2, len(value)) + value)
        case Link():
            put(b"\xd8\x2a" + head(2, len(value.cid) + 1) + b"\0" + value.cid)
        case dict():
            put(head(5, len(value)))
            items = list(value.items())
            if ordered:
                items.sort(key=lambda item: (len(str(item[0])), str(item[0])))
            for key, inner in items:
                _write(put, key, ordered)
                _write(put, inner, ordered)
        case list():
            put(head(4, len(value)))
            for inner in value:
                _write(put, inner, ordered)
        case float():
            put(b"\xfb" + struct.pack(">d", value))
        case _:
            raise TypeError(f"no DAG-CBOR for {type(value)}")


def loosely(value: Any, r: Random) -> bytes:  # noqa: PLR0911 (one a type)
    """A value as CBOR of any form, nearly never DAG-CBOR's: longer heads, indefinite lengths, keys as they come."""
    match value:
        case bool() | None:
            return dump(value)
        case int():
            return _longer(0, value, r) if value >= 0 else _longer(1, -1 - value, r)
        case str() | bytes():
            return _chunks(value, r)
        case Link():
            return _longer(6, 42, r) + _chunks(b"\0" + value.cid, r)
        case float():
            forms = [form for form in ((0xF9, ">e"), (0xFA, ">f"), (0xFB, ">d")) if _holds(form[1], value)]
            first, form = r.choice(forms)
            return bytes((first,)) + struct.pack(form, value)
        case dict():
            items = list(value.items())
            r.shuffle(items)
            return _container(5, [loosely(key, r) + loosely(inner, r) for key, inner in items], r)
        case list():
            return _container(4, [loosely(inner, r) for inner in value], r)
        case _:
            raise TypeError(f"no CBOR for {type(value)}")


def _longer(major: int, number: int, r: Random) -> bytes:
    """A head of any length that holds the number."""
    infos = [info for info, width in _WIDTHS.items() if number < 1 << 8 * width]
    info = r.choice([None, *infos])
    if info is None:
        return head(major, number)
    return bytes((major << 5 | info,)) + number.to_bytes(_WIDTHS[info], "big")


def _container(major: int, parts: list[bytes], r: Random) -> bytes:
    if r.random() < 0.4:
        return bytes((major << 5 | 31,)) + b"".join(parts) + b"\xff"
    return _longer(major, len(parts), r) + b"".join(parts)


def _chunks(value: str | bytes, r: Random) -> bytes:
    """A string, whole or in pieces."""
    major = 3 if isinstance(value, str) else 2
    pieces: list[str | bytes] = [value]
    if pieced := r.random() < 0.3:
        at = r.randint(0, len(value))
        pieces = [value[:at], value[at:]]
    encoded = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    written = b"".join(_longer(major, len(piece), r) + piece for piece in encoded)
    return bytes((major << 5 | 31,)) + written + b"\xff" if pieced else written


def _holds(form: str, value: float) -> bool:
    try:
        return bool(struct.unpack(form, struct.pack(form, value))[0] == value)
    except OverflowError:
        return False


def load_all(data: bytes) -> list[Any]:
    """The strict DAG-CBOR values that stand one after the other in ``data``. Raises NotStrictError."""
    values, at = [], 0
    while at < len(data):
        value, at = _read(data, at, 0)
        values.append(value)
    return values


def load(data: bytes) -> Any:
    """The one strict DAG-CBOR value that ``data`` is. Raises NotStrictError."""
    value, at = _read(data, 0, 0)
    if at != len(data):
        raise NotStrictError("bytes behind the value")
    return value


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """The major type, the number in the head, and where the head ends."""
    if at >= len(data):
        raise NotStrictError("cut")
    first = data[at]
    major, info = first >> 5, first & 31
    if info < 24:
        return major, info, at + 1
    width = _WIDTHS.get(info)
    if width is None or at + 1 + width > len(data):
        raise NotStrictError("an indefinite length, a reserved head, or cut")
    number = int.from_bytes(data[at + 1 : at + 1 + width], "big")
    if major != 7 and (number < 24 if width == 1 else number < 1 << 4 * width):
        raise NotStrictError("a head that is longer than need be")
    return major, number, at + 1 + width


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise NotStrictError("deep")
    start = at
    major, number, at = _head(data, at)
    if major in (0, 1):
        return (number if major == 0 else -1 - number), at
    if major in (2, 3):
        if at + number > len(data):
            raise NotStrictError("cut")
        return _string(data[at : at + number], major), at + number
    if major == 4:
        items = []
        for _ in range(number):
            item, at = _read(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 5:
        return _read_map(data, at, number, depth)
    if major == 6:
        return _read_link(data, at, number)
    return _simple(data[start:at]), at


def _string(data: bytes, major: int) -> bytes | str:
    if major == 2:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise NotStrictError("not UTF-8") from None


def _read_map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    last: tuple[int, bytes] | None = None
    for _ in range(count):
        key, at = _read(data, at, depth + 1)
        if type(key) is not str:
            raise NotStrictError("a key that is no string")
        place = len(raw := key.encode()), raw
        if last is not None and place <= last:
            raise NotStrictError("keys out of order, or twice")
        last = place
        found[key], at = _read(data, at, depth + 1)
    return found, at


def _read_link(data: bytes, at: int, tag: int) -> tuple[Link, int]:
    if tag != 42:
        raise NotStrictError("a tag that is not 42")
    major, size, at = _head(data, at)
    value = data[at : at + size]
    if major != 2 or len(value) != size or value[:1] != b"\0" or not _is_cid(value[1:]):
        raise NotStrictError("not a link")
    return Link(value[1:]), at + size


def _is_cid(cid: bytes) -> bool:
    """CIDv1 with the usual codecs and sha2-256: other CIDs are not judged."""
    return len(cid) == 36 and cid[:1] == b"\x01" and cid[1] in (0x71, 0x55) and cid[2:4] == b"\x12\x20"


def _simple(item: bytes) -> Any:
    if item in (b"\xf4", b"\xf5", b"\xf6"):
        return {b"\xf4": False, b"\xf5": True, b"\xf6": None}[item]
    if item[0] == 0xFB:
        value = struct.unpack(">d", item[1:])[0]
        if math.isfinite(value) and (value or math.copysign(1, value) > 0):
            return value
    raise NotStrictError("a simple value, or a float, that DAG-CBOR does not have; or minus zero")
