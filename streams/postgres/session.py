"""Opens sessions at Postgres: the one place where the product connects, also through a pooler that gives us sessions.

A pooler knows few startup parameters and refuses the others, so nothing is sent in them: what a session needs is set
after connecting, and looked at, then and each time before the session is used. A pooler that gives a session to several
clients (pgbouncer's transaction and statement mode) is found out and refused: search_path, time limits, advisory locks
and prepared statements belong to a session, and without its own search_path a program writes into others' tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from streams.environment.database_url import Address, parse
from streams.errors import DatabaseError, SettingsError
from streams.postgres.tls import check_files, demands_tls, driver_words, offers_no_tls, own_context

if TYPE_CHECKING:  # asyncpg's class is generic in its stubs only
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

#: Seconds that one try to connect may take.
CONNECT_TIMEOUT: Final = 10.0
#: Seconds that the server gives a statement. The deletion of an account with millions of records is the longest one.
STATEMENT_TIMEOUT: Final = 300.0
#: Seconds that we wait for longer than the server's own limit, so that it is the server that ends a statement.
MARGIN: Final = 10.0
#: Seconds that the look at a pooler may take: a full pool answers nobody.
PROBE_TIMEOUT: Final = 5.0

#: What a session of the sink is set to.
SINK: Final = {
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
#: A setting of our own, by which a session is known again. Another session does not have it.
_MARK: Final = "atproto_streams.session"
#: SQLSTATEs of a setting that is unknown, not ours to set, or has no such value.
_REFUSED_SETTING: Final = ("22", "42", "55P02")
#: What a statement without columns answers where its WHERE holds: no statement has to be prepared to know it.
_YES: Final = "SELECT 1"


class Pooling(Enum):
    """The kind of pooler, if any, between us and Postgres."""

    DIRECT = "direct"
    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class Session(Connection):
    """A connection whose session is set as we need it. ``check`` says whether it still is."""

    pooling = Pooling.DIRECT
    #: What the session is set to, its mark and its search_path too.
    settings: Mapping[str, str] = {}

    async def restore(self, *names: str) -> None:
        """Set these again as they were at the beginning; without names, all of them."""
        pairs = ", ".join(
            f"set_config({_quoted(name)}, {_quoted(self.settings[name])}, false)" for name in names or self.settings
        )
        await self.execute(f"SELECT {pairs}")

    async def is_kept(self) -> bool:
        """Return True where this is the session that was set up, and its search_path is ours."""
        return await self._is_true(
            f"current_setting('{_MARK}', true) = {_quoted(self.settings[_MARK])} "
            f"AND current_setting('search_path') = {_quoted(self.settings['search_path'])}"
        )

    async def is_marked(self, mark: str) -> bool:
        """Return True where the session that answers has this mark."""
        return await self._is_true(f"current_setting('{_MARK}', true) = {_quoted(mark)}")

    async def is_direct(self) -> bool:
        """Return True where the answering process is the one that Postgres named at first: a pooler names another."""
        return await self._is_true(f"pg_backend_pid() = {self.get_server_pid()}")

    async def _is_true(self, condition: str) -> bool:
        return await self.execute(f"SELECT WHERE {condition}") == _YES


async def open_session(
    address: Address, schema: str, settings: Mapping[str, str] = SINK, *, name: str = "sink", probe: bool = True
) -> Session:
    """Connect, set the session up and look that it holds. ``probe``: find out what a pooler does with sessions.

    Raises DatabaseError where sessions are not ours or search_path does not hold, SettingsError where the address names
    what is not there, and what asyncpg raises.
    """
    seconds = min(address.connect_timeout or CONNECT_TIMEOUT, CONNECT_TIMEOUT)
    session = await _connect(address, seconds)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            if not await session.is_direct():
                session.pooling = await _pooling(session, address, seconds) if probe else Pooling.SESSION
                refuse_pooling(session.pooling, address.place)
                # What the client before us has left in the session: settings, statements, locks.
                await session.execute("DISCARD ALL")
            session.settings = {
                **settings,
                **address.settings,
                "search_path": f'"{schema}"',
                "application_name": address.application_name or f"atproto-streams {name} {os.getpid()}",
                _MARK: uuid.uuid4().hex,
            }
            await _set_up(session, address)
            await check_session(session, address.place)
    except BaseException:
        session.terminate()
        raise
    return session


async def _set_up(session: Session, address: Address) -> None:
    """Set what the session is to have. Raises SettingsError where Postgres refuses what ``options`` asks for."""
    try:
        await session.restore()
    except asyncpg.PostgresError as error:
        if address.settings and str(error.sqlstate).startswith(_REFUSED_SETTING):
            reason = str(error).splitlines()[0]
            raise SettingsError(f"DATABASE_URL: Postgres refuses a setting in options ({reason}).") from None
        raise


async def check_session(session: Session, place: str) -> None:
    """Check that the session is ours and its search_path holds. Raises DatabaseError."""
    if not await session.is_kept():
        raise DatabaseError(
            f"Postgres at {place} does not keep what we set for our session (search_path): a pooler in between gives "
            "our session to others, or drops SET.",
            "Use its session mode, or connect to Postgres directly.",
        )


def refuse_pooling(pooling: Pooling, place: str) -> None:
    """Raise DatabaseError where the pooler gives us no sessions."""
    if pooling in (Pooling.TRANSACTION, Pooling.STATEMENT):
        raise DatabaseError(
            f"Postgres at {place} is behind a pooler in {pooling.value} mode: search_path, time limits, locks and "
            "prepared statements need a session of our own.",
            "Use the pooler's session mode (pgbouncer: pool_mode = "
            "session; Supabase: port 5432), or connect to Postgres directly.",
        )


async def _pooling(session: Session, address: Address, seconds: float) -> Pooling:
    """Find out what a pooler does with sessions: a second connection checks whether it gets the first one's.

    A transaction holds the session that it got. Where it is the first connection's, or where the first one then gets
    another, sessions are shared. Nothing is set but a mark: a shared session is somebody else's, too.
    """
    mark = uuid.uuid4().hex
    if not await session.is_marked(mark):
        await session.execute(f"SELECT set_config('{_MARK}', '{mark}', false)")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            other = await _connect(address, seconds)
            try:
                if not await _accepts(other, "SELECT"):  # the pool is full
                    return Pooling.SESSION
                if not await _accepts(other, "BEGIN"):  # in statement mode the pooler cuts the connection
                    return Pooling.STATEMENT
                shared = await other.is_marked(mark) or not await session.is_marked(mark)
                await other.execute("ROLLBACK")
                return Pooling.TRANSACTION if shared else Pooling.SESSION
            finally:
                other.terminate()
    except TimeoutError:  # the pool is full, too; each use of the session is looked at all the same
        pass
    return Pooling.SESSION


async def _accepts(session: Session, statement: str) -> bool:
    """Return True where the statement is carried out."""
    try:
        await session.execute(statement)
    except (asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


async def _connect(address: Address, seconds: float) -> Session:
    """Open the connection, with nothing set. Raises SettingsError where the address, or a PG* variable, cannot be used.

    DatabaseError where the address asks for TLS and no host offers it.
    """
    check_files(address)
    host: Any = [name for name, _ in address.hosts] or None
    ports: Any = [port for _, port in address.hosts] or None
    try:
        session: Session = await asyncpg.connect(
            f"postgresql://?{driver_words(address)}",
            host=host, port=ports, user=address.user, password=address.password, database=address.database,
            ssl=own_context(address),
            timeout=seconds,
            command_timeout=STATEMENT_TIMEOUT + MARGIN,
            # For a pooler that looks there for the database that is meant (Neon: endpoint=, Supavisor: reference=).
            server_settings={"options": address.startup_options} if address.startup_options else None,
            connection_class=Session,
        )  # fmt: skip
    except asyncpg.ClientConfigurationError as error:
        hint = " Name it in sslrootcert; sslrootcert=system means the system's." if _verifies(address) else ""
        raise SettingsError(f"DATABASE_URL: {str(error).splitlines()[0].rstrip('.')}.{hint}") from None
    except asyncpg.TargetServerAttributeNotMatched:
        raise ConnectionError(f"no host is {address.driver.get('target_session_attrs', 'as asked for')}") from None
    except ssl.SSLError:  # one of them is a ValueError, too
        raise
    except ConnectionError:
        if demands_tls(address) and await offers_no_tls(address):
            raise DatabaseError(
                f"Postgres at {address.place} offers no TLS, which DATABASE_URL asks for (sslmode)",
                "switch it on there (ssl = on), or write sslmode=prefer where nobody can listen in between.",
            ) from None
        raise
    except (ValueError, KeyError):
        raise SettingsError(
            "DATABASE_URL leaves out what is taken from the environment (PGHOST, PGPORT, PGUSER, …), and that cannot "
            "be used",
            "write the host, the port and the user into the address.",
        ) from None
    _watch_socket(session)
    return session


def _verifies(address: Address) -> bool:
    return address.sslrootcert is None and address.sslmode in ("verify-ca", "verify-full")


@contextlib.asynccontextmanager
async def reading(dsn: str, schema: str) -> AsyncIterator[Session]:
    """Open a session for long reads: it has none of the sink's limits.

    Raises as ``open_session``.
    """
    session = await open_session(parse(dsn), schema, {}, name="reader")
    try:
        yield session
    finally:
        await close_session(session)


async def close_session(session: Session) -> None:
    """Say good-bye; a pooler's session is given back as it was."""
    try:
        if session.pooling is Pooling.SESSION and not session.is_closed():
            async with asyncio.timeout(2.0):
                await session.execute("DISCARD ALL")
        await session.close(timeout=2.0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        session.terminate()


def _quoted(text: str) -> str:
    """Return a literal that reads the same whatever standard_conforming_strings says."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


def _watch_socket(session: Session) -> None:
    """Notice a server that is gone without a word within 20 s, in place of the kernel's 15 minutes."""
    transport: Any = getattr(session, "_transport", None)
    raw = transport.get_extra_info("socket") if transport is not None else None
    if raw is None or raw.family == getattr(socket, "AF_UNIX", None):
        return
    with contextlib.suppress(OSError, AttributeError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
