"""A TCP proxy that breaks the network on demand: cut, frozen, slow, thin. ``async with Proxy(host, port) as proxy``.

It listens on 127.0.0.1:``proxy.port`` and forwards to the target. What it does wrong holds for all connections, those
that come later too. Frozen it takes bytes in, as a kernel at the other end would, and lets none out; thawed it delivers
them in order, even those of a client that is dead by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import Final, Self

CHUNK: Final = 64 * 1024
#: Most bytes that a connection's direction takes in ahead of what it delivers.
LEAST_AHEAD: Final = 256 * 1024
FROZEN_AHEAD: Final = 8 * 1024 * 1024
#: Pieces into which a thin line cuts what it carries, in seconds.
TICK: Final = 0.02


class Proxy:
    """A proxy to ``host:target``. Every method may be called at any time, and holds at once."""

    def __init__(self, host: str, target: int, *, port: int = 0) -> None:
        self.port = port
        self.connections = 0
        self._target = (host, target)
        self._delay = self._rate = 0.0
        self._freeze_at: int | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._lines: set[_Line] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything, and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what can be wrong

    def cut(self) -> None:
        """Reset every connection; what was under way is lost. New ones are taken."""
        for line in self._lines:
            line.reset()
        for client in self._clients:  # also those that wait for a thaw
            _reset(client)

    def freeze(self) -> None:
        """Nothing gets through, in either direction, and nobody is told: a cable that was pulled."""
        self._open.clear()

    def freeze_at(self, size: int) -> None:
        """Freeze as soon as so many bytes, or more, are on their way to the target at once: with them."""
        self._freeze_at = size

    def thaw(self) -> None:
        """Deliver what is held, and go on."""
        self._freeze_at = None
        self._open.set()

    def delay(self, seconds: float) -> None:
        """Each byte takes so much longer, in either direction; 0 is none."""
        self._delay = seconds

    def rate(self, bytes_per_s: float) -> None:
        """No connection carries more, in either direction; 0 is no limit."""
        self._rate = bytes_per_s

    @property
    def frozen(self) -> bool:
        """Whether it is."""
        return not self._open.is_set()

    @property
    def held(self) -> int:
        """Bytes on their way to the target that were not delivered yet."""
        return sum(line.ahead for line in self._lines if line.outward)

    # -- connections

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio makes noise about those that are cancelled.
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            with contextlib.suppress(OSError):
                await self._forward(reader, writer)
        finally:
            self._clients.discard(writer)
            _reset(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        there, back = await asyncio.open_connection(*self._target, limit=CHUNK)
        lines = [_Line(self, reader, back, outward=True), _Line(self, there, writer, outward=False)]
        self._lines.update(lines)
        try:
            await asyncio.gather(*(line.run() for line in lines))
            back.close()
            writer.close()
        finally:
            self._lines.difference_update(lines)
            _reset(back)

    async def _pass(self, due: float, size: int) -> None:
        """Wait until bytes that came at ``due`` may go."""
        while True:
            await self._open.wait()
            left = due + self._delay - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await asyncio.sleep(min(left, TICK))
        if self._rate:
            await asyncio.sleep(size / self._rate)
            await self._open.wait()

    def _most_ahead(self) -> int:
        return LEAST_AHEAD if self._open.is_set() else FROZEN_AHEAD

    def _piece(self) -> int:
        return max(1, int(self._rate * TICK)) if self._rate else CHUNK


class _Line:
    """One direction of a connection: takes in, keeps for as long as it must, delivers. An end comes in its order."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, outward: bool
    ) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self.outward = outward
        self.ahead = 0
        self._queue: deque[tuple[float, bytes]] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    def reset(self) -> None:
        """End it at once, without a word to either side but a reset."""
        self._queue.clear()
        self.ahead = 0
        _reset(self._writer)
        self._reader.feed_eof()

    async def run(self) -> None:
        """Until the end of the input is delivered, or nobody takes it."""
        taking = asyncio.create_task(self._take_in())
        try:
            await self._deliver()
        finally:
            taking.cancel()

    async def _take_in(self) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            while self.ahead >= self._proxy._most_ahead():  # which changes with a freeze
                self._room.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._room.wait(), TICK)
            try:
                data = await self._reader.read(CHUNK)
            except OSError:  # a client that was killed: what it had sent is on its way
                data = b""
            self.ahead += len(data)
            most = self._proxy._freeze_at
            if self.outward and most is not None and self.ahead >= most:
                self._proxy.freeze()
            self._queue.append((loop.time(), data))
            self._changed.set()

    async def _deliver(self) -> None:
        while True:
            while not self._queue:
                self._changed.clear()
                await self._changed.wait()
            came, data = self._queue.popleft()
            if not data:
                await self._proxy._pass(came, 0)
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                return
            size = self._proxy._piece()
            for start in range(0, len(data), size):
                piece = data[start : start + size]
                await self._proxy._pass(came, len(piece))
                self._writer.write(piece)
                await self._writer.drain()
                self.ahead = max(0, self.ahead - len(piece))
                self._room.set()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close without waiting for anything; the other side reads a reset. A no-op where it is closed."""
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
