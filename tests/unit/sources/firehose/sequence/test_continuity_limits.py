"""Continuity at its exact limits, by its parts: what only a rare order of frames would show."""

from __future__ import annotations

import pytest

from streams.sources.firehose.sequence import continuity as module
from streams.sources.firehose.sequence.arrival_times import Reference
from streams.sources.firehose.sequence.arrivals import BLOCK, REMEMBERED, Arrival, Memory, Missing, Verdict
from streams.sources.firehose.sequence.continuity import HELD, Continuity
from streams.sources.firehose.sequence.resets import QUIET_WITNESSES, WITNESSES
from tests.unit.sources.firehose.sequence.test_continuity import BEGIN, NEVER, SECOND, Frame, fed, frame, read_to

LAST = 10 * BLOCK


def connected(last: int = LAST) -> Continuity:
    """Read to ``last``, and connected again; the event at the position has not come yet."""
    tracker = read_to(last)
    assert tracker.reconnected() == last - 1
    return tracker


def test_the_numbers_that_were_chosen() -> None:
    """Each was found by simulation (tests/arrivals): whoever changes one must simulate again."""
    assert (HELD, module._HELD_UNPROVEN, module._USUAL_BLOCKS, module._REPLACED) == (1024, 16_384, 16, 48)
    assert (module._JUDGED_EVERY, module._SEVERAL, module._JUMP, module._JUMP_STEPS) == (8, 3, 16, 8)
    assert (module._TOLD_AGAIN, module._FRUITLESS, module._FEW_STEPS) == (3, 6, 8)


@pytest.mark.parametrize(("frames", "step"), [(8, 1), (9, 5)])
def test_the_usual_step_is_known_from_eight_steps_on(frames: int, step: int) -> None:
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    fed(tracker, [frame(5 * n) for n in range(1, frames + 1)])
    assert tracker._usual_step() == step


def test_the_usual_step_is_the_median_one() -> None:
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    fed(tracker, [frame(seq) for seq in (1, 2, 3, 4, 5, 10, 15, 20, 25, 30)])
    assert tracker._usual_step() == 5


def test_seqs_below_a_block_are_counted_in_any_order() -> None:
    tracker = Continuity(0, known=False)
    assert tracker._pass([1, 2, 3]) == 0
    assert tracker._pass([5, 6, 6]) == 3
    assert tracker._pass([4, 7]) == 3
    assert tracker._ahead == [1, 2, 3, 4, 5, 6, 7]
    assert tracker._pass([7, 8]) == 6
    assert tracker._ahead == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(("count", "kept"), [(2 * HELD + BLOCK, 2 * HELD + BLOCK), (2 * HELD + BLOCK + 1, 2 * HELD)])
def test_the_seqs_ahead_are_bounded(count: int, kept: int) -> None:
    tracker = Continuity(0, known=False)
    tracker._ahead = list(range(10, 10 + count - 1))
    tracker._pass([5])
    assert len(tracker._ahead) == kept


def test_events_are_remembered_in_generations_of_one_size() -> None:
    memory = Memory()
    tracker = Continuity(LAST, known=True, event="x", memory=memory)
    tracker.reconnected()
    memory.young.update(range(1, REMEMBERED - 1))
    tracker.see(*frame(LAST - 1))
    assert (len(memory.young), tracker._is_new) == (REMEMBERED - 1, False)
    tracker.see(*frame(LAST - 2))
    assert (len(memory.old), len(memory.young), tracker._is_new) == (REMEMBERED, 0, True)


def test_another_event_under_our_seq_that_is_no_newer_still_lets_the_next_prove() -> None:
    tracker = connected()
    assert tracker.see(*frame(LAST, at=LAST - 50, did="did:plc:b")) is Verdict.LATE
    assert not tracker.proven
    tracker.see(*frame(LAST + 1))
    assert tracker.proven
    newer = connected()
    newer.see(*frame(LAST, at=LAST + 1000, did="did:plc:b"))
    newer.see(*frame(LAST + 1))
    assert not newer.proven


