"""Continuity: the position in a sequence whose order on the wire, clocks and repeats are the relay's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.protocol.tid import tid_from_us
from streams.sources.firehose.sequence.arrivals import BLOCK, REMEMBERED, Memory, Missing, Verdict
from streams.sources.firehose.sequence.continuity import HELD, Continuity

BEGIN = 1_790_000_000_000_000
SECOND = 1_000_000
NEVER = 1 << 62

Frame = tuple[int, str, str, int | None]


def frame(seq: int, at: float | None = None, *, time: float | None = None, did: str = "did:plc:a") -> Frame:
    """An event made ``at`` seconds after the beginning (its seq, unless said), which claims ``time``."""
    at = seq if at is None else at
    made = BEGIN + int(at * SECOND)
    return seq, did, tid_from_us(made), made if time is None else BEGIN + int(time * SECOND)


def fed(tracker: Continuity, frames: list[Frame]) -> list[Verdict]:
    return [tracker.see(*one) for one in frames]


def read_to(last: int) -> Continuity:
    """Return a sequence that was read from 1 to ``last``, all accepted."""
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    fed(tracker, [frame(seq) for seq in range(1, last + 1)])
    tracker.accept_pending(NEVER)
    assert tracker.position == last
    return tracker


# -- reconnects
@st.composite
def sequences(draw: st.DrawFn) -> list[Frame]:
    seq = time = 0
    frames = []
    for step in draw(st.lists(st.integers(1, 5), min_size=2, max_size=40)):
        seq, time = seq + step, time + draw(st.integers(0, 3))
        frames.append(frame(seq, time))
    return frames


@given(sequences(), st.data(), st.booleans())
def test_reconnects_lose_and_double_nothing(frames: list[Frame], data: st.DataObject, inclusive: bool) -> None:
    tracker = Continuity(0, known=False)
    taken: list[int] = []
    for _ in range(10 * len(frames)):
        cursor = tracker.reconnected()
        assert tracker.missing is None
        answer = [one for one in frames if one[0] > cursor or (inclusive and one[0] == cursor)]
        for one in answer[: data.draw(st.integers(3, 40))]:
            verdict = tracker.see(*one)
            assert verdict in (Verdict.NEW, Verdict.SEEN)
            assert tracker.missing is None
            if verdict is Verdict.NEW:
                taken.append(one[0])
        if taken[-1] == frames[-1][0]:
            break
    assert taken == [seq for seq, *_ in frames]


@pytest.mark.parametrize("then", [30, BLOCK, 3])
@pytest.mark.parametrize("cut", [1, 2, 7, 400])
def test_a_window_that_moved_past_us_is_reported_exactly(cut: int, then: int) -> None:
    tracker = read_to(20)
    assert tracker.reconnected() == 19
    fed(tracker, [frame(seq) for seq in range(20 + cut, 20 + cut + then)])
    tracker.accept_pending(NEVER)
    lost = Missing(21, 19 + cut, BEGIN + 20 * SECOND, BEGIN + (20 + cut) * SECOND)
    assert (tracker.missing is None) if cut == 1 else tracker.missing is not None
    if tracker.missing is not None:
        assert (tracker.missing.from_seq, tracker.missing.to_seq) == (lost.from_seq, lost.to_seq)
        assert tracker.missing.to_time == lost.to_time


def test_a_known_event_proves_that_nothing_is_missing() -> None:
    tracker = read_to(20)
    tracker.reconnected()
    assert fed(tracker, [frame(20)]) == [Verdict.SEEN]
    fed(tracker, [frame(seq) for seq in range(30, 60)])
    assert tracker.missing is None


@pytest.mark.parametrize("low", [19, 12, 1])
def test_an_event_that_is_not_known_proves_nothing(low: int) -> None:
    """A lone frame far behind, and then a window that has moved."""
    tracker = read_to(20)
    tracker.reconnected()
    assert fed(tracker, [frame(low, 0.5)]) == [Verdict.LATE]
    fed(tracker, [frame(seq) for seq in range(30, 60)])
    assert tracker.missing is None, "the relay may have begun with what overtook"
    tracker.accept_pending(NEVER)
    assert tracker.missing is not None
    assert (tracker.missing.from_seq, tracker.missing.to_seq) == (21, 29)


def test_after_a_restart_the_event_at_the_position_is_recognised_whatever_time_it_claims() -> None:
    before = read_to(20)
    again = Continuity(20, known=True, event=before.event, time=before.time, reference=before.reference)
    assert again.reconnected() == 19
    seq, did, rev, _ = frame(20)
    assert again.see(seq, did, rev, BEGIN + 10**9 * SECOND) is Verdict.SEEN
    assert again.proven


def test_a_watermark_of_an_older_version_knows_the_seq_alone() -> None:
    again = Continuity(20, known=True, time=BEGIN)
    again.reconnected()
    assert again.see(*frame(20)) is Verdict.SEEN
    assert again.proven


def test_what_was_taken_above_the_position_is_not_missing() -> None:
    """The position waits at a hole; the next connection begins behind what was taken after it."""
    tracker = read_to(20)
    fed(tracker, [frame(seq) for seq in range(23, 40)])
    tracker.reconnected()
    assert tracker.position == 20
    fed(tracker, [frame(seq) for seq in range(50, 70)])
    tracker.accept_pending(NEVER)
    assert tracker.missing is not None
    assert (tracker.missing.from_seq, tracker.missing.to_seq) == (40, 49)


# -- order
def test_what_was_overtaken_is_taken() -> None:
    """Real: a stream that cuts over from a replay lets a live event overtake; 49 events were dropped."""
    tracker = Continuity(99, known=False)
    tracker.reconnected()
    order = [*range(100, 151), 200, *range(151, 200), *range(201, 230)]
    assert set(fed(tracker, [frame(seq) for seq in order])) == {Verdict.NEW}
    tracker.accept_pending(NEVER)
    assert tracker.position == 229


@pytest.mark.parametrize("far", [900_000, 1_040 + 50, 1 << 50])
@pytest.mark.parametrize("tail", [0, 1, 5, 40])
def test_a_lone_seq_far_ahead_moves_nothing(far: int, tail: int) -> None:
    tracker = Continuity(999, known=False)
    tracker.reconnected()
    fed(tracker, [frame(seq) for seq in range(1000, 1040)])
    assert tracker.see(*frame(far, 1040.5)) is Verdict.NEW
    tracker.accept_pending(NEVER)
    assert tracker.position == 1039
    assert set(fed(tracker, [frame(seq) for seq in range(1040, 1040 + tail)])) <= {Verdict.NEW}
    tracker.accept_pending(NEVER)
    assert tracker.position == 1039 + tail


@pytest.mark.parametrize("low", [1, 500, 1020])
def test_a_lone_seq_far_behind_is_taken_and_moves_nothing(low: int) -> None:
    tracker = read_to(1040)
    assert tracker.see(low, "did:plc:b", "other", BEGIN + 10**6 * SECOND) is Verdict.LATE
    assert not tracker.is_reset_at_rest()
    assert tracker.position == 1040
    assert tracker.see(low, "did:plc:b", "other", BEGIN) is Verdict.SEEN


def test_two_events_under_one_seq_are_two_events() -> None:
    tracker = read_to(100)
    frames = [frame(101), frame(101, 100.5, did="did:plc:b"), frame(102), frame(101)]
    assert fed(tracker, frames) == [Verdict.NEW, Verdict.NEW, Verdict.NEW, Verdict.SEEN]


@given(st.permutations(range(BLOCK)), st.integers(1, 5))
def test_fewer_than_a_block_of_overtakers_are_never_behind_the_position(order: list[int], blocks: int) -> None:
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    arrived: set[int] = set()
    for number in range(blocks):
        for place in order:
            seq = 1 + number * BLOCK + place
            assert tracker.see(*frame(seq)) is not Verdict.SEEN
            arrived.add(seq)
            assert set(range(1, tracker.position + 1)) <= arrived


def test_a_cut_in_the_middle_of_overtaking_asks_for_what_was_overtaken() -> None:
    tracker = read_to(150)
    fed(tracker, [frame(153), frame(154)])
    assert tracker.reconnected() == 149
    assert fed(tracker, [frame(seq) for seq in (150, 151, 152, 153, 154)]) == [
        Verdict.SEEN, Verdict.NEW, Verdict.NEW, Verdict.SEEN, Verdict.SEEN,
    ]  # fmt: skip


@pytest.mark.parametrize("few", [5, 6, 9])
def test_connections_that_end_after_each_few_frames_come_to_an_end(few: int) -> None:
    """Also where the relay's seqs have holes, and a lone one is far ahead."""
    seqs = [1, 2, 500, 501, 10_000, 10_001, 10_002, 900_000, 10_003, 10_004, 20_000]
    tracker = Continuity(0, known=False)
    taken: list[int] = []
    for connections in range(60):  # noqa: B007
        cursor = tracker.reconnected()
        tracker.missing = None
        answer = [seq for seq in seqs if seq > cursor][:few]
        taken += [seq for seq in answer if tracker.see(*frame(seq)) is not Verdict.SEEN]
        if len(set(taken)) == len(seqs):
            break
    assert connections < 50
    assert len(taken) == len(set(taken))


