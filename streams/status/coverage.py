"""The time that was asked for, as stretches: covered, pending, to come, gap, not kept by the relay. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from streams.messages import NOT_KEPT, GapKind
from streams.status.model import Stretch

_Kind = Literal["covered", "pending", "to come", "gap", "not kept"]


class GapTimes(msgspec.Struct, frozen=True):
    """A row of ``gaps``: from when to when, where that is known; when it was written."""

    begin: dt.datetime | None
    end: dt.datetime | None
    reason: str
    written: dt.datetime
    kind: GapKind = GapKind.OTHER


class Times(msgspec.Struct, frozen=True):
    """Asked from, the relay's oldest; covered from and to in Postgres; the newest in Kafka; the relay's head."""

    asked_from: dt.datetime | None = None
    oldest: dt.datetime | None = None
    covered_from: dt.datetime | None = None
    covered_to: dt.datetime | None = None
    newest: dt.datetime | None = None
    head: dt.datetime | None = None


def stretches(times: Times, gaps: Sequence[GapTimes]) -> tuple[Stretch, ...]:
    """Return the stretches in the order of time. They do not overlap; a gap is cut out of what it lies in.

    A gap of which not both times are known has no place here.
    """
    found: list[Stretch] = []
    at = times.covered_from
    if times.asked_from is not None and times.oldest is not None:
        # Nothing is known about the relay there: the gap says why.
        asked = times.asked_from, times.oldest
        if not any((gap.begin, gap.end) == asked and gap.kind is GapKind.NOT_KNOWN for gap in gaps):
            _add(found, "not kept", *asked, NOT_KEPT)
            at = None if at is None else max(at, times.oldest)
    ends: tuple[tuple[_Kind, dt.datetime | None], ...] = (
        ("covered", times.covered_to), ("pending", times.newest), ("to come", times.head),
    )  # fmt: skip
    for kind, end in ends:
        if at is not None and end is not None and end > at:
            _add(found, kind, at, end)
            at = end
    placed = [Stretch("gap", g.begin, g.end, g.reason) for g in gaps if g.begin and g.end and g.begin < g.end]
    for gap in sorted(placed, key=lambda stretch: stretch.begin):
        found = _with_gap(found, gap)
    return tuple(sorted(found, key=lambda stretch: stretch.begin))


def _add(found: list[Stretch], kind: _Kind, begin: dt.datetime, end: dt.datetime, reason: str = "") -> None:
    if begin < end:
        found.append(Stretch(kind, begin, end, reason))


def _with_gap(found: Iterable[Stretch], gap: Stretch) -> list[Stretch]:
    """Return the gap, without what is a gap or not kept already, and the others without the gap."""
    kept: list[Stretch] = []
    parts = [gap]
    for stretch in found:
        if stretch.kind in {"gap", "not kept"}:
            kept.append(stretch)
            parts = [rest for part in parts for rest in _without(part, stretch)]
        else:
            kept.extend(_without(stretch, gap))
    return [*kept, *parts]


def _without(stretch: Stretch, hole: Stretch) -> list[Stretch]:
    """Return what is left of a stretch without the hole."""
    left: list[Stretch] = []
    _add(left, stretch.kind, stretch.begin, min(stretch.end, hole.begin), stretch.reason)
    _add(left, stretch.kind, max(stretch.begin, hole.end), stretch.end, stretch.reason)
    return left
