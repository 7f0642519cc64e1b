"""What strangers send: values, strings and encodings that break decoders, by where they do it."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from streams.protocol.tid import tid_from_us
from tests.fuzz.cbor import Link, Raw, head

CID_PREFIX: Final = b"\x01\x71\x12\x20"
_CID: Final = CID_PREFIX + bytes(range(32))

#: Encodings that are wrong, or that only strict readers refuse.
ENCODINGS: Final[tuple[bytes, ...]] = (
    # Lengths without the bytes: of bytes, strings, arrays, maps.
    *(bytes((major << 5 | 26,)) + b"\xff" * 4 for major in (2, 3, 4, 5)),
    *(bytes((major << 5 | 27, 0x7F)) + b"\xff" * 7 for major in (2, 3, 4, 5)),
    *(bytes((major << 5 | 27,)) + b"\xff" * 8 for major in (0, 1, 2, 3, 4, 5, 6)),
    # Indefinite lengths, reserved heads, a break alone.
    b"\x5f\x41\x00\xff", b"\x7f\x61\x61\xff", b"\x9f\x00\xff", b"\xbf\x61\x61\x00\xff", b"\x9f", b"\x1c", b"\x5d",
    b"\xff",
    # Numbers that are longer than need be.
    b"\x18\x01", b"\x19\x00\x01", b"\x1a\x00\x00\x00\x01", b"\x1b" + bytes(7) + b"\x01", b"\x78\x01a", b"\x58\x01a",
    b"\x98\x01\x00", b"\xb8\x01\x61a\x00", b"\xd9\x00\x2a\x58\x25\x00" + _CID,
    # Maps: out of order, twice, keys that are no strings.
    b"\xa2\x62bb\x00\x61a\x00", b"\xa2\x61b\x00\x61a\x00", b"\xa2\x61a\x00\x61a\x01", b"\xa1\x01\x00", b"\xa1\x41a\x00",
    b"\xa1\xf6\x00", b"\xa1\x80\x00", b"\xa1\xa0\x00",
    # Floats: NaN, infinities, half and single ones, minus zero, subnormal, the largest.
    b"\xf9\x7e\x00", b"\xf9\x7c\x00", b"\xfa\x7f\xc0\x00\x00", b"\xfb\x7f\xf8" + bytes(6), b"\xfb\x7f\xf0" + bytes(6),
    b"\xfb\xff\xf0" + bytes(6), b"\xf9\x3c\x00", b"\xfa\x3f\x80\x00\x00", b"\xfb\x80" + bytes(7),
    b"\xfb" + bytes(7) + b"\x01",
    b"\xfb\x7f\xef" + b"\xff" * 6, b"\xfb\x3f\xf0" + bytes(6), b"\xfb\x40\x09\x21\xfb\x54\x44\x2d\x18",
    # Simple values, undefined, tags.
    b"\xf7", b"\xe0", b"\xf8\x20", b"\xf8\xff", b"\xf8\x14", b"\xc0\x64time", b"\xc1\x00", b"\xc2\x49\x01" + bytes(8),
    b"\xd8\x20\x61u", b"\xd9\xd9\xf7\x00", b"\xda\xff\xff\xff\xff\x00",
    # Links that are none: no zero, no bytes, text, cut, another codec, hash or version, nested.
    b"\xd8\x2a\x58\x24" + _CID, b"\xd8\x2a\x40", b"\xd8\x2a\x41\x00", b"\xd8\x2a\x65hello",
    b"\xd8\x2a\x58\x24\x00" + _CID[:35],
    b"\xd8\x2a\x58\x26\x00" + _CID + b"x", b"\xd8\x2a\x58\x25\x00\x01\x55" + _CID[2:],
    b"\xd8\x2a\x58\x25\x00\x02" + _CID[1:],
    b"\xd8\x2a\x58\x23\x00\x12\x20" + bytes(32), b"\xd8\x2a\x45\x00\x01\x71\x00\x00",
    b"\xd8\x2a\xd8\x2a\x58\x25\x00" + _CID,
    b"\xd8\x2a\x58\x45\x00\x01\x71\x13\x40" + bytes(64), b"\xd8\x2a\x00",
    # Strings that are not UTF-8: cut, overlong, surrogates, beyond Unicode.
    b"\x61\xff", b"\x62\xc0\x80", b"\x63\xed\xa0\x80", b"\x66\xed\xa0\xbd\xed\xb8\x80", b"\x64\xf5\x80\x80\x80",
    b"\x62a\xc3",
)  # fmt: skip

STRINGS: Final[tuple[str, ...]] = (
    "", " ", "\0", "a\0b", "\n", "a\nb", "\u202egnirts", "\ufeffx", "\x1b[31mred", "\U0010ffff", "\uffff", "é",
    "x" * 300, "x" * 5000,
    "\0" * 5000, "null", "../../etc/passwd", "'; DROP TABLE records; --", "{}", '"', "\\", "\\u0000", "%s%n", "\u2028",
    "ﷺ" * 200,
    "<b>", "a" * 70_000,
)  # fmt: skip

DIDS: Final[tuple[str, ...]] = (
    "did:plc:z72i7hdynmk6r22z27h6tvur", "did:web:example.com", "did:web:localhost%3A8080", "did:plc:", "did::x",
    "did:", "did", "DID:plc:x",
    "did:PLC:x", "did:plc:x\n", "did:plc:\0", "did:plc:x y", "did:plc:x:", "did:plc:x%", "did:web:" + "a" * 2040,
    "did:web:" + "a" * 2041,
    "did:web:" + "a" * 100_000, "did:plc:é", "did:plc:\u202ex", "did:a:b:c", "did:plc:x/y", "did:plc:x#y",
    "did:plc:x?y", "did:0:x",
    *STRINGS[:6],
)  # fmt: skip

NSIDS: Final[tuple[str, ...]] = (
    "app.bsky.feed.post", "app.bsky.feed.like", "com.example.thing", "xyz.statusphere.status", "a.b.c", "a.b", "a", "",
    "app.bsky.feed.post\n",
    "app..feed", ".app.bsky", "app.bsky.", "app.bsky.feed-post", "app.bsky.4", "4pp.bsky.x", "com.-a.b", "com.a-.b",
    "a-.b.c", "com.exa\0mple.x",
    "com.exämple.x", "com.example." + "x" * 63, "com.example." + "x" * 64, ".".join(["a" * 60] * 5),
    ".".join(["a" * 60] * 6),
    "com." + "a." * 200 + "x", "app.bsky.feed.*", "app.bsky.feed.post;", "APP.BSKY.Feed.Post", "com.example.\u202ex",
)  # fmt: skip

RKEYS: Final[tuple[str, ...]] = (
    "self", "3jui7kd54zh2y", "a", ".", "..", "...", "", "~", "_", "a:b", "a/b", "a b", "a\n", "a\0", "é", "\u202e",
    "x" * 512, "x" * 513,
    "x" * 70_000, "$", "%00", "@", "pre:fix", "a+b", "a.b", "-", "1" * 13,
)  # fmt: skip

REVS: Final[tuple[str, ...]] = (
    "3jzfcijpj2z2a", "2222222222222", "bzzzzzzzzzzzz", "jzzzzzzzzzzzz", "kzzzzzzzzzzzz", "zzzzzzzzzzzzz",
    "3jzfcijpj2z2", "3jzfcijpj2z2aa",
    "3jzfcijpj2z2a\n", "3JZFCIJPJ2Z2A", "3jzf-cij-pj2z-2a", "", "\0" * 13, "0000000000000", "now", "3jzfcijpj2z2é",
    "\u202e" * 13, "2" * 5000,
    tid_from_us(1_900_000_000_000_000, 3), tid_from_us(4_000_000_000_000_000, 3),
)  # fmt: skip

TIMES: Final[tuple[str, ...]] = (
    "2026-11-23T18:59:24.627Z", "2026-11-23", "", "now", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z",
    "2026-11-23T25:00:00Z",
    "2026-11-23T18:59:60Z", "2026-11-23T18:59:24", "2026-11-23T18:59:24.123456789123Z", "1969-12-31T23:59:59Z",
    "2026-W47-1", "20261123T185924Z",
    "２０２６-11-23T18:59:24Z", "2026-11-23T18:59:24+99:99", "\0", "1" * 10_000, "2026-11-23T18:59:24.627Z\n",
    "-2026-11-23T18:59:24Z",
)  # fmt: skip

HANDLES: Final[tuple[str, ...]] = (
    "alice.example.com", "handle.invalid", "", "a" * 253, "a" * 254, "a\0b", "\u202egro.elpmaxe", "ALICE.Example.Com",
    "a\nb", "é.com", "@x.y",
)  # fmt: skip

STATUSES: Final[tuple[str, ...]] = (
    "takendown", "suspended", "deleted", "deactivated", "desynchronized", "throttled", "", "gone", "x" * 64, "x" * 65,
    "\0", "DELETED",
)  # fmt: skip

SEQS: Final[tuple[int, ...]] = (
    0,
    1,
    -1,
    (1 << 53) - 1,
    1 << 53,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    -(1 << 63),
    -(1 << 64),
)

NUMBERS: Final[tuple[Any, ...]] = (*SEQS, 0.0, -0.0, 1.5, 1e308, 5e-324, 1e16, 123456789.123456789, 2.0**60)

WORDS: Final[dict[str, tuple[Any, ...]]] = {
    "did": DIDS, "repo": DIDS, "rev": REVS, "since": (*REVS, None), "time": TIMES, "seq": SEQS, "handle": HANDLES,
    "status": STATUSES,
    "active": (True, False), "tooBig": (True, False, None), "op": (1, -1, 0, 2, True, 1.0, "1"),
    "t": (
        "#commit", "#sync", "#identity", "#account", "#info", "#handle", "#tombstone", "#migrate", "#labels", "commit",
        "", "#\0", "#" * 500,
    ),
}  # fmt: skip


def nested(r: Random, depth: int) -> Raw:
    """Arrays or maps in one another."""
    if r.random() < 0.5:
        return Raw(b"\x81" * depth + b"\x00")
    return Raw(b"\xa1\x61a" * depth + b"\x00")


#: Depths around what the decoders, JSON's writer and Python allow.
DEPTHS: Final = (3, 60, 199, 250, 252, 253, 254, 255, 256, 300, 900, 980, 1000, 1100, 5000)


def cbor_value(r: Random, *, large: float = 0.002) -> Any:  # noqa: PLR0911 (one a kind)
    """Any value for any place; ``large`` is how often it is a heavy one."""
    x = r.random()
    if x < large:
        return heavy(r)
    if x < 0.30:
        return Raw(r.choice(ENCODINGS))
    if x < 0.45:
        return r.choice(
            (None, True, False, "", b"", [], {}, "x", b"x" * 36, [0], {"a": 0}, [[]], Link(_CID), _CID, [None] * 36)
        )
    if x < 0.60:
        return r.choice(NUMBERS)
    if x < 0.85:
        return r.choice(STRINGS)
    if x < 0.92:
        return nested(r, r.choice(DEPTHS))
    return {
        r.choice(STRINGS): r.choice(NUMBERS),
        "$link": r.choice(STRINGS),
        "$bytes": 1,
        "list": [r.choice(STRINGS)] * 3,
    }


def heavy(r: Random) -> Any:  # noqa: PLR0911 (one a kind)
    """Values of megabytes; in many small parts they take most memory."""
    size = r.choice((100_000, 400_000, 1_000_000))
    kind = r.randrange(7)
    if kind == 0:
        return r.choice(("x", "\0", "é", "\u202e")) * size
    if kind == 1:
        return bytes(size)
    if kind == 2:
        part = r.choice((b"\x80", b"\xa0", b"\x81\x00", b"\xa1\x61a\x00", b"\x62ab", b"\x00", b"\x60"))
        return Raw(head(4, size) + part * size)
    if kind == 3:
        return Raw(b"\x81" * size + b"\x00")
    if kind == 4:
        return Raw(head(5, size // 8) + b"".join(b"\x64" + b"%04x" % i + b"\x00" for i in range(min(size // 8, 65536))))
    if kind == 5:
        return [Link(_CID)] * (size // 41)
    return [bytes([1]) + i.to_bytes(4, "big") for i in range(size // 20)]
