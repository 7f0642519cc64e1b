"""Connections to Postgres: how they are opened, what is retried, what is fatal, and the schema's migrations.

A transient error is retried with backoff for as long as the caller wants, with a log line a minute; an error that only
the operator can mend is a DatabaseError or a MismatchError with a sentence. The password stands in none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import asyncpg

from streams.crashpoint import crash_point
from streams.errors import DatabaseError, MismatchError, StreamsError
from streams.postgres.queries import cursor_table, migrations, query

log = logging.getLogger(__name__)

T = TypeVar("T")
if TYPE_CHECKING:  # asyncpg's class is generic in its stubs only
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

#: The oldest Postgres that has what the schema uses (SQL function bodies by RETURN).
MIN_SERVER: Final = 140_000
#: Seconds that the first connection may take, retries included: a server that is just starting.
START_TIMEOUT: Final = 20.0
CONNECT_TIMEOUT: Final = 10.0
#: Seconds that the server gives a statement. The deletion of an account with millions of records is the longest one.
STATEMENT_TIMEOUT: Final = 300.0
#: Seconds that we wait for longer than the server's own limit, so that it is the server that ends a statement.
MARGIN: Final = 10.0
#: How much longer a statement may take than the try before it, which the server ended.
MORE: Final = 4
LONGEST_STATEMENT: Final = 86_400.0
#: Seconds for what has no limit, because the driver wants to know.
FOR_EVER: Final = 30 * 86_400.0
#: A call whose caller has lost interest is dropped after so long.
ABANDON_AFTER: Final = 5.0
FIRST_DELAY, LONGEST_DELAY, LOG_EVERY = 0.1, 5.0, 60.0

_SESSION: Final = {
    # The topic has what a crash of the database takes: offsets and rows are lost, or kept, together.
    "synchronous_commit": "off",
    "jit": "off",
    "timezone": "UTC",
    # A frozen worker must not hold rows: its transaction is ended, and so is a wait for such a one.
    "idle_in_transaction_session_timeout": "10000",
    "lock_timeout": "20000",
    "statement_timeout": f"{STATEMENT_TIMEOUT * 1000:.0f}",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

#: SQLSTATEs, or their first two characters, that pass by themselves: connection, rollback, resources, intervention.
_TRANSIENT_STATES: Final = ("08", "40", "53", "57", "55P03", "25P03", "58030")
#: The class of the errors that our own functions raise: the caller's business.
OUR_CLASS: Final = "AT"
_DISK_FULL: Final = "53100"
_NO_DATABASE: Final = "3D000"
_NO_PERMISSION: Final = "42501"
_READ_ONLY: Final = "25006"
_NOT_OURS_STATES: Final = ("42P01", "42703", "42883", "3F000", "42P10", "42804", "42P13")


class NotOursError(MismatchError):
    """The schema is not as we made it."""


class Abandoned(Exception):  # noqa: N818 (nothing went wrong)
    """The caller of ``run`` has lost interest: ``keep_going`` said no."""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later, by itself."""
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        return state != _DISK_FULL and state.startswith(_TRANSIENT_STATES)
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # a value that cannot be bound stays so
    # asyncpg raises InternalClientError on a session that was cut in the middle of a message.
    return isinstance(error, (asyncpg.InternalClientError, OSError, TimeoutError))


def is_data_error(error: BaseException) -> bool:
    """Whether Postgres refuses a row (and not the statement): data exception, integrity, program limit."""
    return isinstance(error, asyncpg.PostgresError) and str(error.sqlstate or "").startswith(("22", "23", "54"))


