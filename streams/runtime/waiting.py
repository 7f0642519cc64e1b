"""Waiting, for an answer or between tries, until told to stop; and saying the same trouble once a minute."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

#: Seconds between two lines about the same trouble.
SAY_EVERY: Final = 60.0
#: Seconds: the first wait, and the longest.
FIRST, LONGEST = 0.5, 60.0
#: Seconds after which an answer that does not come is trouble.
SLOW: Final = 10.0


class Ended(Exception):  # noqa: N818 (nobody's fault)
    """We were told to stop while we waited for an answer."""


class Log(Protocol):
    """Where trouble is said."""

    def warning(self, text: str) -> object:
        """One line."""


class Patience:
    """Of one process: all that wait with it end together."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._stop = asyncio.Event()
        self._said: dict[str, float] = {}

    @property
    def ended(self) -> bool:
        """Whether we were told to stop."""
        return self._stop.is_set()

    def end(self) -> None:
        """Who waits is woken, and nobody waits any more."""
        self._stop.set()

    async def wait(self, attempt: int, least: float = 0.0) -> None:
        """Twice as long with each ``attempt`` (0 is the first), with jitter; not longer than until the end.

        ``least``: seconds that it is at least.
        """
        delay = max(least, min(LONGEST, FIRST * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay)

    async def unless_ended(self, work: Coroutine[Any, Any, T], about: str = "", slow: str = "") -> T:
        """What ``work`` gives; it is cancelled, and Ended raised, when we are told to stop before it is done.

        ``slow`` is said, about ``about``, while it takes longer than SLOW.
        """
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            while True:
                await asyncio.wait((task, stop), timeout=SLOW, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return task.result()
                if self.ended:
                    raise Ended
                if slow:
                    self.say(about, slow)
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    def say(self, about: str, text: str) -> None:
        """Log trouble, at most once a minute for each thing it is about."""
        now = time.monotonic()
        if now - self._said.get(about, -SAY_EVERY) >= SAY_EVERY:
            self._said[about] = now
            self._log.warning(text)