@pytest.mark.parametrize(("old", "is_reset"), [(12, True), (13, False)])
def test_three_of_four_behind_a_replaced_event_must_be_newer(old: int, is_reset: bool) -> None:
    tracker = connected()
    tracker.see(*frame(LAST, at=LAST + 10_000, did="did:plc:b"))
    times = [LAST - 50.0] * old + [LAST + 20_000.0] * (3 * BLOCK - old)
    verdicts = fed(tracker, [frame(LAST + 1 + n, at=time + n / 10) for n, time in enumerate(times)])
    assert (Verdict.RESET in verdicts) is is_reset


@pytest.mark.parametrize(
    ("head", "position"), [(None, LAST), (LAST + 5000, LAST + 5000), (LAST + 4999, LAST), (LAST + 5001, LAST)]
)
def test_a_lone_seq_that_the_relay_named_is_not_alone(head: int | None, position: int) -> None:
    tracker = read_to(LAST)
    tracker.see(*frame(LAST + 5000))
    tracker.accept_pending(NEVER, head)
    assert tracker.position == position


@pytest.mark.parametrize(("jump", "behind", "taken"), [(16, 0, True), (17, 0, False), (17, 1, False), (17, 2, True)])
def test_a_jump_is_believed_with_three_arrivals_or_where_it_is_small(jump: int, behind: int, taken: bool) -> None:
    tracker = read_to(LAST)
    last = LAST + jump + behind
    fed(tracker, [frame(seq) for seq in range(LAST + jump, last + 1)])
    tracker.accept_pending(NEVER)
    assert tracker.position == (last if taken else LAST)


@pytest.mark.parametrize(("jump", "taken"), [(40, True), (41, False)])
def test_a_jump_is_measured_by_the_usual_step(jump: int, taken: bool) -> None:
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    fed(tracker, [frame(5 * n) for n in range(1, 2 * BLOCK + 1)])
    tracker.accept_pending(NEVER)
    last = 5 * 2 * BLOCK
    assert tracker.position == last
    tracker.see(*frame(last + jump))
    tracker.accept_pending(NEVER)
    assert tracker.position == (last + jump if taken else last)


def test_what_is_missing_was_read_up_to_the_time_of_the_stream() -> None:
    def missing(time: int | None, frames: list[Frame]) -> Missing | None:
        tracker = Continuity(10, known=True, event="x", time=time, reference=Reference(BEGIN + 7))
        tracker.reconnected()
        fed(tracker, frames)
        tracker.accept_pending(BEGIN + 5)
        return tracker.missing

    timeless: list[Frame] = [(20, "did:plc:a", "rev", None)]
    assert missing(BEGIN + 5, timeless) == Missing(11, 19, BEGIN + 5, None)
    assert missing(None, timeless) == Missing(11, 19, BEGIN + 7, None)


def test_what_connections_before_have_brought_is_not_missing() -> None:
    tracker = Continuity(10, known=True, event="x")
    tracker._followed, tracker._taken_before = [13, 20], [17, 18, 19]
    assert tracker._missing_below(20) == (20, 19), "nothing"
    assert tracker._missing_below(13) == (13, 12), "nothing"
    assert tracker._missing_below(12) == (11, 11)
    assert tracker._missing_below(16) == (14, 15)
    assert [tracker._missing_below(seq) for seq in (18, 19)] == [(14, 16), (14, 16)]
    assert tracker._missing_below(30) == (21, 29)
    assert Continuity(0, known=True)._missing_below(5) == (1, 4)


def test_the_order_of_what_came_with_this_connection() -> None:
    for seqs, in_order in (([1, 2, 3], True), ([1, 1, 2], True), ([1, 3, 2], False), ([2], True), ([], True)):
        tracker = read_to(LAST)
        tracker._rest = [Arrival(seq, "d", "r", None) for seq in seqs[:1]]
        tracker._block = [Arrival(seq, "d", "r", None) for seq in seqs[1:]]
        assert tracker._is_in_order() is in_order


