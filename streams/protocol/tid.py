"""TIDs: the protocol's sortable ids, made of microseconds and a clock id. Pure.

A TID is 13 characters of base32-sortable: 53 bits of microseconds since the epoch, then 10 bits of clock id. Compared
as text (byte by byte) they sort by time. ``rev`` is always one, and most record keys are.
"""

from __future__ import annotations

import re
from typing import Final

ALPHABET: Final = "234567abcdefghijklmnopqrstuvwxyz"
#: The highest clock id: the last TID of its microsecond.
MAX_CLOCK_ID: Final = 1023
#: The last microsecond that a TID can hold (year 2255).
MAX_US: Final = (1 << 53) - 1
#: The last second of the year 9999, to the microsecond. Postgres multiplies with 16 digits: what is nearer to the year
#: 10000 would be in it, and most clients cannot read such a time.
MAX_TIME_US: Final = 253_402_300_799_000_000

#: Return a match if the text is a TID. It is asked for each row, so it is the bound method itself.
is_tid: Final = re.compile(r"[234567a-j][2-7a-z]{12}", re.ASCII).fullmatch


def tid_from_us(us: int, clock_id: int = 0) -> str:
    """Return the TID of a time in microseconds since the epoch. A time that a TID cannot hold is cut to its limits."""
    number = min(max(us, 0), MAX_US) << 10 | clock_id
    return "".join([ALPHABET[number >> shift & 31] for shift in range(60, -1, -5)])


def us_from_tid(tid: str) -> int:
    """Return the time of a TID in microseconds since the epoch."""
    number = 0
    for character in tid:
        number = number << 5 | ALPHABET.index(character)
    return number >> 10
