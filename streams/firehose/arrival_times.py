"""The usual time of some arrivals, where a few clocks are wrong and a relay may write its own time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Final

from streams.firehose.arrivals import BLOCK, Arrival
from streams.firehose.tid import is_tid, us_from_tid

#: Spreads by which later arrivals must be newer: the times of PDSes in one block differ by seconds.
_SPREADS: Final = 2
#: Blocks from which on one that strangers' clocks spoilt is left out.
_ENOUGH_BLOCKS: Final = 3


def arrival_time(arrival: Arrival) -> int | None:
    """The time of an arrival in µs: what it claims, or its rev where that is earlier.

    Some servers write the time of sending: then only the rev tells an old event from a new one.
    """
    _, _, rev, time = arrival
    if not is_tid(rev):
        return time
    made = us_from_tid(rev)
    return made if time is None else min(time, made)


def median_time(arrivals: Sequence[Arrival]) -> int | None:
    """The median time of some arrivals in µs; None where none has a time."""
    times = _times(arrivals)
    return times[len(times) // 2] if times else None


def _median(values: Iterable[int]) -> int:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0


def _times(arrivals: Sequence[Arrival]) -> list[int]:
    return sorted(time for arrival in arrivals if (time := arrival_time(arrival)) is not None)


@dataclass(frozen=True, slots=True)
class Reference:
    """What later arrivals are compared with: a median time, and how far the clocks differ. Both in µs.

    ``time`` is None where it is not known.
    """

    time: int | None
    spread: int = 0

    @classmethod
    def of_last(cls, last: Sequence[Arrival], before: Reference) -> Reference:
        """Return the reference of the last arrivals: the newest time of a block of them. ``before``: the one before.

        One PDS with a wrong clock may have made most of a block. So of several the newest is not believed further than
        the two before it reach.
        """
        if len(last) <= BLOCK:
            return cls._of_block(last)
        blocks = [last[at - BLOCK : at] for at in range(len(last), BLOCK - 1, -BLOCK)]
        seen = [cls._of_block(block) for block in blocks]
        if len(seen) < _ENOUGH_BLOCKS and before.time is not None:
            seen.append(before)
        seen.sort(key=lambda one: one.time or 0)
        if len(seen) < _ENOUGH_BLOCKS or (last_time := seen[-3].time) is None:
            return seen[-1]
        newest, middle = seen[-1], seen[-2]
        return cls(min(newest.time or 0, 2 * (middle.time or 0) - last_time), middle.spread)

    @classmethod
    def _of_block(cls, block: Sequence[Arrival]) -> Reference:
        times = [time for one in sorted(block, key=itemgetter(0)) if (time := arrival_time(one)) is not None]
        if not times:
            return cls(None)
        # What two neighbours differ by, without what time goes on by from one to the next: a clock that is wrong makes
        # two of those, whatever it is off by.
        steps = [later - earlier for earlier, later in pairwise(times)]
        usual = _median(steps)
        return cls(_median(times), _median([abs(step - usual) for step in steps]))

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
        return times[len(times) * quarters // 4] > self.time + _SPREADS * self.spread