@pytest.mark.parametrize(("known", "position", "cursor"), [(True, 5, 4), (True, 0, 0), (False, 5, 5)])
def test_a_known_frame_is_asked_for_again(known: bool, position: int, cursor: int) -> None:
    tracker = Continuity(position, known=known)
    assert tracker.proven, "before the first connection there is nothing to prove"
    assert tracker.reconnected() == cursor
    assert tracker.proven is not known


def test_the_first_seqs_above_the_position_are_kept() -> None:
    tracker = Continuity(10, known=True)
    assert tracker._above([12, 11, 10, 9]) == [11, 12]
    assert tracker._above(range(3 * HELD)) == list(range(11, 11 + 2 * HELD))


def test_a_repeat_in_the_open_block_is_no_second_arrival() -> None:
    tracker = connected()
    tracker.see(*frame(LAST))
    for _ in range(3):
        assert tracker.see(*frame(LAST + 2)) in (Verdict.NEW, Verdict.SEEN)
    assert [arrival[0] for arrival in tracker._block] == [LAST + 2]


@pytest.mark.parametrize(("late", "judged"), [(WITNESSES - 1, False), (WITNESSES, True)])
def test_so_many_late_arrivals_are_judged(late: int, judged: bool) -> None:
    tracker = connected()
    verdicts = fed(tracker, [frame(n + 1, at=LAST + 5000 + n, did="did:plc:b") for n in range(late)])
    assert verdicts == [Verdict.LATE] * (late - judged) + [Verdict.RESET] * judged


def test_late_arrivals_are_judged_again_after_each_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = connected()
    judged: list[int] = []
    monkeypatch.setattr(Continuity, "_is_reset", lambda self, *, quarters=2: bool(judged.append(self.late)))
    fed(tracker, [frame(n + 1, at=LAST - 100, did=f"did:plc:{n}") for n in range(WITNESSES + 20)])
    assert judged == [32, 40, 48]


@pytest.mark.parametrize(("late", "is_reset"), [(QUIET_WITNESSES - 1, False), (QUIET_WITNESSES, True)])
def test_fewer_do_where_the_relay_is_silent(late: int, is_reset: bool) -> None:
    tracker = connected()
    fed(tracker, [frame(n + 1, at=LAST + 5000 + n, did="did:plc:b") for n in range(late)])
    assert tracker.is_reset_at_rest() is is_reset


@pytest.mark.parametrize(("newer", "is_over"), [(1, False), (2, True), (4, True)])
def test_frames_that_are_shown_prove_the_end_by_their_median(newer: int, is_over: bool) -> None:
    tracker = read_to(LAST)
    times = [LAST - 50.0] * (4 - newer) + [LAST + 5000.0] * newer
    shown = [Arrival(*frame(n + 1, at=time, did="did:plc:b")) for n, time in enumerate(times)]
    assert tracker.is_over(shown) is is_over
    assert not tracker.is_over(shown[-3:])
    assert tracker.is_above(shown) is is_over
    above = [*shown[:-1], Arrival(*frame(LAST + 1, at=LAST + 5000, did="did:plc:b"))]
    assert not tracker.is_over(above)
    at_position = [*shown[:-1], Arrival(*frame(LAST, at=LAST + 5000, did="did:plc:b"))]
    assert tracker.is_over(at_position) is is_over


def test_the_highest_seq_and_which_were_seen() -> None:
    tracker = read_to(LAST)
    assert tracker.highest == LAST
    tracker.see(*frame(LAST + 9))
    assert tracker.highest == LAST + 9
    assert [tracker.has_seen(seq) for seq in (LAST, LAST + 8, LAST + 9)] == [True, False, True]
    assert Continuity(0, known=False).highest == 0


def test_going_on_in_another_sequence() -> None:
    tracker = connected()
    tracker.go_on_at(-1)
    assert (tracker.position, tracker.known, tracker.proven, tracker.turned, tracker.event) == (
        0,
        False,
        True,
        True,
        None,
    )
    tracker.go_on_at(7)
    assert (tracker.position, tracker._confirmed, tracker.highest) == (7, 7, LAST)


