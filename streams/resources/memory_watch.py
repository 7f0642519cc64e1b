"""A check of RSS against the limit once a second, because no count is exact; and memory given back."""

from __future__ import annotations

import ctypes
import gc
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from streams.resources.in_flight import InFlightBudget, MemoryState
from streams.resources.memory_budgets import MB

log = logging.getLogger(__name__)

#: mallopt(3)'s names. A threshold that is set no longer grows by itself: a freed buffer of a megabyte goes back to the
#: system at once, where by default the allocator would keep up to 32 MB for the next. It is above asyncio's 256 KB for
#: each read from a socket, and the heap is trimmed by megabytes only: else each read is a call to the system more.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


class MemoryJudge:
    """The judgement at some RSS: ``go``, ``pause``, or ``small``: go on with the smallest batches.

    Above the limit it pauses until RSS is below RESUME of it. A pause of TIMEOUT seconds has freed nothing that can be
    freed: then work goes on with the smallest batches, until RSS is below again.
    """

    RESUME, TIMEOUT = 0.9, 30.0

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.state: MemoryState = "go"
        self._since = 0.0

    def sample(self, now: float, rss: int) -> MemoryState:
        """Take in RSS in bytes; return the judgement."""
        if self.state == "go":
            if rss > self.limit:
                self.state, self._since = "pause", now
        elif rss < self.limit * self.RESUME:
            self.state = "go"
        elif now - self._since >= self.TIMEOUT:
            self.state = "small"
        return self.state


class MemoryWatch:
    """Looks at RSS, frees what can be freed, sets the budget's state, and logs each change once."""

    #: Seconds between two attempts to free something: a collection of everything takes a tenth of a second.
    RELEASE_EVERY: Final = 5.0

    def __init__(
        self, limit: int, rss: Callable[[], int], budget: InFlightBudget, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._judge = MemoryJudge(limit)
        self._rss, self._clock = rss, clock
        self._released = float("-inf")
        self.budget = budget
        self.rss = 0

    @property
    def limit(self) -> int:
        """The most bytes of RSS."""
        return self._judge.limit

    @property
    def state(self) -> MemoryState:
        """The present judgement."""
        return self._judge.state

    def look(self) -> bool:
        """Look once; return True if the judgement has changed."""
        now = self._clock()
        self.rss = self._rss()
        if (self.rss > self.limit or self.state == "pause") and now - self._released >= self.RELEASE_EVERY:
            release_memory()
            self.rss, self._released = self._rss(), now
        was = self._judge.state
        state = self.budget.state = self._judge.sample(now, self.rss)
        if state != was:
            log.log(logging.INFO if state == "go" else logging.WARNING, "[BACKFILL] Memory: %s", self.says)
        return state != was

    @property
    def says(self) -> str:
        """The judgement and its reason, in a sentence."""
        line = memory_line(self.rss, self.limit)
        if self.state == "pause":
            return f"{line}: pausing until some is freed"
        if self.state == "small":
            return f"{line}: nothing was freed in {MemoryJudge.TIMEOUT:.0f} s: going on with the smallest batches"
        return f"{line}: going on"


def memory_line(rss: int, limit: int) -> str:
    """Return ``245MB / 512MB limit``."""
    return f"{rss >> 20}MB / {limit >> 20}MB limit"


def tune_allocator() -> None:
    """Ask the C library to give large blocks back at once, and not to keep an arena a thread. glibc only."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 * MB)
        libc.mallopt(_M_TRIM_THRESHOLD, 4 * MB)
        libc.mallopt(_M_ARENA_MAX, 2)


def freeze_startup_memory() -> None:
    """Keep what is there after the start out of later collections, each of which would take a tenth of a second."""
    release_memory()
    gc.freeze()


def release_memory() -> None:
    """Give memory back: cycles, and the allocator's free pages."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
