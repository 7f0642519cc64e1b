"""The ingest's hot path: each frame's way from the websocket to the publisher. No I/O of its own.

Every outcome is counted: published, seen before, filtered, skipped by type, dead.
"""

from __future__ import annotations

import time as clock
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streams.kafka.publisher import Publisher
from streams.messages import DeadLetter, Gap, GapKind, LetterKind, dead_payload
from streams.protocol.events import (
    MAX_DID,
    MAX_REV,
    SKIPPED_TYPES,
    Keep,
    decode_events,
    event_identity,
    frame_seq,
    frame_time,
)
from streams.protocol.frames import FrameError, split_frame
from streams.protocol.tid import is_tid, us_from_tid
from streams.sources.firehose.foreign import FIREHOSE_TYPES, Doubt
from streams.sources.firehose.sequence.arrivals import NEW, SEEN, Missing, Verdict
from streams.sources.firehose.sequence.continuity import Continuity
from streams.text import printable


class SequenceReset(Exception):  # noqa: N818 (an event in the relay's life, not a fault of ours)
    """The relay's sequence was reset, as ``Continuity`` or FutureCursor says."""


class AskAgain(Exception):  # noqa: N818 (no fault of ours)
    """The relay must be asked for everything again: see ``Continuity.asks_again``."""


@dataclass(slots=True)
class FrameCounts:
    """The numbers of frames and events since the process began, by what became of them."""

    frames: int = 0
    nbytes: int = 0
    events: int = 0
    #: Passed over, because this very event was taken before.
    seen: int = 0
    #: Not known by their seq: no frames of the protocol, or without one.
    unreadable: int = 0
    #: Taken, although their seq was below the position: the relay sent them out of order, or was reset.
    late: int = 0
    filtered: int = 0
    dead: int = 0
    #: Of the dead: operations of frames that could otherwise be decoded.
    dead_operations: int = 0
    text: int = 0
    #: Frames that only the tolerant decoder could read.
    tolerated: int = 0
    gaps: int = 0
    skipped_types: Counter[str] = field(default_factory=Counter)

    @property
    def taken(self) -> int:
        """Return how many frames brought something that was not seen before."""
        return self.frames - self.seen - self.unreadable


