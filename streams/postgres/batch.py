"""Messages of one partition become the rows of one transaction. Pure: no I/O, no clock, nothing random.

It is step 4 of the commit path, "merge" (docs/architecture.md).

Within a batch the highest rev of a key wins, on a tie the later message, as in the table: so merging is the same for
any slicing and any replay. What cannot become a row, and what Postgres could not even be told (a NUL, a key that no
index holds), is a dead letter. An account's deletion and a #sync part its records into those before and those after:
the batch has stages, and nearly always one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from streams.errors import MismatchError
from streams.messages import (
    MAX_DEAD_PAYLOAD,
    UNDECODABLE,
    Commit,
    DeadLetter,
    Gap,
    LetterKind,
    Message,
    Run,
    Watermark,
    check_version,
    decode_control,
    decode_message,
)
from streams.postgres.columns import Grouped, Row, group
from streams.postgres.new_rows import SAME_TIME
from streams.protocol.syntax import is_did, is_nsid, is_rkey
from streams.protocol.tid import MAX_CLOCK_ID, MAX_TIME_US, is_tid, tid_from_us
from streams.text import printable

#: A rev may be so far ahead of both the frame's time and ours, in µs; further, it would block its key for ever.
MAX_AHEAD_US: Final = 3_600_000_000
#: An #identity, #account or #sync that claims a time so far from that of its place in the stream, in µs, is counted.
MAX_ODD_US: Final = 3_600_000_000
#: How far behind its place in the stream a deletion reaches records that it has overtaken, in µs.
MAX_OVERTAKEN_US: Final = 300_000_000
#: Longest key in bytes, DID, collection and rkey together: a btree's row holds 2,704 with its headers.
MAX_KEY_BYTES: Final = 2_660
MAX_SEQ: Final = (1 << 63) - 1
MAX_HANDLE: Final = 253
MAX_STATUS: Final = 64
#: Collections are hostile strings without end: what is remembered of them is bounded.
MAX_REMEMBERED: Final = 10_000

_STORED, _FILTERED, _INVALID = 1, 2, 3
_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_NUMBER: Final = re.compile(rb'"(seq|time_us)": ?(\d{1,18})\b')


class TopicRecord(Protocol):
    """A Kafka record, as far as the sink reads it."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102


#: What was said last of an account, in each sequence of the relay.
States = dict[tuple[str, int | None], dict[str, Any]]


@dataclass(slots=True)
class Stage:
    """Deletions and syncs, then account states, then the records up to their account's next deletion or sync."""

    events: list[dict[str, Any]] = field(default_factory=list)
    accounts: States = field(default_factory=dict)
    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)


@dataclass(slots=True)
class Batch:
    """The rows of one transaction. ``received`` counts events and the ingest's dead letters."""

    received: int = 0
    stages: list[Stage] = field(default_factory=lambda: [Stage()])
    handles: States = field(default_factory=dict)
    dead: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    watermark: Watermark | None = None
    topic_id: str | None = None
    #: Records of unwanted collections.
    filtered: int = 0
    #: Records with a NUL that became U+FFFD.
    replaced: int = 0
    #: Events about accounts that claim a time far from that of their place in the stream.
    odd_claims: int = 0
    #: Stage of the next record of an account, where it is not the first.
    stage_of: dict[str, int] = field(default_factory=dict)

    def grouped(self, *, expect_new: bool = False) -> Grouped:
        """Return the record rows as columns: stage by stage, those that are expected to be new first."""
        return group([stage.rows.values() for stage in self.stages], expect_new=expect_new)

    def extras(self) -> str | None:
        """Return everything but the records, as the JSON that ``apply_batch`` reads; None where that is nothing."""
        extras: dict[str, Any] = {}
        if self.handles:
            extras["handles"] = list(self.handles.values())
        if len(self.stages) > 1 or self.stages[0].accounts:
            extras["stages"] = stages = []
            until = 0
            for stage in self.stages:
                until += len(stage.rows)
                entry: dict[str, Any] = {"until": until, "events": sorted(stage.events, key=_did)}
                if stage.accounts:
                    entry["accounts"] = list(stage.accounts.values())
                stages.append(entry)
        if self.odd_claims:
            extras["odd_claims"] = self.odd_claims
        extras |= {name: rows for name, rows in self._lists() if rows}
        return msgspec.json.encode(extras).decode() if extras else None

    def _lists(self) -> tuple[tuple[str, list[dict[str, Any]]], ...]:
        return ("dead", self.dead), ("gaps", self.gaps), ("runs", self.runs)


