"""One connection to a relay: frames are handed over where the protocol parses them, without a queue or a task.

``websockets`` shakes hands, answers pings and closes. Its parser gets everything but messages in one binary frame (see
``FrameCutter``); ``process_event`` gets the frames that it parsed. While we do not read (``hold``), TCP holds the
relay. The caller reconnects: each time the URL is built with the current cursor.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State

from streams import __version__
from streams.environment.relay_address import is_loopback, with_query, without_cursor
from streams.errors import RelayError
from streams.protocol.frames import ErrorFrame
from streams.sources.firehose.frame_cutter import FrameCutter
from streams.sources.firehose.handshake import (
    FUTURE_CURSOR,
    REDIRECTS,
    Refusal,
    Reply,
    keeps_cursor,
    meaning,
    redirected,
)
from streams.text import printable

#: Largest message in bytes. The protocol allows 5 MB; a larger one that arrives becomes a dead letter.
MAX_FRAME: Final = 32 * 1024 * 1024
#: Seconds for the connection and the handshake.
OPEN_TIMEOUT: Final = 15.0
#: Redirects that are followed, one after another.
MAX_REDIRECTS: Final = 5

OnFrame = Callable[[bytes], None]


class OversizedMessage(Exception):  # noqa: N818 (the relay's fault)
    """The relay sent a message above the connection's ``max_size``. It is not read, so its seq is not known."""


class EndReason(enum.Enum):
    """The reason for the end of a connection. CLOSED: any but the first two."""

    HEAD = "the head is reached"
    STOPPED = "we were told to stop"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ConnectionEnd:
    """The end of a connection. ``text``: for people; it tells more of CLOSED."""

    reason: EndReason
    text: str = ""


def closed(text: str) -> ConnectionEnd:
    """Return the end of a connection that neither the head nor a stop has ended."""
    return ConnectionEnd(EndReason.CLOSED, text)


