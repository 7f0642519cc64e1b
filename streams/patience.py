"""Waiting between tries, longer each time and until told to stop; and saying the same trouble once a minute."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Final, Protocol

#: Seconds between two lines about the same trouble.
SAY_EVERY: Final = 60.0
#: Seconds: the first wait, and the longest.
FIRST, LONGEST = 0.5, 60.0


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

    async def wait(self, attempt: int) -> None:
        """Twice as long with each ``attempt`` (0 is the first), with jitter; not longer than until the end."""
        delay = min(LONGEST, FIRST * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay)

    def say(self, about: str, text: str) -> None:
        """Log trouble, at most once a minute for each thing it is about."""
        now = time.monotonic()
        if now - self._said.get(about, -SAY_EVERY) >= SAY_EVERY:
            self._said[about] = now
            self._log.warning(text)