class BatchBuilder:
    """Makes batches. ``keep`` says which collections are stored (None: all); others are skipped."""

    def __init__(self, keep: Callable[[str], bool] | None = None) -> None:
        self._keep = keep
        self._fates: dict[str, int] = {}

    def build(self, records: Sequence[TopicRecord], now_us: int) -> Batch:
        """Return the batch of consecutive messages of one partition; ``now_us`` is the present in µs since the epoch.

        Raises MismatchError where the topic's format is newer than this program, or two topics' messages are mixed.
        """
        batch = Batch()
        self._fill(batch, records, tid_from_us(now_us + MAX_AHEAD_US, MAX_CLOCK_ID))
        return batch

    def _fill(self, batch: Batch, records: Sequence[TopicRecord], latest_rev: str) -> None:
        """Put the messages into the batch. The hot path: few calls for a usual record. The unusual leaves it."""
        first, stages, stage_of, fates = batch.stages[0].rows, batch.stages, batch.stage_of, self._fates
        for message in records:
            if (key := message.key) is None:
                _control(batch, message)
                continue
            batch.received += 1
            try:
                event = decode_message(message.value or b"")
            except UNDECODABLE as error:
                _bury(batch, message, f"not an event of ours: {printable(str(error))}", _glimpse(message))
                continue
            commit, did, time = event.commit, event.did, event.time_us
            if commit is None or did is None or time is None or event.kind != "commit":
                _other_event(batch, message, event, latest_rev)
                continue
            collection, rkey, rev, seq = commit.collection, commit.rkey, commit.rev, event.seq
            fate = fates.get(collection) or self._judge(collection)
            if (
                did.encode() != key
                or fate == _INVALID
                or rev > latest_rev
                or not (is_tid(rev) and is_did(did) and is_rkey(rkey))
                or len(did) + len(collection) + len(rkey) > MAX_KEY_BYTES
                or not 0 <= time <= MAX_TIME_US
                or (seq is not None and not 0 <= seq <= MAX_SEQ)
            ) and _bury_refused(batch, message, event, commit, key):
                continue
            if fate == _FILTERED:
                batch.filtered += 1
                continue
            cid = body = None
            if commit.operation != "delete":
                cid, body = commit.cid, bytes(commit.record)
                if (
                    cid is None or body[:1] != b"{" or not (cid.isalnum() and cid.isascii())
                    or commit.operation not in ("create", "update") or not (body.isascii() or _is_text(body))
                ):  # fmt: skip
                    _bury(batch, message, _bad_record(commit, body), event)
                    continue
                if b"\\" in body and b"\\u0000" in body:  # most records hold no backslash
                    body = _without_nul(batch, body)
            rows = stages[stage_of.get(did, 0)].rows if stage_of else first
            held = rows.get(place := (did, collection, rkey))
            if held is None or rev > held[3] or (rev == held[3] and cid != held[4]):
                is_new = rkey[:SAME_TIME] == rev[:SAME_TIME] and commit.operation == "create"
                rows[place] = (did, collection, rkey, rev, cid, body, seq, time, message.offset, is_new)

    def _judge(self, collection: str) -> int:
        """Return what becomes of the collection's records; the answer is remembered."""
        if not is_nsid(collection):
            return _INVALID
        fate = _STORED if self._keep is None or self._keep(collection) else _FILTERED
        if len(self._fates) >= MAX_REMEMBERED:
            self._fates.clear()
        self._fates[collection] = fate
        return fate