class Database:
    """A few connections to one schema. ``run`` lends one of them to a function, and repeats it on transient errors."""

    def __init__(self, dsn: str, schema: str, max_connections: int = 2, *, quiet: bool = False) -> None:
        self.schema = schema
        # Whether a database that is away is somebody else's to report.
        self._level = logging.DEBUG if quiet else logging.WARNING
        self._dsn = dsn
        self._slots = asyncio.Semaphore(max_connections)
        self._idle: list[Connection] = []
        self._closed = False
        #: Whether the last call failed, and is tried again.
        self.is_away = False

    @property
    def place(self) -> str:
        """Where the database is, for messages: no user, no password."""
        try:
            url = urlsplit(self._dsn)
            return f"{url.hostname or 'localhost'}:{url.port or 5432}{unquote(url.path)}"
        except ValueError:
            return "DATABASE_URL"

    async def start(self, timeout: float = START_TIMEOUT) -> None:
        """Open the first connection. Raises DatabaseError where that fails for ``timeout`` seconds, or is refused."""
        end = time.monotonic() + timeout
        last: list[BaseException] = []
        try:
            await self.run(_version, keep_going=lambda: time.monotonic() < end, failures=last)
        except Abandoned:
            reason = _sentence(last[-1]) if last else "no answer"
            raise DatabaseError(
                f"Postgres at {self.place} cannot be reached ({reason}): start it, or correct DATABASE_URL."
            ) from None

    async def close(self) -> None:
        """Close what is idle; a connection that is lent out is closed when it comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            try:
                await connection.close(timeout=2.0)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

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
        away_since, logged_at = None, 0.0
        delay = FIRST_DELAY
        while True:
            try:
                async with self._connection() as connection:
                    result = await _while_wanted(function, connection, keep_going)
            except Exception as error:
                if not is_transient(error):
                    fatal = self._fatal(error)
                    if fatal is error:
                        raise
                    raise fatal from None
                self.is_away = True
                if failures is not None:
                    failures.append(error)
                now = time.monotonic()
                away_since = away_since or now
                if now - logged_at >= LOG_EVERY:
                    logged_at = now
                    log.log(
                        self._level,
                        "Postgres at %s does not answer (%s), trying on for %.0f s so far.",
                        self.place, _sentence(error), now - away_since,
                    )  # fmt: skip
                await _sleep(delay * (0.5 + random.random()), keep_going)  # noqa: S311 (jitter)
                delay = min(LONGEST_DELAY, delay * 2)
                continue
            self.is_away = False
            if away_since is not None and time.monotonic() - away_since > 1:
                log.log(self._level, "Postgres at %s is back after %.0f s.", self.place, time.monotonic() - away_since)
            return result

    async def migrate(self) -> None:
        """Bring the schema to this program's version, creating it where it is missing. Safe in parallel.

        Raises MismatchError where the schema is not ours or newer than this program, DatabaseError where we may not.
        """
        crash_point("migration.before")
        await self.run(self._migrate)
        crash_point("migration.after")

    async def check(self) -> None:
        """Whether the schema is ours and of this program's version; nothing is written.

        Raises MismatchError where it is missing, not ours, older or newer; DatabaseError where the server is too old.
        """
        if not await self.run(self._is_current):
            raise MismatchError(
                f"The schema {self.schema} at {self.place} is missing, or of an older version than this program: start "
                "a worker once (faust -A streams.agents worker), which makes it or brings it forward."
            )

    async def _migrate(self, connection: Connection) -> None:
        if await self._is_current(connection):
            return
        async with connection.transaction():
            await connection.execute(query("lock_migrations"))
            state = await connection.fetchrow(query("schema_state"), self.schema)
            assert state is not None
            if not state["there"]:
                await connection.execute(f'CREATE SCHEMA "{self.schema}"')
            if not state["cursor"]:
                await connection.execute(cursor_table())
            if not state["ours"]:
                await connection.execute(query("create_migrations"))
            held = await connection.fetchval(query("migrations"))
            for migration in migrations():
                if migration.version > held:
                    await connection.execute(migration.sql)
                    crash_point("migration.inside")
                    await connection.execute(query("add_migration"), migration.version, migration.name)
                    log.info("Schema %s: migration %s applied.", self.schema, migration.name)

    async def _is_current(self, connection: Connection) -> bool:
        """Whether nothing is to be done. Raises what says that nothing may be done."""
        state = await connection.fetchrow(query("schema_state"), self.schema)
        assert state is not None
        if state["server_version"] < MIN_SERVER:
            raise DatabaseError(f"Postgres at {self.place} is older than version 14: use a newer one.")
        if not state["ours"]:
            if state["there"] and not state["empty"]:
                raise MismatchError(
                    f"The schema {self.schema} at {self.place} holds what is not ours: set SINK_SCHEMA to another."
                )
            return False
        held, known = await connection.fetchval(query("migrations")), migrations()[-1].version
        if held > known:
            raise MismatchError(
                f"The schema {self.schema} at {self.place} has version {held}, this program knows {known}: "
                "run a newer program, or set SINK_SCHEMA to another."
            )
        return bool(held == known and state["cursor"])

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """One of our connections. After anything but an error that Postgres reported, it is not used again."""
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
        connection: Connection = await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT,
            command_timeout=STATEMENT_TIMEOUT + MARGIN,
            server_settings={
                **_SESSION,
                "search_path": f'"{self.schema}"',
                "application_name": f"atproto-streams sink {os.getpid()}",
            },
        )
        _watch_socket(connection)
        return connection

    def _fatal(self, error: Exception) -> Exception:
        """The error that ends the process, with a sentence; what is not Postgres' is left as it is."""
        if isinstance(error, StreamsError) or is_data_error(error):
            return error
        if isinstance(error, asyncpg.PostgresError) and str(error.sqlstate).startswith(OUR_CLASS):
            return error
        if isinstance(error, asyncpg.PostgresError):
            return self._refused(str(error.sqlstate or ""), _sentence(error))
        if isinstance(error, asyncpg.ClientConfigurationError):
            return DatabaseError("DATABASE_URL is not valid: it reads postgresql://user:password@host:port/database.")
        return error

    def _refused(self, state: str, reason: str) -> StreamsError:  # noqa: PLR0911 (one a reason)
        at = f"Postgres at {self.place}"
        if state == _DISK_FULL:
            return DatabaseError(
                f"{at} has no disk space left ({reason}): free some, then start again; nothing is lost."
            )
        if state.startswith("28"):
            return DatabaseError(f"{at} refuses us ({reason}): correct the user and the password in DATABASE_URL.")
        if state == _NO_DATABASE:
            return DatabaseError(f"{at}: there is no such database: create it (createdb), or correct DATABASE_URL.")
        if state == _NO_PERMISSION:
            return DatabaseError(
                f"{at}: we may not do that ({reason}): grant our user CREATE on the database and on schema public, "
                f"and all on schema {self.schema}."
            )
        if state == _READ_ONLY:
            return DatabaseError(f"{at} is read-only ({reason}): point DATABASE_URL at the primary.")
        if state in _NOT_OURS_STATES:
            return NotOursError(
                f"{at}: the schema {self.schema}, or public.firehose_cursor, is not as we made it ({reason}): "
                "restore it, or set SINK_SCHEMA to another."
            )
        return DatabaseError(f"{at} refuses a statement ({reason}, SQLSTATE {state}).")


