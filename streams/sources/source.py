"""What a source of events is asked for while it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Look:
    """Where the reading stands: ``now`` in seconds, the other times in µs since the epoch, ``received`` in bytes.

    ``events``: how many those bytes held, whatever became of them.

    ``position`` is the newest event's time, ``oldest`` that of the oldest that the relay kept at ``oldest_at``,
    ``head`` where it will end (None: live, or not known). ``waits``: the connection is open and read, so that where
    nothing comes it is the relay that we wait for. ``away``: it gives us no connection, so that nothing can be taken.
    """

    now: float
    wall: int
    received: int
    position: int | None
    oldest: int | None
    oldest_at: int
    head: int | None
    waits: bool = False
    events: int = 0
    away: bool = False


class Source(Protocol):
    """Whose reading is paced."""

    def look(self, received: int) -> Look:
        """Where it stands."""