def payload(value: bytes | None) -> str:
    """Return a message's value as a dead letter's payload: base64, cut to MAX_DEAD_PAYLOAD bytes."""
    return base64.b64encode((value or b"")[:MAX_DEAD_PAYLOAD]).decode("ascii")


def _indexable(did: str | None) -> str | None:
    """Return a dead letter's account, where it is a DID: the index that finds it holds no longer text."""
    return did if did is not None and is_did(did) else None


def _glimpse(message: TopicRecord) -> Message:
    """Return what can be read of a message that cannot be decoded: its account, for erasure; its seq, for replays."""
    did = (message.key or b"").decode("utf-8", "replace")
    found = {match[1]: int(match[2]) for match in _NUMBER.finditer((message.value or b"")[:4096])}
    return Message("", did if is_did(did) else None, found.get(b"time_us"), found.get(b"seq"))


def _did(event: dict[str, Any]) -> str:
    return str(event["did"])


def _bury(batch: Batch, message: TopicRecord, reason: str, event: Message | None = None) -> None:
    """Make the message a dead letter, with what is known of it."""
    commit = event.commit if event is not None else None
    seq, time = (event.seq, event.time_us) if event is not None else (None, None)
    batch.dead.append(
        {
            "offset": message.offset,
            "seq": seq if seq is not None and 0 <= seq <= MAX_SEQ else None,
            "time": time if time is not None and 0 <= time <= MAX_TIME_US else None,
            "did": _indexable(event.did) if event is not None else None,
            "collection": printable(commit.collection, 512) if commit is not None else None,
            "rkey": printable(commit.rkey, 512) if commit is not None else None,
            "reason": reason,
            "payload": payload(message.value),
            "kind": LetterKind.MESSAGE if _has_our_key(message, event) else LetterKind.FOREIGN,
        }
    )


def _has_our_key(message: TopicRecord, event: Message | None) -> bool:
    """Return True where the key is the event's DID: then the letter can be tried again as this message."""
    return event is not None and event.did is not None and is_did(event.did) and message.key == event.did.encode()


def _envelope_refusal(event: Message, key: bytes) -> str | None:
    """Return why an event's envelope is refused, or None."""
    if event.did is None or not is_did(event.did):
        return "not an event of ours: no valid DID"
    if event.did.encode() != key:
        return "not an event of ours: the key is not the DID"
    if event.time_us is None or not 0 <= event.time_us <= MAX_TIME_US:
        return "not an event of ours: no valid time_us"
    if event.seq is not None and not 0 <= event.seq <= MAX_SEQ:
        return "not an event of ours: seq is out of range"
    place = event.place
    if place is not None and not (0 <= place.sequence <= MAX_TIME_US and 0 <= place.time <= MAX_TIME_US):
        return "not an event of ours: its place is out of range"
    return None


def _refusal(event: Message, commit: Commit, key: bytes) -> str | None:  # noqa: PLR0911 (one a reason)
    """Return why a commit is refused, or None where only our own clock was behind."""
    reason = _envelope_refusal(event, key)
    if reason is not None:
        return reason
    if not is_nsid(commit.collection):
        return "the collection is not a valid NSID"
    if not is_rkey(commit.rkey):
        return "the rkey is not valid"
    if not is_tid(commit.rev):
        return f"the rev {printable(commit.rev, 20)!r} is not a valid TID"
    if commit.rev > tid_from_us((event.time_us or 0) + MAX_AHEAD_US, MAX_CLOCK_ID):
        return f"the rev {commit.rev} is more than an hour in the future"
    size = len(event.did or "") + len(commit.collection) + len(commit.rkey)
    if size > MAX_KEY_BYTES:
        return f"the key has {size} bytes, the index holds {MAX_KEY_BYTES}"
    return None


