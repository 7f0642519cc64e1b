"""From a watermark to the position that a run resumes at."""

from __future__ import annotations

import time

from streams.kafka.messages import Watermark
from streams.run_start import _position

NOW = time.time_ns() // 1000
YEAR = 365 * 86_400_000_000


def test_a_watermark_of_an_older_version_may_hold_a_wrong_clock() -> None:
    """It would hide for good that the relay's sequence began anew."""
    old = Watermark(relay="r", run=1, topic_id="t", seq=7, time=NOW + 70 * YEAR, newest=NOW + 70 * YEAR)
    before = time.time_ns() // 1000
    at = _position(old)
    assert at.median is not None
    assert before <= at.median <= time.time_ns() // 1000
    assert (at.seq, at.event) == (7, None)


def test_a_watermark_is_the_position() -> None:
    mark = Watermark(relay="r", run=1, topic_id="t", seq=7, time=NOW, median=NOW - 5, spread=3, event="did:plc:a rev")
    at = _position(mark)
    assert (at.seq, at.time, at.median, at.spread, at.event) == (7, NOW, NOW - 5, 3, "did:plc:a rev")
