"""A relay in one process with its tests, as unlike ours as they say: slow, limited, redirecting, refusing.

Its frames are #identity events, one second apart. What is asked of it is in ``cursors``.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import libipld
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

PATH: Final = "/xrpc/com.atproto.sync.subscribeRepos"
SECOND: Final = 1_000_000
#: What a relay does with a connection before the websocket: None takes it.
Answer = Callable[[int | None, str], Response | None]


def frame(kind: str, **body: Any) -> bytes:
    return libipld.encode_dag_cbor({"op": 1, "t": kind}) + libipld.encode_dag_cbor(body)


def error_frame(name: str) -> bytes:
    return libipld.encode_dag_cbor({"op": -1}) + libipld.encode_dag_cbor({"error": name, "message": ""})


def event(seq: int, time_us: int) -> bytes:
    at = dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC)
    return frame("#identity", seq=seq, did=f"did:plc:{seq:024d}", handle="a.example", time=at.isoformat())


def answer(status: int, body: str = "", **headers: str) -> Response:
    found = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    found["Content-Length"] = str(len(body.encode()))
    found["Connection"] = "close"
    return Response(status, HTTPStatus(status).phrase, found, body.encode())


class Limit:
    """So many connections in so many seconds, as a relay counts them; refused ones count, too, where ``strict``."""

    def __init__(self, count: int, seconds: float, *, retry_after: bool = True, strict: bool = False) -> None:
        self._count, self._seconds, self._says, self._strict = count, seconds, retry_after, strict
        self._times: deque[float] = deque()
        self.refused = 0

    def __call__(self, _cursor: int | None, _path: str) -> Response | None:
        now, times = time.monotonic(), self._times
        while times and now - times[0] >= self._seconds:
            times.popleft()
        if len(times) < self._count:
            times.append(now)
            return None
        self.refused += 1
        wait = self._seconds - (now - times[-self._count])
        if self._strict:
            times.append(now)
        return answer(429, **({"Retry_After": f"{wait:.2f}"} if self._says else {}))


class OddRelay:
    """Serves ``frames`` (seq, time in µs), those behind the cursor; ``async with`` listens.

    ``late``: seconds before the first frame for a cursor (None: it never comes). ``live``: sends its last frame to who
    has no cursor. ``answers``: what it does before the websocket. ``one``: takes one connection at a time; what it does
    with others is ``busy``. ``before``: messages that it sends first.
    """

    def __init__(
        self, frames: list[tuple[int, int]], *, late: Callable[[int], float | None] = lambda _: 0.0, live: bool = True,
        answers: Answer = lambda _cursor, _path: None, busy: Response | int | None = None,
        before: Callable[[int | None], list[bytes]] = lambda _: [], ignores_cursor: bool = False,
    ) -> None:  # fmt: skip
        self.frames = frames
        self.cursors: list[int | None] = []
        self.paths: list[str] = []
        self.logins: list[str | None] = []
        self._late, self._live, self._answers, self._before = late, live, answers, before
        self._busy, self._ignores = busy, ignores_cursor
        self._open = 0
        self.most_open = 0
        self._server: Server

    @classmethod
    def of(cls, count: int, seconds: float, **how: Any) -> OddRelay:
        """So many frames, over so many seconds until now."""
        now, each = time.time_ns() // 1000, seconds / count * SECOND
        return cls([(1000 + n, int(now - (count - n) * each)) for n in range(count)], **how)

    async def __aenter__(self) -> Self:
        self._server = await serve(self._serve, "127.0.0.1", 0, process_request=self._request, ping_interval=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close(close_connections=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{PATH}"

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        cursor = self._cursor(request)
        self.paths.append(request.path)
        self.logins.append(request.headers.get("Authorization"))
        if isinstance(self._busy, Response) and self._open:
            return self._busy
        refused = self._answers(cursor, request.path)
        if refused is None:
            self.cursors.append(cursor)
        return refused

    @staticmethod
    def _cursor(request: Request) -> int | None:
        [text] = parse_qs(urlsplit(request.path).query).get("cursor", [""])
        return int(text) if text else None

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        if isinstance(self._busy, int) and self._open:
            await connection.close(self._busy, "one connection for each address")
            return
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        try:
            with contextlib.suppress(ConnectionClosed):
                await self._stream(connection, self._cursor(connection.request))
                await connection.wait_closed()
        finally:
            self._open -= 1

    async def _stream(self, connection: ServerConnection, cursor: int | None) -> None:
        for message in self._before(cursor):
            await connection.send(message)
        if cursor is None or self._ignores:
            frames = self.frames[-1:] if self._live else []
        else:
            wait = self._late(cursor)
            if wait is None:
                return
            await asyncio.sleep(wait)
            frames = [seen for seen in self.frames if seen[0] > cursor]
        for seq, time_us in frames:
            await connection.send(event(seq, time_us))