def _bury_refused(batch: Batch, message: TopicRecord, event: Message, commit: Commit, key: bytes) -> bool:
    """Make a commit that is refused a dead letter. Return False where only our own clock was behind."""
    reason = _refusal(event, commit, key)
    if reason is not None:
        _bury(batch, message, reason, event)
    return reason is not None


def _is_text(body: bytes) -> bool:
    """Return True where the bytes are UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_nul(batch: Batch, body: bytes) -> bytes:
    """Return a record with each NUL replaced, which jsonb cannot hold. Count the record if it has one."""
    body, count = _NUL.subn(rb"\1\\ufffd", body)
    batch.replaced += count > 0
    return body


def _bad_record(commit: Commit, body: bytes) -> str:
    """Return why an operation with a record is refused."""
    if not _is_text(body):
        return "the record is not UTF-8"
    if body[:1] != b"{":
        return "not an event of ours: no record"
    if commit.cid is None:
        return "not an event of ours: no CID"
    if not (commit.cid.isalnum() and commit.cid.isascii()):
        return "the CID is not valid"
    return f"unknown operation {printable(commit.operation)!r}"


def _other_event(batch: Batch, message: TopicRecord, event: Message, latest_rev: str) -> None:
    """Add an identity, account or sync event; bury anything else."""
    reason = _envelope_refusal(event, message.key or b"")
    body = event.identity or event.account or event.sync
    if reason is None and event.kind not in ("identity", "account", "sync"):
        reason = f"not an event of ours: kind {printable(event.kind)!r}"
    elif reason is None and (body is None or body.did != event.did or getattr(event, event.kind) is not body):
        reason = f"not an event of ours: {event.kind} without its body"
    if reason is None and event.time_us is not None:
        base = _base(batch, event, event.time_us)
        if event.identity is not None:
            reason = _identity(batch, base, event.identity.handle)
        elif event.account is not None:
            reason = _account(batch, base, event.account.active, event.account.status, event.time_us)
        elif event.sync is not None:
            reason = _sync(batch, base, event.sync.rev, max(latest_rev, _latest(event.time_us)))
    if reason is not None:
        _bury(batch, message, reason, event)


def _base(batch: Batch, event: Message, claimed: int) -> dict[str, Any]:
    """Return an event's account and its order: by seq in one sequence, by the believed time between sequences.

    Without a place (of an older version, or a foreign producer) what it claims, in µs, is all that is known.
    """
    place = event.place
    if place is None or event.seq is None:
        return {"did": event.did, "sequence": None, "time": claimed, "seq": event.seq or 0}
    batch.odd_claims += abs(claimed - place.time) > MAX_ODD_US
    return {"did": event.did, "sequence": place.sequence, "time": place.time, "seq": event.seq}


def _latest(time_us: int) -> str:
    """Return the latest rev that an event of this time may name."""
    return tid_from_us(time_us + MAX_AHEAD_US, MAX_CLOCK_ID)


def _keep_later(rows: States, row: dict[str, Any]) -> None:
    """Keep the later of the row and what is held of its account: of one sequence by seq, else by time and seq.

    The time that is held is the newest of the sequence: a later seq is no earlier.
    """
    place = row["did"], row["sequence"]
    held = rows.get(place)
    if held is None:
        rows[place] = row
    elif row["sequence"] is None:
        if (row["time"], row["seq"]) > (held["time"], held["seq"]):
            rows[place] = row
    else:
        later = row if row["seq"] > held["seq"] else held
        rows[place] = {**later, "time": max(row["time"], held["time"])}


def _identity(batch: Batch, base: dict[str, Any], handle: str | None) -> str | None:
    """Add a handle. An event without one says nothing that we store: it is skipped."""
    if handle is not None:
        if len(handle) > MAX_HANDLE or "\0" in handle:
            return "the handle is not valid"
        _keep_later(batch.handles, {**base, "handle": handle})
    return None


def _account(batch: Batch, base: dict[str, Any], active: bool, status: str | None, claimed: int) -> str | None:
    if status is not None and (len(status) > MAX_STATUS or "\0" in status):
        return "the status is not valid"
    if status == "deleted" and not active:
        _part(batch, _deletion(base, claimed))
    else:
        accounts = batch.stages[batch.stage_of.get(base["did"], 0)].accounts
        _keep_later(accounts, {**base, "active": active, "status": status})
    return None


def _deletion(base: dict[str, Any], claimed: int) -> dict[str, Any]:
    """Return a deletion and how far it reaches: to the time that it claims, but not beyond its place in the stream.

    Records that it has overtaken have a lower seq; where that can be told it reaches a little further.
    """
    until = min(claimed, base["time"])
    event = {**base, "kind": "deletion", "until": until, "rev": tid_from_us(until, MAX_CLOCK_ID)}
    if base["sequence"] is not None:
        event["reach"] = tid_from_us(min(claimed, base["time"] + MAX_OVERTAKEN_US), MAX_CLOCK_ID)
    return event


def _sync(batch: Batch, base: dict[str, Any], rev: str, latest_rev: str) -> str | None:
    if not is_tid(rev):
        return f"the rev {printable(rev, 20)!r} is not a valid TID"
    if rev > latest_rev:
        return f"the rev {rev} is more than an hour in the future"
    _part(batch, {**base, "kind": "sync", "rev": rev})
    return None


def _part(batch: Batch, event: dict[str, Any]) -> None:
    """Put the account's records that come after this event into its next stage."""
    stage = batch.stage_of.get(event["did"], 0) + 1
    batch.stage_of[event["did"]] = stage
    if stage == len(batch.stages):
        batch.stages.append(Stage())
    batch.stages[stage].events.append(event)


