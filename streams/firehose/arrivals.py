"""Frames as they arrive, and the memory of the events that were taken lately. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: Events that are remembered at least, to recognise a repeat; at most twice as many. About 3 MB.
REMEMBERED: Final = 32_768


class Arrival(NamedTuple):
    """A frame as it arrived: its event (seq, did, rev), and the time that it claims, in µs or None.

    ``rev`` of a frame that has none is its type with what it says.
    """

    seq: int
    did: str
    rev: str
    time: int | None


@dataclass(slots=True)
class Memory:
    """What outlives a run: the events taken lately, and the places at which a sequence ended.

    Events are kept by their hash, in two generations: the older one is forgotten when the younger one is full. No event
    above ``highest`` is among them.
    """

    young: set[int] = field(default_factory=set)
    old: set[int] = field(default_factory=set)
    highest: int = -1
    ends: set[int] = field(default_factory=set)

    def __contains__(self, key: int) -> bool:
        """Whether the event with this hash was taken lately."""
        return key in self.young or key in self.old

    def turn(self) -> None:
        """Forget the older generation."""
        self.old, self.young = self.young, set()

    def forget_events(self) -> None:
        """Forget all events: what was taken is taken again. The places at which a sequence ended stay."""
        self.young, self.old, self.highest = set(), set(), -1