def unlimited(connection: Connection) -> contextlib.AbstractAsyncContextManager[None]:
    """A statement in here (with ``timeout=FOR_EVER``) takes as long as it takes, and ends when its client is gone."""
    return _limited(connection, 0)


@contextlib.asynccontextmanager
async def longer(connection: Connection, failures: Sequence[BaseException]) -> AsyncIterator[float | None]:
    """A statement in here may take longer each time that the server ended it for its length; yields its ``timeout``.

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
    """A statement in here takes so long at most (0: as long as it takes), and ends when its client is gone."""
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
        await connection.execute("RESET statement_timeout; RESET client_connection_check_interval")


async def _version(connection: Connection) -> None:
    await connection.fetchval("SELECT 1")


async def _while_wanted(
    function: Callable[[Connection], Awaitable[T]], connection: Connection, keep_going: Callable[[], bool]
) -> T:
    """The function's result; a call that hangs is dropped when nobody wants it any more."""
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
    """Wait, but not longer than somebody wants us to. Raises Abandoned."""
    end = time.monotonic() + seconds
    while True:
        if not keep_going():
            raise Abandoned
        left = end - time.monotonic()
        if left <= 0:
            return
        await asyncio.sleep(min(left, 0.2))


def _sentence(error: BaseException) -> str:
    """What went wrong, on one line."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200].rstrip(".")


def _watch_socket(connection: Connection) -> None:
    """Notice a server that is gone without a word within 20 s, in place of the kernel's 15 minutes."""
    transport: Any = getattr(connection, "_transport", None)
    raw = transport.get_extra_info("socket") if transport is not None else None
    if raw is None or raw.family == getattr(socket, "AF_UNIX", None):
        return
    with contextlib.suppress(OSError, AttributeError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
