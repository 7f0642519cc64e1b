"""A Status as a page for the terminal, plain text where that is none. Pure; strangers' strings are made safe."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.resources.others import others_in_words
from streams.status.model import Process, Status, Stretch
from streams.status.process import order_text
from streams.status.troubles import process_name, replaced
from streams.text import format_span, format_time, printable

#: Columns where the output is not a terminal.
PLAIN_WIDTH: Final = 120
#: Rows of collections and of dead letters.
_MOST: Final = 8
_STRIP: Final = 60
#: How a stretch is drawn in the strip, also without colours.
_DRAWN: Final = {
    "covered": ("█", "green"), "pending": ("▓", "yellow"), "to come": ("░", "dim"), "gap": ("!", "red"),
    "not kept": ("·", "dim"),
}  # fmt: skip


def console_for(is_terminal: bool) -> Console:
    """Return a console of standard output: as wide as the terminal, or PLAIN_WIDTH. Nothing in a string is markup."""
    if is_terminal:
        return Console(highlight=False, markup=False, emoji=False)
    return Console(width=PLAIN_WIDTH, highlight=False, markup=False, emoji=False, no_color=True)


def page(status: Status) -> RenderableType:
    """Return the whole page, the troubles first."""
    return Group(
        _where(status),
        *_troubles(status),
        Text(),
        _journey(status),
        Text(),
        *_coverage(status),
        Text(),
        *_processes(status),
        *_machines(status),
        *([_partitions(status)] if status.partitions else []),
        *_collections(status),
        *_letters(status),
    )


def _line(*parts: str) -> Text:
    return Text("".join(printable(part, 400) for part in parts))


def _troubles(status: Status) -> Iterable[Text]:
    if not status.troubles:
        yield Text("No trouble.", style="green")
    for sentence in status.troubles:
        yield Text(f"! {sentence}", style="bold red")


def _journey(status: Status) -> Table:
    table = _table("", "", title=None)
    rates = status.rates
    relay, run = status.relay or "not known yet", f", {status.plan}" if status.plan else ""
    rows = (
        ("relay", f"{printable(relay, 200)}{run}; {_rate(rates.relay)} events/s taken"),
        ("Kafka", f"{_rate(rates.kafka)} messages/s in; {status.lag:,} wait for Postgres"),
        ("Postgres", f"{_rate(rates.postgres)} events/s in; {status.received:,} received = {status.applied:,} applied "
                     f"+ {status.skipped:,} skipped + {status.dead:,} dead"),
        ("left", "not known" if status.seconds_left is None else format_span(status.seconds_left)),
        ("cursor", printable(status.cursor or "-", 40)),
        ("dead letters", f"{status.dead_letters:,}"),
        ("gaps", f"{status.gaps:,}"),
        ("odd claims", f"{status.odd_claims:,} events claim a time more than an hour from the stream's"),
    )  # fmt: skip
    for name, text in rows:
        table.add_row(name, Text(text))
    return table


def _where(status: Status) -> Text:
    return _line(
        "topic ", status.topic, " → schema ", status.schema, " (group ", status.group, "), ", format_time(status.at)
    )


def _coverage(status: Status) -> Iterable[Text]:
    asked = "all that the relay keeps" if status.asked_from is None else f"from {format_time(status.asked_from)}"
    yield _line(
        "asked ", asked, "; covered ", format_time(status.covered_from), " to ", format_time(status.covered_to),
        "; the relay's head ", format_time(status.head),
    )  # fmt: skip
    if status.coverage:
        yield strip(status.coverage)
        yield Text("█ in Postgres  ▓ in Kafka  ░ to come  ! gap  · not kept by the relay", style="dim")


def strip(coverage: tuple[Stretch, ...], width: int = _STRIP) -> Text:
    """Return the coverage as a strip; a gap is drawn however short it is."""
    begin, end = coverage[0].begin, max(stretch.end for stretch in coverage)
    whole = max((end - begin).total_seconds(), 1e-6)
    drawn = ["·"] * width
    styles = ["dim"] * width
    for stretch in sorted(coverage, key=lambda s: s.kind == "gap"):
        first = int((stretch.begin - begin).total_seconds() / whole * width)
        last = int((stretch.end - begin).total_seconds() / whole * width)
        for cell in range(min(first, width - 1), max(min(last, width), min(first, width - 1) + 1)):
            drawn[cell], styles[cell] = _DRAWN[stretch.kind]
    text = Text("  ")
    for character, style in zip(drawn, styles, strict=True):
        text.append(character, style)
    return text


def _processes(status: Status) -> Iterable[RenderableType]:
    if not status.processes:
        return
    table = _table("process", "state", "memory", "does")
    gone = replaced(status.processes)
    for process in status.processes:
        state = _alive(process, status.at, is_replaced=process in gone)
        table.add_row(process_name(process), state, _memory(process), Text(_does(process)))
    yield table


def _machines(status: Status) -> Iterable[RenderableType]:
    """Yield what each process counts as other work on its machine."""
    table = _table("process", "its machine", "counts as other work")
    for process in status.processes:
        state = process.worker or process.ingest
        if process.alive and state is not None and (machine := state.machine) is not None:
            judged = f"{'idle' if machine.idle else 'busy'}, {machine.cores:g} cores"
            table.add_row(
                process_name(process), judged, Text(printable(others_in_words(machine.others, machine.top), 200))
            )
    if table.row_count:
        yield table


def _alive(process: Process, at: dt.datetime, *, is_replaced: bool) -> Text:
    if process.alive:
        return Text("up", style="green")
    ago = format_span(max((at - process.seen_at).total_seconds(), 0.0))
    if process.ended_at is not None:
        return Text(f"ended {ago} ago", style="dim")
    if is_replaced:
        return Text(f"lost, seen {ago} ago, and replaced", style="dim")
    return Text(f"down, seen {ago} ago", style="red")


def _memory(process: Process) -> str:
    state = process.worker or process.ingest
    return "-" if state is None else f"{state.memory.rss >> 20} / {state.memory.limit >> 20} MB"


def _does(process: Process) -> str:
    if process.worker is not None:
        worker = process.worker
        held = ",".join(map(str, worker.partitions)) or "none"
        return f"{worker.mode}: {printable(worker.why, 200)}; {worker.rate:,.1f} events/s; partitions {held}"
    if process.ingest is not None:
        ingest = process.ingest
        left = f"; {format_span(ingest.left)} to the head" if ingest.left is not None else ""
        order = f"; {said}" if (said := order_text(ingest.repeated, ingest.late)) else ""
        now = f"{ingest.mode}: {printable(ingest.why, 200)}; {ingest.rate:,.1f} events/s"
        return f"{now}; seq {ingest.seq}{left}{order}"
    return "its state is of a version that this one cannot read"


def _partitions(status: Status) -> Table:
    table = _table("partition", "applied up to", "end", "lag", "watermark", "time", "worker", numbers={1, 2, 3, 4})
    for p in status.partitions:
        table.add_row(
            str(p.partition), str(p.next_offset), str(p.end), f"{p.lag:,}",
            "-" if p.watermark_seq is None else str(p.watermark_seq), format_time(p.watermark_time),
            printable(p.worker or "-"),
        )  # fmt: skip
    return table


def _collections(status: Status) -> Iterable[RenderableType]:
    if not status.collections:
        return
    table = _table("collection", "rows sent", numbers={1})
    for counted in status.collections[:_MOST]:
        table.add_row(Text(printable(counted.name, 60)), f"{counted.count:,}")
    rest = status.collections[_MOST:]
    if rest:
        table.add_row(f"{len(rest):,} more", f"{sum(counted.count for counted in rest):,}")
    yield table


def _letters(status: Status) -> Iterable[RenderableType]:
    if not status.last_letters:
        return
    table = _table("dead letter", "at", "collection", "reason")
    for letter in status.last_letters[:_MOST]:
        table.add_row(
            f"{letter.partition} {letter.offset}", format_time(letter.at),
            Text(printable(letter.collection or "-", 60)), Text(printable(letter.reason, 100)),
        )  # fmt: skip
    yield table


def _table(*names: str, title: str | None = None, numbers: Iterable[int] = ()) -> Table:
    table = Table(box=None, title=title, show_header=any(names), pad_edge=False, header_style="bold")
    right = set(numbers)
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number in right else "left", overflow="fold")
    return table


def _rate(rate: float | None) -> str:
    return "?" if rate is None else f"{rate:,.1f}"
