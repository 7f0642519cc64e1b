"""The output of ``make run``: two bars on a terminal, a line every few seconds elsewhere, the summary at the end."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from streams.runtime.rates import Rate
from streams.settings import Settings, read_stack_state
from streams.sources.firehose.relay import relay_name
from streams.status.lag import Holdings, SinkLag
from streams.status.process import order_text
from streams.text import format_time, printable
from streams.ui.terminal.config import redacted

LINE_EVERY: Final = 5.0
#: Collections named in the summary.
_MOST: Final = 8


class Display:
    """Follows both processes. ``heard`` gets the ingest's log lines, ``show`` the sink's lag."""

    def __init__(self, settings: Settings) -> None:
        self._ingest: dict[str, Any] = {}
        self._begin = time.monotonic()
        self._first: SinkLag | None = None
        self._rate = Rate(LINE_EVERY)
        self._moved = (self._begin, self._begin)
        self._said = 0.0
        self.page: str | None = None  # the live page, once it is known
        self.received = 0
        self._bars: Progress | None = None
        relay = relay_name(settings.relay_url)
        _line(f"{relay} → Kafka topic {settings.kafka_topic} → Postgres schema {settings.sink_schema}")
        if sys.stdout.isatty():
            self._bars = Progress(
                TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.percentage:>5.1f} %"),
                TextColumn("{task.fields[text]}"), console=Console(), transient=True,
            )  # fmt: skip
            self._relay_bar = self._bars.add_task("relay → Kafka   ", total=1.0, text="")
            self._sink_bar = self._bars.add_task("Kafka → Postgres", total=1.0, text="")
            self._bars.start()

    def heard(self, line: dict[str, Any]) -> None:
        """Take in one log line of the ingest."""
        event = line.get("event")
        if event in {"progress", "done", "stopped"}:
            self._ingest.update(line)
        elif event == "plan":
            asked, keeps = line.get("asked"), line.get("relay_keeps_from")
            self._tell(f"asked: {asked}; the relay keeps from {keeps}; mode: {line.get('mode')}")
        elif line.get("level") in {"warning", "error", "critical"} or str(event).startswith("disk"):
            more = " ".join(f"{k}={v}" for k, v in line.items() if k not in {"event", "level", "timestamp"})
            self._tell(printable(f"{event} {more}".strip(), 400))

    def show(self, lag: SinkLag) -> None:
        """Show both."""
        now = time.monotonic()
        if self._first is None:
            self._first = lag
        received = lag.received - self._first.received
        if received != self.received:
            self._moved = (self._moved[0] if self.received else now, now)
            self.received = received
        self._rate.add(now, received)
        sink_text = f"{received:,} events  {int(self._rate.per_second):,} evt/s  {lag.pending:,} to go"
        ingest = self._ingest
        relay_text = "connecting"
        if ingest:
            relay_text = (
                f"{ingest.get('events', 0):,} events  {ingest.get('rate') or 0:,} evt/s  "
                f"to {ingest.get('covered_to')}  left {ingest.get('left', '-')}"
            )
        if self._bars is not None:
            total = lag.messages + lag.pending
            self._bars.update(self._relay_bar, completed=ingest.get("done") or 0.0, text=relay_text)
            self._bars.update(self._sink_bar, completed=lag.messages / total if total else 0.0, text=sink_text)
        elif now - self._said >= LINE_EVERY:
            self._said = now
            _line(f"relay → Kafka: {relay_text} | Kafka → Postgres: {sink_text}")

    @property
    def seconds(self) -> float:
        """Seconds from the first event in Postgres to the last."""
        return max(self._moved[1] - self._moved[0], 0.5)

    @property
    def ingest(self) -> dict[str, Any]:
        """The ingest's last figures."""
        return self._ingest

    def _tell(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(text, highlight=False, markup=False)
        else:
            _line(text)

    def show_page(self, address: str | None) -> None:
        """Say where the live page is, if that is known."""
        if address is not None:
            self.page = address
            self._tell(f"Watch it live: {address}/")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def summary(settings: Settings, lag: SinkLag, holdings: Holdings, display: Display) -> str:
    """Return the summary of a run that is done."""
    ingest = display.ingest
    rows = sum(count for _, count in holdings.collections)
    named = ", ".join(f"{printable(name)} {count:,}" for name, count in holdings.collections[:_MOST])
    more = len(holdings.collections) - _MOST
    dead = sum(count for _, count in holdings.dead_letters)
    rate = display.received / display.seconds
    known = holdings.covered_from is not None and holdings.covered_to is not None
    covered = f"{format_time(holdings.covered_from)} to {format_time(holdings.covered_to)}" if known else "not known"
    order = order_text(ingest.get("passed_over") or 0, ingest.get("out_of_order") or 0)
    gaps = [
        f"{format_time(begin)} to {format_time(end)}: {printable(reason, 200)}"
        for begin, end, reason in holdings.gaps[:5]
    ]
    lines = [
        "",
        f"Done: {display.received:,} events in {display.seconds:.1f} s ({rate:,.0f} events/s).",
        f"  events        {lag.received:,} received = {lag.applied:,} applied + {lag.skipped:,} skipped "
        f"+ {lag.dead:,} dead, since this schema began",
        f"  rows          {rows:,} records, {holdings.accounts:,} accounts",
        f"                {named}" + (f" and {more} more collections" if more > 0 else ""),
        *([f"  the relay     {order}"] if order else []),
        f"  covered       {covered}; cursor {holdings.cursor or '-'}",
        f"  not covered   {ingest.get('not_covered') or 'nothing that was asked for'}",
        f"  gaps          {len(holdings.gaps)}",
        *(f"                {gap}" for gap in gaps),
        f"  dead letters  {dead:,}",
        *(f"                {count:,} × {printable(reason)}" for reason, count in holdings.dead_letters[:5]),
        f"  data          schema {settings.sink_schema} in {redacted(settings.database_dsn())}",
        "",
        "A query to try (the most liked posts):",
        f'  {_psql(settings)} -c "{_query(settings.sink_schema)}"',
    ]
    return "\n".join(lines)


def _psql(settings: Settings) -> str:
    """Return the command to look into the database: the embedded one brings its own client."""
    state = read_stack_state(settings.local_dir)
    if state is not None and state.get("database_url") == settings.database_dsn():
        return f"{sys.executable} -m streams.local psql"
    return f"psql '{redacted(settings.database_dsn(), hidden='')}'"


def _query(schema: str) -> str:
    return f"SELECT post_uri, count(*) AS likes FROM {schema}.likes GROUP BY 1 ORDER BY 2 DESC LIMIT 5"  # noqa: S608 (shown, not run)


def _line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