class Intake:
    """The way of one run's frames. ``head_seq``: call ``on_head`` when it is reached (None: never)."""

    def __init__(
        self,
        publisher: Publisher,
        continuity: Continuity,
        counts: FrameCounts,
        *,
        relay: str,
        run: int,
        sequence: int,
        keep: Keep | None,
        head_seq: int | None,
        on_head: Callable[[], None],
        on_tolerated: Callable[[], None],
        on_turn: Callable[[], int],
        doubt: Doubt,
    ) -> None:
        self.publisher = publisher
        self.continuity = continuity
        self.counts = counts
        self.relay = relay
        self.run = run
        self.sequence = sequence
        self.keep = keep
        self._on_head = on_head
        self._on_tolerated = on_tolerated
        self._on_turn = on_turn
        self._doubt = doubt
        self._held: list[DeadLetter] = []
        self._head_seq = head_seq
        self._followed = continuity.position

    def reconnected(self) -> int:
        """Begin a connection. Return the cursor to ask for."""
        self._doubt.begin_again()
        cursor = self.continuity.reconnected()
        self._follow()
        return cursor

    def frame(self, data: bytes) -> None:
        """Take one frame. Raises ErrorFrame (the relay's), SequenceReset, AskAgain, ForeignStreamError."""
        counts = self.counts
        counts.frames += 1
        counts.nbytes += len(data)
        try:
            kind, body = split_frame(data, self._on_tolerated)
            if not self._doubt.proven and not self._proves(kind, body, data):
                return
            if kind in SKIPPED_TYPES:
                self._skip(kind, body, data)
                return
            seq = frame_seq(body)
        except FrameError as error:
            self._no_frame(str(error), data)
            return
        continuity = self.continuity
        time = frame_time(body)
        did, rev = body.get("repo"), body.get("rev")
        if type(did) is not str or type(rev) is not str or len(rev) > MAX_REV or len(did) > MAX_DID:
            did, rev = event_identity(kind, body, data)
        verdict = continuity.see(seq, did, rev, time)
        if verdict is not SEEN:
            if continuity.turned:
                self._turn()
            self._publish(kind, body, seq, time, data)
        if verdict is not NEW or continuity.position != self._followed:
            self._note(verdict)

    def _note(self, verdict: Verdict) -> None:
        """Count a frame that is not new, and follow the position. Raises SequenceReset, AskAgain."""
        if verdict is SEEN:
            self.counts.seen += 1
        elif verdict is not NEW:
            self.counts.late += 1
        if self.continuity.position != self._followed:
            self._follow()
        if verdict is Verdict.RESET:
            raise self._reset()
        if self.continuity.asks_again:
            raise AskAgain

    def _turn(self) -> None:
        """Leave the old sequence, which the relay has sent again: later frames are ordered after it."""
        self.continuity.turned = False
        self.sequence = self._on_turn()

    def _reset(self) -> SequenceReset:
        late, position = self.continuity.late, self.continuity.position
        if not late:
            return SequenceReset(f"another event came under seq {position}, and those behind it are newer")
        return SequenceReset(f"{late} events in a row below seq {position} are newer")

    def _publish(self, kind: str, body: dict[str, Any], seq: int, time: int | None, data: bytes) -> None:
        counts, publisher = self.counts, self.publisher
        try:
            place = None if kind == "#commit" else self._place()
            events = decode_events(
                kind, body, seq, time if time is not None else self._time(body), self.keep,
                place=place, known=publisher.known,
            )  # fmt: skip
        except FrameError as error:
            self._bury(seq, None, str(error), data)
        else:
            if events.values:
                publisher.add(events.did, events.values)
                counts.events += len(events.values)
            if events.bad:
                counts.dead_operations += len(events.bad)
                for bad in events.bad:
                    self._bury(seq, events.did, bad.reason, bad.payload)
            counts.filtered += events.filtered

    def _follow(self) -> None:
        """Report missing frames, note the new position, and report the head when it is reached."""
        continuity = self.continuity
        if continuity.missing is not None:
            self._report(continuity.missing)
            continuity.missing = None
        self._followed = continuity.position
        if self._head_seq is not None and continuity.position >= self._head_seq and not continuity.is_old:
            self._on_head()

    def accept_pending(self, *, silent: bool = True, patient: bool = True) -> None:
        """Accept the frames that came last, if nothing contradicts them: the relay is silent, or sends only a little.

        Not ``patient``: the connection is young. Raises SequenceReset if the last frames before a silence prove one,
        AskAgain if they are of a sequence whose end is known.
        """
        continuity = self.continuity
        if silent and continuity.is_reset_at_rest():
            raise self._reset()
        if silent and continuity.is_left_at_rest():
            raise AskAgain
        continuity.accept_pending(clock.time_ns() // 1000, self._head_seq, patient=patient)
        self._follow()

    def _time(self, body: dict[str, Any]) -> int:
        """Return the time of a frame that has none of its own, in µs: its rev's, as far as that can be."""
        read = self.continuity.time or self.continuity.reference.time or 0
        rev = body.get("rev")
        made = us_from_tid(rev) if type(rev) is str and is_tid(rev) else 0
        return max(read, min(made, clock.time_ns() // 1000))

    def _place(self) -> dict[str, int]:
        """Return the frame's place. Its own time counts only if no earlier frame has shown one; never tomorrow."""
        now = clock.time_ns() // 1000
        known = (self.continuity.time_before, self.continuity.guess)
        read = next((time for time in known if time is not None), now)
        return {"sequence": self.sequence, "time": min(read, now)}

    def text(self, data: bytes) -> None:
        """Turn a text message, which the protocol does not have, into a dead letter. Raises ForeignStreamError."""
        self.counts.text += 1
        self._bury(None, None, "a text message instead of a frame", b"")
        if not self._doubt.proven:
            self._doubt.text(data)

    def _no_frame(self, reason: str, data: bytes) -> None:
        self.counts.unreadable += 1
        self._bury(None, None, reason, data)
        if not self._doubt.proven:
            self._doubt.binary(data)

    def _proves(self, kind: str, body: dict[str, object], data: bytes) -> bool:
        """Return whether a firehose may send such a frame. One that only a firehose sends proves that this is one."""
        if kind in FIREHOSE_TYPES:
            self._doubt.prove()
            self.release()
        elif kind != "#info":
            try:
                seq: int | None = frame_seq(body)
            except FrameError:
                seq = None
            self.counts.unreadable += 1
            if seq is not None and seq == self.continuity.position:  # it proves that nothing is missing
                self.continuity.see(seq, *event_identity(kind, body, data), None)
            self._bury(seq, None, f"unknown frame type {printable(kind)}", data)
            self._doubt.type(kind)
            return False
        return True

    def release(self) -> None:
        """Publish the dead letters that were held back until the stream was known to be a firehose."""
        for letter in self._held:
            self.publisher.control(letter)
        self._held.clear()

    def _skip(self, kind: str, body: dict[str, Any], data: bytes) -> None:
        """Count a frame of an older protocol version. If it has a seq, it moves the position."""
        self.counts.skipped_types[kind] += 1
        try:
            seq = frame_seq(body)
        except FrameError:
            self.counts.unreadable += 1
            return
        verdict = self.continuity.see(seq, *event_identity(kind, body, data), frame_time(body))
        self._note(verdict)

    def _bury(self, seq: int | None, did: str | None, reason: str, payload: bytes) -> None:
        self.counts.dead += 1
        letter = DeadLetter(
            relay=self.relay, run=self.run, seq=seq, did=did, reason=reason, payload=dead_payload(payload),
            letter_kind=LetterKind.FRAME if did is None else LetterKind.OPERATION,
        )  # fmt: skip
        if self._doubt.proven:
            self.publisher.control(letter)
        else:
            self._held.append(letter)

    def _report(self, missing: Missing) -> None:
        self.counts.gaps += 1
        self.publisher.control(
            Gap(
                relay=self.relay,
                run=self.run,
                from_seq=missing.from_seq,
                to_seq=missing.to_seq,
                from_time=missing.from_time,
                to_time=missing.to_time,
                reason="the relay did not send these after a reconnect: its window moved past our position",
                gap_kind=GapKind.WINDOW_MOVED,
            )
        )
