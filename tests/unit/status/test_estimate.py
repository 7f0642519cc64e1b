"""The sentence about the time that a backfill takes."""

from __future__ import annotations

import pytest

from streams.settings import Settings
from streams.status.estimate import Left, estimate

AGGRESSIVE = {"backfill_profile": "aggressive", "backfill_use_idle": False}
FAST = "at 1,000.0 events/s that takes 9s. The limit is"
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
        (Left(100), {}, "The limit is the worker's pace (BACKFILL_BATCH_SIZE, BACKFILL_BATCH_DELAY_MS)."),
        (Left(0, 9_000), AGGRESSIVE, f"{FAST} the worker's pace"),
        (
            Left(0, 9_000),
            AGGRESSIVE | {"ingest_busy_mb_per_s": 0},
            f"{FAST} the w",
        ),
        (
            Left(0, 9_000),
            AGGRESSIVE | {"ingest_busy_mb_per_s": 7},
            f"{FAST} the w",
        ),
        (
            Left(0, 7_000),
            AGGRESSIVE | {"ingest_busy_mb_per_s": 0.7},
            "at 100.0 events/s that takes 1m10s. The limit is the ingest's INGEST_BUSY_MB_PER_S, at about 7 kB an "
            "event: the worker could apply 1,000.0 events/s.",
        ),
        # What is in Kafka already needs no ingest.
        (
            Left(9_000, 9_000),
            AGGRESSIVE | {"ingest_busy_mb_per_s": 0.7},
            FAST,
        ),
    ],
)
def test_what_is_left_and_how_long_it_takes(left: Left, settings: dict[str, object], words: str | None) -> None:
    sentence = estimate(left, Settings(_env_file=None, **settings))  # type: ignore[arg-type, call-arg]
    assert sentence is None if words is None else sentence is not None and words in sentence
