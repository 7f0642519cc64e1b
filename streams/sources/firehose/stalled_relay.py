"""The judgement of a relay whose connection is silent, by its live frames.

The relay may be quiet, its sequence may have been reset, or the head that it showed at the start was false: many relays
answer a cursor beyond their head with silence, and a lone frame with a seq far ahead never comes again.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from streams.sources.firehose.intake import SequenceReset
from streams.sources.firehose.probing import SILENCE, Prober, SeenFrame
from streams.sources.firehose.sequence.arrivals import Arrival
from streams.sources.firehose.sequence.continuity import Continuity
from streams.sources.firehose.start import PlannedRun

log = structlog.get_logger("streams.ingest")

#: Stalls without anything new in between, after which a head that does not come is given up.
_STALLS = 2


class Stalled(Exception):  # noqa: N818 (the relay's silence is no error of ours)
    """A connection is silent although frames are due, or is silent for long."""


def _arrivals(frames: Sequence[SeenFrame]) -> list[Arrival]:
    """Return the frames of a probe as arrivals."""
    return [Arrival(seen.seq, seen.did or "", seen.rev or "", seen.time) for seen in frames]


def check_shown(continuity: Continuity, frames: Sequence[SeenFrame]) -> None:
    """Compare the relay's live or oldest frames with our position. Raises SequenceReset where they prove one."""
    if continuity.is_over(_arrivals(frames)):
        raise SequenceReset(f"it shows events that are newer than ours, and below seq {continuity.position}")


def is_beyond_head(start: PlannedRun, continuity: Continuity) -> bool:
    """Return whether a run is to resume beyond the head that the relay has shown: its sequence may have been reset."""
    if start.mode != "resume" or continuity.position != start.position.seq:
        return False
    if start.heads:
        return continuity.is_above(_arrivals(start.heads))
    if start.tails and continuity.is_above(_arrivals(start.tails)):
        return True
    return start.head is not None and start.head.seq < continuity.position


class StalledRelay:
    """The probes of a relay whose connections stall."""

    def __init__(self, url: str) -> None:
        self._prober = Prober(url)
        self._stalls = 0
        self._taken = 0

    async def judge(self, start: PlannedRun, continuity: Continuity, taken: int) -> None:
        """Probe the relay, and correct a false ``start.head``. ``taken``: how many new frames came so far.

        Raises SequenceReset where the live frames prove one, RelayError.
        """
        self._stalls = self._stalls + 1 if taken == self._taken else 1
        self._taken = taken
        found = await self._prober.probe(None, SILENCE)
        # Where nothing is live, its oldest events tell: no event of our sequence is older by seq, and newer.
        oldest = found if found.frames else await self._prober.probe(0, SILENCE)
        check_shown(continuity, oldest.frames)
        lowest = min((seen.seq for seen in found.frames), default=0)
        if self._stalls >= _STALLS and lowest > continuity.position:
            log.warning("the relay sends nothing for our cursor, and newer events live: reading live")
            start.live = True
            return
        head = start.head
        if head is None or continuity.highest >= head.seq or self._stalls < _STALLS:
            return
        if found.head is None or found.head.seq < head.seq:
            log.warning("the head that the relay showed at the start does not come: it is given up", seq=head.seq)
            start.head = found.head
