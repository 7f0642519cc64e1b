"""The sentence about the time that a backfill takes."""

from __future__ import annotations

import pytest

from streams.ops.estimate import Left, estimate
from streams.settings import Settings

KAFKA_ONLY = "are left (in Kafka; the relay's are not known)"


@pytest.mark.parametrize(
    ("left", "settings", "words"),
    [
        (Left(0), {}, None),
        (Left(0, 0), {}, None),
        (Left(100), {}, f"about 100 events {KAFKA_ONLY}: at 2.5 events/s that takes 40s"),
        (Left(100, 9_000), {}, "about 9,000 events are left (100 of them in Kafka): at 2.5 events/s that takes 1h00m"),
        (Left(200, 100), {}, "about 200 events"),
        (
            Left(30_000_000, 0),
            {"backfill_profile": "aggressive"},
            "at 1,000.0 events/s that takes 8h20m while the mach",
        ),
        (Left(2500), {"backfill_use_idle": False}, "at 2.5 events/s that takes 16m40s."),
        (Left(5), {"backfill_profile": "unlimited"}, f"about 5 events {KAFKA_ONLY}: as fast as it goes."),
    ],
)
def test_what_is_left_and_how_long_it_takes(left: Left, settings: dict[str, object], words: str | None) -> None:
    sentence = estimate(left, Settings(_env_file=None, **settings))  # type: ignore[arg-type, call-arg]
    assert sentence is None if words is None else sentence is not None and words in sentence
