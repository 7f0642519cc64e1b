"""Frames as they arrive, what becomes of them, and the memory of the events that were taken lately. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: Arrivals whose lowest seq becomes the position. A frame that fewer than so many others overtook is never behind it.
BLOCK: Final = 16
#: Events that are remembered at least, to recognise a repeat; at most twice as many. About 3 MB.
REMEMBERED: Final = 32_768


class Verdict(enum.Enum):
    """The judgement of a frame. All but SEEN are to be published."""

    NEW = "new"
    #: Not seen before, at or below the position: others overtook it, or the sequence was reset.
    LATE = "late"
    SEEN = "seen"
    #: Not seen before, and the last witness of a reset: the run ends behind it.
    RESET = "reset"


#: The two that judge nearly every frame. Python 3.11 takes 0.12 µs to look a member of an enum up in its class.
NEW: Final = Verdict.NEW
SEEN: Final = Verdict.SEEN


class Arrival(NamedTuple):
    """A frame as it arrived: its event (seq, did, rev), and the time that it claims, in µs or None.

    ``rev`` of a frame that has none is its type with what it says.
    """

    seq: int
    did: str
    rev: str
    time: int | None


@dataclass(frozen=True, slots=True)
class Missing:
    """Sequence numbers that the relay did not send: ``from_seq`` to ``to_seq``, both included; times in µs or None."""

    from_seq: int
    to_seq: int
    from_time: int | None
    to_time: int | None


@dataclass(slots=True)
class Memory:
    """The memory that outlives a run: the events taken lately, and when the last reset was (``reset_time``, µs).

    ``refused``: a cursor that the relay said was beyond its head (FutureCursor), and our time then in µs. A frame that
    was made before, and whose seq is not lower, is of a sequence that had ended.

    Events are kept by their hash, in two generations: the older one is forgotten when the younger one is full. Of each
    the highest seq is noted.
    """

    young: set[int] = field(default_factory=set)
    old: set[int] = field(default_factory=set)
    highest_young: int = -1
    highest_old: int = -1
    reset_time: int = -1
    refused: tuple[int, int] | None = None

    @property
    def highest(self) -> int:
        """Return the highest seq that was noted."""
        return max(self.highest_young, self.highest_old)

    def note(self, seq: int) -> None:
        """Note the seq of an event of the younger generation."""
        self.highest_young = max(self.highest_young, seq)

    def __contains__(self, key: int) -> bool:
        """Return True if the event with this hash was taken lately."""
        return key in self.young or key in self.old

    def turn(self) -> None:
        """Forget the older generation."""
        self.old, self.young = self.young, set()
        self.highest_old, self.highest_young = self.highest_young, -1

    def forget_events(self) -> None:
        """Forget all events: what was taken is taken again."""
        self.young, self.old = set(), set()
        self.highest_young = self.highest_old = -1

    def forget(self, keys: set[int]) -> None:
        """Forget some events, by their hashes."""
        self.young -= keys
        self.old -= keys
