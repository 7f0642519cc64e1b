"""Rates of what is counted, over the last seconds."""

from __future__ import annotations

from collections import deque
from typing import Final

#: Seconds over which rates are taken.
WINDOW: Final = 10.0
#: Seconds that counts must be apart before their difference is called a speed.
SHORTEST: Final = 0.5


class Rate:
    """The growth of a count over the last ``window`` seconds.

    Of the samples before the window the newest one is kept, so a full window is never less than ``window`` seconds.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, now: float, count: float) -> None:
        """Take in the count at ``now``, in seconds of a monotonic clock."""
        samples = self._samples
        samples.append((now, count))
        while len(samples) > 2 and now - samples[1][0] >= self._window:
            samples.popleft()

    def clear(self) -> None:
        """Forget the samples: what is counted begins again."""
        self._samples.clear()

    @property
    def seconds(self) -> float:
        """Return the seconds between the oldest sample and the newest."""
        return self._samples[-1][0] - self._samples[0][0] if self._samples else 0.0

    @property
    def change(self) -> float:
        """Return by how much the count grew between the oldest sample and the newest."""
        return self._samples[-1][1] - self._samples[0][1] if self._samples else 0.0

    @property
    def last(self) -> float | None:
        """Return the newest count; None before the first."""
        return self._samples[-1][1] if self._samples else None

    @property
    def per_second(self) -> float:
        """Return the growth a second; 0 before there are two samples."""
        return self.change / self.seconds if self.seconds > 0 else 0.0


class Speeds:
    """The rates at which the topic fills, the sink writes, and the lag grows."""

    def __init__(self) -> None:
        self._ends, self._received, self._lag = Rate(), Rate(), Rate()

    def add(self, now: float, ends: int, received: int, lag: int) -> None:
        """Take in the sum of the topic's ends, the events received, and the lag. What goes back begins anew."""
        rates = self._ends, self._received, self._lag
        if ends < (self._ends.last or 0) or received < (self._received.last or 0):
            for rate in rates:
                rate.clear()
        for rate, count in zip(rates, (ends, received, lag), strict=True):
            rate.add(now, count)

    def rates(self) -> tuple[float, float] | tuple[None, None]:
        """Return messages a second into Kafka, and events a second into Postgres; None before SHORTEST."""
        if self._ends.seconds < SHORTEST:
            return None, None
        return self._ends.per_second, self._received.per_second

    def lag_grows(self) -> float | None:
        """Return by how many messages a second the lag grows; None before it was watched for half a window."""
        return self._lag.per_second if self._lag.seconds >= WINDOW / 2 else None