def test_the_memory_of_events_is_bounded() -> None:
    memory = Memory()
    tracker = Continuity(0, known=False, memory=memory)
    tracker.reconnected()
    fed(tracker, [frame(seq) for seq in range(1, 5 * REMEMBERED)])
    assert len(memory.young) + len(memory.old) <= 2 * (REMEMBERED + BLOCK)
    assert tracker.see(*frame(4 * REMEMBERED)) is Verdict.SEEN


def test_where_seqs_were_left_out_the_position_waits() -> None:
    """A block of live events overtakes the end of a replay; a cut, and the relay is asked for what was overtaken."""
    tracker = read_to(200)
    fed(tracker, [frame(seq) for seq in range(201, 230)])
    fed(tracker, [frame(seq) for seq in range(500, 600)])
    assert tracker.position < 230
    assert tracker.reconnected() < 230
    fed(tracker, [frame(seq) for seq in (*range(229, 235), *range(500, 500 + HELD + 5 * BLOCK))])
    assert tracker.position >= 500, "what has not come by now is not waited for"


def test_a_proof_may_come_late() -> None:
    """A few live events, then a second of silence, then the replay: nothing is missing."""
    tracker = read_to(5000)
    tracker.reconnected()
    fed(tracker, [frame(seq) for seq in range(90_000, 90_003)])
    tracker.accept_pending(NEVER, patient=False)
    assert (tracker.position, tracker.missing) == (5000, None)
    fed(tracker, [frame(seq) for seq in range(5000, 5040)])
    assert tracker.missing is None
    assert tracker.position > 5000


