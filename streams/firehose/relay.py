"""One connection to a relay: frames are handed over where the protocol parses them, without a queue or a task.

``websockets`` parses, answers pings and closes; ``process_event`` is where a frame arrives, and overriding it saves
5 µs a frame against ``recv()`` (DESIGN, costs). Not reading (``pause``) leaves the rest to TCP, which holds the relay.
Reconnecting is the caller's: the URL must be built anew with the current cursor each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import CloseCode, Frame, Opcode

from streams import __version__
from streams.errors import RelayError
from streams.firehose.syntax import shown

#: Largest message in bytes. The protocol allows 5 MB; what is larger but arrives still gets its dead letter.
MAX_FRAME: Final = 32 * 1024 * 1024
#: Seconds for the connection and the handshake.
OPEN_TIMEOUT: Final = 15.0
#: HTTP answers that say that the relay does not want us, now or later.
_REFUSALS: Final = {400, 401, 403, 404, 405, 410}

OnFrame = Callable[[bytes], None]


class OversizedMessage(Exception):  # noqa: N818 (the relay's fault)
    """The relay sent a message above the connection's ``max_size``. It is not read, so its seq is not known."""


class _Connection(ClientConnection):
    """Hands complete binary messages to ``on_frame``; what that raises ends the connection and reaches ``ended``."""

    on_frame: OnFrame
    on_text: OnFrame
    on_bytes: Callable[[int], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (websockets')
        super().__init__(*args, **kwargs)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._parts: list[Any] = []
        self._kind = Opcode.BINARY

    def data_received(self, data: bytes) -> None:
        self.on_bytes(len(data))
        super().data_received(data)

    def process_event(self, event: Any) -> None:  # noqa: ANN401
        if type(event) is not Frame or self.response is None or event.opcode.value > Opcode.BINARY.value:
            super().process_event(event)
            return
        if self.ended.done():
            return  # what was buffered when we were done
        if event.opcode is not Opcode.CONT:
            self._kind = event.opcode
        if event.fin and not self._parts:
            self._complete(event.data)
            return
        self._parts.append(event.data)
        if event.fin:
            data = b"".join(self._parts)
            self._parts.clear()
            self._complete(data)

    def _complete(self, data: Any) -> None:  # noqa: ANN401
        try:
            if self._kind is Opcode.BINARY:
                self.on_frame(bytes(data))
            else:
                self.on_text(bytes(data))
        except BaseException as error:
            self.finish(error)

    def finish(self, outcome: str | BaseException) -> None:
        if not self.ended.done():
            if isinstance(outcome, BaseException):
                self.ended.set_exception(outcome)
            else:
                self.ended.set_result(outcome)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.ended.done():
            sent = self.protocol.close_sent
            if sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG:
                self.ended.set_exception(OversizedMessage(sent.reason))
                return
            code, reason = self.protocol.close_code, shown(self.protocol.close_reason or "")
            self.ended.set_result(f"closed by the relay: {code} {reason}".strip() if code else "connection lost")


class RelayConnection:
    """An open connection. ``ended`` resolves to why it ended, or raises what ``on_frame`` raised."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.ended = connection.ended
        self.paused = False

    def pause(self) -> None:
        """Stop reading; what was already received is still delivered."""
        if not self.paused and not self.ended.done():
            self.paused = True
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.paused and not self.ended.done():
            self.paused = False
            self._connection.transport.resume_reading()

    async def answers(self, timeout: float) -> bool:
        """Whether the relay answers a ping within so many seconds."""
        try:
            pong = await self._connection.ping()
            await asyncio.wait_for(pong, timeout)
        except (TimeoutError, WebSocketException):
            return False
        return True

    def finish(self, why: str) -> None:
        """End the connection now."""
        self._connection.finish(why)

    async def close(self) -> None:
        """End the connection and wait until its socket is gone."""
        self._connection.finish("closed by us")
        await self._connection.wait_closed()
        if not self.ended.cancelled():
            self.ended.exception()  # read, so that asyncio does not warn where the caller was cancelled


def relay_name(url: str) -> str:
    """A relay's name in messages and tables: host and port. Its seqs mean nothing elsewhere."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _is_here(url: str) -> bool:
    """Whether the relay is on this machine: a proxy of the environment (True for websockets) does not know it."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def cursor_url(url: str, cursor: int | None) -> str:
    """The endpoint with a cursor; None is live."""
    return url if cursor is None else f"{url}?cursor={cursor}"


async def open_relay(
    url: str,
    cursor: int | None,
    on_frame: OnFrame,
    on_text: OnFrame = lambda _: None,
    *,
    on_bytes: Callable[[int], None] = lambda _: None,
    max_size: int = MAX_FRAME,
) -> RelayConnection:
    """Connect from ``cursor`` on (None: live). ``on_frame`` gets every binary message, synchronously.

    ``on_text`` gets every text message; ``on_bytes`` is told the size of each read of the socket. A message of more
    than ``max_size`` bytes ends the connection.

    Raises RelayError where the relay refuses us for good, OSError or TimeoutError where it cannot be reached now.
    """

    class Bound(_Connection):
        """websockets makes the connection itself; its callbacks come with the class."""

    Bound.on_frame = staticmethod(on_frame)
    Bound.on_text = staticmethod(on_text)
    Bound.on_bytes = staticmethod(on_bytes)

    try:
        connection = await connect(
            cursor_url(url, cursor),
            create_connection=Bound,
            compression=None,
            max_size=max_size,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=2,
            ping_interval=None,  # the caller judges stalls: a paused connection answers no ping
            proxy=None if _is_here(url) else True,
            user_agent_header=f"atproto-streams/{__version__}",
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in _REFUSALS:
            raise RelayError(f"The relay at {relay_name(url)} refuses us: HTTP {status}; check RELAY_URL.") from None
        raise ConnectionError(f"HTTP {status}") from None
    except (InvalidURI, ValueError) as error:
        raise RelayError(f"RELAY_URL is no address: {shown(str(error))}.") from None
    except (InvalidProxy, ImportError) as error:
        raise RelayError(
            f"The proxy that the environment names cannot be used ({shown(str(error))}): unset it, or correct it."
        ) from None
    except InvalidHandshake as error:
        raise ConnectionError(shown(str(error))) from None
    assert isinstance(connection, _Connection)
    return RelayConnection(connection)
