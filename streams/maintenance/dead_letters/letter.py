"""What a dead letter holds: a message of the topic, a whole frame, or an operation; and if it can be replayed.

Pure. The kind is told by who wrote the letter, never by its payload: the bytes are a stranger's, and could be made to
look like another account's event.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from streams.messages import MAX_DEAD_PAYLOAD
from streams.protocol.events import SKIPPED_TYPES, decode_events, frame_seq, frame_time
from streams.protocol.frames import ErrorFrame, FrameError, split_frame

#: What the sink says of a message in a partition of ours that it did not expect there (``streams/postgres/batch.py``).
_FOREIGN: Final = "not an event of ours"
_WRONG_KEY: Final = f"{_FOREIGN}: the key is not the DID"

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

    @property
    def kind(self) -> Literal["message", "frame", "operation", "foreign"]:
        """What the payload is.

        Only the sink gives a letter a time: what it buries is a message, its key the DID. The ingest names the account
        of an operation, and of a frame none; its letters stand in partition 0.
        """
        if self.time is not None:
            return "message" if self.did is not None and self.reason != _WRONG_KEY else "foreign"
        if self.did is not None:
            return "operation"
        return "foreign" if self.partition != 0 or self.reason.startswith(_FOREIGN) else "frame"

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be replayed; None where it can."""
        kind = self.kind
        if kind == "foreign":
            return NO_KEY
        if kind == "operation":
            return OPERATION
        if not self.payload:
            return EMPTY
        return CUT if len(self.payload) >= MAX_DEAD_PAYLOAD else None

    @property
    def encoded(self) -> str:
        """The payload in base64."""
        return base64.b64encode(self.payload).decode("ascii")


class Message(NamedTuple):
    """A message as the topic had it."""

    offset: int
    key: bytes | None
    value: bytes | None


class Unpacked(NamedTuple):
    """What a frame gives now: its messages, and why some of its operations still give none."""

    messages: list[Message]
    bad: list[str]


def letter_of(row: Mapping[str, Any]) -> Letter:
    """The letter of a row with these columns."""
    return Letter(**{**row, "payload": row["payload"] or b""})


def unpack(letter: Letter, keep: Callable[[str], bool] | None) -> Unpacked:
    """The messages of a frame that the ingest could not decode; a frame without a time has 0."""
    try:
        kind, body = split_frame(letter.payload)
        if kind in SKIPPED_TYPES:
            return Unpacked([], [])
        events = decode_events(kind, body, frame_seq(body), frame_time(body) or 0, keep)
    except (FrameError, ErrorFrame) as error:
        return Unpacked([], [str(error)])
    key = events.did.encode()
    return Unpacked([Message(letter.offset, key, value) for value in events.values], [b.reason for b in events.bad])
