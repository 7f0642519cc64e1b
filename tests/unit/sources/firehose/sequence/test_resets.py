"""Resets: a relay's sequence that began anew, told from late events, wrong clocks and old frames sent again."""

from __future__ import annotations

import pytest

from streams.protocol.tid import tid_from_us
from streams.sources.firehose.sequence.arrival_times import Reference
from streams.sources.firehose.sequence.arrivals import BLOCK, Arrival, Memory, Verdict
from streams.sources.firehose.sequence.continuity import HELD, Continuity
from streams.sources.firehose.sequence.resets import QUIET_WITNESSES, WITNESSES
from tests.unit.sources.firehose.sequence.test_continuity import BEGIN, NEVER, SECOND, Frame, fed, frame, read_to


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
