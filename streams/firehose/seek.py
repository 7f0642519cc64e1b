"""From a time to a seq: relays have no seek by time, so short connections look at single frames.

``Search`` decides (pure); ``look``, ``find_start`` and ``find_head`` connect. seqs have gaps and times are informal,
so the answer is a frame that is not newer than the time asked for and, where the relay has it, at most TOLERANCE older.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from dataclasses import dataclass
from typing import Final

from streams.firehose.events import frame_seq, frame_time
from streams.firehose.frames import ErrorFrame, FrameError, split_frame
from streams.firehose.relay import open_relay

#: How much earlier than asked for the start may be, in µs.
TOLERANCE: Final = 30_000_000
#: Most connections of one search.
MAX_LOOKS: Final = 80
#: Seconds that a connection may stay silent before it counts as being at the head.
SILENCE: Final = 3.0
#: A cursor beyond any head (seqs are below 2^53), and a time after any frame's.
_BEYOND: Final = (1 << 53) - 1
_NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Sighting:
    """A frame that was seen: its seq, and its time in µs (None where it has none that can be read)."""

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


async def look(url: str, cursor: int | None, patience: float = SILENCE) -> Sighting | Absence:
    """The first frame that the relay sends from a cursor on (None: live), or why there is none.

    Raises RelayError where the relay refuses us, OSError or TimeoutError where it cannot be reached.
    """
    seen: asyncio.Future[Sighting | Absence] = asyncio.get_running_loop().create_future()

    def on_frame(data: bytes) -> None:
        if seen.done():
            return
        try:
            _, body = split_frame(data)
            seen.set_result(Sighting(frame_seq(body), frame_time(body)))
        except ErrorFrame as error:
            if error.name == "FutureCursor":
                seen.set_result(Absence.FUTURE)
        except FrameError:  # #info, or garbage: the next one may do
            return

    connection = await open_relay(url, cursor, on_frame)
    try:
        await asyncio.wait((seen, connection.ended), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not seen.done() and connection.ended.done():
            raise ConnectionError(connection.ended.result())
        return seen.result() if seen.done() else Absence.SILENT
    finally:
        with contextlib.suppress(Exception):
            await connection.close()


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
