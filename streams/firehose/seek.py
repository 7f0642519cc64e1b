"""From a time to a seq: relays have no seek by time, so short connections look at single frames.

``Search`` decides (pure); ``look``, ``find_start`` and ``find_head`` connect. seqs have gaps and times are informal,
so the answer is a frame that is not newer than the time asked for and, where the relay has it, at most TOLERANCE older.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streams.firehose.events import frame_seq, frame_time
from streams.firehose.foreign import FIREHOSE_TYPES, Doubt
from streams.firehose.frames import ErrorFrame, FrameError, split_frame
from streams.firehose.relay import OversizedMessage, open_relay, relay_name

#: How much earlier than asked for the start may be, in µs.
TOLERANCE: Final = 30_000_000
#: Most connections of one search.
MAX_LOOKS: Final = 80
#: Seconds that a connection may stay silent before it counts as being at the head.
SILENCE: Final = 3.0
#: Frames of which a look takes the times, and seconds that it waits for those after the first.
WITNESSES: Final = 9
WITNESSED: Final = 0.5
#: Odd messages, with nothing else in all that time, that are enough to say that it is no relay.
_ODD: Final = 3
#: Of two that differ nobody can say which is wrong.
_LEAST: Final = 3
#: How far from its neighbours' a time may be, in µs, beside what is usual among them.
_NEAR: Final = 300_000_000
#: A cursor beyond any head (seqs are below 2^53), and a time after any frame's.
_BEYOND: Final = (1 << 53) - 1
_NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Sighting:
    """A frame that was seen: its seq, and its time in µs (None where it has none that can be read).

    Where the frames after it say that its own is wrong, ``time`` is theirs.
    """

    seq: int
    time: int | None


class Absence(enum.Enum):
    """Why no frame was seen: the relay sent nothing in time, or said that the cursor is beyond its head."""

    SILENT = "silent"
    FUTURE = "FutureCursor"


class Search:
    """The search for the last frame at or before ``target`` (µs), from the oldest frame kept.

    Ask for ``next_cursor`` until it is None, and ``tell`` what was seen there (None: nothing at or after that cursor);
    ``best`` is the answer so far. Without a known head it doubles its steps first.
    """

    def __init__(self, oldest: Sighting, head: Sighting | None, target: int) -> None:
        self.target = target
        self.best = oldest
        # Cursors worth looking at: from _low up to, and without, _high (None: unknown). Each look narrows that.
        self._low = oldest.seq
        self._high = head.seq if head is not None else None
        self._high_time = head.time if head is not None else None
        self._step = 1024
        self._looks = 0
        self._cursor = oldest.seq

    def next_cursor(self) -> int | None:
        """The cursor to look at (the frame after it is seen), or None when the search is over."""
        if self._looks >= MAX_LOOKS or (self.best.time is not None and self.target - self.best.time <= TOLERANCE):
            return None  # near enough, or even the oldest is newer than the target
        if self._high is not None and self._low >= self._high:
            return None
        self._looks += 1
        if self._high is None:
            self._cursor = self._low + self._step
            self._step *= 4
        else:
            self._cursor = self._between(self._low, self._high)
        return self._cursor

    def _between(self, low: int, high: int) -> int:
        """Where to look in [low, high): in proportion to the times at first, then halves, which always end."""
        middle = (low + high) // 2
        if self._looks % 3 and self._high_time is not None and self.best.time is not None:
            span = self._high_time - self.best.time
            if span > 0:
                # A little early: what is found must not be newer than the target.
                share = (self.target - self.best.time - TOLERANCE // 2) / span
                middle = low + int((high - low) * min(max(share, 0.0), 1.0))
        return min(max(middle, low), high - 1)

    def tell(self, seen: Sighting | None) -> None:
        """What stands first after the cursor, or at it: relays differ."""
        if seen is None or seen.time is None or seen.time > self.target:
            self._high, self._high_time = self._cursor, seen.time if seen is not None else None
            return
        if seen.seq > self.best.seq:
            self.best = seen
        self._low = max(seen.seq, self._cursor + 1) if seen.seq <= self._cursor else seen.seq


def believed_time(times: Sequence[int | None]) -> int | None:
    """The first time; the middle one of all where the first is far from it and the others are not.

    A time is what a PDS claims. One that was away sends what is days old, under seqs of today: a start that was found
    by such a frame would be too late.
    """
    told = sorted(time for time in times if time is not None)
    if not told:
        return None
    middle = told[len(told) // 2]
    if times[0] is None:
        return middle
    if len(told) < _LEAST:
        return times[0]
    usual = statistics.median_low([abs(time - middle) for time in told])
    return times[0] if abs(times[0] - middle) <= _NEAR + 8 * usual else middle


class _Witnesses:
    """The first frames of a connection. ``first``: there is one, or FutureCursor; ``enough``: there are all."""

    def __init__(self, relay: str) -> None:
        loop = asyncio.get_running_loop()
        self.doubt = Doubt(relay)
        self.first: asyncio.Future[None] = loop.create_future()
        self.enough: asyncio.Future[None] = loop.create_future()
        self._seen: list[Sighting] = []
        self._future = False

    def frame(self, data: bytes) -> None:
        """Take a frame."""
        if self.enough.done():
            return
        try:
            kind, body = split_frame(data)
            if kind not in FIREHOSE_TYPES:
                self._odd(kind)
                return
            self._seen.append(Sighting(frame_seq(body), frame_time(body)))
            self.doubt.prove()
        except ErrorFrame as error:
            if error.name != "FutureCursor":
                return
            self._future = True
        except FrameError:  # garbage: the next one may do
            if not self.doubt.proven:
                self.doubt.binary(data)
            return
        if not self.first.done():
            self.first.set_result(None)
        if self._future or len(self._seen) >= WITNESSES:
            self.enough.set_result(None)

    def text(self, data: bytes) -> None:
        """Take a text message."""
        if not self.doubt.proven:
            self.doubt.text(data)

    def _odd(self, kind: str) -> None:
        if kind != "#info" and not self.doubt.proven:
            self.doubt.type(kind)

    def said(self) -> Sighting | Absence:
        """What they say."""
        if self._seen:
            return Sighting(self._seen[0].seq, believed_time([seen.time for seen in self._seen]))
        return Absence.FUTURE if self._future else Absence.SILENT


async def look(url: str, cursor: int | None, patience: float = SILENCE) -> Sighting | Absence:
    """The first frame that the relay sends from a cursor on (None: live), or why there is none.

    Raises RelayError where the relay refuses us or is none, OSError or TimeoutError where it cannot be reached.
    """
    witnesses = _Witnesses(relay_name(url))
    connection = await open_relay(url, cursor, witnesses.frame, witnesses.text)
    ended = connection.ended
    try:
        await asyncio.wait((witnesses.first, ended), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not witnesses.first.done() and ended.done():
            why = _why(ended)
            witnesses.doubt.check(_ODD)
            raise ConnectionError(why)
        if witnesses.first.done():
            await asyncio.wait((witnesses.enough, ended), timeout=WITNESSED, return_when=asyncio.FIRST_COMPLETED)
        witnesses.doubt.check(_ODD)
        return witnesses.said()
    finally:
        with contextlib.suppress(Exception):
            await connection.close()


def _why(ended: asyncio.Future[str]) -> str:
    try:
        return ended.result()
    except OversizedMessage as error:
        return f"it sends a message that is too large ({error})"


async def find_start(url: str, oldest: Sighting, head: Sighting | None, target: int) -> Sighting:
    """The frame to start at for ``target`` (µs): see ``Search``. A connection that fails is tried three times."""
    search = Search(oldest, head, target)
    while (cursor := search.next_cursor()) is not None:
        seen = await _look_thrice(url, cursor)
        search.tell(seen if isinstance(seen, Sighting) else None)
    return search.best


async def find_head(url: str, oldest: Sighting) -> Sighting | None:
    """The last frame of a relay that sends nothing live, where it tells cursors beyond its head; None elsewhere."""
    if await _look_thrice(url, _BEYOND) is not Absence.FUTURE:
        return None
    return await find_start(url, oldest, None, _NEVER)


async def _look_thrice(url: str, cursor: int) -> Sighting | Absence:
    for _ in range(2):
        with contextlib.suppress(OSError, TimeoutError):
            return await look(url, cursor)
        await asyncio.sleep(1.0)
    return await look(url, cursor)
