"""The reasons for which the source is not read right now. Each has one owner; the source is held while there is any."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable


class HoldReason(enum.Enum):
    """A reason not to read the source."""

    #: The publisher: Kafka has not acknowledged as much as may be on its way.
    KAFKA_FULL = enum.auto()
    #: The retention guard: a slow group still needs events that the topic would drop.
    RETENTION = enum.auto()
    #: The pace: the budget of this moment is spent.
    PACE = enum.auto()
    #: The command ``pause``.
    PAUSED = enum.auto()
    #: The memory watch: the process is over its limit.
    MEMORY = enum.auto()


class Backpressure:
    """The set of reasons that hold now. ``hold`` is called when the first one comes, and when the last one goes."""

    def __init__(self, hold: Callable[[bool], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._hold = hold
        self._clock = clock
        self._since: dict[HoldReason, float] = {}

    @property
    def is_held(self) -> bool:
        """Return whether any reason holds."""
        return bool(self._since)

    def __contains__(self, reason: HoldReason) -> bool:
        return reason in self._since

    def seconds(self, reason: HoldReason) -> float:
        """Return for how many seconds the reason has held; 0 if it does not hold."""
        since = self._since.get(reason)
        return 0.0 if since is None else self._clock() - since

    def set(self, reason: HoldReason, on: bool) -> None:
        """Let the reason hold, or no longer."""
        before = self.is_held
        if on:
            self._since.setdefault(reason, self._clock())
        else:
            self._since.pop(reason, None)
        if self.is_held != before:
            self._hold(self.is_held)
