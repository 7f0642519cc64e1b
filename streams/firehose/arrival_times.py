"""The usual time of some arrivals, where a few clocks are wrong and a relay may write its own time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streams.firehose.arrivals import Arrival
from streams.firehose.tid import is_tid, us_from_tid

#: Spreads of a block by which later arrivals must be newer: the times of PDSes in one block differ by seconds.
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


def _times(arrivals: Sequence[Arrival]) -> list[int]:
    return sorted(time for arrival in arrivals if (time := arrival_time(arrival)) is not None)


@dataclass(frozen=True, slots=True)
class Reference:
    """What later arrivals are compared with: a median time (None: not known), and how far times differ. Both in µs."""

    time: int | None
    spread: int = 0

    @classmethod
    def of(cls, blocks: Sequence[Sequence[Arrival]]) -> Reference:
        """Return the reference of some blocks of arrivals: of several the newest but one.

        One PDS with a wrong clock may have made most of a block.
        """
        seen = sorted((cls._of_block(block) for block in blocks), key=lambda one: one.time or 0)
        return seen[-2] if len(seen) >= _ENOUGH_BLOCKS else seen[-1]

    @classmethod
    def _of_block(cls, block: Sequence[Arrival]) -> Reference:
        times = _times(block)
        if not times:
            return cls(None)
        low, middle, high = (times[len(times) * part // 4] for part in (1, 2, 3))
        # A clock that is wrong widens one side only.
        return cls(middle, min(middle - low, high - middle))

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
