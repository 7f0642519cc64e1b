"""Frames, and files of frames: ``[u32 big-endian length][frame]…``, gzipped where the name ends in ``.gz``.

The form of tests/fixtures/pds/frames.bin.gz. A frame is the payload of one websocket message, byte for byte.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

import cbor2
import libipld

from streams.errors import SettingsError

_LENGTH: Final = struct.Struct(">I")
#: A length above this is not a frame's but a file that is not a recording.
MAX_FRAME: Final = 64 * 1024 * 1024


class Frame(NamedTuple):
    """One frame as the relay keeps it. ``time_us`` is the frame's own time, in microseconds since the epoch.

    A frame that cannot be decoded has the ``seq`` and the time of the frame before it: that is its place in the stream.
    ``anew``: the relay's sequence begins anew with it.
    """

    seq: int
    time_us: int
    data: bytes
    text: bool = False
    anew: bool = False


def read_frames(path: Path) -> Iterator[bytes]:
    """Yield the frames of a recording, in order. Raises SettingsError if it is not one, or ends inside a frame."""
    try:
        with cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as file:
            while head := file.read(4):
                size = _LENGTH.unpack(head)[0] if len(head) == 4 else MAX_FRAME + 1
                frame = file.read(size) if size <= MAX_FRAME else b""
                if len(frame) != size:
                    raise SettingsError(f"{path} is not a recording of frames, or is cut off.")
                yield frame
    except (OSError, EOFError) as error:
        raise SettingsError(f"The recording {path} cannot be read: {error}.") from error


def write_frames(path: Path, frames: Iterable[bytes]) -> int:
    """Write a recording. Return how many frames it has."""
    count = 0
    with cast(IO[bytes], gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb")) as file:
        for frame in frames:
            file.write(_LENGTH.pack(len(frame)) + frame)
            count += 1
    return count


def placed(frames: Iterable[bytes], after: Frame | None = None) -> Iterator[Frame]:
    """Yield the frames with the seq and time that they carry themselves. ``after``: the frame before the first."""
    seq, time_us = (after.seq, after.time_us) if after else (0, 0)
    for data in frames:
        try:
            body = _body(data)
            seq, time_us = int(body["seq"]), microseconds(body["time"])
        except (ValueError, KeyError, TypeError, IndexError):
            pass  # not decodable: it stays where it stood
        yield Frame(seq, time_us, data)


def _body(data: bytes) -> Any:  # noqa: ANN401 (what a stranger wrote)
    try:
        return libipld.decode_dag_cbor_multi(data)[1]  # much faster, and strict
    except ValueError:
        parts = frame_parts(data)
        return parts and parts[1]


def frame_parts(data: bytes) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return header and body of a frame in any form of CBOR, links as ``encode_value`` takes them, or None."""
    decoder = cbor2.CBORDecoder(io.BytesIO(data))
    try:
        header, body = decoder.decode(), decoder.decode()
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError):
        return None
    return (header, body) if isinstance(header, dict) and isinstance(body, dict) else None


def microseconds(time: str) -> int:
    """Read an ISO 8601 time (UTC, if it names no zone) as microseconds since the epoch. Raises ValueError."""
    moment = datetime.fromisoformat(time)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def iso_time(time_us: int) -> str:
    """Return microseconds since the epoch as frames write a time: UTC with milliseconds, rounded down."""
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_us // 1000 % 1000:03d}Z"
