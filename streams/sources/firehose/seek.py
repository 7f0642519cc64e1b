"""The search for the seq of a time: relays have no seek by time, so short connections probe a few frames each. Pure.

``Search`` decides where to probe next; ``streams/sources/firehose/probing.py`` connects. seqs have gaps and times are
informal, so the answer is a frame that is not newer than the time asked for and, where the relay has it, at most
TOLERANCE older.
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: How much earlier than asked for the start may be, in µs.
TOLERANCE: Final = 30_000_000
#: Most connections of one search.
MAX_PROBES: Final = 80
#: Frames of which a probe takes the times.
WITNESSES: Final = 9
#: Of two that differ nobody can say which is wrong.
_LEAST: Final = 3
#: How far from its neighbours' a time may be, in µs, beside what is usual among them.
_NEAR: Final = 300_000_000


@dataclass(frozen=True, slots=True)
class Sighting:
    """A frame that was seen: its seq, and its time in µs (None where it has none that can be read).

    Where the frames after it say that its own is wrong, ``time`` is theirs.
    """

    seq: int
    time: int | None


class Absence(enum.Enum):
    """The reason for no frame: nothing came in time, the cursor is beyond the relay's head, or the relay refuses it."""

    SILENT = "silent"
    FUTURE = "future"
    REFUSED = "refused"


class Search:
    """The search for the last frame at or before ``target`` (µs), from the oldest frame kept.

    Ask for ``next_cursor`` until it is None, and ``tell`` what was seen there (None: nothing at or after that cursor);
    ``best`` is the answer so far. Without a known head it doubles its steps first.
    """

    def __init__(self, oldest: Sighting, head: Sighting | None, target: int) -> None:
        self.target = target
        self.best = oldest
        # Cursors worth a probe: from _low up to, and without, _high (None: unknown). Each probe narrows that.
        self._low = oldest.seq
        self._high = head.seq if head is not None else None
        self._high_time = head.time if head is not None else None
        self._step = 1024
        self._probes = 0
        self._cursor = oldest.seq
        self._found = False

    def next_cursor(self) -> int | None:
        """Return the cursor to probe (the frame after it is seen), or None when the search is over."""
        if self._found or self._probes >= MAX_PROBES:
            return None
        if self.best.time is not None and self.target - self.best.time <= TOLERANCE:
            return None  # near enough, or even the oldest is newer than the target
        if self._high is not None and self._low >= self._high:
            return None
        self._probes += 1
        if self._high is None:
            self._cursor = self._low + self._step
            self._step *= 4
        else:
            self._cursor = self._between(self._low, self._high)
        return self._cursor

    def _between(self, low: int, high: int) -> int:
        """Return the cursor to probe in [low, high): by proportion of the times first, then halves, which end."""
        middle = (low + high) // 2
        if self._probes % 3 and self._high_time is not None and self.best.time is not None:
            span = self._high_time - self.best.time
            if span > 0:
                # A little early: what is found must not be newer than the target.
                share = (self.target - self.best.time - TOLERANCE // 2) / span
                middle = low + int((high - low) * share)
        return min(max(middle, low), high - 1)

    def tell(self, seen: Sighting | None, middle: int | None = None) -> None:
        """Take in the first frame after or at the cursor: relays differ. ``middle``: the middle time of the probe."""
        if seen is None or seen.time is None or seen.time > self.target:
            self._high, self._high_time = self._cursor, seen.time if seen is not None else None
            return
        if seen.seq > self.best.seq:
            self.best = seen
            # The time asked for lies among the frames of this probe: it cannot be found much better.
            self._found = middle is not None and middle > self.target
        self._low = max(seen.seq, self._cursor + 1)

    def refuse(self) -> None:
        """Take in that the relay refuses a cursor as old as this: its window has moved on."""
        self._low = self._cursor + 1


def believed_time(times: Sequence[int | None]) -> int | None:
    """Return the first time; or the middle one of all, if the first is far from it and the others are not.

    A PDS claims the time. One that was away sends events that are days old under seqs of today: a start that was found
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
