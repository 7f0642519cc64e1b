"""The time up to which a relay's stream was read, from what its frames claim. Pure.

A frame's ``time`` is what its PDS claims, and relays pass it through (indigo's ``cmd/relay/relay/ingest.go``): one
clock that is wrong must not move the stream of all others to tomorrow.
"""

from __future__ import annotations

import statistics
from typing import Final

#: A claim so far ahead of the stream, in µs, needs witnesses.
JUMP: Final = 300_000_000
#: Frames in a row that must claim such a time until it is believed; and so many, that what is believed is too late.
WITNESSES: Final = 8
DOUBTERS: Final = 64


class StreamTime:
    """``time``: the newest that is believed, in µs; None before the first."""

    __slots__ = ("_claims", "_doubts", "before", "time")

    def __init__(self, time: int | None) -> None:
        self.time = time
        #: What ``time`` was before the last frame.
        self.before = time
        #: What the last frames in a row claimed, all of them far ahead.
        self._claims: list[int] = []
        #: Or all of them far behind.
        self._doubts: list[int] = []

    @property
    def guess(self) -> int | None:
        """Before there is a ``time``: the middle one of what was claimed so far, in µs; None where nothing was."""
        return statistics.median_low(self._claims) if self._claims else None

    def see(self, claimed: int) -> None:
        """A new frame claims this time."""
        self.before = time = self.time
        if time is not None and claimed <= time + JUMP:
            if claimed > time:
                self.time = claimed
            if self._claims:
                self._claims.clear()
            if claimed < time - JUMP:
                self._doubt(claimed)
            elif self._doubts:
                self._doubts.clear()
            return
        self._claims.append(claimed)
        if len(self._claims) >= WITNESSES:
            self.time = min(self._claims)
            self._claims.remove(self.time)

    def _doubt(self, claimed: int) -> None:
        """One account of a PDS whose clock is wrong may send eight in a row: all others then say otherwise."""
        self._doubts.append(claimed)
        if len(self._doubts) >= DOUBTERS:
            self.time = max(self._doubts)
            self._doubts.clear()

    def settle(self, now: int) -> bool:
        """Nothing came that says otherwise: what was claimed last is believed, as far as it lies before ``now`` (µs).

        Whether that changed anything. A quiet relay has no eight witnesses.
        """
        plausible = [claimed for claimed in self._claims if claimed <= now + JUMP]
        if not plausible:
            return False
        self.time = max(plausible)
        self._claims.clear()
        return True
