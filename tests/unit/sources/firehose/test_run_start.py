"""From a watermark to the position that a run resumes at."""

from __future__ import annotations

import time

from streams.messages import StreamPosition, Watermark
from streams.sources.firehose.seek import Sighting
from streams.sources.firehose.start import PlannedRun, _position, frames_ahead

NOW = time.time_ns() // 1000


def test_a_watermark_is_the_position() -> None:
    mark = Watermark(relay="r", run=1, topic_id="t", seq=7, time=NOW, median=NOW - 5, spread=3, event="did:plc:a rev")
    at = _position(mark)
    assert (at.seq, at.time, at.median, at.spread, at.event) == (7, NOW, NOW - 5, 3, "did:plc:a rev")


def ahead(begin: int, oldest: int | None, head: int) -> int | None:
    """What is ahead of a run that begins behind a seq; a thousand frames a second, and the head is of now."""

    def sighting(seq: int) -> Sighting:
        return Sighting(seq, NOW)

    first = None if oldest is None else Sighting(oldest, NOW - 10 * 86_400_000_000)
    at = StreamPosition(begin, NOW - 86_400_000_000)
    return frames_ahead(PlannedRun(1, "resume", at, True, 1, None, first, sighting(head)))


def test_a_range_is_from_where_it_begins_to_the_head() -> None:
    assert ahead(1000, 1, 86_401_000) == 86_400_000
    assert ahead(1000, None, 900) == 0


def test_a_range_begins_where_the_relays_window_does() -> None:
    """A position of another sequence, far below: the disk would be too small for what never was."""
    assert ahead(70, 5_000_000_002, 5_000_000_096) == 95


def test_a_head_that_is_far_off_says_nothing_about_the_range() -> None:
    """One lone seq: a run that is refused for it would not begin again before its operator mends it."""
    assert ahead(1000, 1, 1000 + (1 << 40)) is None
