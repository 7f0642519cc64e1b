"""Waits, for an answer or between tries, that a stop ends; and a log of trouble that repeats itself once a minute."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

#: Seconds between two lines about the same trouble.
SAY_EVERY: Final = 60.0
#: Seconds: the first wait between two tries, and the longest.
FIRST, LONGEST = 0.5, 60.0
#: Seconds after which an answer that does not come is trouble.
SLOW: Final = 10.0


def backoff(attempt: int, first: float, longest: float) -> float:
    """Return the seconds to wait before the next try: twice as long with each ``attempt`` (0 is the first)."""
    return min(longest, first * 2.0 ** min(attempt, 30))


def jittered(seconds: float) -> float:
    """Return half of it to all of it, at random: so that not all who wait try at once."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret)


class Stopped(Exception):  # noqa: N818 (nobody's fault)
    """We were told to stop while we waited for an answer."""


class StopSignal:
    """The signal to stop, for everything that waits in this process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """Return whether we were told to stop."""
        return self._event.is_set()

    def set(self) -> None:
        """Stop: wake everything that waits. Later waits end at once."""
        self._event.set()

    async def backoff(self, attempt: int, least: float = 0.0) -> None:
        """Wait before the next try, for at least ``least`` seconds. A stop ends the wait."""
        delay = max(least, jittered(backoff(attempt, FIRST, LONGEST)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), delay)

    async def race(self, work: Coroutine[Any, Any, T], on_slow: Callable[[], None] = lambda: None) -> T:
        """Return what ``work`` returns. If a stop comes first, cancel it and raise Stopped.

        ``on_slow`` is called every SLOW seconds while ``work`` is not done.
        """
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._event.wait())
        try:
            while True:
                await asyncio.wait((task, stop), timeout=SLOW, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return task.result()
                if self.is_set:
                    raise Stopped
                on_slow()
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)


class Log(Protocol):
    """A logger, structlog's or the standard library's."""

    def warning(self, text: str) -> object:
        """Log one line."""


class RateLimitedLog:
    """A log of trouble: at most one line a minute for each thing that it is about."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._logged_at: dict[str, float] = {}

    def warning(self, about: str, text: str) -> None:
        """Log ``text``, unless something about the same was logged within the last minute."""
        now = time.monotonic()
        if now - self._logged_at.get(about, -SAY_EVERY) >= SAY_EVERY:
            self._logged_at[about] = now
            self._log.warning(text)