def test_one_seq_far_ahead_does_not_make_all_others_slow_for_ever() -> None:
    tracker = read_to(100)
    tracker.see(*frame(1 << 40, 100.5))
    fed(tracker, [frame(seq) for seq in range(101, 101 + 4 * REMEMBERED)])
    assert tracker._fast_above < 1 << 40


def test_what_a_cut_kept_back_is_asked_for() -> None:
    """A second event under seq 95 comes behind fifteen others, and the connection is cut before it."""
    tracker = read_to(80)
    fed(tracker, [frame(seq) for seq in range(81, 101)])
    assert tracker.reconnected() < 95
    twin = frame(95, did="did:plc:twin")
    assert fed(tracker, [*(frame(seq) for seq in range(85, 101)), twin])[-1] is not Verdict.SEEN


def test_cuts_do_not_keep_the_position_back_for_ever() -> None:
    """Each connection brings twenty frames from where it begins; the relay is read to its end."""
    tracker, end = Continuity(0, known=False), 500
    for _ in range(3 * end):
        cursor = tracker.reconnected()
        fed(tracker, [frame(seq) for seq in range(cursor + 1, min(cursor + 21, end + 1))])
        if cursor + 20 >= end:
            break
    tracker.accept_pending(NEVER)
    assert tracker.position == end


def test_repeats_in_one_connection_are_not_told_again() -> None:
    """201 and 202 come later: a cut does not take what overtook them for all, although one of those came twice."""
    tracker = read_to(200)
    fed(tracker, [frame(seq) for seq in (203, 204, 205, 205, *range(206, 240), 239)])
    assert tracker.reconnected() < 201
