"""Counting and reading CBOR at the exact limits: every form of a head, every depth, every number of values."""

from __future__ import annotations

import struct
from typing import Any

import libipld
import pytest

from streams.protocol import tolerant
from streams.protocol.cbor_size import MAX_VALUES, has_too_many_values
from streams.protocol.tolerant import MAX_DEPTH, MAX_TOLERATED_VALUES, decode_tolerantly
from tests.support.dagcbor import encode, link

CID = b"\x01\x71\x12\x20" + bytes(range(32))

# -- values in CBOR


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"\x00\x00\x00", 3),
        (b"\x17" * 4, 4),
        (b"\x18\x18" * 3, 3),
        (b"\x19\x01\x01" * 3, 3),
        (b"\x1a\x01\x01\x01\x01" * 3, 3),
        (b"\x1b" + b"\x01" * 8 + b"\x00", 2),
        (b"\x40\x00\x00", 3),
        (b"\x41\x00\x00", 2),
        (b"\x58\x02\x00\x00\x00", 2),
        (b"\x61a\x00", 2),
        (b"\x78\x01a\x00", 2),
        (b"\x79\x00\x02ab\x00", 2),
        (b"\x77" + b"a" * 23 + b"\x00", 2),
        (b"\x80\x00\x00", 3),
        (b"\x82\x00\x00", 3),
        (b"\x98\x03\x00\x00\x00", 4),
        (b"\xd8\x2a\x41\x00\x00", 3),
        (b"\xf6\xf5\xfb" + bytes(8), 3),
        (b"\x1c\x00\x00\x00", 0),
        (b"\x1f\x00\x00\x00", 0),
        (b"\x00\x3c\x00\x00", 1),
    ],
)
def test_the_count_of_values(data: bytes, values: int) -> None:
    assert not has_too_many_values(data, values)
    if values:
        assert has_too_many_values(data, values - 1)


def test_the_numbers_that_limit_a_decoder() -> None:
    assert (MAX_VALUES, MAX_TOLERATED_VALUES, MAX_DEPTH) == (1 << 20, 1 << 16, 200)


# -- the tolerant decoder


def nested(levels: int) -> bytes:
    return b"\x81" * levels + b"\x00"


def fails(data: bytes) -> bool:
    try:
        decode_tolerantly(data)
    except ValueError:
        return True
    return False


def test_how_deep_it_goes() -> None:
    for opened, closed in (
        (b"\x81", b""),
        (b"\x9f", b"\xff"),
        (b"\xa1\x61a", b""),
        (b"\xbf\x61a", b"\xff"),
        (b"\xd9\xd9\xf7", b""),
    ):
        assert not fails(opened * MAX_DEPTH + b"\x00" + closed * MAX_DEPTH)
        assert fails(opened * (MAX_DEPTH + 1) + b"\x00" + closed * (MAX_DEPTH + 1))
    assert not fails(b"\xa1\x61a" * (MAX_DEPTH - 1) + b"\xa1\x61a\x00")
    assert fails(b"\xa1\x61a" * (MAX_DEPTH - 1) + b"\xa1\xd9\xd9\xf7\x61a\x00"), "a key in a tag is one deeper"
    assert not fails(b"\xa1\x61a" * (MAX_DEPTH - 2) + b"\xa1\xd9\xd9\xf7\x61a\x00")
    assert fails(b"\x81" * (MAX_DEPTH + 1) + b"\xa1\x61a\x00")


@pytest.mark.parametrize(("left", "refused"), [(4, False), (3, True)])
@pytest.mark.parametrize(
    "data",
    [b"\x83\x00\x00\x00", b"\x9f\x00\x00\x00\xff", b"\x00" * 4, b"\x7f" + b"\x61a" * 3 + b"\xff", b"\xa1\x61a\x81\x00"],
)
def test_how_many_values_it_makes(data: bytes, left: int, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tolerant, "MAX_TOLERATED_VALUES", left)
    assert fails(data) is refused


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"\x17", [23]),
        (b"\x18\x18", [24]),
        (b"\x18\x00", [0]),
        (b"\x19\x01\x00", [256]),
        (b"\x1a\x00\x01\x00\x00", [65_536]),
        (b"\x1b" + (1 << 40).to_bytes(8, "big"), [1 << 40]),
        (b"\x20", [-1]),
        (b"\x38\x63", [-100]),
        (b"\x41x", [b"x"]),
        (b"\x40", [b""]),
        (b"\x62ab", ["ab"]),
        (b"\x80", [[]]),
        (b"\xa0", [{}]),
        (b"\xbf\xff", [{}]),
        (b"\x9f\xff", [[]]),
        (b"\x5f\xff", [b""]),
        (b"\x5f\x41a\x41b\xff", [b"ab"]),
        (b"\x7f\x61a\x61b\xff", ["ab"]),
        (b"\xf4\xf5\xf6\xf7", [False, True, None, None]),
        (b"\xf9\x3e\x00", [1.5]),
        (b"\xfa" + struct.pack(">f", 1.5), [1.5]),
        (b"\xfb" + struct.pack(">d", 1.1), [1.1]),
        (b"\xd9\xd9\xf7\x00", [0]),
    ],
)
def test_values_in_any_form(data: bytes, values: list[Any]) -> None:
    assert decode_tolerantly(data) == values


@pytest.mark.parametrize(
    "data",
    [
        b"\x1c", b"\x1d", b"\x1e", b"\x1f", b"\x1c" + bytes(16), b"\x1d" + bytes(32), b"\x3f",
        b"\x5f\x5f" + bytes(128) + b"\xff", b"\xdf\x00\xff", b"\x18", b"\x19\x00", b"\x42x", b"\x62a", b"\x81",
        b"\xa1\x61a", b"\xa1\x00\x00", b"\xa2\x61a\x00\x61a\x00", b"\x5f\x61a\xff", b"\x7f\x41a\xff", b"\xff",
        b"\x5f\x5f\xff\xff",
        b"\x5f\x41a", b"\x9f\x00", b"\xbf\x61a\xff", b"\xf3", b"\xf8\x20", b"\xfc", b"\xf9\x7c\x00", b"\xf9\x7e\x00",
        b"\xc0\x00", b"\xd8\x2a\x00", b"\xd8\x2a\x41\x00", b"\x61\xff", b"\x7f\x61\xc3\x61\xa4\xff",
    ],
)  # fmt: skip
def test_what_is_not_well_formed_or_unknown(data: bytes) -> None:
    assert fails(data)


def test_a_link_is_its_cids_bytes_in_any_form() -> None:
    strict = encode(link(CID))
    assert decode_tolerantly(strict) == [libipld.decode_dag_cbor(strict)] == [CID]
    assert decode_tolerantly(b"\xd9\x00\x2a\x59\x00\x25\x00" + CID) == [CID]
    long = b"\x00\x01\x55\x00\xfa\x01" + bytes(250)
    assert len(long) == 256
    assert fails(b"\xd8\x2a\x59\x01\x00" + long)
