"""Faults that can be switched on, for the tests and for whoever wants to see what then happens.

``CRASH_AT=NAME`` or ``NAME:COUNT`` kills this process at a named place, the COUNT-th time it comes by. What holds after
SIGKILL at each of these holds at any instruction between them. Without CRASH_AT a crash point is one comparison, and
none stands where it would be passed for each event.

``MEMORY_HOG=MB:AFTER:FOR`` takes so many MB, so late, for so long (seconds). The process takes the memory itself, as a
leak would. Without MEMORY_HOG this is one comparison at the start.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from typing import Final

#: In the order in which an event passes them: the ingest's, then the worker's.
INGEST_POINTS: Final = (
    "topic.before_create", "topic.after_create", "run.before_first_watermark", "run.after_first_watermark",
    "batch.before_send", "batch.acknowledged", "watermark.before_write",
    "watermark.acknowledged", "drain.before", "drain.after",
)  # fmt: skip
WORKER_POINTS: Final = (
    "migration.before", "migration.inside", "migration.after", "positions.before", "positions.after", "slice.taken",
    "slice.before_apply", "slice.after_apply", "slice.acknowledged", "cursor.before_write", "cursor.after_write",
    "tables.before_flush", "tables.after_flush", "shutdown.before_cursor", "shutdown.after_cursor",
)  # fmt: skip


#: Of the command `rebuild`.
REBUILD_POINTS: Final = (
    "rebuild.after_schema", "rebuild.after_seed", "rebuild.after_fill", "rebuild.before_swap_commit",
    "rebuild.after_swap",
)  # fmt: skip
ALL_POINTS: Final = (*INGEST_POINTS, *WORKER_POINTS, *REBUILD_POINTS)


def _asked(text: str) -> tuple[str | None, int]:
    """The point and the count that CRASH_AT names. Ends the process where it names none."""
    if not text:
        return None, 0
    name, _, count = text.partition(":")
    if name not in ALL_POINTS or (count and not count.isdigit()):
        sys.exit(f"CRASH_AT={text!r} names no crash point: {', '.join(ALL_POINTS)}")
    return name, int(count or 1)


_at, _left = _asked(os.environ.get("CRASH_AT", ""))


def crash_point(name: str) -> None:
    """Die here, by SIGKILL, if this is the point that was asked for."""
    if name == _at:
        _pass()


def _pass() -> None:
    global _left  # noqa: PLW0603 (a process has one)
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


_FORM: Final = re.compile(r"(\d{1,6}):(\d{1,6}(?:\.\d+)?):(\d{1,6}(?:\.\d+)?)")


def _hog_asked(text: str) -> tuple[int, float, float] | None:
    """MB, after and for, or None. Ends the process where it is neither."""
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
