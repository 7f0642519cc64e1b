"""One Status for all clients: gathered once a second at most, and only while somebody looks or scrapes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final, Protocol

from streams.errors import StreamsError
from streams.runtime.tasks import end_tasks
from streams.status.model import Status

log = logging.getLogger(__name__)

#: Seconds that a Status is good for.
FRESH: Final = 0.9
#: Seconds for one gathering; what takes longer is a trouble.
TIMEOUT: Final = 15.0
#: Seconds that an old Status is shown while none can be read.
STALE: Final = 60.0
#: Seconds after the last question at which the reader's connections are given back.
CLOSE_AFTER: Final = 30.0


class Reader(Protocol):
    """The source of a Status."""

    async def gather(self) -> Status:
        """Return the deployment now. Raises StreamsError."""


class Watcher:
    """The one caller of a reader. ``open_reader`` makes its connections; they are given back while nobody asks."""

    def __init__(self, open_reader: Callable[[], AbstractAsyncContextManager[Reader]]) -> None:
        self._open_reader = open_reader
        self._stack: AsyncExitStack | None = None
        self._reader: Reader | None = None
        self._gathering: asyncio.Task[None] | None = None
        self._status: Status | None = None
        self._tried_at = self._read_at = self._asked_at = float("-inf")
        #: Why there is no Status, or why it is an old one.
        self.trouble: str | None = None

    async def latest(self, timeout: float) -> Status | None:
        """Return a Status of this moment; an older one, or none, while it cannot be read: ``trouble`` says why.

        Whoever asks waits for ``timeout`` seconds at most. The gathering is one for all, and goes on without them.
        """
        self._asked_at = time.monotonic()
        if self._gathering is None and self._asked_at - self._tried_at >= FRESH:
            self._gathering = asyncio.create_task(self._gather())
        if (gathering := self._gathering) is not None:
            await asyncio.wait({gathering}, timeout=timeout)
            if not gathering.done() and self.trouble is None:
                self.trouble = f"Kafka or Postgres has not answered for {timeout:.0f} s; the answer is waited for."
        if self.trouble is not None and time.monotonic() - self._read_at > STALE:
            return None
        return self._status

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                self._status = await (await self._open()).gather()
            self._read_at, self.trouble = time.monotonic(), None
        except StreamsError as error:
            self.trouble = str(error)
        except TimeoutError:
            self.trouble = f"Kafka and Postgres did not answer within {TIMEOUT:.0f} s."
        except Exception as error:
            # The page must not end what it shows.
            trouble = f"The status cannot be read: {type(error).__name__}."
            if self.trouble != trouble:
                log.warning("The status could not be read: %r", error, exc_info=error)
            self.trouble = trouble
        finally:
            self._gathering, self._tried_at = None, time.monotonic()

    async def _open(self) -> Reader:
        if self._reader is None:
            self._stack = AsyncExitStack()
            self._reader = await self._stack.enter_async_context(self._open_reader())
        return self._reader

    async def rest(self) -> None:
        """Give the connections back if nobody has asked for a while. Call it now and then."""
        if time.monotonic() - self._asked_at >= CLOSE_AFTER and self._gathering is None:
            await self.close()

    async def close(self) -> None:
        """Give the connections back; a gathering that is under way ends."""
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            await end_tasks([gathering])
        stack, self._stack, self._reader = self._stack, None, None
        if stack is not None:
            try:
                await stack.aclose()
            except Exception as error:
                log.debug("The status' connections did not close well: %r", error)
