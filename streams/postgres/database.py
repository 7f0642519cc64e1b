"""Connections to Postgres: how they are opened, lent and limited, and how a call is repeated.

A transient error is retried with backoff for as long as the caller wants, with a log line a minute; an error that only
the operator can mend is a DatabaseError or a MismatchError with a sentence. The password stands in none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import asyncpg

from streams.environment.database_url import parse
from streams.errors import DatabaseError
from streams.postgres.failures import POOLER_STATES, ConnectionRefused, fatal, is_transient, one_line
from streams.postgres.queries import query
from streams.postgres.session import (
    MARGIN,
    STATEMENT_TIMEOUT,
    Pooling,
    Session,
    check_session,
    close_session,
    open_session,
)
from streams.runtime.waiting import backoff, jittered

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = Session

#: Seconds that the first connection may take, retries included: a server that is just starting.
START_TIMEOUT: Final = 20.0
#: Seconds for which a pooler's refusals count as something that passes: it is full, or Postgres behind it is away.
REFUSAL_TIMEOUT: Final = 60.0
#: How much longer a statement may take than the try before it, which the server ended.
MORE: Final = 4
LONGEST_STATEMENT: Final = 86_400.0
#: Seconds for what has no limit, because the driver wants to know.
FOR_EVER: Final = 30 * 86_400.0
#: A call whose caller has lost interest is dropped after so long.
ABANDON_AFTER: Final = 5.0
FIRST_DELAY, LONGEST_DELAY, LOG_EVERY = 0.1, 5.0, 60.0


class Abandoned(Exception):  # noqa: N818 (nothing went wrong)
    """The caller of ``run`` has lost interest: ``keep_going`` said no."""


class Database:
    """A few connections to one schema. ``run`` lends one of them to a function, and repeats it on transient errors."""

    def __init__(self, dsn: str, schema: str, max_connections: int = 2, *, quiet: bool = False) -> None:
        self.schema = schema
        # Whether a database that is away is somebody else's to report.
        self._level = logging.DEBUG if quiet else logging.WARNING
        self._address = parse(dsn)
        self._slots = asyncio.Semaphore(max_connections)
        self._idle: list[Connection] = []
        self._closed = False
        #: Whether the last call failed, and is tried again.
        self.is_away = False
        #: What is between us and Postgres, once the first connection is there.
        self.pooling: Pooling | None = None

    @property
    def place(self) -> str:
        """Return where the database is, for messages: without user and password."""
        return self._address.place

    async def start(self, timeout: float | None = None) -> None:
        """Open the first connection. Raises DatabaseError where that fails for ``timeout`` seconds, or is refused.

        Without a timeout it is START_TIMEOUT, or the address' ``connect_timeout`` where that is longer.
        """
        if timeout is None:
            timeout = max(START_TIMEOUT, self._address.connect_timeout or 0)
        end = time.monotonic() + timeout
        last: list[BaseException] = []
        try:
            await self.run(_version, keep_going=lambda: time.monotonic() < end, failures=last)
        except Abandoned:
            reason = one_line(last[-1]) if last else "no answer"
            raise DatabaseError(
                f"Postgres at {self.place} cannot be reached ({reason})", "start it, or correct DATABASE_URL."
            ) from None

    async def close(self) -> None:
        """Close what is idle; a connection that is lent out is closed when it comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await close_session(connection)

    async def run(
        self,
        function: Callable[[Connection], Awaitable[T]],
        *,
        keep_going: Callable[[], bool] = lambda: True,
        failures: list[BaseException] | None = None,
    ) -> T:
        """Call the function with a connection, again after each transient error, while ``keep_going`` says yes.

        The function must bear being repeated after a commit whose answer was lost; ``failures`` collects what went
        wrong so far. Raises Abandoned, DatabaseError, MismatchError; data errors and our own functions' as they are.
        """
        away_since, refused_since, logged_at = None, None, 0.0
        attempt = 0
        while True:
            try:
                async with self._connection() as connection:
                    result = await _while_wanted(self._checked(function), connection, keep_going)
            except Exception as error:
                if not is_transient(error):
                    fatal_error = fatal(error, self.place, self.schema)
                    if fatal_error is error:
                        raise
                    raise fatal_error from None
                self.is_away = True
                if failures is not None:
                    failures.append(error)
                now = time.monotonic()
                away_since = away_since or now
                refused_since = (refused_since or now) if isinstance(error, ConnectionRefused) else None
                if refused_since is not None and now - refused_since >= REFUSAL_TIMEOUT:
                    raise DatabaseError(
                        f"Postgres at {self.place}, or the pooler there, has refused every connection for "
                        f"{now - refused_since:.0f} s ({one_line(error)})",
                        "look at its log, or correct DATABASE_URL.",
                    ) from None
                if now - logged_at >= LOG_EVERY:
                    logged_at = now
                    log.log(
                        self._level,
                        "Postgres at %s does not answer (%s), trying on for %.0f s so far.",
                        self.place, one_line(error), now - away_since,
                    )  # fmt: skip
                await _sleep(jittered(backoff(attempt, FIRST_DELAY, LONGEST_DELAY)), keep_going)
                attempt += 1
                continue
            self.is_away = False
            if away_since is not None and time.monotonic() - away_since > 1:
                log.log(self._level, "Postgres at %s is back after %.0f s.", self.place, time.monotonic() - away_since)
            return result

    async def fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a named query alone; returns its rows. Raises as ``run``."""
        return await self.run(lambda connection: connection.fetch(query(name), *arguments))

    async def fetchrow(self, name: str, *arguments: object) -> asyncpg.Record | None:
        """Run a named query alone; returns its first row, or None. Raises as ``run``."""
        return await self.run(lambda connection: connection.fetchrow(query(name), *arguments))

    async def fetchval(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 (as asyncpg)
        """Run a named query alone; returns the first value of its first row, or None. Raises as ``run``."""
        return await self.run(lambda connection: connection.fetchval(query(name), *arguments))

    async def execute(self, name: str, *arguments: object) -> None:
        """Run a named query alone. Raises as ``run``."""
        await self.run(lambda connection: connection.execute(query(name), *arguments))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Lend a connection. After any error but one that Postgres reported, it is not used again."""
        async with self._slots:
            connection = self._idle.pop() if self._idle else await self._connect()
            known = False
            try:
                yield connection
                known = True
            except asyncpg.PostgresError:
                known = not connection.is_in_transaction()
                raise
            finally:
                if known and not self._closed and not connection.is_closed():
                    self._idle.append(connection)
                else:
                    connection.terminate()

    async def _connect(self) -> Connection:
        try:
            session = await open_session(self._address, self.schema, probe=self.pooling is None)
        except asyncpg.PostgresError as error:
            if error.sqlstate in POOLER_STATES:
                raise ConnectionRefused(one_line(error)) from None
            raise
        self.pooling = session.pooling
        return session

    def _checked(self, function: Callable[[Connection], Awaitable[T]]) -> Callable[[Connection], Awaitable[T]]:
        """Return the function, which first checks that the session is ours: a pooler may have given us another."""

        async def call(connection: Connection) -> T:
            await check_session(connection, self.place)
            return await function(connection)

        return call


