"""Pauses and cuts of a connection: which of the last arrivals are accepted into the position, to the exact number."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.sources.firehose.sequence.arrivals import BLOCK, Arrival, Missing
from streams.sources.firehose.sequence.continuity import Continuity
from tests.unit.sources.firehose.sequence.test_continuity import BEGIN, NEVER, SECOND, fed, frame
from tests.unit.sources.firehose.sequence.test_continuity_limits import LAST, connected


def cut_after(tracker: Continuity, seqs: Iterable[int], times: int) -> list[tuple[int, int]]:
    """Return, for each of so many connections, how many in a row were fruitless and the position after the cut."""
    found = []
    for _ in range(times):
        fed(tracker, [frame(seq) for seq in seqs])
        tracker.reconnected()
        found.append((tracker._fruitless, tracker.position))
    return found


# -- connections that bring nothing new


def test_what_comes_three_times_in_order_is_believed() -> None:
    """The first connection brings it; three more bring nothing new, and then nothing was left out."""
    found = cut_after(connected(), (LAST, LAST + 3, LAST + 5), 4)
    assert found == [(0, LAST), (1, LAST), (2, LAST), (3, LAST + 5)]


def test_what_comes_out_of_order_is_believed_after_six() -> None:
    found = cut_after(connected(), (LAST, LAST + 5, LAST + 3), 7)
    assert found == [(0, LAST), *((count, LAST) for count in range(1, 6)), (6, LAST + 5)]


def test_without_the_event_at_the_position_order_proves_nothing() -> None:
    tracker = connected()
    found = cut_after(tracker, (LAST + 3, LAST + 5), 7)
    assert found == [(0, LAST), *((count, LAST) for count in range(1, 6)), (6, LAST + 5)]
    assert tracker.missing is not None
    assert (tracker.missing.from_seq, tracker.missing.to_seq) == (LAST + 1, LAST + 2)


def test_a_lone_seq_far_ahead_is_believed_after_six_where_nothing_else_comes() -> None:
    found = cut_after(connected(), (LAST, LAST + 5000), 7)
    assert found == [(0, LAST), *((count, LAST) for count in range(1, 6)), (6, LAST + 5000)]


def test_a_lone_seq_far_ahead_is_not_believed_where_something_else_is() -> None:
    found = cut_after(connected(), (LAST, LAST + 5, LAST + 3, LAST + 5000), 7)
    assert found[-2:] == [(5, LAST), (6, LAST + 5)]


@pytest.mark.parametrize(("jump", "believed"), [(40, True), (41, False)])
def test_the_jump_at_a_cut_is_measured_by_the_usual_step(jump: int, believed: bool) -> None:
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    fed(tracker, [frame(5 * n) for n in range(1, 2 * BLOCK + 1)])
    tracker.accept_pending(NEVER)
    tracker.reconnected()
    last = 5 * 2 * BLOCK
    assert tracker.position == last
    found = cut_after(tracker, (last, last + jump), 4)
    assert found[-1] == (3, last + jump if believed else last)


def test_a_connection_with_something_new_begins_the_count_anew() -> None:
    """Also where the new seq lies below what had come before."""
    tracker = connected()
    assert cut_after(tracker, (LAST, LAST + 5), 3)[-1] == (2, LAST)
    assert cut_after(tracker, (LAST, LAST + 5, LAST + 3), 1) == [(0, LAST)]
    assert cut_after(tracker, (LAST, LAST + 5, LAST + 3), 1) == [(1, LAST)]
    assert cut_after(tracker, (LAST, LAST + 5, LAST + 9), 1) == [(0, LAST)]
    assert cut_after(tracker, (LAST, LAST + 5, LAST + 9), 1) == [(1, LAST)]


def test_a_connection_in_which_the_position_moved_was_not_fruitless() -> None:
    tracker = connected()
    assert cut_after(tracker, (LAST, LAST + 5), 2)[-1] == (1, LAST)
    fed(tracker, [frame(LAST), frame(LAST + 5)])
    tracker.accept_pending(NEVER)
    assert tracker.position == LAST + 5
    tracker.reconnected()
    assert (tracker._fruitless, tracker._was_at) == (0, LAST + 5)


def test_what_the_run_before_has_taken_is_not_new() -> None:
    """A new run with the memory of the one before counts from its first connection on."""
    before = connected()
    cut_after(before, (LAST, LAST + 3), 1)
    again = Continuity(LAST, known=True, event=before.event, memory=before._memory)
    again.reconnected()
    assert cut_after(again, (LAST, LAST + 3), 3) == [(1, LAST), (2, LAST), (3, LAST + 3)]


def test_a_connection_that_brought_nothing_counts_as_none() -> None:
    tracker = connected()
    cut_after(tracker, (LAST, LAST + 5), 2)
    tracker.reconnected()
    assert tracker._fruitless == 1


# -- the end of a connection


@pytest.mark.parametrize(("left_out", "position"), [(None, 184), (181, 180), (185, 184)])
def test_at_a_cut_only_what_follows_on_is_accepted(left_out: int | None, position: int) -> None:
    """Nothing above the lowest of the last sixteen arrivals, and nothing behind a seq that was left out."""
    tracker = connected()
    fed(tracker, [frame(LAST)])
    last = 199 if left_out is None else 200
    fed(tracker, [frame(seq) for seq in range(LAST + 1, last + 1) if seq != left_out])
    assert tracker.position == 177
    tracker.accept_cut()
    assert tracker.position == position


@given(st.sets(st.integers(LAST + 1, LAST + 4 * BLOCK), min_size=1))
def test_a_cut_accepts_nothing_behind_a_seq_that_has_not_come(seqs: set[int]) -> None:
    tracker = connected()
    fed(tracker, [frame(LAST), *(frame(seq) for seq in sorted(seqs))])
    tracker.accept_cut()
    assert seqs.issuperset(range(LAST + 1, tracker.position + 1))


@pytest.mark.parametrize(("arrivals", "position"), [(BLOCK - 1, 0), (BLOCK, 1)])
def test_fewer_than_a_block_of_arrivals_are_not_accepted_at_a_cut(arrivals: int, position: int) -> None:
    tracker = Continuity(0, known=True)
    tracker.reconnected()
    tracker._prove()
    tracker._block = [Arrival(*frame(1 + n)) for n in range(arrivals)]
    tracker.accept_cut()
    assert tracker.position == position


def test_where_no_frame_is_known_yet_a_cut_accepts_nothing() -> None:
    """The connection may have begun with what overtook all others."""
    tracker = Continuity(100, known=False)
    tracker.reconnected()
    fed(tracker, [frame(101 + n) for n in range(BLOCK - 1)])
    tracker.accept_cut()
    assert tracker.position == 100
    other = Continuity(100, known=False)
    other.reconnected()
    fed(other, [frame(500 + n) for n in range(2 * BLOCK)])
    other.accept_cut()
    assert other.position == 100


# -- a pause


@pytest.mark.parametrize(
    ("is_proven", "patient", "position"),
    [(True, True, LAST + 3), (True, False, LAST + 3), (False, True, LAST + 3), (False, False, LAST)],
)
def test_an_impatient_pause_waits_for_the_proof_alone(is_proven: bool, patient: bool, position: int) -> None:
    tracker = connected()
    fed(tracker, [frame(LAST)] * is_proven + [frame(LAST + 3)])
    tracker.accept_pending(NEVER, patient=patient)
    assert tracker.position == position


def test_where_nothing_is_known_a_pause_need_not_be_patient() -> None:
    tracker = Continuity(100, known=False)
    tracker.reconnected()
    tracker.see(*frame(101))
    tracker.accept_pending(NEVER, patient=False)
    assert tracker.position == 101


def test_a_single_seq_that_was_left_out_is_missing() -> None:
    tracker = connected()
    tracker.see(*frame(LAST + 2))
    tracker.accept_pending(NEVER)
    assert tracker.missing == Missing(LAST + 1, LAST + 1, BEGIN + (LAST + 2) * SECOND, BEGIN + (LAST + 2) * SECOND)


def test_of_two_events_under_one_seq_the_first_is_the_one_at_the_position() -> None:
    tracker = connected()
    fed(tracker, [frame(LAST), frame(LAST + 1, did="did:plc:b"), frame(LAST + 1, did="did:plc:c")])
    tracker.accept_pending(NEVER)
    assert (tracker.position, tracker.event) == (LAST + 1, f"did:plc:b {frame(LAST + 1)[2]}")


def test_what_was_accepted_is_no_longer_ahead_of_the_position() -> None:
    tracker = connected()
    fed(tracker, [frame(LAST), *(frame(LAST + 3 + n) for n in range(BLOCK))])
    assert tracker._ahead == list(range(LAST + 3, LAST + 3 + BLOCK))
    tracker.accept_pending(NEVER)
    assert (tracker.position, tracker._ahead) == (LAST + 2 + BLOCK, [])
    other = connected()
    fed(other, [frame(LAST), *(frame(LAST + 3 + n) for n in range(BLOCK - 1)), frame(LAST + 5000)])
    other.accept_pending(NEVER)
    assert (other.position, other._ahead) == (LAST + 1 + BLOCK, [LAST + 5000])
