"""When a topic's retention is raised, and when the ingest waits instead."""

from __future__ import annotations

import pytest

from streams.kafka.retention import RetentionVerdict, judge

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("retention", "lag", "allows", "verdict"),
    [
        (168 * HOUR, 10 * HOUR, True, RetentionVerdict()),
        (168 * HOUR, 80 * HOUR, True, RetentionVerdict(raise_to=336 * HOUR)),
        (168 * HOUR, 80 * HOUR, False, RetentionVerdict(wait=True)),
        (168 * HOUR, 10 * HOUR, False, RetentionVerdict()),
        (-1, 9999 * HOUR, False, RetentionVerdict()),
    ],
)
def test_judge(retention: int, lag: int, allows: bool, verdict: RetentionVerdict) -> None:
    assert judge(retention, lag, disk_allows=allows) == verdict
