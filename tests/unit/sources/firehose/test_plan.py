"""Where an ingest begins."""

from __future__ import annotations

import pytest
from msgspec import structs

from streams.errors import MismatchError
from streams.messages import CURSOR_LOST, CURSORS_REFUSED, NOT_KEPT, NOTHING_SHOWN, OLD_NOT_SHOWN, GapKind, Watermark
from streams.sources.firehose.plan import (
    DAY_US,
    Decision,
    Request,
    Window,
    decide,
    decided_window,
    not_shown,
    passed_over,
    sequence_of,
)
from streams.sources.firehose.seek import Absence, Sighting

NOW = 1_800_000_000_000_000
LAST = Watermark(relay="a.example", run=5, topic_id="t", seq=70, time=NOW - 9)


def request(days: int = 2, *, restart: bool = False, from_time: int | None = None) -> Request:
    return Request(days, restart, from_time, NOW)


def test_an_empty_topic_starts_where_it_was_asked_to() -> None:
    assert decide(request(2), None, "a.example") == Decision("start", NOW - 2 * DAY_US, None)
    assert decide(request(-1), None, "a.example") == Decision("start", None, None)


@pytest.mark.parametrize("days", [1, 7, -1])
def test_watermarks_win_over_days(days: int) -> None:
    assert decide(request(days), LAST, "a.example") == Decision("resume", None, LAST)


def test_restart_begins_again_also_with_another_relay() -> None:
    assert decide(request(-1, restart=True), LAST, "a.example") == Decision("restart", None, None, LAST)
    assert decide(request(-1, restart=True), LAST, "b.example") == Decision("restart", None, None, LAST)


def test_another_relay_is_refused_unless_time_overlaps() -> None:
    with pytest.raises(MismatchError, match="--from-time"):
        decide(request(), LAST, "b.example")
    assert decide(request(from_time=77), LAST, "b.example") == Decision("overlap", 77, None, LAST)


def test_what_the_relay_keeps_less_than_asked() -> None:
    window = Window(Sighting(9, NOW - 5 * DAY_US), Sighting(90, NOW))
    gap = not_shown(window, NOW - 7 * DAY_US, "a.example", 6)
    assert gap is not None
    assert (gap.from_time, gap.to_time, gap.to_seq) == (NOW - 7 * DAY_US, NOW - 5 * DAY_US, 8)
    assert (gap.reason, gap.gap_kind) == (NOT_KEPT, GapKind.NOT_KEPT)
    assert not_shown(window, NOW - 2 * DAY_US, "a.example", 6) is None
    assert not_shown(window, None, "a.example", 6) is None


HEAD, OLD = Sighting(90, NOW), Sighting(9, NOW - DAY_US)


@pytest.mark.parametrize(
    ("oldest", "head", "absence", "was_live", "window"),
    [
        (OLD, HEAD, None, True, Window(OLD, HEAD)),
        (OLD, None, None, False, Window(OLD, None)),
        (OLD, HEAD, Absence.REFUSED, True, Window(OLD, HEAD)),  # found by a search
        (Sighting(95, NOW), HEAD, None, True, Window(Sighting(95, NOW), HEAD, unknown=CURSOR_LOST)),
        (HEAD, HEAD, None, True, Window(HEAD, HEAD)),  # a relay's only frame
        (Sighting(95, NOW), HEAD, None, False, Window(Sighting(95, NOW), HEAD)),  # found by a search, later
        (None, HEAD, Absence.SILENT, True, Window(None, HEAD, live=True, unknown=OLD_NOT_SHOWN)),
        (None, HEAD, Absence.REFUSED, True, Window(None, HEAD, live=True, unknown=CURSORS_REFUSED)),
        (None, None, Absence.REFUSED, False, Window(None, None, live=True, unknown=CURSORS_REFUSED)),
        (None, None, Absence.SILENT, False, Window(None, None, unknown=NOTHING_SHOWN)),
        (None, None, Absence.FUTURE, False, Window(None, None, live=True, unknown=NOTHING_SHOWN)),
    ],
)
def test_what_a_relays_answers_mean(
    oldest: Sighting | None, head: Sighting | None, absence: Absence | None, was_live: bool, window: Window
) -> None:
    assert decided_window(oldest, head, absence, was_live=was_live) == window


