"""The messages of the topic: what stands in them and how they are read. Pure; the format has a version.

Events are Jetstream's JSON (``did, time_us, kind, commit | identity | account``) plus ``seq``, ``since`` in commits,
and the kind ``sync``; their key is the DID. Control messages have no key and an explicit partition. All times are
microseconds since the epoch. The encoder of events is the hot path in ``streams/protocol/events.py``.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import msgspec

from streams.errors import MismatchError

#: Version of the topic's format, in every control message. A reader refuses a higher one.
FORMAT_VERSION: Final = 1
#: Longest payload kept of a frame that could not be decoded, in bytes.
MAX_DEAD_PAYLOAD: Final = 256 * 1024
#: Reasons why a stretch that was asked for is not covered: GapKind.NOT_KEPT, then those of GapKind.NOT_KNOWN.
NOT_KEPT: Final = "the relay keeps no older events"
NOTHING_SHOWN: Final = "not known: the relay has sent nothing, so what it keeps is not known"
OLD_NOT_SHOWN: Final = "not known: the relay has sent nothing from its oldest cursor, while it sends live events"
CURSORS_REFUSED: Final = "not known: the relay refuses every cursor"
CURSOR_LOST: Final = (
    "not known: the relay answers the oldest cursor with live events, so it keeps none, or the cursor was not taken"
)


class GapKind(StrEnum):
    """The kind of a gap. Its ``reason`` says it to people."""

    #: Asked for, and the relay keeps no events that old.
    NOT_KEPT = "not_kept"
    #: Asked for, and the relay has neither shown nor denied that it has them.
    NOT_KNOWN = "not_known"
    #: The relay's window moved past our position while we were away.
    WINDOW_MOVED = "window_moved"
    #: The relay's sequence began anew: what followed our position in the old one is not known.
    SEQUENCE_RESET = "sequence_reset"
    #: A run began later than where the run before it had stopped.
    PASSED_OVER = "passed_over"
    #: The source topic's retention removed it before ``copy`` had read it.
    LOST_IN_COPY = "lost_in_copy"
    #: The topic's retention removed it before the sink had read it.
    EXPIRED = "expired"
    #: Of another version or producer.
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> GapKind:
        return cls.OTHER


class LetterKind(StrEnum):
    """The content of a dead letter. Its writer tells it, never its payload: that may be made to look like anything."""

    #: A message of the topic that the sink could not apply; its key is the letter's DID.
    MESSAGE = "message"
    #: A frame of the relay that the ingest could not decode.
    FRAME = "frame"
    #: A single operation (its block, or the commit's blocks) that the ingest could not decode, or could not send.
    OPERATION = "operation"
    #: A message of another producer, or of a version that we do not know.
    FOREIGN = "foreign"

    @classmethod
    def _missing_(cls, value: object) -> LetterKind:
        return cls.FOREIGN


class Commit(msgspec.Struct, gc=False):
    """One record operation of a #commit. ``record`` stays raw JSON, decoded by Postgres; empty where there is none."""

    rev: str
    operation: str
    collection: str
    rkey: str
    record: msgspec.Raw = msgspec.Raw()
    cid: str | None = None
    since: str | None = None


class Identity(msgspec.Struct, gc=False):
    """The body of an #identity frame."""

    did: str
    handle: str | None = None


class Account(msgspec.Struct, gc=False):
    """The body of an #account frame. ``status`` is None for an active account."""

    did: str
    active: bool
    status: str | None = None


class Sync(msgspec.Struct, gc=False):
    """The body of a #sync frame: the repository was set to ``rev``."""

    did: str
    rev: str


class Place(msgspec.Struct, gc=False):
    """Where an #identity, #account or #sync stands: in which sequence of the relay, and when by the stream's own time.

    ``sequence`` is the run in which the sequence began (µs): of one sequence the later seq is the later state. ``time``
    (µs) is up to when the stream had been read there, which no single clock decides; the event's own is a claim.
    """

    sequence: int
    time: int


class Message(msgspec.Struct, gc=False):
    """Any message of the topic, decoded as far as the sink needs it: ``kind`` says which fields are set."""

    kind: str
    did: str | None = None
    time_us: int | None = None
    seq: int | None = None
    commit: Commit | None = None
    identity: Identity | None = None
    account: Account | None = None
    sync: Sync | None = None
    place: Place | None = None