def _control(batch: Batch, message: TopicRecord) -> None:
    """Add a control message. One that is not the ingest's comes from a foreign producer: it becomes a dead letter."""
    value = message.value or b""
    check_version(value)
    try:
        control = decode_control(value)
    except UNDECODABLE as error:
        batch.received += 1
        _bury(batch, message, f"not an event of ours: no key, and no control message: {printable(str(error))}")
        return
    numbers = [v for v in msgspec.structs.astuple(control) if isinstance(v, int)]
    if b"\\u0000" in value or not all(-1 <= number <= MAX_TIME_US for number in numbers):
        batch.received += 1
        _bury(batch, message, "not an event of ours: a control message with values out of range")
    elif isinstance(control, Watermark):
        _check_topic(batch, control.topic_id)
        mark = batch.watermark
        if mark is None or (control.run, control.seq) >= (mark.run, mark.seq):
            batch.watermark = control
    elif isinstance(control, Run):
        # Its id holds from the run's first watermark on: an ingest that died between the two is followed by one that
        # finds no watermark, and makes an id of its own.
        batch.runs.append(msgspec.to_builtins(control))
    elif isinstance(control, Gap):
        batch.gaps.append({**msgspec.to_builtins(control), "offset": message.offset})
    elif isinstance(control, DeadLetter):
        batch.received += 1
        batch.dead.append(
            {
                "offset": message.offset,
                "seq": control.seq,
                "did": _indexable(control.did),
                "reason": printable(control.reason, 500) or "(no reason was given)",
                "payload": payload(_unpacked(control.payload)),
                "kind": _kind_of(control),
            }
        )


def _kind_of(letter: DeadLetter) -> LetterKind | None:
    """Return what the ingest says that its letter holds. Of a message it makes none: a foreign producer says so."""
    return LetterKind.FOREIGN if letter.letter_kind is LetterKind.MESSAGE else letter.letter_kind


def _unpacked(text: str) -> bytes:
    """Return a payload's bytes; text that is not base64 is kept as it is."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()


def _check_topic(batch: Batch, topic_id: str) -> None:
    if batch.topic_id is not None and batch.topic_id != topic_id:
        raise MismatchError(
            "The topic was re-created: its messages are of two topics.", "Use a new SINK_GROUP and SINK_SCHEMA."
        )
    batch.topic_id = topic_id
