"""Numbers, sizes, times and strangers' strings as a person reads and writes them. Pure."""

from __future__ import annotations

import datetime as dt
import time
from typing import Final

#: What stands where nothing is known.
UNKNOWN: Final = "–"
_SIZES: Final = ("bytes", "KB", "MB", "GB", "TB")
#: No event is older: the times that TIME is compared with are counted from here.
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def number(value: float | None) -> str:
    """Return a number as ``1,234,567``; with one digit after the point below ten."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int) or abs(value) >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}"


def share(value: float | None) -> str:
    """Return ``37 %`` of a share from 0 to 1."""
    return UNKNOWN if value is None else f"{value * 100:.0f} %"


def size(value: float | None) -> str:
    """Return a number of bytes as ``117 MB``."""
    if value is None:
        return UNKNOWN
    step = 0
    while abs(value) >= 1024 and step < len(_SIZES) - 1:
        value, step = value / 1024, step + 1
    return f"{value:,.1f} {_SIZES[step]}" if step > 2 and value < 100 else f"{value:,.0f} {_SIZES[step]}"


def format_duration(seconds: float | None) -> str:
    """Return a duration with spaces: ``3 d 4 h``, ``2 h 10 min``, ``5 min 20 s``, ``8 s``."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, round(seconds))
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    for large, small, names in ((days, h, ("d", "h")), (hours, m, ("h", "min")), (minutes, s, ("min", "s"))):
        if large:
            return f"{large:,} {names[0]} {small} {names[1]}" if small else f"{large:,} {names[0]}"
    return f"{s} s"


def ago(then: dt.datetime | None, now: dt.datetime) -> str:
    """Return ``8 s ago``; ``now`` within two seconds."""
    if then is None:
        return UNKNOWN
    seconds = (now - then).total_seconds()
    return "now" if seconds < 2 else f"{format_duration(seconds)} ago"


def clock(then: dt.datetime | None, now: dt.datetime) -> str:
    """Return ``14:03:20`` of the same day, else ``24 Nov 14:03``. UTC."""
    if then is None:
        return UNKNOWN
    then = then.astimezone(dt.UTC)
    if then.date() == now.astimezone(dt.UTC).date():
        return then.strftime("%H:%M:%S")
    if then.year == now.year:
        return f"{then.day} {then:%b %H:%M}"
    return f"{then.day} {then:%b %Y}"


def printable_or_dash(text: str | None, limit: int = 120) -> str:
    """Return a hostile string printable and cut, with a sign that it was cut; a dash for None. The page escapes it."""
    if text is None:
        return UNKNOWN
    return printable(text, limit) + ("…" if len(text) > limit else "")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 gap``, ``2 gaps``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def printable(text: str, limit: int = 100) -> str:
    """Return a hostile string as it may stand in a log line, a terminal or a reason: printable, and cut."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:limit])


def as_time(time_us: int | None) -> dt.datetime | None:
    """Return a time in µs as a datetime (UTC)."""
    return None if time_us is None else dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC)


def format_log_time(time_us: int | None) -> str:
    """Return a time in µs as the ingest's log events write it (UTC): ``2026-11-20 10:00:00``; a dash for None."""
    return "-" if time_us is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_us / 1e6))


def format_span(seconds: float | None) -> str:
    """Return a duration without spaces: 45s, 3m20s, 5h07m, 2d03h; a dash for None."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def format_iso(time_us: int | None) -> str:
    """Return a time in µs in the form of ISO 8601 (UTC): ``2026-11-20T10:00:00Z``; "unknown" for None."""
    if time_us is None:
        return "unknown"
    return dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_time(moment: dt.datetime | None) -> str:
    """Return a time for people, to the second (UTC); a dash for None."""
    return "-" if moment is None else f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}Z"


def parse_moment(text: str) -> dt.datetime:
    """Read an ISO 8601 time, in UTC where it names no zone; of a day, its midnight. Raises ValueError."""
    try:
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("the time is outside of the calendar") from None