class _Connection(ClientConnection):
    """A connection that hands complete binary messages to ``on_frame``. An exception of that ends it, by ``ended``."""

    on_frame: OnFrame
    on_text: OnFrame
    on_bytes: Callable[[int], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (websockets')
        super().__init__(*args, **kwargs)
        self.ended: asyncio.Future[ConnectionEnd] = asyncio.get_running_loop().create_future()
        self._parts: list[Any] = []
        self._kind = Opcode.BINARY
        limit = self.protocol.max_message_size
        self._cutter = FrameCutter(self.on_frame, self._parse, max_size=MAX_FRAME if limit is None else limit)

    def data_received(self, data: bytes) -> None:
        self.on_bytes(len(data))
        try:
            self._cutter.feed(data)
        except BaseException as error:
            self.finish(error)

    def _parse(self, data: bytes) -> bool:
        """Give bytes to websockets' parser. Return whether the connection is open."""
        super().data_received(data)
        return self.response is not None and self.protocol.state is State.OPEN

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

    def finish(self, outcome: ConnectionEnd | BaseException) -> None:
        self._cutter.stopped = True
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
            code, reason = self.protocol.close_code, printable(self.protocol.close_reason or "")
            if code == CloseCode.POLICY_VIOLATION and reason == FUTURE_CURSOR:  # without the error frame before it
                self.ended.set_exception(ErrorFrame(FUTURE_CURSOR, ""))
                return
            text = f"closed by the relay: {code} {reason}".strip() if code else "connection lost"
            self.ended.set_result(closed(text))


class _Connect(connect):
    """A connect that follows no redirects: websockets would lose the cursor if the new address has none."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class RelayConnection:
    """An open connection. ``ended`` resolves to its end, or raises what ``on_frame`` raised.

    ``redirect``: a sentence about where the relay has sent us, or None.
    """

    def __init__(self, connection: _Connection, redirect: str | None) -> None:
        self._connection = connection
        self.ended = connection.ended
        self.redirect = redirect
        self.paused = False

    def hold(self, held: bool) -> None:
        """Stop reading, or go on; what was already received is still delivered."""
        if held == self.paused or self.ended.done():
            return
        self.paused = held
        transport = self._connection.transport
        if held:
            transport.pause_reading()
        else:
            transport.resume_reading()

    async def answers(self, timeout: float) -> bool:
        """Return whether the relay answers a ping within so many seconds."""
        try:
            pong = await self._connection.ping()
            await asyncio.wait_for(pong, timeout)
        except (TimeoutError, WebSocketException):
            return False
        return True

    def finish(self, end: ConnectionEnd) -> None:
        """End the connection now."""
        self._connection.finish(end)

    async def close(self) -> None:
        """End the connection and wait until its socket is gone."""
        self._connection.finish(closed("closed by us"))
        await self._connection.wait_closed()
        if not self.ended.cancelled():
            self.ended.exception()  # read, so that asyncio does not warn where the caller was cancelled


def relay_name(url: str) -> str:
    """Return a relay's name in messages and tables: host and port. Its seqs mean nothing elsewhere."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def cursor_url(url: str, cursor: int | None) -> str:
    """Return the endpoint with a cursor added to its query; None is live. A negative one is sent as 0."""
    address, _, query = url.partition("?")
    ours = [] if cursor is None else [f"cursor={max(cursor, 0)}"]
    return with_query(address, "&".join([*filter(None, [without_cursor(query)]), *ours]))


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

    Raises RelayError (Refusal) where the relay refuses us, CursorRefused where it refuses the cursor, ErrorFrame where
    it says what is wrong with that, NotNow, another OSError or TimeoutError where it cannot be reached now.
    """

    class Bound(_Connection):
        """websockets makes the connection itself; its callbacks come with the class."""

    Bound.on_frame = staticmethod(on_frame)
    Bound.on_text = staticmethod(on_text)
    Bound.on_bytes = staticmethod(on_bytes)

    relay, address, redirect = relay_name(url), url, None
    for _ in range(MAX_REDIRECTS + 1):
        found = await _connect(cursor_url(address, cursor), Bound, relay, max_size)
        if isinstance(found, _Connection):
            return RelayConnection(found, redirect)
        reply = Reply(found.status_code, _headers(found), bytes(found.body), time.time())
        if found.status_code not in REDIRECTS:
            raise meaning(reply, relay, cursor)
        location = reply.headers.get("location", "")
        address = redirected(address, location, relay)
        lost = "" if keeps_cursor(location, cursor) else ", and the cursor was not taken along: it is set again"
        redirect = f"The relay at {relay} redirects us to {_public(address)}{lost}. Set RELAY_URL to that."
    raise Refusal(f"The relay at {relay} redirects us in a circle (at last to {_public(address)})", "check RELAY_URL.")


async def _connect(address: str, bound: type[_Connection], relay: str, max_size: int) -> _Connection | Response:
    """Return a connection to one address, or the HTTP answer instead. Raises as ``open_relay``."""
    try:
        connection = await _Connect(
            address,
            create_connection=bound,
            compression=None,
            max_size=max_size,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=2,
            ping_interval=None,  # the caller judges stalls: a paused connection answers no ping
            # A proxy of the environment does not know this machine.
            proxy=None if is_loopback(urlsplit(address).hostname or "") else True,
            user_agent_header=f"atproto-streams/{__version__}",
        )
    except InvalidStatus as error:
        return error.response
    except ssl.SSLError as error:  # before ValueError: a refused certificate is one of those, too
        raise _without_tls(relay, error) from None
    except (InvalidURI, ValueError):
        raise RelayError(
            f"RELAY_URL is not a valid address of a relay at {relay}",
            "it is wss://HOST or wss://HOST:PORT, and a path.",
        ) from None
    except (InvalidProxy, ImportError) as error:
        raise RelayError(
            f"The proxy that the environment names cannot be used ({printable(str(error))})", "unset it, or correct it."
        ) from None
    except InvalidHandshake as error:
        raise ConnectionError(printable(str(error))) from None
    except socket.gaierror as error:
        raise ConnectionError(f"its host name is not known: {error.strerror}") from None
    assert isinstance(connection, _Connection)
    return connection


def _without_tls(relay: str, error: ssl.SSLError) -> Exception:
    """Return the exception for a TLS handshake that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refusal(
            f"The certificate of the relay {relay} is not accepted ({printable(error.verify_message)})",
            "check RELAY_URL, the clock, and the authorities that this machine trusts (SSL_CERT_FILE).",
        )
    if error.reason == "WRONG_VERSION_NUMBER":
        return Refusal(f"The relay at {relay} speaks no TLS on this port", "write ws:// in RELAY_URL, or another port.")
    return ConnectionError(f"TLS: {printable(str(error.reason or error))}")


def _headers(response: Response) -> dict[str, str]:
    """Return the headers by lower-case names; if one is there twice, the first."""
    headers: dict[str, str] = {}
    for name, value in response.headers.raw_items():
        headers.setdefault(name.lower(), value)
    return headers


def _public(address: str) -> str:
    """Return an address without its login and its query: in both there may be secrets."""
    parts = urlsplit(address)
    return printable(f"{parts.scheme}://{relay_name(address)}{parts.path}", 200)
