"""The time up to which a relay's stream was read, from what its frames claim. Pure.

A frame's ``time`` is what its PDS claims, and relays pass it through (indigo's ``cmd/relay/relay/ingest.go``): one
clock that is wrong must not move the stream of all others to tomorrow.
"""

from __future__ import annotations

import statistics
from typing import Final

#: A claim so far ahead of the stream, in µs, needs witnesses.
JUMP: Final = 300_000_000
#: Frames in a row that must claim such a time until it is believed: an import on one PDS whose clock is wrong sends
#: dozens. Where their seqs are far ahead, too, they overtake a replay, and need not be so many.
WITNESSES: Final = 32
OVERTAKING: Final = 8
#: A seq that is so far ahead of the last one whose time was believed is far ahead.
_FAR: Final = 32
#: Frames in a row that must say that what is believed is too late.
DOUBTERS: Final = 64
#: Frames until there is a first time.
FIRST: Final = 8


class StreamTime:
    """The time of a stream. ``time``: the newest that is believed, in µs; None before the first."""

    __slots__ = ("_claims", "_doubts", "_far", "_seq", "before", "time")

    def __init__(self, time: int | None, seq: int = 0) -> None:
        """``seq``: up to which the stream was read at that time."""
        self.time = time
        #: What ``time`` was before the last frame.
        self.before = time
        #: What the last frames in a row claimed, all of them far ahead.
        self._claims: list[int] = []
        #: Or all of them far behind.
        self._doubts: list[int] = []
        #: The seq of the last frame whose time was believed; how many of the claims have a seq far ahead of it.
        self._seq = seq
        self._far = 0

    @property
    def guess(self) -> int | None:
        """Return the median of what was claimed before there is a ``time``, in µs; None where nothing was."""
        return statistics.median_low(self._claims) if self._claims else None

    def see(self, claimed: int, seq: int = 0) -> None:
        """Take the time that a new frame claims."""
        self.before = time = self.time
        if time is not None and claimed <= time + JUMP:
            if claimed > time:
                self.time = claimed
            self._seq = seq
            if self._claims:
                self._claims.clear()
                self._far = 0
            if claimed < time - JUMP:
                self._doubt(claimed)
            elif self._doubts:
                self._doubts.clear()
            return
        self._claims.append(claimed)
        if time is None:
            if len(self._claims) >= FIRST:
                self._believe(statistics.median_low(self._claims), seq)
            return
        self._far += seq > self._seq + _FAR
        if len(self._claims) >= WITNESSES or self._far >= OVERTAKING:
            self._believe(min(self._claims), seq)

    def _believe(self, time: int, seq: int) -> None:
        """Believe a time, and the claims that go on from it by no jump. ``seq``: of the last claim."""
        for claimed in sorted(self._claims):
            if time < claimed <= time + JUMP:
                time = claimed
        self.time, self._seq = time, seq
        self._far = 0
        self._claims = [claimed for claimed in self._claims if claimed > time + JUMP]

    def _doubt(self, claimed: int) -> None:
        """Note a claim far behind. Believe such claims after many in a row: then one wrong clock had set ``time``."""
        self._doubts.append(claimed)
        if len(self._doubts) >= DOUBTERS:
            self.time = max(self._doubts)
            self._doubts.clear()

    def accept_pending(self, now: int) -> bool:
        """Believe the last claims that lie before ``now`` (µs). Return True if that changed ``time``.

        For a pause, in which nothing came that says otherwise: a quiet relay has not so many witnesses.
        """
        plausible = [claimed for claimed in self._claims if claimed <= now + JUMP]
        if not plausible:
            return False
        self.time = max(plausible)
        self._claims.clear()
        self._far = 0
        return True
