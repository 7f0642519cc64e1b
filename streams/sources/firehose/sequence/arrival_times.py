"""The usual time of some arrivals, where a few clocks are wrong and a relay may write its own time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Final

from streams.protocol.tid import is_tid, us_from_tid
from streams.sources.firehose.sequence.arrivals import BLOCK, Arrival

#: Arrivals from which the usual time is taken: more than one PDS sends in a row.
RECENT: Final = 5 * BLOCK
#: Blocks that say how far time goes on from one to the next.
_ENOUGH_BLOCKS: Final = 3
#: Steps from one arrival to the next that say how far the clocks differ.
_ENOUGH_STEPS: Final = 3


def arrival_time(arrival: Arrival) -> int | None:
    """Return the time of an arrival in µs: what it claims, or its rev where that is earlier.

    Some servers write the time of sending: then only the rev tells an old event from a new one.
    """
    _, _, rev, time = arrival
    if not is_tid(rev):
        return time
    made = us_from_tid(rev)
    return made if time is None else min(time, made)


def median_time(arrivals: Sequence[Arrival]) -> int | None:
    """Return the median time of some arrivals in µs; None where none has a time."""
    times = _times(arrivals)
    return _median(times) if times else None


def _median(values: Iterable[int]) -> int:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _spread(times: Sequence[int]) -> int:
    """Return how far the clocks of neighbours differ, in µs, without what time goes on by from one to the next.

    A clock that is wrong makes two steps of many, whatever it is off by.
    """
    steps = [later - earlier for earlier, later in pairwise(times)]
    usual = _median(steps)
    return _median(abs(step - usual) for step in steps)


def _times(arrivals: Sequence[Arrival]) -> list[int]:
    return sorted(time for arrival in arrivals if (time := arrival_time(arrival)) is not None)


@dataclass(frozen=True, slots=True)
class Reference:
    """The times to compare later arrivals with: a median time, and how far the clocks differ. Both in µs.

    ``time`` is None where it is not known.
    """

    time: int | None
    spread: int = 0

    @classmethod
    def of_last(cls, last: Sequence[Arrival], before: Reference) -> Reference:
        """Return the reference of the last arrivals: the time of the newest block. ``before``: of those before.

        Each block of them says when that is, and most are believed: a burst of one PDS with a wrong clock spoils one.
        """
        times = [time for one in sorted(last, key=itemgetter(0)) if (time := arrival_time(one)) is not None]
        if not times:
            return before
        spread = _spread(times) if len(times) > _ENOUGH_STEPS else before.spread
        blocks = [times[at - BLOCK : at] for at in range(len(times), BLOCK - 1, -BLOCK)]
        if len(blocks) <= 1:  # then each arrival counts: two bursts may fill most of one block
            blocks = [times]
        usual = [_median(block) for block in blocks]  # the newest first
        pace = 0
        if len(usual) >= _ENOUGH_BLOCKS:
            pace = max(_median([later - earlier for later, earlier in pairwise(usual)]), 0)
        due = [time + pace * age for age, time in enumerate(usual)]
        if len(usual) < _ENOUGH_BLOCKS and before.time is not None:
            due.append(before.time)
        return cls(_median(due), spread)

    def at_most(self, time: int) -> Reference:
        """Return the reference, not later than a time in µs."""
        return self if self.time is None or self.time <= time else Reference(time, self.spread)

    def later(self, other: Reference) -> Reference:
        """Return the later of the two."""
        return self if other.time is None or (self.time is not None and self.time > other.time) else other

    def is_before(self, arrivals: Sequence[Arrival], *, quarters: int = 2) -> bool:
        """Return whether these arrivals are newer, as that quarter of their times says: 2 is the median."""
        times = _times(arrivals)
        if not times or self.time is None:
            return False
        return times[len(times) * quarters // 4] > self.time + self.spread
