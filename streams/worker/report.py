"""The ``[BACKFILL]`` lines: what was received, processed and skipped, the memory, and the cursor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

log = logging.getLogger(__name__)

#: Seconds between two reports, while something moves.
REPORT_SECONDS: Final = 10.0


class Cursor(Protocol):
    """The parts of a cursor that are shown."""

    @property
    def seq(self) -> int:
        """The relay's sequence number."""

    @property
    def time(self) -> datetime | None:
        """The time of its frame, UTC."""


@dataclass(slots=True)
class WorkerCounts:
    """Events since the worker's start. received = processed + skipped + dead."""

    received: int = 0
    processed: int = 0
    skipped: int = 0
    dead: int = 0

    def add(self, received: int, processed: int, skipped: int, dead: int) -> None:
        """Add the counts of a transaction."""
        self.received += received
        self.processed += processed
        self.skipped += skipped
        self.dead += dead


class Reporter:
    """A reporter of the changes since its last report; it is silent while nothing moves."""

    def __init__(self, memory: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = WorkerCounts()
        self.cursor: Cursor | None = None
        self._memory = memory
        self._clock = clock
        self._at = clock()
        self._received = 0
        self._cursor_said: int | None = None

    def report(self) -> None:
        """Log the lines, if anything has moved."""
        for line in self.lines():
            log.info("%s", line)

    def lines(self) -> list[str]:
        """Return the lines of a report now, none if nothing has moved since the last."""
        now, received = self._clock(), self.counts.received
        cursor = self.cursor
        moved = received != self._received or (cursor is not None and cursor.seq != self._cursor_said)
        rate = (received - self._received) / max(now - self._at, 0.001)
        self._at, self._received = now, received
        if not moved:
            return []
        lines = [progress_line(self.counts, rate), f"[BACKFILL] Memory: {self._memory()}"]
        if cursor is not None:
            self._cursor_said = cursor.seq
            lines.append(cursor_line(cursor))
        return lines


def progress_line(counts: WorkerCounts, rate: float) -> str:
    """Return ``[BACKFILL] Progress: N received, N processed, N skipped (X evt/s)``."""
    return (
        f"[BACKFILL] Progress: {counts.received} received, {counts.processed} processed, {counts.skipped} skipped "
        f"({rate:.1f} evt/s)"
    )


def cursor_line(cursor: Cursor) -> str:
    """Return ``[BACKFILL] Cursor: SEQ (TIME)``."""
    when = cursor.time.strftime("%Y-%m-%dT%H:%M:%SZ") if cursor.time is not None else "no time yet"
    return f"[BACKFILL] Cursor: {cursor.seq} ({when})"
