"""The strip of coverage over time, and the same in words. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from streams.status.model import Status, Stretch
from streams.text import clock, format_duration, printable_or_dash
from streams.ui.web.drawing import HEIGHT, Block, place_stretch, plain

#: Most stretches that are drawn, and gaps that are listed.
MOST_STRETCHES: Final = 200
MOST_GAPS: Final = 8
#: The kinds in the order of the legend: name, what it says, where in the strip it begins (0 is its top).
KINDS: Final = {
    "covered": ("In Postgres", 0.0),
    "pending": ("In Kafka, not in Postgres yet", 0.25),
    "to come": ("At the relay, to be read", 0.5),
    "gap": ("Gap: not covered", 0.0),
    "not kept": ("Not kept by the relay any more", 0.75),
}


class Legend(msgspec.Struct, frozen=True):
    """A kind of stretch, and its time in all."""

    kind: str
    name: str
    time: str


class GapRow(msgspec.Struct, frozen=True):
    """A gap in words."""

    said: str


class Coverage(msgspec.Struct, frozen=True):
    """The strip."""

    said: str
    begin: str
    middle: str
    end: str
    blocks: tuple[Block, ...]
    legend: tuple[Legend, ...]
    gaps: tuple[GapRow, ...]


def coverage(status: Status | None, now: dt.datetime) -> Coverage:
    """Return the strip of a Status, as long as the time that was asked for."""
    stretches = status.coverage[-MOST_STRETCHES:] if status is not None else ()
    if not stretches:
        return Coverage("Nothing is known of the time that is covered yet.", "", "", "", (), _legend(()), ())
    begin, end = min(s.begin for s in stretches), max(s.end for s in stretches)
    # Gaps are drawn last, so that nothing hides them.
    drawn = sorted(stretches, key=lambda s: (s.kind == "gap", s.begin))
    gaps = [s for s in stretches if s.kind == "gap"][-MOST_GAPS:]
    return Coverage(
        said="; ".join(f"{entry.name}: {entry.time}" for entry in _legend(stretches) if entry.time != "none"),
        begin=clock(begin, now),
        middle=clock(begin + (end - begin) / 2, now),
        end=clock(end, now),
        blocks=tuple(_block(s, begin, end, now) for s in drawn),
        legend=_legend(stretches),
        gaps=tuple(_gap_row(stretch, now) for stretch in gaps),
    )


def _gap_row(gap: Stretch, now: dt.datetime) -> GapRow:
    reason = printable_or_dash(gap.reason, 200) or "no reason known"
    return GapRow(f"Gap from {clock(gap.begin, now)} to {clock(gap.end, now)}: {reason}")


def _block(stretch: Stretch, begin: dt.datetime, end: dt.datetime, now: dt.datetime) -> Block:
    name, top = KINDS[stretch.kind]
    x, width = place_stretch(*(t.timestamp() for t in (stretch.begin, stretch.end, begin, end)))
    said = f"{name}: {clock(stretch.begin, now)} to {clock(stretch.end, now)}"
    y = top * HEIGHT
    return Block(_slug(stretch.kind), x, width, plain(y), plain(HEIGHT - y), said)


def _legend(stretches: tuple[Stretch, ...]) -> tuple[Legend, ...]:
    entries = []
    for kind, (name, _) in KINDS.items():
        seconds = sum((s.end - s.begin).total_seconds() for s in stretches if s.kind == kind)
        there = any(s.kind == kind for s in stretches)
        entries.append(Legend(_slug(kind), name, format_duration(seconds) if there else "none"))
    return tuple(entries)


def _slug(kind: str) -> str:
    return kind.replace(" ", "-")
