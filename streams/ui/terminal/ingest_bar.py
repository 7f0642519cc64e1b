"""The ingest's progress for people: a bar on a terminal, a log line every few seconds otherwise."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from streams.runtime.rates import Rate
from streams.text import format_log_time, format_span

#: Seconds between log lines.
LINE_EVERY: Final = 5.0

log = structlog.get_logger("streams.ingest")


@dataclass(frozen=True, slots=True)
class IngestPosition:
    """How far the ingest is. Times in µs since the epoch; ``head`` is the time of the head at the start, or None."""

    seq: int
    events: int
    frames: int
    dead: int
    begin: int | None
    time: int | None
    head: int | None


class IngestProgress:
    """Call ``show`` about once a second, ``close`` at the end."""

    def __init__(self) -> None:
        self._rate = Rate()
        self._said = 0.0
        self._bar: Progress | None = None

    def begin(self) -> None:
        """Begin to show the progress. It takes over a terminal until ``close``."""
        if self._bar is None and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[bold]ingest"), BarColumn(), TextColumn("{task.percentage:>5.1f} %"),
                TextColumn("{task.fields[text]}"), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("ingest", total=1.0, text="")
            self._bar.start()

    def show(self, position: IngestPosition, *, left: float | None, final: bool = False) -> None:
        """Show how far it is, with so many seconds to the end (None: not known)."""
        now = time.monotonic()
        self._rate.add(now, position.events)
        facts = self._facts(position, left)
        if self._bar is not None and not final:
            text = "{rate} evt/s  seq {seq}  covered to {covered_to}  lag {lag}  left {left}".format(**facts)
            self._bar.update(self._task, completed=facts["done"] or 0.0, text=text)
        elif final or now - self._said >= LINE_EVERY:
            self._said = now
            log.info("progress", **facts)

    @property
    def rate(self) -> float:
        """Events a second, as last shown."""
        return self._rate.per_second

    def _facts(self, now: IngestPosition, left: float | None) -> dict[str, Any]:
        lag = done = None
        if now.time is not None and now.head is not None:
            lag = max(now.head - now.time, 0) / 1e6
            begin = now.begin if now.begin is not None else now.time
            done = 1.0 if now.head <= begin else min(max((now.time - begin) / (now.head - begin), 0.0), 1.0)
        return {
            "seq": now.seq, "events": now.events, "frames": now.frames, "rate": int(self.rate), "dead": now.dead,
            "covered_from": format_log_time(now.begin), "covered_to": format_log_time(now.time),
            "lag": format_span(lag), "left": format_span(left), "done": done,
        }  # fmt: skip

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
