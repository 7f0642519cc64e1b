"""Connections to Postgres: how they are opened, what is retried, what is fatal, and the schema's migrations.

A transient error is retried with backoff for as long as the caller wants, with a log line a minute; an error that only
the operator can mend is a DatabaseError or a MismatchError with a sentence. The password stands in none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

import asyncpg

from streams.environment.database_url import parse
from streams.errors import DatabaseError, MismatchError, StreamsError
from streams.postgres.queries import cursor_table, migrations, query
from streams.postgres.session import (
    MARGIN,
    STATEMENT_TIMEOUT,
    Pooling,
    Session,
    check_session,
    close_session,
    open_session,
)
from streams.runtime.drills import crash_point

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = Session

#: The oldest Postgres that has what the schema uses (SQL function bodies by RETURN).
MIN_SERVER: Final = 140_000
#: Seconds that the first connection may take, retries included: a server that is just starting.
START_TIMEOUT: Final = 20.0
#: Seconds for which a pooler's refusals count as something that passes: it is full, or Postgres behind it is away.
REFUSAL_PATIENCE: Final = 60.0
#: How much longer a statement may take than the try before it, which the server ended.
MORE: Final = 4
LONGEST_STATEMENT: Final = 86_400.0
#: Seconds for what has no limit, because the driver wants to know.
FOR_EVER: Final = 30 * 86_400.0
#: A call whose caller has lost interest is dropped after so long.
ABANDON_AFTER: Final = 5.0
FIRST_DELAY, LONGEST_DELAY, LOG_EVERY = 0.1, 5.0, 60.0

#: SQLSTATEs, or their first two characters, that pass by themselves: connection, rollback, resources, intervention.
_TRANSIENT_STATES: Final = ("08", "40", "53", "57", "55P03", "25P03", "58030")
#: SQLSTATEs by which poolers refuse a connection, whatever the reason: pgbouncer's, then Supavisor's.
_POOLER_STATES: Final = ("08P01", "08004", "XX000")
#: The protocol is not kept: no repetition mends it, once a session is there.
_PROTOCOL: Final = "08P01"
#: Prepared statements that are gone, or there already: the session is not ours alone.
_SHARED_STATES: Final = ("26000", "42P05")
#: The class of the errors that our own functions raise: the caller's business.
OUR_CLASS: Final = "AT"
_DISK_FULL: Final = "53100"
_NO_DATABASE: Final = "3D000"
_NO_PERMISSION: Final = "42501"
_READ_ONLY: Final = "25006"
_NOT_OURS_STATES: Final = ("42P01", "42703", "42883", "3F000", "42P10", "42804", "42P13")


class NotOursError(MismatchError):
    """The schema is not as we made it."""


class NotMigratedError(MismatchError):
    """The schema is missing, or a worker of this program has still to bring it forward."""


class Abandoned(Exception):  # noqa: N818 (nothing went wrong)
    """The caller of ``run`` has lost interest: ``keep_going`` said no."""


class ConnectionRefused(Exception):  # noqa: N818 (a refusal)
    """A pooler, or a server, refuses to connect us, and its SQLSTATE does not say whether that passes."""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later, by itself."""
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        return state not in (_DISK_FULL, _PROTOCOL) and state.startswith(_TRANSIENT_STATES)
    if isinstance(error, ssl.SSLCertVerificationError):
        return False
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # a value that cannot be bound stays so
    # asyncpg raises InternalClientError on a session that was cut in the middle of a message.
    return isinstance(error, (asyncpg.InternalClientError, ConnectionRefused, OSError, TimeoutError))


