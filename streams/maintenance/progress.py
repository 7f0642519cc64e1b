"""Lines of progress for what reads a known number of messages: how many, how fast, how long still."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

#: Seconds between two lines.
TELL_EVERY: Final = 5.0


class Progress:
    """Lines with rate, share and the time that is left."""

    def __init__(self, total: int, tell: Callable[[str], None]) -> None:
        self.total = total
        self._tell = tell
        self._began = self._said = time.monotonic()

    def show(self, done: int) -> None:
        """Tell how far it is, if it was not told lately."""
        now = time.monotonic()
        if now - self._said < TELL_EVERY:
            return
        self._said = now
        rate = done / (now - self._began)
        left = (self.total - done) / rate if rate else math.inf
        if math.isinf(left):
            eta = "unknown time left"
        else:
            eta = f"{left:,.0f} s left" if left < 600 else f"{left / 60:,.0f} min left"
        self._tell(f"{done:,} of {self.total:,} messages ({done / self.total:.1%}), {rate:,.0f}/s, {eta}")
