"""The meaning of the errors of Postgres and its driver: wait and repeat, end with what to do, or a bad row.

No message holds the password.
"""

from __future__ import annotations

import ssl
from typing import Final

import asyncpg

from streams.errors import DatabaseError, MismatchError, StreamsError

#: SQLSTATEs, or their first two characters, that pass by themselves: connection, rollback, resources, intervention.
_TRANSIENT_STATES: Final = ("08", "40", "53", "57", "55P03", "25P03", "58030")
#: SQLSTATEs by which poolers refuse a connection, whatever the reason: pgbouncer's, then Supavisor's.
POOLER_STATES: Final = ("08P01", "08004", "XX000")
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


class ConnectionRefused(Exception):  # noqa: N818 (a refusal)
    """A pooler, or a server, refuses to connect us, and its SQLSTATE does not say whether that passes."""


def is_transient(error: BaseException) -> bool:
    """Return True where the same call may succeed later, by itself."""
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
    """Return True where Postgres refuses a row, not the statement: data exception, integrity, program limit."""
    return isinstance(error, asyncpg.PostgresError) and str(error.sqlstate or "").startswith(("22", "23", "54"))


def fatal(error: Exception, place: str, schema: str) -> Exception:
    """Return the error that ends the process, with what to do; the same error where it is the caller's business."""
    if isinstance(error, StreamsError) or is_data_error(error):
        return error
    if isinstance(error, asyncpg.PostgresError) and str(error.sqlstate).startswith(OUR_CLASS):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return _refused(error, place, schema)
    if isinstance(error, ssl.SSLCertVerificationError):
        return DatabaseError(
            f"Postgres at {place}: its certificate is not trusted ({error.verify_message or 'wrong name'})",
            "name its authority in sslrootcert of DATABASE_URL.",
        )
    return error


def _refused(error: asyncpg.PostgresError, place: str, schema: str) -> StreamsError:  # noqa: PLR0911 (one a reason)
    state, reason = str(error.sqlstate or ""), one_line(error)
    at = f"Postgres at {place}"
    if state == _DISK_FULL:
        return DatabaseError(f"{at} has no disk space left ({reason})", "free some, then start again; nothing is lost.")
    if state.startswith("28"):
        return DatabaseError(f"{at} refuses us ({reason})", "correct the user and the password in DATABASE_URL.")
    if state == _NO_DATABASE:
        return DatabaseError(f"{at}: there is no such database", "create it (createdb), or correct DATABASE_URL.")
    if state == _NO_PERMISSION:
        return DatabaseError(
            f"{at}: we may not do that ({reason})",
            f"grant our user CREATE on the database and on schema public, and all on schema {schema}.",
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
            f"{at}: the schema {schema}, or public.firehose_cursor, is not as we made it ({reason})",
            "restore it, or set SINK_SCHEMA to another.",
        )
    return DatabaseError(f"{at} refuses a statement ({reason}, SQLSTATE {state}).")


def one_line(error: BaseException) -> str:
    """Return what went wrong, on one line."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200].rstrip(".")
