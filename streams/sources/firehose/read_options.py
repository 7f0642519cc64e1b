"""The options of reading a relay: from the command line, and from the memory budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options of reading a relay.

    ``days`` as asked for; ``follow``: go on live after the head; ``frame``: the largest frame in bytes; ``on_bytes`` is
    told the size of each read.
    """

    days: int
    follow: bool
    frame: int
    on_bytes: Callable[[int], None]
