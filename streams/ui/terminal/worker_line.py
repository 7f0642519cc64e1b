"""The worker's progress on a terminal: one line that stays at the bottom, above which the log lines go by.

Without a terminal on standard error the ``[BACKFILL]`` lines are the progress.
"""

from __future__ import annotations

import atexit
import sys
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from streams.status.process import WorkerState

#: Seconds between two pictures.
SHOW_EVERY: Final = 0.5


class WorkerProgress:
    """A line from ``start`` to ``close``; what is written to standard error meanwhile scrolls by above it."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def start(self) -> bool:
        """Take the terminal's last line; return False where standard error is not a terminal."""
        if not sys.stderr.isatty():
            return False
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()
        atexit.register(self.close)  # a crash, too, leaves the terminal as it was
        return True

    def show(self, state: WorkerState, lag: int | None) -> None:
        """Show the figures."""
        if self._live is not None:
            self._live.update(Text(line(state, lag), no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()


def line(state: WorkerState, lag: int | None) -> str:
    """Return the most important figures in one line: lag, rate, pace, memory."""
    wait = "?" if lag is None else f"{lag:,}"
    memory = f"{state.memory.rss >> 20}/{state.memory.limit >> 20} MB"
    return (
        f"worker  {wait} to go  {state.rate:,.1f} evt/s  {state.processed:,} processed  {memory}  "
        f"{state.mode}: {state.why}"
    )
