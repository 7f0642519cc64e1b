"""The dead letter that stands for a record which the topic cannot hold. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from streams.errors import MismatchError
from streams.messages import DeadLetter, LetterKind, Watermark, dead_payload, decode_control, decode_message

#: Bytes of the record that the letter keeps: all of it would be as large.
KEPT: Final = 16 * 1024


class RefusedRecord(NamedTuple):
    """A message that the topic refused; ``now_ms``: its time."""

    key: bytes | None
    value: bytes
    now_ms: int


def letter_for(record: RefusedRecord, run: Watermark | None, topic: str) -> DeadLetter:
    """Return the letter for an event, or for a letter one without payload. ``run``: a watermark of the run.

    Raises MismatchError if the topic cannot even hold a message of our own.
    """
    if record.key is None or run is None:
        return _shorter(record, topic)
    try:
        event = decode_message(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        seq, what = None, "an event"
    else:
        commit = event.commit
        seq = event.seq
        what = event.kind if commit is None else f"{commit.operation} {commit.collection}/{commit.rkey}"
    return DeadLetter(
        relay=run.relay, run=run.run, seq=seq, did=record.key.decode(errors="replace"),
        reason=f"{what}: the record is too large for the topic: {len(record.value)} bytes",
        payload=dead_payload(record.value[:KEPT]), letter_kind=LetterKind.OPERATION,
    )  # fmt: skip


def _shorter(record: RefusedRecord, topic: str) -> DeadLetter:
    letter = decode_control(record.value) if record.key is None else None
    if not isinstance(letter, DeadLetter) or not letter.payload:
        raise MismatchError(
            f"The topic {topic} refuses a message of {len(record.value)} bytes for its size",
            "its max.message.bytes, or the broker's message.max.bytes, must be larger.",
        )
    return msgspec.structs.replace(letter, payload="")
