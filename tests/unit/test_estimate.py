"""The sentence about the time that a backfill takes."""

from __future__ import annotations

import pytest

from streams.settings import Settings
from streams.status.estimate import Remaining, estimate

AGGRESSIVE = {"backfill_profile": "aggressive", "backfill_use_idle": False}
FAST = "at 1,000.0 events/s that takes 9s. The limit is"
KAFKA_ONLY = "are left (in Kafka; the relay's are not known)"


@pytest.mark.parametrize(
    ("left", "settings", "words"),
    [
        (Remaining(0), {}, None),
        (Remaining(0, 0), {}, None),
        (Remaining(100), {}, f"about 100 events {KAFKA_ONLY}: at 2.5 events/s that takes 40s"),
        (
            Remaining(100, 9_000),
            {},
            "about 9,000 events are left (100 of them in Kafka): at 2.5 events/s that takes 1h00m",
        ),
        (Remaining(200, 100), {}, "about 200 events"),
        (
            Remaining(30_000_000, 0),
            {"backfill_profile": "aggressive"},
            "at 1,000.0 events/s that takes 8h20m while the mach",
        ),
        (Remaining(2500), {"backfill_use_idle": False}, "at 2.5 events/s that takes 16m40s."),
        (Remaining(5), {"backfill_profile": "unlimited"}, f"about 5 events {KAFKA_ONLY}: as fast as it goes."),
        (Remaining(100), {}, "The limit is the worker's pace (BACKFILL_BATCH_SIZE, BACKFILL_BATCH_DELAY_MS)."),
        (Remaining(0, 9_000), AGGRESSIVE, f"{FAST} the worker's pace"),
        (
            Remaining(0, 9_000),
            AGGRESSIVE | {"ingest_busy_mb_per_s": 0},
            f"{FAST} the w",
        ),
        (
            Remaining(0, 9_000),
            AGGRESSIVE | {"ingest_busy_mb_per_s": 7},
            f"{FAST} the w",
        ),
        (
            Remaining(0, 7_000),
            AGGRESSIVE | {"ingest_busy_mb_per_s": 0.7},
            "at 100.0 events/s that takes 1m10s. The limit is the ingest's INGEST_BUSY_MB_PER_S, at about 7 kB an "
            "event: the worker could apply 1,000.0 events/s.",
        ),
        # What is in Kafka already needs no ingest.
        (
            Remaining(9_000, 9_000),
            AGGRESSIVE | {"ingest_busy_mb_per_s": 0.7},
            FAST,
        ),
    ],
)
def test_what_is_left_and_how_long_it_takes(left: Remaining, settings: dict[str, object], words: str | None) -> None:
    sentence = estimate(left, Settings(_env_file=None, **settings))  # type: ignore[arg-type, call-arg]
    assert sentence is None if words is None else sentence is not None and words in sentence
