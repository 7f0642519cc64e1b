"""How an ingest reads its relay: what its command line and its memory allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a relay is read. ``days`` as asked for; ``follow``: go on live after the head; ``frame``: largest, in bytes.

    ``on_bytes`` is told the size of each read; ``on_connected`` that there is a connection, which may have to pause.
    """

    days: int
    follow: bool
    frame: int
    on_bytes: Callable[[int], None]
    on_connected: Callable[[], None]