EVENT_KINDS: Final = frozenset({"commit", "identity", "account", "sync"})
CONTROL_KINDS: Final = frozenset({"watermark", "run", "gap", "dead_letter", "repo_end"})


class Control(msgspec.Struct, tag_field="kind", kw_only=True):
    """The fields of every control message. ``run`` is the ingest's start in µs; positions compare as (run, seq)."""

    version: int = FORMAT_VERSION
    relay: str
    run: int


class Watermark(Control, tag="watermark"):
    """Every event of this run with a lower or equal ``seq`` that belongs in this partition is before this message.

    Where the relay itself is out of order, an event that sixteen others overtook may stand behind it.

    ``topic_id`` is made when the topic is first written. ``time`` is that up to which the stream was read (None before
    the first frame). ``median`` and ``spread``: the times of the last frames, with which a sequence that began anew is
    compared. All in µs. ``event``: the event at ``seq``, by which it is recognised when it comes again; None where none
    was taken. ``newest`` is of versions up to 0.1.0: the newest time that any frame claimed. ``sequence``: the run in
    which this sequence of the relay began (None: written by an older version).
    """

    topic_id: str
    seq: int
    time: int | None
    median: int | None = None
    spread: int = 0
    event: str | None = None
    newest: int | None = None
    sequence: int | None = None


class Run(Control, tag="run"):
    """The beginning of a run, in partition 0 before the run's first watermark.

    ``mode``: ``start`` (an empty topic), ``resume``, ``restart`` (asked for: the cursor may go back), ``reset`` (the
    relay's sequence was reset), ``overlap`` (another relay, resumed by time). ``asked_from`` None means all that the
    relay keeps.
    """

    topic_id: str
    mode: Literal["start", "resume", "restart", "reset", "overlap"]
    days: int
    asked_from: int | None
    oldest_seq: int | None
    oldest_time: int | None
    from_seq: int
    head_seq: int | None
    head_time: int | None


class Gap(Control, tag="gap"):
    """A stretch of the relay's sequence that the topic does not hold, and why.

    ``gap_kind`` is None where an older version wrote the message: the schema's ``kind_of_gap`` then finds it.
    """

    from_seq: int | None
    to_seq: int | None
    from_time: int | None
    to_time: int | None
    reason: str
    gap_kind: GapKind | None = None


class DeadLetter(Control, tag="dead_letter"):
    """A frame, or an operation, that could not be decoded. ``payload``: base64 of MAX_DEAD_PAYLOAD bytes at most.

    ``letter_kind`` is None where an older version wrote the message: the schema's ``kind_of_letter`` then finds it.
    """

    seq: int | None
    did: str | None
    reason: str
    payload: str
    letter_kind: LetterKind | None = None


class RepoEnd(Control, tag="repo_end"):
    """Reserved: the end of a crawled repository, in its DID's partition."""

    did: str
    rev: str
    scope: str


class _Header(msgspec.Struct):
    """The fields of a control message of any version."""

    kind: str
    run: int
    version: int = FORMAT_VERSION


ControlMessage = Watermark | Run | Gap | DeadLetter | RepoEnd

#: See UNDECODABLE.
decode_message = msgspec.json.Decoder(Message).decode
decode_control = msgspec.json.Decoder(ControlMessage).decode
encode_control = msgspec.json.Encoder().encode
#: What decoding raises for bytes that are not a message of ours (a deeply nested record ends its recursion).
UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode_header: Final = msgspec.json.Decoder(_Header).decode


def check_version(value: bytes) -> None:
    """Refuse a control message of a newer format, which may not be readable as ours. Raises MismatchError."""
    try:
        version = _decode_header(value).version
    except UNDECODABLE:
        return
    if version > FORMAT_VERSION:
        said = version if version < 1 << 31 else "beyond any"  # a stranger's number may have thousands of digits
        raise MismatchError(
            f"The topic's format has version {said}, this program knows {FORMAT_VERSION}", "run a newer program."
        )


def dead_payload(raw: bytes) -> str:
    """Return ``raw`` as a DeadLetter's payload."""
    return base64.b64encode(raw[:MAX_DEAD_PAYLOAD]).decode("ascii")


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """A place in the relay's sequence: everything with a lower or equal seq is done. See ``Watermark``."""

    seq: int
    time: int | None
    median: int | None = None
    spread: int = 0
    event: str | None = None