def is_data_error(error: BaseException) -> bool:
    """Whether Postgres refuses a row (and not the statement): data exception, integrity, program limit."""
    return isinstance(error, asyncpg.PostgresError) and str(error.sqlstate or "").startswith(("22", "23", "54"))


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
        """Where the database is, for messages: no user, no password."""
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
            reason = _sentence(last[-1]) if last else "no answer"
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
        delay = FIRST_DELAY
        while True:
            try:
                async with self._connection() as connection:
                    result = await _while_wanted(self._checked(function), connection, keep_going)
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
                refused_since = (refused_since or now) if isinstance(error, ConnectionRefused) else None
                if refused_since is not None and now - refused_since >= REFUSAL_PATIENCE:
                    raise DatabaseError(
                        f"Postgres at {self.place}, or the pooler there, has refused every connection for "
                        f"{now - refused_since:.0f} s ({_sentence(error)})",
                        "look at its log, or correct DATABASE_URL.",
                    ) from None
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
            raise NotMigratedError(
                f"The schema {self.schema} at {self.place} is missing, or of an older version than this program",
                "start a worker once (faust -A streams.agents worker), which makes it or brings it forward.",
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
            await self._settle_schema(connection)
            if not state["ours"]:
                await connection.execute(query("create_migrations"))
            held = await connection.fetchval(query("migrations"))
            for migration in migrations():
                if migration.version > held:
                    await connection.execute(migration.sql)
                    crash_point("migration.inside")
                    await connection.execute(query("add_migration"), migration.version, migration.name)
                    log.info("Schema %s: migration %s applied.", self.schema, migration.name)

    async def _settle_schema(self, connection: Connection) -> None:
        """Set the schema for this transaction, and look: what is made without a name must not fall into another one.

        Raises DatabaseError where it does not hold.
        """
        if await connection.fetchval(query("settle_schema"), f'"{self.schema}"') != self.schema:
            raise DatabaseError(
                f"Postgres at {self.place} does not let us use the schema {self.schema}, so nothing is made",
                "grant our user all on it.",
            )

    async def _is_current(self, connection: Connection) -> bool:
        """Whether nothing is to be done. Raises what says that nothing may be done."""
        state = await connection.fetchrow(query("schema_state"), self.schema)
        assert state is not None
        if state["server_version"] < MIN_SERVER:
            raise DatabaseError(f"Postgres at {self.place} is older than version 14", "use a newer one.")
        if not state["ours"]:
            if state["there"] and not state["empty"]:
                raise MismatchError(
                    f"The schema {self.schema} at {self.place} holds what is not ours", "set SINK_SCHEMA to another."
                )
            return False
        held, known = await connection.fetchval(query("migrations")), migrations()[-1].version
        if held > known:
            raise MismatchError(
                f"The schema {self.schema} at {self.place} has version {held}, this program knows {known}",
                "run a newer program, or set SINK_SCHEMA to another.",
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
        try:
            session = await open_session(self._address, self.schema, probe=self.pooling is None)
        except asyncpg.PostgresError as error:
            if error.sqlstate in _POOLER_STATES:
                raise ConnectionRefused(_sentence(error)) from None
            raise
        self.pooling = session.pooling
        return session

    def _checked(self, function: Callable[[Connection], Awaitable[T]]) -> Callable[[Connection], Awaitable[T]]:
        """The function, called only where the session is still ours: a pooler may have given us another since."""

        async def call(connection: Connection) -> T:
            await check_session(connection, self.place)
            return await function(connection)

        return call

    def _fatal(self, error: Exception) -> Exception:
        """The error that ends the process, with a sentence; what is not Postgres' is left as it is."""
        if isinstance(error, StreamsError) or is_data_error(error):
            return error
        if isinstance(error, asyncpg.PostgresError) and str(error.sqlstate).startswith(OUR_CLASS):
            return error
        if isinstance(error, asyncpg.PostgresError):
            return self._refused(str(error.sqlstate or ""), _sentence(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return DatabaseError(
                f"Postgres at {self.place}: its certificate is not trusted ({error.verify_message or 'wrong name'})",
                "name its authority in sslrootcert of DATABASE_URL.",
            )
        return error

    def _refused(self, state: str, reason: str) -> StreamsError:  # noqa: PLR0911 (one a reason)
        at = f"Postgres at {self.place}"
        if state == _DISK_FULL:
            return DatabaseError(
                f"{at} has no disk space left ({reason})", "free some, then start again; nothing is lost."
            )
        if state.startswith("28"):
            return DatabaseError(f"{at} refuses us ({reason})", "correct the user and the password in DATABASE_URL.")
        if state == _NO_DATABASE:
            return DatabaseError(f"{at}: there is no such database", "create it (createdb), or correct DATABASE_URL.")
        if state == _NO_PERMISSION:
            return DatabaseError(
                f"{at}: we may not do that ({reason})",
                f"grant our user CREATE on the database and on schema public, and all on schema {self.schema}.",
            )
        if state == _READ_ONLY:
            return DatabaseError(f"{at} is read-only ({reason})", "point DATABASE_URL at the primary.")
        if state in _SHARED_STATES:
            return DatabaseError(
                f"{at}: our prepared statements are gone ({reason}): a pooler in between gives our session to others.",
                "Use its session mode, or connect to Postgres directly.",
            )
        if state == _PROTOCOL:
            return DatabaseError(f"{at}, or a pooler in between, does not keep Postgres' protocol ({reason}).")
        if state in _NOT_OURS_STATES:
            return NotOursError(
                f"{at}: the schema {self.schema}, or public.firehose_cursor, is not as we made it ({reason})",
                "restore it, or set SINK_SCHEMA to another.",
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
        await connection.restore("statement_timeout")
        await connection.execute("RESET client_connection_check_interval")


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