def test_a_relay_that_is_silent_in_an_old_sequence_is_asked_for_everything() -> None:
    tracker = connected()
    assert not tracker.is_left_at_rest()
    tracker._memory.reset_time = BEGIN + 10 * LAST * SECOND
    assert tracker.is_old
    assert tracker.is_left_at_rest()
    assert (tracker.position, tracker.asks_again) == (0, True)
    at_one = Continuity(2, known=True, event="x", reference=Reference(BEGIN))
    assert at_one.reconnected() == 1
    at_one._memory.reset_time = BEGIN + SECOND
    assert at_one.is_left_at_rest()
    at_zero = Continuity(1, known=True, event="x", reference=Reference(BEGIN))
    assert at_zero.reconnected() == 0
    at_zero._memory.reset_time = BEGIN + SECOND
    assert at_zero.is_old
    assert not at_zero.is_left_at_rest(), "everything was asked for already"


def test_a_new_run_is_given_the_memory_and_the_refused_cursor() -> None:
    tracker = Continuity(LAST, known=True, event="x", clock=lambda: BEGIN)
    tracker.reconnected()
    memory, begins = tracker.begin_anew(refused=True)
    assert (memory.refused, begins) == ((LAST - 1, BEGIN), None)
    other = Continuity(LAST, known=True, event="x", clock=lambda: BEGIN)
    assert other.begin_anew()[0].refused is None


def blocks_held(left_out: int, *, proven: bool = True) -> int:
    """Return the arrivals for which the position waits where so many seqs were left out, none before."""
    tracker = connected()
    if proven:
        tracker.see(*frame(LAST))
    first = LAST + 1 + left_out
    for count in range(1, 2 * module._HELD_UNPROVEN):
        tracker.see(*frame(first + count - 1))
        if tracker.position > LAST:
            return count
    raise AssertionError("it never moved")


def test_for_how_many_arrivals_the_position_waits() -> None:
    assert blocks_held(0) == BLOCK
    assert blocks_held(1) == HELD
    assert blocks_held(1, proven=False) == module._HELD_UNPROVEN


def test_what_is_usually_left_out_is_not_waited_for() -> None:
    tracker = connected()
    tracker.see(*frame(LAST))
    tracker._left_out.extend([3, 5, 2])
    assert tracker._usually_left_out() == 5
    first = LAST + 1 + 10  # twice as many as usual
    fed(tracker, [frame(first + n) for n in range(BLOCK)])
    assert tracker.position == first
    assert tracker._left_out[-1] == 10
    other = connected()
    other.see(*frame(LAST))
    other._left_out.extend([3, 5, 2])
    fed(other, [frame(first + 1 + n) for n in range(BLOCK)])
    assert other.position == LAST
    assert (other._held, len(other._left_out)) == (BLOCK, 3)


def test_without_blocks_the_usual_step_says_what_is_left_out() -> None:
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    fed(tracker, [frame(5 * n) for n in range(1, 12)])
    assert tracker._usually_left_out() == 4 * BLOCK


def test_what_is_usually_left_out_grows_by_a_block_and_twice_what_it_was() -> None:
    """One large hole is not what is usual from then on."""
    tracker = connected()
    tracker.see(*frame(LAST))
    tracker._left_out.append(5)
    fed(tracker, [frame(LAST + 1 + 1000 + n) for n in range(HELD)])
    assert tracker.position > LAST
    assert list(tracker._left_out) == [5, 2 * 5 + BLOCK]
    fed(tracker, [frame(LAST + 1 + 1000 + HELD + n) for n in range(BLOCK)])
    assert list(tracker._left_out) == [5, 26, 0]


def test_a_block_below_which_nothing_was_left_out_counts_where_others_have_holes() -> None:
    tracker = connected()
    tracker.see(*frame(LAST))
    tracker._left_out.append(5)
    fed(tracker, [frame(LAST + 1 + n) for n in range(2 * BLOCK)])
    assert list(tracker._left_out) == [5, 0, 0]


