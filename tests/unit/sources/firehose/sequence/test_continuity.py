"""Continuity: the position in a sequence whose order on the wire, clocks and repeats are the relay's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.protocol.tid import tid_from_us
from streams.sources.firehose.sequence.arrival_times import Reference
from streams.sources.firehose.sequence.arrivals import BLOCK, REMEMBERED, Arrival, Memory, Missing, Verdict
from streams.sources.firehose.sequence.continuity import HELD, Continuity
from streams.sources.firehose.sequence.resets import QUIET_WITNESSES, WITNESSES

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
    """A sequence that was read from 1 to ``last``, and settled."""
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


# -- a sequence that began anew
def resets_at(tracker: Continuity, frames: list[Frame]) -> int | None:
    """At which of the frames the reset is found; None for nowhere."""
    for index, one in enumerate(frames):
        if tracker.see(*one) is Verdict.RESET:
            return index
    return None


@pytest.mark.parametrize("first", [1, 41, 500])
@pytest.mark.parametrize("later", [1000.5, 1001, 1060, 10**7])
def test_a_sequence_that_began_anew_is_found(first: int, later: float) -> None:
    tracker = read_to(1000)
    found = resets_at(tracker, [frame(first + n, later + n) for n in range(64)])
    assert found is not None
    assert found + 1 >= WITNESSES


@pytest.mark.parametrize("wrong", [1, 3, 7])
def test_wrong_clocks_neither_hide_nor_invent_a_reset(wrong: int) -> None:
    """Real: one PDS dated 2099 hid a reset for good."""
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    frames = [frame(seq) for seq in range(1, 1001)]
    for place in (500, 945, 962, 975, 990):
        for n in range(wrong):
            seq, did, _, _ = frames[place - n]
            frames[place - n] = seq, did, tid_from_us(BEGIN + 10**9 * SECOND), BEGIN + 10**9 * SECOND
    fed(tracker, frames)
    late = [frame(seq, did="did:plc:late") for seq in range(900, 960)]
    assert resets_at(tracker, late) is None, "these are only late"
    assert resets_at(tracker, [frame(1 + n, 1001 + n) for n in range(64)]) is not None


def test_a_block_of_overtakers_is_no_reset() -> None:
    tracker = read_to(200)
    overtakers = range(5000, 5000 + HELD + 5 * BLOCK)
    assert resets_at(tracker, [frame(seq) for seq in (*overtakers, *range(201, 5000))]) is None
    assert tracker.late > 4000, "all are below the position: the test showed nothing"


def test_times_of_sending_are_no_reset() -> None:
    """A server that writes into ``time`` when it sends: only the revs tell an old event from a new one."""
    tracker = read_to(200)
    order = (*range(5000, 5000 + HELD + 5 * BLOCK), *range(201, 500))
    assert resets_at(tracker, [frame(seq, time=10_000 + n) for n, seq in enumerate(order)]) is None


def test_few_witnesses_do_where_the_relay_is_silent_then() -> None:
    tracker = read_to(1000)
    fed(tracker, [frame(41 + n, 2000 + n) for n in range(QUIET_WITNESSES - 1)])
    assert not tracker.is_reset_at_rest()
    fed(tracker, [frame(60, 2100)])
    assert tracker.is_reset_at_rest()


def test_after_a_restart_a_reset_is_judged_by_the_watermark() -> None:
    before = read_to(1000)
    again = Continuity(1000, known=True, event=before.event, time=before.time, reference=before.reference)
    again.reconnected()
    assert resets_at(again, [frame(41 + n, 2000 + n) for n in range(64)]) == WITNESSES - 1


def test_a_sequence_that_has_grown_beyond_our_position_is_found() -> None:
    """The event at our position is another one, and what follows is newer than all that we have."""
    before = read_to(1000)
    again = Continuity(1000, known=True, event=before.event, time=before.time, reference=before.reference)
    again.reconnected()
    assert resets_at(again, [frame(1000 + n, 9000 + n, did="did:plc:b") for n in range(64)]) is not None


def test_a_sequence_that_grew_beyond_us_between_two_connections_is_found() -> None:
    """Nothing was read before this process: what its first connection has read must do."""
    tracker = read_to(1000)
    tracker.reconnected()
    new = [frame(tracker.position + n, 9000 + n, did="did:plc:b") for n in range(64)]
    assert resets_at(tracker, new) is not None


def test_two_events_under_our_seq_are_no_reset() -> None:
    before = read_to(1000)
    again = Continuity(1000, known=True, event=before.event, time=before.time, reference=before.reference)
    again.reconnected()
    frames = [frame(1000, 1000.5, did="did:plc:b"), *(frame(seq) for seq in range(1000, 1064))]
    assert resets_at(again, frames) is None
    assert again.missing is None


def test_a_reset_is_acted_upon_once() -> None:
    """The same bytes, read again: a relay that keeps the old sequence before the new one."""
    old, new = [frame(seq) for seq in range(1000, 1101)], [frame(n, 2000 + n) for n in range(1, 41)]
    tracker = Continuity(999, known=False)
    tracker.reconnected()
    assert resets_at(tracker, [*old, *new]) == len(old) + WITNESSES - 1
    assert tracker.begin_anew()[1] is not None
    for _ in range(3):
        memory, _ = tracker.begin_anew()
        memory.forget_events()  # as if they had been read longer ago
        tracker = Continuity(0, known=False, memory=memory)
        tracker.reconnected()
        verdicts = fed(tracker, [*old, *new])
        assert Verdict.RESET not in verdicts
        assert Verdict.SEEN not in verdicts
        tracker.accept_pending(NEVER)
        assert tracker.position == 40


def test_the_witnesses_are_taken_again_by_the_new_run() -> None:
    tracker = read_to(1000)
    new = [frame(n, 2000 + n) for n in range(1, 41)]
    assert resets_at(tracker, new) == WITNESSES - 1
    memory, _ = tracker.begin_anew()
    again = Continuity(0, known=False, memory=memory)
    again.reconnected()
    assert set(fed(again, new)) == {Verdict.NEW}


def test_where_seqs_were_left_out_the_position_waits() -> None:
    """A block of live events overtakes the end of a replay; a cut, and the relay is asked for what was overtaken."""
    tracker = read_to(200)
    fed(tracker, [frame(seq) for seq in range(201, 230)])
    fed(tracker, [frame(seq) for seq in range(500, 600)])
    assert tracker.position < 230
    assert tracker.reconnected() < 230
    fed(tracker, [frame(seq) for seq in (*range(229, 235), *range(500, 500 + HELD + 5 * BLOCK))])
    assert tracker.position >= 500, "what has not come by now is not waited for"


def test_no_clock_that_is_ahead_of_ours_hides_a_reset() -> None:
    """Forty frames in a row of one PDS that is seventy years ahead."""
    now = [BEGIN + 2000 * SECOND]
    tracker = Continuity(0, known=False, clock=lambda: now[0])
    tracker.reconnected()
    fed(tracker, [frame(seq) for seq in range(1, 1001)])
    fed(tracker, [frame(seq, 10**9 + seq) for seq in range(1001, 1041)])
    now[0] += 100 * SECOND
    assert resets_at(tracker, [frame(1 + n, 2001 + n) for n in range(64)]) is not None


def old_then_new() -> tuple[list[Frame], list[Frame], Continuity]:
    """A relay that sends its old sequence before the new one; a reset was acted upon there."""
    old, new = [frame(seq) for seq in range(1000, 1160)], [frame(n, 5000 + n) for n in range(1, 41)]
    tracker = Continuity(999, known=False)
    tracker.reconnected()
    assert resets_at(tracker, [*old, *new]) is not None
    memory, _ = tracker.begin_anew()
    again = Continuity(0, known=False, memory=memory)
    again.reconnected()
    assert set(fed(again, old)) == {Verdict.SEEN}
    return old, new, again


def test_live_events_behind_an_end_that_is_known_begin_from_the_beginning() -> None:
    """What lies before them in the new sequence was never asked for."""
    _, new, again = old_then_new()
    assert not again.is_over([Arrival(*one) for one in new[-9:]])
    assert again.turned
    assert again.reconnected() == 0


def test_another_event_at_the_position_of_an_old_sequence_does_no_harm() -> None:
    old, _, again = old_then_new()
    again.accept_pending(NEVER)
    again.reconnected()
    assert again.position == old[-1][0]
    later = [frame(again.position + n, 9000 + n, did="did:plc:b") for n in range(40)]
    assert Verdict.RESET not in fed(again, later)


def test_the_end_of_a_sequence_is_known_only_when_it_was_acted_upon() -> None:
    """Kafka failed in between: the ingest goes back, and finds it again."""
    tracker = read_to(1000)
    new = [frame(n, 2000 + n) for n in range(1, 65)]
    assert resets_at(tracker, new) is not None
    again = Continuity(1000, known=True, reference=tracker.reference, memory=tracker._memory)
    again._memory.forget_events()
    again.reconnected()
    assert resets_at(again, new) is not None


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


def test_a_new_sequence_whose_beginning_was_not_sent_is_asked_for() -> None:
    """After trouble with Kafka the old sequence is gone on with from a high seq: by its seqs nothing lower is sent."""
    old, new, again = old_then_new()
    memory, _ = again.begin_anew()
    memory.forget_events()
    last = old[99]
    tracker = Continuity(last[0], known=True, event=f"{last[1]} {last[2]}", memory=memory, reference=again.reference)
    assert tracker.reconnected() == last[0] - 1
    more = [frame(n, 5000 + n) for n in range(41, 120)]
    assert Verdict.RESET not in fed(tracker, [*old[99:], *more][: 61 + WITNESSES])
    assert tracker.asks_again
    assert tracker.reconnected() == 0
    assert not tracker.asks_again
    assert Verdict.RESET not in fed(tracker, [*old, *new, *more])
    assert tracker.position > 40


def test_what_is_sent_again_before_a_known_end_is_old() -> None:
    _, new, again = old_then_new()
    assert again.is_old
    fed(again, [*new, *(frame(n, 5000 + n) for n in range(41, 120))])
    assert not again.is_old


def refused_at_100() -> Memory:
    """Return what is kept of FutureCursor for 100, where 99 was read and it is second 1,000."""
    tracker = Continuity(99, known=False, reference=Reference(BEGIN + 99 * SECOND), clock=lambda: BEGIN + 1000 * SECOND)
    tracker.reconnected()
    fed(tracker, [frame(100), frame(101)])
    tracker.accept_pending(NEVER)
    assert tracker.reconnected() == 100
    assert not tracker.is_old
    return tracker.begin_anew(refused=True)[0]


@pytest.mark.parametrize(
    ("seqs", "at", "is_old"),
    [
        (range(1, 98), 200, False),  # it may be the new sequence, for all that is known
        (range(101, 400), 0, True),  # beyond what was its head, and made before that: the old one, sent again
        (range(101, 400), 1000, False),  # the new one has come so far
    ],
)
def test_what_lay_beyond_the_head_is_the_old_sequence_sent_again(seqs: range, at: int, *, is_old: bool) -> None:
    """A process that was killed knows of a reset by FutureCursor alone; each cut in the old sequence gives another."""
    tracker = Continuity(0, known=False, memory=refused_at_100(), reference=Reference(BEGIN + 99 * SECOND))
    tracker.reconnected()
    fed(tracker, [frame(seq, at + seq) for seq in seqs])
    tracker.accept_pending(NEVER)
    assert tracker.is_old is is_old


def test_the_reset_behind_what_lay_beyond_the_head_is_known() -> None:
    tracker = Continuity(0, known=False, memory=refused_at_100(), reference=Reference(BEGIN + 99 * SECOND))
    tracker.reconnected()
    fed(tracker, [frame(seq) for seq in range(1, 400)])
    assert Verdict.RESET not in fed(tracker, [frame(n, 900 + n) for n in range(1, 70)])
    assert tracker.turned


def test_events_under_one_seq_say_nothing_of_the_time() -> None:
    """A lone seq that is far ahead comes three times, each time with another event; then comes the stream."""
    tracker = Continuity(49, known=False)
    tracker.reconnected()
    fed(tracker, [frame(50, n) for n in range(3)])
    assert resets_at(tracker, [frame(seq, 10 + seq) for seq in range(1, 60)]) is None


def test_two_bursts_of_wrong_clocks_in_the_first_block_invent_no_reset() -> None:
    """The relay begins with what is live, of which one PDS says 1970, and goes on with what it keeps."""
    tracker = Continuity(35, known=False)
    tracker.reconnected()
    live = [frame(seq, -1e9 if 40 <= seq < 49 else seq) for seq in range(36, 55)]
    fed(tracker, live)
    assert resets_at(tracker, [frame(seq) for seq in range(1, 36)]) is None


def test_a_burst_of_one_wrong_clock_hides_no_reset() -> None:
    """Most of a block is of one PDS that is seventy years ahead, just before the end."""
    tracker = read_to(900)
    fed(tracker, [frame(seq, 10**9 + seq) for seq in range(901, 911)])
    fed(tracker, [frame(seq) for seq in range(911, 917)])
    assert resets_at(tracker, [frame(1 + n, 1001 + n) for n in range(64)]) is not None


@pytest.mark.parametrize("pace", [0.01, 1, 30, 3600])
def test_a_sequence_that_goes_on_at_once_is_found_at_any_pace(pace: float) -> None:
    tracker = Continuity(0, known=False)
    tracker.reconnected()
    fed(tracker, [frame(seq, seq * pace) for seq in range(1000, 1200)])
    assert resets_at(tracker, [frame(1 + n, (1200 + n) * pace) for n in range(64)]) == WITNESSES - 1


def test_a_watermark_of_an_older_version_may_hold_a_wrong_clock() -> None:
    """It took what one frame claimed; that would hide for good that the relay's sequence began anew."""
    ahead = Reference(BEGIN + 70 * 365 * 86_400 * SECOND)
    now = [BEGIN + 2000 * SECOND]
    again = Continuity(1000, known=True, reference=ahead, clock=lambda: now[0])
    again.reconnected()
    now[0] += 100 * SECOND
    assert resets_at(again, [frame(41 + n, 2000 + n) for n in range(64)]) == WITNESSES - 1


@pytest.mark.parametrize("behind", [10, 10_000, 10**6])
def test_a_clock_of_ours_that_is_behind_invents_no_reset(behind: int) -> None:
    """The relay shows its oldest events, or sends some again: newer than our clock, and older than our last."""
    before = read_to(1000)
    clock = BEGIN + (1000 - behind) * SECOND
    again = Continuity(1000, known=True, event=before.event, reference=before.reference, clock=lambda: clock)
    old = [frame(seq) for seq in range(1, 65)]
    assert not again.is_above([Arrival(*one) for one in old[:9]])
    again.reconnected()
    assert resets_at(again, old) is None
    assert resets_at(again, [frame(101 + n, 2000 + n) for n in range(64)]) is not None
