"""A hog to try the memory limit with: ``MEMORY_HOG=MB:AFTER:FOR`` takes so many MB, so late, for so long (seconds).

For the tests, and for whoever wants to see it. The process takes the memory itself, as a leak would. Without MEMORY_HOG
this is one comparison at the start.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Final

_FORM: Final = re.compile(r"(\d{1,6}):(\d{1,6}(?:\.\d+)?):(\d{1,6}(?:\.\d+)?)")


def _asked(text: str) -> tuple[int, float, float] | None:
    """MB, after and for, or None. Ends the process where it is neither."""
    if not text:
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        sys.exit(f"MEMORY_HOG={text!r} is not MB:AFTER:FOR, as 300:5:20 (MB, seconds from the start, seconds).")
    return int(found[1]), float(found[2]), float(found[3])


_hog: Final = _asked(os.environ.get("MEMORY_HOG", ""))


async def hog_memory() -> None:
    """Take the memory that was asked for, hold it, and let it go."""
    if _hog is None:
        return
    megabytes, after, seconds = _hog
    if after:
        await asyncio.sleep(after)
    held = b"\x01" * (megabytes << 20)  # not zeros: those would not be resident
    await asyncio.sleep(seconds)
    del held