def test_what_was_left_out_counts_only_behind_a_known_and_proven_frame() -> None:
    unproven = connected()
    fed(unproven, [frame(LAST + 5 + n) for n in range(module._HELD_UNPROVEN)])
    assert (unproven.position > LAST, len(unproven._left_out)) == (True, 0)
    unknown = Continuity(5, known=False)
    unknown.reconnected()
    fed(unknown, [frame(500 + n) for n in range(HELD)])
    assert (unknown.position > 5, len(unknown._left_out)) == (True, 0)


@pytest.mark.parametrize(("position", "arrivals"), [(0, BLOCK), (1, HELD)])
def test_what_the_relay_keeps_no_longer_is_not_waited_for(position: int, arrivals: int) -> None:
    """A read from 0 asks for everything: the first seqs that come are the first that there are."""
    tracker = Continuity(position, known=False)
    tracker.reconnected()
    fed(tracker, [frame(500 + n) for n in range(arrivals - 1)])
    assert tracker.position == position
    tracker.see(*frame(500 + arrivals - 1))
    assert tracker.position > position


@pytest.mark.parametrize(("remembered", "turned"), [(REMEMBERED - BLOCK - 1, False), (REMEMBERED - BLOCK, True)])
def test_a_generation_ends_with_the_block_that_fills_it(remembered: int, turned: bool) -> None:
    memory = Memory()
    tracker = Continuity(100, known=False, memory=memory)
    tracker.reconnected()
    memory.young.update(range(1, remembered + 1))
    fed(tracker, [frame(101 + n) for n in range(BLOCK)])
    assert (len(memory.young) == 0) is turned
    assert tracker._is_new is turned
    assert memory.highest == (116 if turned else -1)


def test_a_generation_that_ends_before_the_proof_leaves_every_frame_to_be_looked_up() -> None:
    memory = Memory()
    tracker = Continuity(LAST, known=True, event="x", memory=memory)
    tracker.reconnected()
    memory.young.update(range(1, REMEMBERED))
    assert tracker._fast_above == module._NO_SEQ
    tracker.see(*frame(LAST + 5))
    assert (len(memory.young), tracker._fast_above) == (0, module._NO_SEQ)


def test_where_nothing_was_taken_nothing_is_noted() -> None:
    memory = Memory()
    tracker = Continuity(100, known=False, memory=memory)
    tracker.reconnected()
    assert memory.highest == -1
    tracker.see(*frame(105))
    tracker.reconnected()
    assert memory.highest == 105


def test_late_arrivals_that_are_followed_by_a_new_one_no_longer_count() -> None:
    tracker = connected()
    late = [frame(n + 1, at=LAST + 5000 + n, did="did:plc:b") for n in range(WITNESSES - 1)]
    assert set(fed(tracker, late)) == {Verdict.LATE}
    fed(tracker, [frame(LAST), frame(LAST + 1)])
    assert tracker.late == 0
    others = [frame(n + 1, at=LAST + 5000 + n, did="did:plc:c") for n in range(WITNESSES)]
    assert fed(tracker, others) == [Verdict.LATE] * (WITNESSES - 1) + [Verdict.RESET]


@pytest.mark.parametrize(("old", "is_reset"), [(16, True), (17, False), (24, False)])
def test_half_of_the_late_arrivals_must_be_newer(old: int, is_reset: bool) -> None:
    tracker = connected()
    times = [LAST - 50.0] * old + [LAST + 5000.0] * (WITNESSES - old)
    late = [frame(n + 1, at=time, did="did:plc:b") for n, time in enumerate(times)]
    assert (fed(tracker, late)[-1] is Verdict.RESET) is is_reset


