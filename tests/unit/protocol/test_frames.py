"""Frames: split, and blocks found in CARs of every shape; whatever a stranger sends is a FrameError, never another."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.protocol.events import decode_events, frame_seq, frame_time
from streams.protocol.frames import ErrorFrame, FrameError, Scan, _scan, search_block, split_frame
from tests.support.dagcbor import encode, link

RECORDING = Path(__file__).parents[2] / "fixtures" / "pds" / "frames.bin.gz"


def recorded_frames() -> list[bytes]:
    data, at, frames = gzip.decompress(RECORDING.read_bytes()), 0, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        frames.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return frames


def cid_of(block: bytes) -> bytes:
    return b"\x01\x71\x12\x20" + hashlib.sha256(block).digest()


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def car_of(blocks: list[tuple[bytes, bytes]]) -> bytes:
    header = encode({"roots": [link(cid_of(b"root"))], "version": 1})
    body = b"".join(varint(36 + len(block)) + cid + block for cid, block in blocks)
    return varint(len(header)) + header + body


blocks = st.binary(min_size=1, max_size=400) | st.sampled_from([91, 92, 127, 128, 16_347, 16_348, 70_000]).map(
    lambda size: bytes(i % 251 for i in range(size))
)


@given(st.lists(blocks, min_size=1, max_size=6), st.data())
def test_a_block_is_found_wherever_it_stands(found: list[bytes], data: st.DataObject) -> None:
    wanted = data.draw(st.sampled_from(found))
    # A link to the wanted block, as DAG-CBOR writes it, in blocks before and behind it.
    linked = b"\xd8\x2a\x58\x25\x00" + cid_of(wanted) + b"zz"
    everything = data.draw(st.permutations([*found, linked, b"x" + linked]))
    car = car_of([(cid_of(block), block) for block in everything])
    assert search_block(car, cid_of(wanted)) in (wanted, None)  # a length that ends with 0x00 looks like a link
    assert Scan(car).block(cid_of(wanted)) == wanted


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=300))
def test_a_block_that_is_not_what_its_cid_says_is_refused(block: bytes, other: bytes) -> None:
    if block == other:
        return
    car = car_of([(cid_of(block), other)])
    assert search_block(car, cid_of(block)) is None
    with pytest.raises(FrameError, match=r"hash|missing|cut"):
        Scan(car).block(cid_of(block))
    assert search_block(car, cid_of(b"elsewhere")) is None
    with pytest.raises(FrameError, match="missing"):
        Scan(car).block(cid_of(b"elsewhere"))


def slow_scan(car: bytes) -> tuple[dict[bytes, tuple[int, int]], str]:
    """Return the sections of a CAR, read number by number, and why it ends there."""

    def number(at: int) -> tuple[int, int]:
        value = 0
        for i in range(5):
            value |= (car[at + i] & 127) << 7 * i
            if car[at + i] < 128:
                return value, at + i + 1
        raise FrameError("a varint of the CAR is too long")

    found: dict[bytes, tuple[int, int]] = {}
    try:
        header, at = number(0)
        at += header
        while at < len(car):
            length, at = number(at)
            if length < 36 or at + length > len(car):
                return found, "a section of the CAR is cut"
            found[car[at : at + 36]] = at + 36, at + length
            at += length
    except IndexError:
        return found, "the CAR is cut"
    except FrameError as error:
        return found, str(error)
    return found, ""


def changed(car: bytes, data: st.DataObject) -> bytes:
    """Return a CAR with some bytes changed, left out or put in; or as it is."""
    broken = bytearray(car)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(broken)))
        match data.draw(st.sampled_from(["cut", "remove", "insert", "high"])):
            case "cut":
                del broken[at:]
            case "remove":
                del broken[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                broken[at:at] = data.draw(st.binary(max_size=6) | st.sampled_from([b"\x80" * 3, b"\xff" * 6, car[:40]]))
            case _:
                broken[at : at + 1] = bytes([data.draw(st.sampled_from([0, 35, 36, 127, 128, 255]))])
    return bytes(broken)


@settings(max_examples=400)
@given(st.lists(blocks, max_size=6), st.data())
def test_a_scan_finds_what_a_slow_one_finds(found: list[bytes], data: st.DataObject) -> None:
    pairs = [(cid_of(data.draw(st.sampled_from([block, b"another"]))), block) for block in (*found, *found[:2])]
    car = changed(car_of([*pairs, (cid_of(b"car"), car_of(pairs))]), data)
    sections: dict[bytes, tuple[int, int]] = {}
    reason = ""
    try:
        _scan(car, sections)
    except FrameError as error:
        reason = str(error)
    assert (sections, reason) == slow_scan(car)


@given(st.binary(max_size=200))
def test_garbage_is_a_frame_error(data: bytes) -> None:
    try:
        kind, body = split_frame(data)
    except (FrameError, ErrorFrame):
        return
    assert isinstance(kind, str) and isinstance(body, dict)


def test_an_error_frame_says_its_name() -> None:
    frame = encode({"op": -1}) + encode({"error": "FutureCursor", "message": "no"})
    with pytest.raises(ErrorFrame) as caught:
        split_frame(frame)
    assert caught.value.name == "FutureCursor"


@settings(max_examples=300)
@given(st.data())
def test_a_mutated_real_frame_never_raises_anything_else(data: st.DataObject) -> None:
    frame = bytearray(data.draw(st.sampled_from(FRAMES)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                frame[at] ^= 1 << data.draw(st.integers(0, 7))
            case 1:
                del frame[at : at + data.draw(st.integers(1, 50))]
            case _:
                frame[at:at] = data.draw(st.binary(max_size=20))
        if not frame:
            return
    try:
        kind, body = split_frame(bytes(frame))
        events = decode_events(kind, body, frame_seq(body), frame_time(body) or 0, None)
    except (FrameError, ErrorFrame):
        return
    assert all(isinstance(value, bytes) for value in events.values)


FRAMES = recorded_frames()