def unlimited(connection: Connection) -> contextlib.AbstractAsyncContextManager[None]:
    """Let a statement (with ``timeout=FOR_EVER``) take as long as it needs. It ends when its client is gone."""
    return _limited(connection, 0)


@contextlib.asynccontextmanager
async def longer(connection: Connection, failures: Sequence[BaseException]) -> AsyncIterator[float | None]:
    """Give a statement more time each time that the server ended it for its length; yields its ``timeout``.

    It grows, and is never without end: so a database that is frozen in the middle of it is noticed.
    """
    cut = sum(isinstance(error, asyncpg.QueryCanceledError) for error in failures)
    if not cut:
        yield None
        return
    seconds = min(STATEMENT_TIMEOUT * MORE**cut, LONGEST_STATEMENT)
    log.warning("A statement was ended for its length: it is given %.0f s now.", seconds)
    async with _limited(connection, seconds):
        yield seconds + MARGIN


@contextlib.asynccontextmanager
async def _limited(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """Limit a statement to so many seconds (0: no limit). It ends when its client is gone."""
    await connection.execute(
        f"SET statement_timeout = {seconds * 1000:.0f}; SET client_connection_check_interval = '1s'"
    )
    try:
        yield
    except asyncpg.PostgresError:
        await _unlimit(connection)
        raise
    else:  # after any other error nobody uses the connection again, and it may not answer
        await _unlimit(connection)


async def _unlimit(connection: Connection) -> None:
    if not connection.is_closed():
        await connection.restore("statement_timeout")
        await connection.execute("RESET client_connection_check_interval")


async def _version(connection: Connection) -> None:
    await connection.fetchval("SELECT 1")


async def _while_wanted(
    function: Callable[[Connection], Awaitable[T]], connection: Connection, keep_going: Callable[[], bool]
) -> T:
    """Return the function's result; drop a call that hangs when its caller no longer wants it."""
    call = asyncio.ensure_future(function(connection))
    try:
        done, _ = await asyncio.wait({call}, timeout=ABANDON_AFTER)
        while not done:
            if not keep_going():
                raise Abandoned
            done, _ = await asyncio.wait({call}, timeout=1.0)
        return call.result()
    finally:
        if not call.done():
            connection.terminate()
            call.cancel()
            await asyncio.wait({call}, timeout=1.0)


async def _sleep(seconds: float, keep_going: Callable[[], bool]) -> None:
    """Wait while the caller wants us to. Raises Abandoned."""
    end = time.monotonic() + seconds
    while True:
        if not keep_going():
            raise Abandoned
        left = end - time.monotonic()
        if left <= 0:
            return
        await asyncio.sleep(min(left, 0.2))
