"""Rates of what is counted, over the last seconds."""

from __future__ import annotations

from collections import deque
from typing import Final

#: Seconds over which rates are taken.
WINDOW: Final = 10.0


class Speeds:
    """Rates by the differences of what was counted within the last WINDOW seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int, int]] = deque()

    def add(self, now: float, ends: int, received: int, lag: int) -> None:
        """Take in the sum of the topic's ends, the events received, and the lag. What goes back begins anew."""
        if self._samples and (ends < self._samples[-1][1] or received < self._samples[-1][2]):
            self._samples.clear()
        self._samples.append((now, ends, received, lag))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()

    def rates(self) -> tuple[float, float] | tuple[None, None]:
        """Messages a second into Kafka, and events a second into Postgres."""
        (then, ends, received, _), (now, ends_now, received_now, _) = self._samples[0], self._samples[-1]
        if now - then < 0.5:
            return None, None
        return (ends_now - ends) / (now - then), (received_now - received) / (now - then)

    def lag_grows(self) -> float | None:
        """Messages a second by which the lag became more; None before it was watched for as long as that takes."""
        (then, _, _, before), (now, _, _, lag) = self._samples[0], self._samples[-1]
        return (lag - before) / (now - then) if now - then >= WINDOW / 2 else None
