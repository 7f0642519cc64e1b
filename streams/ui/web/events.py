"""Server-sent events: one view of the page a second, made once for all clients. A slow client is dropped."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

log = logging.getLogger(__name__)

#: Most pages that are kept up to date at once.
MOST_CLIENTS: Final = 32
#: Seconds between two events.
EVERY: Final = 1.0
#: Seconds that a client may take for an event.
SLOWEST: Final = 5.0
#: Bytes that may wait for a client before it must take some: in our buffer, and in the system's.
HIGH_WATER: Final = 64 * 1024


class EventStream:
    """The clients, and the task that makes the events while there are any."""

    def __init__(self, make: Callable[[], Awaitable[bytes]]) -> None:
        self._make = make
        self._clients: set[asyncio.Queue[bytes | None]] = set()
        self._maker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def clients(self) -> int:
        """The number of clients."""
        return len(self._clients)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send events until the client leaves, is too slow, or the server ends."""
        if self._closed or len(self._clients) >= MOST_CLIENTS:
            raise web.HTTPServiceUnavailable(
                text="Too many look at this page already.\n", headers={"Retry-After": "30"}
            )
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._clients.add(queue)
        if self._maker is None or self._maker.done():
            self._maker = asyncio.create_task(self._run())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        try:
            await response.prepare(request)
            _bound(request)
            await response.write(b"retry: 2000\n\n")
            while (event := await queue.get()) is not None:
                async with asyncio.timeout(SLOWEST):
                    await response.write(event)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._clients.discard(queue)
        return response

    async def _run(self) -> None:
        """Make events while there are clients."""
        loop = asyncio.get_running_loop()
        while self._clients:
            began = loop.time()
            try:
                event = b"event: view\ndata: " + await self._make() + b"\n\n"
            except Exception as error:
                log.warning("The page's numbers could not be made: %r", error, exc_info=error)
                event = b": no numbers now\n\n"
            for queue in self._clients:
                if queue.full():  # it has not taken the one before: only the newest counts
                    queue.get_nowait()
                queue.put_nowait(event)
            await asyncio.sleep(max(EVERY / 10, EVERY - (loop.time() - began)))

    async def close(self) -> None:
        """End every client's stream."""
        self._closed = True
        if self._maker is not None:
            self._maker.cancel()
            await asyncio.gather(self._maker, return_exceptions=True)
        for queue in self._clients:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)


def _bound(request: web.Request) -> None:
    """Limit the bytes that may wait for a client."""
    if request.transport is None:
        return
    request.transport.set_write_buffer_limits(high=HIGH_WATER)
    connection = request.transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HIGH_WATER)
