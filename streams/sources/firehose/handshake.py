"""The meaning of a relay's HTTP answer instead of a websocket: refused, later, the cursor, or a redirect. Pure."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qs, urljoin, urlsplit

from streams.environment.relay_address import with_query, without_cursor
from streams.errors import RelayError
from streams.protocol.frames import ErrorFrame
from streams.text import printable

#: Answers that send us to another address, in ``Location``.
REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})
#: Answers that mean "later", beside all from 500 on.
_LATER: Final = frozenset({408, 425, 429})
#: Names of XRPC errors that say something of the cursor, wherever they stand: an error frame, an answer, a close.
FUTURE_CURSOR: Final = "FutureCursor"
OUTDATED_CURSOR: Final = "OutdatedCursor"
#: Longest wait that a relay may ask for in one answer, in seconds; it is asked again then.
LONGEST_WAIT: Final = 3600.0
#: Longest that a start waits for a relay that asks it to, in seconds: somebody may be watching.
LONGEST_AT_START: Final = 900.0
#: A number above this is a time since the epoch, in seconds; below it is a duration.
_EPOCH_FROM: Final = 1_000_000_000


class NotNow(ConnectionError):  # noqa: N818 (a relay that has other clients too)
    """The relay asks us to come later. ``after``: seconds that it asks us to wait (None: it does not say).

    ``limits``: it counts our connections, or says how long to wait; else something behind it is down.
    """

    def __init__(self, text: str, after: float | None, *, limits: bool) -> None:
        super().__init__(text)
        self.after = after
        self.limits = limits


class Refusal(RelayError):  # noqa: N818 (its base says that it is one)
    """The relay refuses us. If it took us before, that may be for a moment: some count a connection that is gone."""


class CursorRefused(Exception):  # noqa: N818 (it may be the relay's right)
    """The relay does not take this cursor; it may take another. ``str(error)`` is what it says."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. ``headers`` have lower-case names; ``now``: seconds since the epoch."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    now: float


def meaning(reply: Reply, relay: str, cursor: int | None) -> Exception:
    """Return what to raise for an answer that is neither a websocket nor a redirect."""
    status, (name, message) = reply.status, _xrpc_error(reply.body)
    if name == FUTURE_CURSOR:
        return ErrorFrame(name, message)
    said = f"HTTP {status}" + (f", {name}: {message}".rstrip(": ") if name else "")
    if cursor is not None and (status == 400 or name == OUTDATED_CURSOR):
        return CursorRefused(said)
    after = wait_asked(reply)
    if status >= 500 or status in _LATER or (status == 403 and after is not None):
        return NotNow(said, after, limits=status == 429 or after is not None)
    if status < 300 or status == 426:
        kind = printable(reply.headers.get("content-type", "").partition(";")[0], 40) or "no websocket"
        return Refusal(
            f"{relay} answers as a web server, not as a relay ({said}, {kind})", "check host and path of RELAY_URL."
        )
    return Refusal(f"The relay at {relay} refuses us: {said}", "check RELAY_URL.")


def pause_after(error: Exception, attempt: int, *, taken: bool) -> float | None:
    """Return the seconds to wait before the next connection, at a start; None: do not try again.

    ``attempt``: how many failed before this one, in a row. ``taken``: whether the relay took a connection of ours
    before: some take one at a time, and need a moment to see that the last is gone.
    """
    if isinstance(error, NotNow) and error.limits:
        too_long = error.after is not None and error.after > LONGEST_AT_START
        return None if too_long or attempt >= 8 else max(error.after or 0.0, min(2.0**attempt, 32.0))
    if isinstance(error, Refusal):
        return 2.0**attempt if taken and attempt < 4 else None
    return 0.5 * 2**attempt if attempt < 3 else None


def wait_asked(reply: Reply) -> float | None:
    """Return the seconds that the relay asks us to wait, at most LONGEST_WAIT; None where it does not say."""
    asked = reply.headers.get("retry-after", "").strip()
    seconds = _seconds(asked, reply.now)
    if seconds is None and asked:
        try:
            until = parsedate_to_datetime(asked)
        except (ValueError, OverflowError):
            until = None
        if until is not None:
            # A date has whole seconds: the limit may end just after it.
            seconds = (until if until.tzinfo else until.replace(tzinfo=dt.UTC)).timestamp() - reply.now + 1
    if seconds is None and _is_limit(reply):  # XRPC servers say with every answer when their limit begins anew
        seconds = _seconds(reply.headers.get("ratelimit-reset", "").strip(), reply.now)
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_WAIT)


def _is_limit(reply: Reply) -> bool:
    """Return whether an answer says that a limit is reached."""
    return reply.status == 429 or reply.headers.get("ratelimit-remaining", "").strip() == "0"


def _seconds(text: str, now: float) -> float | None:
    """Return a duration in seconds, or the duration until a time in seconds since the epoch."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return value - now if value > _EPOCH_FROM else value


def _xrpc_error(body: bytes) -> tuple[str, str]:
    """Return name and message of an XRPC error; empty if the body is not one."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    name, message = found.get("error"), found.get("message")
    return (
        printable(name, 60) if isinstance(name, str) else "",
        printable(message) if isinstance(message, str) else "",
    )


def redirected(url: str, location: str | None, relay: str) -> str:
    """Return the address that a relay sends us to, as one of a websocket and without a cursor.

    A login in the address goes along only to the same host and port. Raises Refusal where it cannot be followed.
    """
    if not location:
        raise Refusal(f"The relay at {relay} redirects us without saying where", "check RELAY_URL.")
    old = urlsplit(url)
    try:
        new = urlsplit(urljoin(f"http{'s' if old.scheme == 'wss' else ''}://{url.partition('://')[2]}", location))
        host, port = new.hostname, new.port
    except ValueError:
        host, port = None, None
    if not host:
        raise Refusal(f"The relay at {relay} redirects us to an address that is not valid", "check RELAY_URL.")
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(new.scheme.lower())
    place = new.netloc.rpartition("@")[2]
    path = printable(f"{place}{new.path}", 200)
    if scheme is None:
        raise Refusal(
            f"The relay at {relay} redirects us to {printable(new.scheme, 20)}://{path}, no relay", "check RELAY_URL."
        )
    if old.scheme == "wss" and scheme == "ws":
        raise Refusal(
            f"The relay at {relay} redirects us to ws://{path}, without TLS", "if that is right, set RELAY_URL to it."
        )
    same = host == old.hostname and (port or _port(scheme)) == (old.port or _port(old.scheme))
    login = old.netloc.rpartition("@")[0] if same else ""
    return with_query(f"{scheme}://{login}{'@' if login else ''}{place}{new.path or '/'}", without_cursor(new.query))


def _port(scheme: str) -> int:
    return 443 if scheme == "wss" else 80


def keeps_cursor(location: str, cursor: int | None) -> bool:
    """Return whether a redirect's ``Location`` still has the cursor that we asked for."""
    return cursor is None or str(cursor) in parse_qs(urlsplit(location).query).get("cursor", [])