@pytest.mark.parametrize(("old", "is_reset"), [(0, True), (1, False)])
def test_where_the_relay_is_silent_each_late_arrival_must_be_newer(old: int, is_reset: bool) -> None:
    tracker = connected()
    times = [LAST - 50.0] * old + [LAST + 5000.0] * (QUIET_WITNESSES - old)
    fed(tracker, [frame(n + 1, at=time, did="did:plc:b") for n, time in enumerate(times)])
    assert tracker.is_reset_at_rest() is is_reset


def test_without_a_known_frame_silence_proves_nothing() -> None:
    tracker = Continuity(LAST, known=False, reference=Reference(BEGIN))
    tracker.reconnected()
    fed(tracker, [frame(n + 1, at=LAST + 5000 + n, did="did:plc:b") for n in range(QUIET_WITNESSES)])
    assert tracker.late == QUIET_WITNESSES
    assert not tracker.is_reset_at_rest()


@pytest.mark.parametrize(("behind", "is_reset"), [(QUIET_WITNESSES - 1, False), (QUIET_WITNESSES, True)])
def test_another_event_under_our_seq_proves_a_reset_at_rest_with_those_behind_it(behind: int, is_reset: bool) -> None:
    tracker = connected()
    tracker.see(*frame(LAST, at=LAST + 5000, did="did:plc:b"))
    fed(tracker, [frame(LAST + 1 + n, at=LAST + 5001 + n, did="did:plc:b") for n in range(behind)])
    assert tracker.is_reset_at_rest() is is_reset
    memory, begins = tracker.begin_anew()
    taken = [hash(frame(LAST + 1 + n, at=LAST + 5001 + n, did="did:plc:b")[:3]) for n in range(behind)]
    if is_reset:  # the new run takes the witnesses again, and begins when they were made
        assert begins is not None and begins >= BEGIN + (LAST + 5000) * SECOND
        assert not any(key in memory for key in taken)
    else:
        assert all(key in memory for key in taken)


def test_what_follows_our_event_without_proof_is_not_late() -> None:
    """Frames that are not newer come behind another event: they prove nothing, and no witness is kept of them."""
    tracker = connected()
    tracker.see(*frame(LAST, at=LAST + 5000, did="did:plc:b"))
    fed(tracker, [frame(LAST + 1 + n, at=LAST - 50, did="did:plc:b") for n in range(3 * BLOCK)])
    assert not tracker.is_reset_at_rest()
    assert not tracker._witnesses._late


def test_a_repeat_with_another_time_is_no_second_arrival_and_another_rev_is() -> None:
    tracker = connected()
    seq, did, rev, time = frame(LAST + 2)
    assert time is not None
    for _ in range(2):  # in the second connection all of them were seen before
        fed(tracker, [(seq, did, rev, time), (seq, did, rev, time + 1), frame(LAST + 2, at=LAST + 3)])
        assert [arrival[:3] for arrival in tracker._block] == [(seq, did, rev), frame(LAST + 2, at=LAST + 3)[:3]]
        tracker.reconnected()


def at_an_old_end(position: int) -> Continuity:
    """Return a connected sequence whose end was acted upon, so that it is an old one that is sent again."""
    tracker = Continuity(position, known=True, event="x", reference=Reference(BEGIN))
    tracker.reconnected()
    tracker._memory.reset_time = BEGIN + SECOND
    return tracker


@pytest.mark.parametrize(("position", "asked"), [(1, 0), (2, 1), (9, 8)])
def test_behind_an_old_end_the_new_sequence_is_read_from_its_very_beginning(position: int, asked: int) -> None:
    """It is asked for again only where the relay was asked for less."""
    replaced = at_an_old_end(position)
    assert replaced._asked == asked
    newer = [frame(position + n, at=5000 + n, did="did:plc:b") for n in range(1 + 3 * BLOCK)]
    assert Verdict.RESET not in fed(replaced, newer)
    shown = at_an_old_end(position)
    assert not shown.is_over([Arrival(*frame(position, at=5000 + n, did=f"did:plc:{n}")) for n in range(4)])
    for tracker in (replaced, shown):
        assert (tracker.turned, tracker.asks_again, tracker.position) == (True, asked > 0, 0)
