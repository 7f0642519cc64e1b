"""The content of the page, in words and geometry: the same in the first answer and in every update. Pure.

A View is all text. Whatever a stranger wrote is cut and stripped of control characters here, and escaped where it is
shown: by the template, and by the browser's ``textContent``. The lists are bounded, so the page is.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from streams import __version__
from streams.status.model import Partition, Process, Status
from streams.status.process import IngestState, WorkerState, order_text
from streams.status.troubles import replaced
from streams.text import UNKNOWN, ago, clock, format_duration, number, plural, printable_or_dash, size
from streams.ui.web.charts import Charts, charts
from streams.ui.web.coverage_view import Coverage, coverage
from streams.ui.web.drawing import bar
from streams.ui.web.figures import Figures
from streams.ui.web.headline import Headline, headline
from streams.ui.web.history import History

#: Most rows of each list.
MOST_PARTITIONS: Final = 32
MOST_COLLECTIONS: Final = 12
MOST_LETTERS: Final = 10
MOST_PROCESSES: Final = 20
MOST_TROUBLES: Final = 12


class Trouble(msgspec.Struct, frozen=True):
    """A sentence."""

    text: str


class Hop(msgspec.Struct, frozen=True):
    """From one place to the next. ``flow``: yes, no."""

    rate: str
    unit: str
    flow: str
    said: str


class Station(msgspec.Struct, frozen=True):
    """A station of the journey."""

    name: str
    detail: str


class Journey(msgspec.Struct, frozen=True):
    """Relay, Kafka, Postgres, and the two hops between them."""

    relay: Station
    ingest: Hop
    kafka: Station
    worker: Hop
    postgres: Station


class Tile(msgspec.Struct, frozen=True):
    """One of the large numbers. ``tone``: plain, good, bad."""

    name: str
    value: str
    note: str
    tone: str = "plain"


class PartitionRow(msgspec.Struct, frozen=True):
    """A partition and its lag."""

    partition: str
    lag: str
    bar: str
    offset: str
    watermark: str
    worker: str


class CollectionRow(msgspec.Struct, frozen=True):
    """A collection and its records."""

    name: str
    count: str
    bar: str


class ProcessTableRow(msgspec.Struct, frozen=True):
    """A process. ``state``: alive, down, ended, replaced."""

    kind: str
    place: str
    state: str
    said: str
    mode: str
    why: str
    rate: str
    memory: str
    since: str


class LetterRow(msgspec.Struct, frozen=True):
    """A dead letter."""

    at: str
    place: str
    did: str
    collection: str
    reason: str


class PageView(msgspec.Struct, frozen=True):
    """The page. ``announced`` is read out whenever it changes, so nothing stands there that changes each second."""

    title: str
    announced: str
    at: str
    place: str
    version: str
    headline: Headline
    troubles: tuple[Trouble, ...]
    tiles: tuple[Tile, ...]
    journey: Journey
    coverage: Coverage
    partitions: tuple[PartitionRow, ...]
    partitions_note: str
    collections: tuple[CollectionRow, ...]
    collections_note: str
    charts: Charts
    processes: tuple[ProcessTableRow, ...]
    processes_note: str
    letters: tuple[LetterRow, ...]
    letters_note: str


def view(status: Status | None, trouble: str | None, figures: Figures, history: History, now: dt.datetime) -> PageView:
    """Return the page of a deployment. ``trouble``: why there is no Status, or why it is an old one."""
    said = headline(status, trouble, figures, now)
    troubles = [*([trouble] if trouble else []), *(status.troubles if status is not None else ())]
    partitions = sorted(status.partitions, key=lambda p: -p.lag)[:MOST_PARTITIONS] if status is not None else []
    processes = status.processes[:MOST_PROCESSES] if status is not None else ()
    return PageView(
        title=f"{said.title} · atproto-streams",
        announced=f"{said.title}, {plural(len(troubles), 'trouble')}" if troubles else said.title,
        at=f"{now:%H:%M:%S} UTC",
        place=f"{status.topic} → {status.schema}" if status is not None else f"one {figures.kind}",
        version=__version__,
        headline=said,
        troubles=tuple(Trouble(printable_or_dash(text, 400)) for text in troubles[:MOST_TROUBLES]),
        tiles=_tiles(status, figures, now),
        journey=_journey(status, figures, now),
        coverage=coverage(status, now),
        partitions=_partitions(sorted(partitions, key=lambda p: p.partition), now),
        partitions_note=_more(
            len(partitions), len(status.partitions) if status else 0, "partition", "the largest lags"
        ),
        collections=_collections(status),
        collections_note=_collections_note(status),
        charts=charts(figures, history),
        processes=_processes(status, now) or (_own(figures),),
        processes_note=_more(len(processes), len(status.processes) if status else 0, "process", "the first"),
        letters=_letters(status, now),
        letters_note=_letters_note(status),
    )


def _more(shown: int, there: int, one: str, which: str) -> str:
    return f"{which}, {shown} of {there:,}" if there > shown else ""


def _tiles(status: Status | None, figures: Figures, now: dt.datetime) -> tuple[Tile, ...]:
    if status is None:
        state = figures.state
        rate = number(state.rate) if state is not None else UNKNOWN
        return (Tile("This process", rate, "events a second"),)
    lag = Tile("Waiting in Kafka", number(status.lag), "not in Postgres yet")
    if status.covered_to is not None:
        behind = (status.at - status.covered_to).total_seconds()
        covered = Tile("In Postgres up to", clock(status.covered_to, now), f"UTC, {format_duration(behind)} ago")
    else:
        covered = Tile("In Postgres up to", UNKNOWN, "nothing yet")
    return (
        covered,
        lag,
        Tile("Applied", number(status.applied), f"of {number(status.received)} received"),
        Tile("Skipped", number(status.skipped), "repeated, older, or filtered"),
        Tile(
            "Dead letters", number(status.dead_letters), "could not become a row" if status.dead_letters else "none",
            "bad" if status.dead_letters else "good",
        ),
        Tile("Gaps", number(status.gaps), "not covered" if status.gaps else "none", "bad" if status.gaps else "good"),
    )  # fmt: skip


# -- the journey


def _journey(status: Status | None, figures: Figures, now: dt.datetime) -> Journey:
    ingest = _ingest_state(status, figures)
    relay = status.relay if status is not None else (ingest.relay if ingest is not None else None)
    head = status.head if status is not None else (ingest.head if ingest is not None else None)
    return Journey(
        relay=Station(
            printable_or_dash(relay, 60), f"head {clock(head, now)}" if head is not None else "head not known"
        ),
        ingest=_ingest_hop(status, ingest),
        kafka=Station(
            printable_or_dash(status.topic, 60) if status is not None else UNKNOWN,
            f"{plural(len(status.partitions), 'partition')}, {number(status.lag)} waiting"
            if status is not None
            else "",
        ),
        worker=_worker_hop(status, figures),
        postgres=Station(status.schema if status is not None else UNKNOWN, _postgres_detail(status, now)),
    )


def _postgres_detail(status: Status | None, now: dt.datetime) -> str:
    """Return up to when Postgres has everything, and how many events claim a time that is far off."""
    if status is None:
        return ""
    reached = f"up to {clock(status.covered_to, now)}" if status.covered_to is not None else ""
    claim = "claims" if status.odd_claims == 1 else "claim"
    odd = f"{plural(status.odd_claims, 'event')} {claim} a time more than an hour off" if status.odd_claims else ""
    return "; ".join(part for part in (reached, odd) if part)


def _ingest_state(status: Status | None, figures: Figures) -> IngestState | None:
    if figures.kind == "ingest":
        return figures.state
    if status is None:
        return None
    return next((p.ingest for p in status.processes if p.alive and p.ingest is not None), None)


def _ingest_hop(status: Status | None, ingest: IngestState | None) -> Hop:
    rate = status.rates.relay if status is not None else (ingest.rate if ingest is not None else None)
    if ingest is None:
        return Hop(number(rate), "events/s", "no", "no ingest runs")
    order = order_text(ingest.repeated, ingest.late)
    said = f"{ingest.mode}, {size(ingest.bytes_rate)}/s" + (f"; {order}" if order else "")
    return Hop(number(rate), "events/s", "yes" if rate else "no", said)


def _worker_hop(status: Status | None, figures: Figures) -> Hop:
    own = figures.state.rate if figures.kind == "worker" else None
    rate = status.rates.postgres if status is not None else own
    if status is None:
        return Hop(number(rate), "events/s", "yes" if rate else "no", "this worker" if own is not None else "not known")
    workers = [p.worker for p in status.processes if p.alive and p.kind == "worker"]
    if not workers:
        return Hop(number(rate), "events/s", "no", "no worker runs")
    modes = sorted({worker.mode for worker in workers if worker is not None})
    said = f"{plural(len(workers), 'worker')}: {', '.join(modes)}" if modes else plural(len(workers), "worker")
    return Hop(number(rate), "events/s", "yes" if rate else "no", said)


# -- the tables


def _partitions(partitions: list[Partition], now: dt.datetime) -> tuple[PartitionRow, ...]:
    most = max((partition.lag for partition in partitions), default=0)
    return tuple(
        PartitionRow(
            str(p.partition), number(p.lag), bar(p.lag, most), number(p.next_offset), clock(p.watermark_time, now),
            printable_or_dash(p.worker, 60),
        )
        for p in partitions
    )  # fmt: skip


def _collections(status: Status | None) -> tuple[CollectionRow, ...]:
    counted = status.collections[:MOST_COLLECTIONS] if status is not None else ()
    most = max((c.count for c in counted), default=0)
    return tuple(CollectionRow(printable_or_dash(c.name, 80), number(c.count), bar(c.count, most)) for c in counted)


def _collections_note(status: Status | None) -> str:
    rest = status.collections[MOST_COLLECTIONS:] if status is not None else ()
    return f"and {plural(len(rest), 'other')} with {number(sum(c.count for c in rest))}" if rest else ""


def _processes(status: Status | None, now: dt.datetime) -> tuple[ProcessTableRow, ...]:
    if status is None:
        return ()
    gone = replaced(status.processes)
    return tuple(_process(p, now, lost="replaced" if p in gone else "down") for p in status.processes[:MOST_PROCESSES])


def _process(process: Process, now: dt.datetime, *, lost: str) -> ProcessTableRow:
    """Return the row of a process. ``lost``: its state where it is gone and did not end in order."""
    state = process.worker if process.worker is not None else process.ingest
    alive = "alive" if process.alive else "ended" if process.ended_at is not None else lost
    said = {
        "alive": f"alive, since {ago(process.started_at, now).removesuffix(' ago')}",
        "down": f"down: last seen {ago(process.seen_at, now)}",
        "ended": f"ended {ago(process.ended_at, now)}",
        "replaced": f"lost: last seen {ago(process.seen_at, now)}, and replaced",
    }[alive]
    row = _row(process.kind, state if process.alive else None)
    return msgspec.structs.replace(
        row,
        place=f"{printable_or_dash(process.host, 40)}:{process.pid}",
        state=alive,
        said=said,
        since=clock(process.started_at, now),
    )


def _own(figures: Figures) -> ProcessTableRow:
    return msgspec.structs.replace(_row(figures.kind, figures.state), place="this process", state="alive", said="alive")


def _row(kind: str, state: WorkerState | IngestState | None) -> ProcessTableRow:
    if state is None:
        return ProcessTableRow(kind, "", "", "", UNKNOWN, "", UNKNOWN, UNKNOWN, "")
    memory = f"{size(state.memory.rss)} of {size(state.memory.limit)}"
    return ProcessTableRow(
        kind, "", "", "", state.mode, printable_or_dash(state.why, 200), f"{number(state.rate)}/s", memory, ""
    )


def _letters(status: Status | None, now: dt.datetime) -> tuple[LetterRow, ...]:
    return tuple(
        LetterRow(
            clock(letter.at, now), f"{letter.partition}/{letter.offset}", printable_or_dash(letter.did, 60),
            printable_or_dash(letter.collection, 60), printable_or_dash(letter.reason, 160),
        )
        for letter in (status.last_letters[:MOST_LETTERS] if status is not None else ())
    )  # fmt: skip


def _letters_note(status: Status | None) -> str:
    if status is None:
        return "not known now"
    if not status.dead_letters:
        return "None. Everything that was received became a row, or was skipped."
    return f"The last {min(len(status.last_letters), MOST_LETTERS)} of {number(status.dead_letters)}."
