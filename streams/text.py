"""Numbers, sizes, times and strangers' strings as a person reads them. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Final

from streams.firehose.syntax import shown

#: What stands where nothing is known.
UNKNOWN: Final = "–"
_SIZES: Final = ("bytes", "KB", "MB", "GB", "TB")


def number(value: float | None) -> str:
    """``1,234,567``; one digit after the point below ten."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int) or abs(value) >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}"


def share(value: float | None) -> str:
    """``37 %`` of a share from 0 to 1."""
    return UNKNOWN if value is None else f"{value * 100:.0f} %"


def size(value: float | None) -> str:
    """``117 MB``."""
    if value is None:
        return UNKNOWN
    step = 0
    while abs(value) >= 1024 and step < len(_SIZES) - 1:
        value, step = value / 1024, step + 1
    return f"{value:,.1f} {_SIZES[step]}" if step > 2 and value < 100 else f"{value:,.0f} {_SIZES[step]}"


def duration(seconds: float | None) -> str:
    """``3 d 4 h``, ``2 h 10 min``, ``5 min 20 s``, ``8 s``."""
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
    """``8 s ago``; ``now`` within two seconds."""
    if then is None:
        return UNKNOWN
    seconds = (now - then).total_seconds()
    return "now" if seconds < 2 else f"{duration(seconds)} ago"


def clock(then: dt.datetime | None, now: dt.datetime) -> str:
    """``14:03:20`` of the same day, else ``24 Nov 14:03``. UTC."""
    if then is None:
        return UNKNOWN
    then = then.astimezone(dt.UTC)
    if then.date() == now.astimezone(dt.UTC).date():
        return then.strftime("%H:%M:%S")
    if then.year == now.year:
        return f"{then.day} {then:%b %H:%M}"
    return f"{then.day} {then:%b %Y}"


def stranger(text: str | None, limit: int = 120) -> str:
    """A hostile string: without control characters and direction marks, cut; the page escapes it besides."""
    if text is None:
        return UNKNOWN
    return shown(text, limit) + ("…" if len(text) > limit else "")


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 gap``, ``2 gaps``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
