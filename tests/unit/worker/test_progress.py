"""The [BACKFILL] lines, character by character."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from streams.agents import make_app
from streams.resources.memory_watch import memory_line
from streams.settings import Settings
from streams.sink_postgres import Written
from streams.tables import MAX_COLLECTIONS, OTHERS, Tables, merge_counts
from streams.worker.report import Reporter


@dataclass
class Cursor:
    seq: int
    time: datetime | None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines() -> None:
    clock = Clock()
    reporter = Reporter(lambda: memory_line(245 << 20, 512 << 20), clock)
    assert reporter.lines() == []
    reporter.counts.add(received=120, processed=100, skipped=19, dead=1)
    reporter.cursor = Cursor(4711, datetime(2026, 1, 2, 3, 4, 5, 678))
    clock.now = 10.0
    assert reporter.lines() == [
        "[BACKFILL] Progress: 120 received, 100 processed, 19 skipped (12.0 evt/s)",
        "[BACKFILL] Memory: 245MB / 512MB limit",
        "[BACKFILL] Cursor: 4711 (2026-01-02T03:04:05Z)",
    ]
    clock.now = 20.0
    assert reporter.lines() == []  # nothing moves
    reporter.cursor = Cursor(4712, None)
    assert reporter.lines()[-1] == "[BACKFILL] Cursor: 4712 (no time yet)"


def test_counts_by_collection_are_bounded() -> None:
    held = {f"com.example.c{i}": 1 for i in range(MAX_COLLECTIONS)}
    merged = merge_counts(held, {"com.example.c0": 2, "com.evil.a": 3, "com.evil.b": 4})
    assert merged["com.example.c0"] == 3
    assert merged[OTHERS] == 7
    assert len(merged) == MAX_COLLECTIONS + 1


def test_what_cannot_be_written_to_the_tables_yet_stays_pending() -> None:
    """Before Faust knows the changelogs: else what is applied in the first moment is never counted."""
    tables = Tables(make_app(Settings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:9")), "topic", 8)  # type: ignore[call-arg]
    assert not tables.pending
    tables.note(0, Written(1, 1, 0, 0, None, by_collection={"app.bsky.feed.post": 1}))
    tables.flush([0])
    assert tables.pending
