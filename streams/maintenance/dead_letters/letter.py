"""A dead letter, if it can be replayed, and the messages that its frame gives. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from streams.messages import MAX_DEAD_PAYLOAD, LetterKind
from streams.protocol.events import SKIPPED_TYPES, decode_events, frame_seq, frame_time
from streams.protocol.frames import ErrorFrame, FrameError, split_frame

CUT: Final = "its payload was cut at 256 KB"
EMPTY: Final = "it has no payload"
NO_KEY: Final = "its message had no key of ours"
OPERATION: Final = "it is a single operation, without its frame: only the relay, or the account's server, has it whole"


@dataclass(frozen=True, slots=True)
class Letter:
    """A row of ``dead_letters``."""

    partition: int
    offset: int
    seq: int | None
    did: str | None
    collection: str | None
    rkey: str | None
    time: datetime | None
    reason: str
    payload: bytes
    created_at: datetime
    kind: LetterKind

    @property
    def obstacle(self) -> str | None:
        """Return why it cannot be replayed; None where it can."""
        if self.kind is LetterKind.FOREIGN:
            return NO_KEY
        if self.kind is LetterKind.OPERATION:
            return OPERATION
        if not self.payload:
            return EMPTY
        return CUT if len(self.payload) >= MAX_DEAD_PAYLOAD else None

    @property
    def encoded(self) -> str:
        """Return the payload in base64."""
        return base64.b64encode(self.payload).decode("ascii")


class LetterMessage(NamedTuple):
    """A message as the topic had it."""

    offset: int
    key: bytes | None
    value: bytes | None


class Unpacked(NamedTuple):
    """The messages of a frame, and why some of its operations still give none."""

    messages: list[LetterMessage]
    bad: list[str]


def letter_of(row: Mapping[str, Any]) -> Letter:
    """Return the letter of a row with these columns."""
    return Letter(**{**row, "payload": row["payload"] or b"", "kind": LetterKind(row["kind"])})


def unpack(letter: Letter, keep: Callable[[str], bool] | None) -> Unpacked:
    """Return the messages of a frame that the ingest could not decode; a frame without a time has 0."""
    try:
        kind, body = split_frame(letter.payload)
        if kind in SKIPPED_TYPES:
            return Unpacked([], [])
        events = decode_events(kind, body, frame_seq(body), frame_time(body) or 0, keep)
    except (FrameError, ErrorFrame) as error:
        return Unpacked([], [str(error)])
    key = events.did.encode()
    return Unpacked(
        [LetterMessage(letter.offset, key, value) for value in events.values], [b.reason for b in events.bad]
    )
