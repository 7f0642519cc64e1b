"""The ingest's limit while the delay holds: the user's setting, else what the workers can apply. Pure."""

from __future__ import annotations

from typing import Final

from streams.settings import Settings

#: Bytes of a frame, for each event in it, while nothing is measured: the network's 2 to 5 MB/s for 300 to 600 events/s.
NETWORK_BYTES: Final = 7_000
#: Bytes a second that are read at least: a worker that is slow by its settings still finds its events in Kafka.
LEAST: Final = 1e6
#: Times what the workers can apply, so that they never wait for the ingest.
AHEAD: Final = 1.25


def allowed_rate(settings: Settings) -> float | None:
    """Return the events a second that a worker's settings allow while the delay holds; None without a delay."""
    delay = settings.backfill_batch_delay_ms / 1000
    return settings.backfill_batch_size / delay if delay else None


def ingest_budget(settings: Settings, workers: int = 1, bytes_an_event: float = NETWORK_BYTES) -> float | None:
    """Return the bytes a second that the ingest may read while the delay holds; None: no limit.

    INGEST_BUSY_MB_PER_S rules where it is set. Else it is what so many workers can apply.
    """
    rate = allowed_rate(settings)
    if rate is None:
        return None
    if settings.ingest_busy_mb_per_s is not None:
        return settings.ingest_busy_mb_per_s * 1e6 or None
    return max(LEAST, AHEAD * rate * max(1, workers) * bytes_an_event)


def ingest_limit(settings: Settings) -> float | None:
    """Return the events a second that the ingest reads, where that is less than a worker can apply; else None."""
    rate, budget = allowed_rate(settings), ingest_budget(settings)
    if rate is None or budget is None or budget / NETWORK_BYTES >= rate:
        return None
    return budget / NETWORK_BYTES
