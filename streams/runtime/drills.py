"""Faults that can be switched on, for tests and for drills.

``CRASH_AT=NAME`` or ``NAME:COUNT`` kills this process at a named place, the COUNT-th time it comes by. What holds after
SIGKILL at each of these holds at any instruction between them. Without CRASH_AT a crash point is one comparison, and
none stands where it would be passed for each event.

``MEMORY_HOG=MB:AFTER:FOR`` takes so many MB, so late, for so long (seconds). The process takes the memory itself, as a
leak would. Without MEMORY_HOG this is one comparison at the start.
"""

from __future__ import annotations

import asyncio
import enum
import os
import re
import signal
import sys
from typing import Final


class IngestPoint(enum.StrEnum):
    """The ingest's crash points, in the order in which an event passes them.

    The comments say what is there after the crash, and what the next ingest must do.
    """

    #: There is no topic. It creates one.
    TOPIC_BEFORE_CREATE = "topic.before_create"
    #: The topic is there and empty. It takes the topic as it is.
    TOPIC_AFTER_CREATE = "topic.after_create"
    #: The topic does not know the run. It begins a run of its own at the point that was asked for.
    RUN_BEFORE_FIRST_WATERMARK = "run.before_first_watermark"
    #: The topic knows the run, and no event of it. It resumes at the run's beginning.
    RUN_AFTER_FIRST_WATERMARK = "run.after_first_watermark"
    #: The batch is lost with the process. It reads the batch's events again, from the last watermark on.
    BATCH_BEFORE_SEND = "batch.before_send"
    #: Kafka has the batch, and no watermark says so. Its events come a second time, and change no row.
    BATCH_ACKNOWLEDGED = "batch.acknowledged"
    #: Kafka has everything below the position, and no partition a watermark that says so. As after BATCH_ACKNOWLEDGED.
    WATERMARK_BEFORE_WRITE = "watermark.before_write"
    #: Every partition has the watermark. It resumes exactly there.
    WATERMARK_ACKNOWLEDGED = "watermark.acknowledged"
    #: The run's last batches are open or on their way. It resumes at the last watermark and goes on to the head.
    DRAIN_BEFORE = "drain.before"
    #: Kafka has everything, with the last watermark behind it. It resumes at the end: no event is lost, none is a gap.
    DRAIN_AFTER = "drain.after"


class WorkerPoint(enum.StrEnum):
    """The worker's crash points, in the order in which a slice passes them.

    The comments say what is there after the crash, and what the next worker must do.
    """

    #: The schema is as it was. It migrates.
    MIGRATION_BEFORE = "migration.before"
    #: Postgres rolls the transaction back: no half of a migration is there. It migrates from the version before.
    MIGRATION_INSIDE = "migration.inside"
    #: The schema is migrated. It migrates nothing.
    MIGRATION_AFTER = "migration.after"
    #: The partitions have no position. It writes them, at the log's beginning.
    POSITIONS_BEFORE = "positions.before"
    #: The partitions have a position, and nothing is applied. It begins at these positions.
    POSITIONS_AFTER = "positions.after"
    #: The slice was only in memory. It is fetched again, at the database's position.
    SLICE_TAKEN = "slice.taken"
    #: The transaction has not begun. As after SLICE_TAKEN.
    SLICE_BEFORE_APPLY = "slice.before_apply"
    #: Rows and position are committed together, and Kafka was told nothing. The slice is not applied a second time.
    SLICE_AFTER_APPLY = "slice.after_apply"
    #: The same, and what is counted beside the transaction (tables, cursor) is lost: the counts in Postgres are exact.
    SLICE_ACKNOWLEDGED = "slice.acknowledged"
    #: firehose_cursor is older than the rows. The next worker's first save brings it up to them.
    CURSOR_BEFORE_WRITE = "cursor.before_write"
    #: firehose_cursor is written, and the process does not know it. The next save changes nothing.
    CURSOR_AFTER_WRITE = "cursor.after_write"
    #: The Faust tables lack the last second. They are for looking: rows and positions are right all the same.
    TABLES_BEFORE_FLUSH = "tables.before_flush"
    #: The Faust tables' messages may be sent or not. As after TABLES_BEFORE_FLUSH.
    TABLES_AFTER_FLUSH = "tables.after_flush"
    #: Told to stop: the agents have stopped, the last cursor is not written. The next worker writes it.
    SHUTDOWN_BEFORE_CURSOR = "shutdown.before_cursor"
    #: Told to stop: everything is saved, but the process' row says that it runs. The next worker finds nothing to do.
    SHUTDOWN_AFTER_CURSOR = "shutdown.after_cursor"


class RebuildPoint(enum.StrEnum):
    """The crash points of the command ``rebuild``.

    The comments say what is there after the crash, and what the same command must do when it is given again.
    """

    #: The new schema knows that it is a rebuild, and of what; it has no rows. The rebuild goes on.
    AFTER_SCHEMA = "rebuild.after_schema"
    #: The live schema's rows are copied, and the state says so. They are not copied a second time.
    AFTER_SEED = "rebuild.after_seed"
    #: The new schema has caught up; the live one is untouched. It goes on from the new schema's own positions.
    AFTER_FILL = "rebuild.after_fill"
    #: The swap is not committed: the live schema is still the live one. It is swapped then.
    BEFORE_SWAP_COMMIT = "rebuild.before_swap_commit"
    #: The swap is committed. It finds that, and swaps nothing.
    AFTER_SWAP = "rebuild.after_swap"


CrashPoint = IngestPoint | WorkerPoint | RebuildPoint
ALL_POINTS: Final[tuple[CrashPoint, ...]] = (*IngestPoint, *WorkerPoint, *RebuildPoint)


def _asked(text: str) -> tuple[CrashPoint | None, int]:
    """Return the point and the count that CRASH_AT names. Ends the process where it names none."""
    if not text:
        return None, 0
    name, _, count = text.partition(":")
    point = next((point for point in ALL_POINTS if point == name), None)
    if point is None or (count and not count.isdigit()):
        sys.exit(f"CRASH_AT={text!r} names no crash point: {', '.join(ALL_POINTS)}")
    return point, int(count or 1)


_at, _left = _asked(os.environ.get("CRASH_AT", ""))


def crash_point(point: CrashPoint) -> None:
    """Die here, by SIGKILL, if this is the point that was asked for."""
    if point is _at:
        _pass()


def _pass() -> None:
    global _left  # noqa: PLW0603 (a process has one)
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


_FORM: Final = re.compile(r"(\d{1,6}):(\d{1,6}(?:\.\d+)?):(\d{1,6}(?:\.\d+)?)")


def _hog_asked(text: str) -> tuple[int, float, float] | None:
    """Return MB, after and for, or None where nothing was asked for. Ends the process where it is neither."""
    if not text:
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        sys.exit(f"MEMORY_HOG={text!r} is not MB:AFTER:FOR, as 300:5:20 (MB, seconds from the start, seconds).")
    return int(found[1]), float(found[2]), float(found[3])


_hog: Final = _hog_asked(os.environ.get("MEMORY_HOG", ""))


async def hog_memory() -> None:
    """Take the memory that was asked for, hold it, and let it go."""
    if _hog is None:
        return
    megabytes, after, seconds = _hog
    if after:
        await asyncio.sleep(after)
    held = b"\x01" * (megabytes << 20)  # not zeros: those would not be resident
    await asyncio.sleep(seconds)
    del held