@pytest.mark.parametrize("target", [None, NOW - DAY_US])
@pytest.mark.parametrize("absence", [Absence.SILENT, Absence.REFUSED])
def test_what_is_not_known_is_a_gap_up_to_the_head(target: int | None, absence: Absence) -> None:
    """Silence is not "keeps nothing": nothing is claimed, and the reason says so."""
    gap = not_shown(decided_window(None, HEAD, absence, was_live=True), target, "a.example", 6)
    assert gap is not None
    assert (gap.from_time, gap.to_time, gap.to_seq) == (target, NOW, HEAD.seq)
    assert gap.reason.startswith("not known: ")


def test_a_cursor_that_was_not_taken_is_no_fact_about_what_the_relay_keeps() -> None:
    lost = decided_window(Sighting(95, NOW), HEAD, None, was_live=True)
    for target in (None, NOW - DAY_US):
        gap = not_shown(lost, target, "a.example", 6)
        assert gap is not None
        assert (gap.to_seq, gap.reason, gap.gap_kind) == (94, CURSOR_LOST, GapKind.NOT_KNOWN)


def test_of_a_relay_that_has_shown_nothing_the_end_decides() -> None:
    assert not_shown(decided_window(None, None, Absence.SILENT, was_live=False), NOW, "a.example", 6) is None


def test_what_a_run_passes_over_is_a_gap() -> None:
    later = Sighting(90, NOW)
    gap = passed_over(LAST, "a.example", 6, later, NOW - 5)
    assert gap is not None
    assert (gap.from_seq, gap.to_seq, gap.from_time, gap.to_time) == (71, 89, NOW - 9, NOW - 5)
    assert passed_over(LAST, "a.example", 6, Sighting(71, NOW), None) is None, "it goes on from there"
    assert passed_over(LAST, "a.example", 6, Sighting(5, NOW - 20), None) is None
    assert passed_over(None, "a.example", 6, later, None) is None
    assert passed_over(LAST, "a.example", 6, None, None) is None, "the relay is empty"
    other = passed_over(LAST, "b.example", 6, Sighting(3, NOW), None)
    assert other is not None
    assert (other.from_seq, other.to_seq, other.from_time, other.to_time) == (None, None, NOW - 9, NOW)
    assert passed_over(LAST, "b.example", 6, Sighting(3, NOW - 10), None) is None


@pytest.mark.parametrize("relay", ["a.example", "b.example"])
def test_what_the_relay_dropped_while_we_were_away_ends_after_it_began(relay: str) -> None:
    """Asked for from before what the topic holds; the relay's oldest is behind it."""
    gap = passed_over(LAST, relay, 6, Sighting(90, NOW), NOW - 7 * DAY_US)
    assert gap is not None
    assert (gap.from_time, gap.to_time, "keeps no older" in gap.reason) == (NOW - 9, NOW, True)


def test_a_run_keeps_the_sequence_only_where_it_is_plainly_the_same() -> None:
    held = structs.replace(LAST, sequence=3)
    first, head = Sighting(20, NOW - DAY_US), Sighting(200, NOW)
    assert sequence_of(held, "a.example", 6, first, head) == 3
    assert sequence_of(held, "a.example", 6, first, None) == 3
    assert sequence_of(held, "a.example", 6, Sighting(90, NOW), head) == 3, "behind what is held"
    assert sequence_of(held, "b.example", 6, first, head) == 6, "another relay"
    assert sequence_of(None, "a.example", 6, first, head) == 6, "nothing is held"
    assert sequence_of(LAST, "a.example", 6, first, head) == 6, "an older version's watermark"
    assert sequence_of(held, "a.example", 6, None, None) == 6, "the relay says nothing"
    assert sequence_of(held, "a.example", 6, Sighting(1, None), Sighting(60, NOW)) == 6, "its head is below: a reset"
    assert sequence_of(held, "a.example", 6, Sighting(1, NOW), head) == 6, "a lower seq is newer: a reset of long ago"
    assert sequence_of(held, "a.example", 6, Sighting(1, None), head) == 3
