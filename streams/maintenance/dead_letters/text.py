"""A dead letter for people: every field, and as much of its payload as can be read. Nothing hostile gets through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from streams.maintenance.dead_letters.letter import Letter
from streams.messages import LetterKind
from streams.protocol.frames import ErrorFrame, FrameError, split_frame
from streams.text import format_time, printable

#: Most lines of a payload, and characters of one.
LINES: Final = 200
WIDTH: Final = 500
#: Bytes of a payload that is not text, as a dump of so many a line.
DUMPED: Final = 512
DUMP_WIDTH: Final = 16

_KINDS: Final = {
    LetterKind.MESSAGE: "a message of the topic",
    LetterKind.FRAME: "a frame of the relay",
    LetterKind.OPERATION: "what is left of an operation (its block, or the commit's blocks)",
    LetterKind.FOREIGN: "a message of a foreign producer",
}


def description(letter: Letter) -> Iterator[str]:
    """Yield the lines that describe a letter."""
    obstacle = letter.obstacle
    fields = {
        "at": f"partition {letter.partition}, offset {letter.offset}",
        "kind": letter.kind,
        "reason": letter.reason,
        "did": letter.did,
        "collection": letter.collection,
        "rkey": letter.rkey,
        "seq": letter.seq,
        "time": format_time(letter.time),
        "written": format_time(letter.created_at),
        "holds": f"{_KINDS[letter.kind]}, {len(letter.payload):,} bytes",
        "replay": "can be tried" if obstacle is None else f"not possible: {obstacle}",
    }
    for name, value in fields.items():
        yield f"{name:12}{'-' if value is None else printable(str(value), 3000)}"
    yield ""
    lines = _readable(letter.payload)
    for _, line in zip(range(LINES), lines, strict=False):
        yield line if len(line) <= WIDTH else f"{line[:WIDTH]} …"
    if next(lines, None) is not None:
        yield "… (--raw FILE has all of it)"


def _readable(payload: bytes) -> Iterator[str]:
    """Yield the payload as JSON, as the parts of a frame, as text, or as bytes: the first that it is."""
    try:
        yield from _pretty(json.loads(payload))
        return
    except (ValueError, RecursionError):
        pass
    try:
        kind, body = split_frame(payload)
        yield from _pretty({"t": kind, **body})
        return
    except (FrameError, ErrorFrame, ValueError, RecursionError):
        pass
    try:
        text = None if b"\0" in payload else payload.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    yield from _dump(payload) if text is None else (printable(line, WIDTH + 1) for line in text.splitlines())


def _pretty(value: object) -> Iterator[str]:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_bytes)
    return (printable(line, WIDTH + 1) for line in text.splitlines())


def _bytes(value: Any) -> str:  # noqa: ANN401
    """Return a text for what JSON has no form for."""
    return f"({len(value):,} bytes)" if isinstance(value, bytes) else type(value).__name__


def _dump(payload: bytes) -> Iterator[str]:
    for at in range(0, min(len(payload), DUMPED), DUMP_WIDTH):
        part = payload[at : at + DUMP_WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{at:06x}  {part.hex(' '):47}  {text}"
    if len(payload) > DUMPED:
        yield f"… {len(payload) - DUMPED:,} bytes more: --raw FILE has all of them"
