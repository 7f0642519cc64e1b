"""Usual times, remembered events and the time of the stream at their exact limits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streams.protocol.tid import tid_from_us
from streams.sources.firehose.sequence.arrival_times import RECENT, Reference, arrival_time, median_time
from streams.sources.firehose.sequence.arrivals import BLOCK, REMEMBERED, Arrival, Memory
from streams.sources.firehose.sequence.resets import (
    QUIET_WITNESSES,
    SHOWN_WITNESSES,
    WITNESSES,
    ResetWitnesses,
    Ruling,
)
from streams.sources.firehose.sequence.stream_time import DOUBTERS, FIRST, JUMP, OVERTAKING, StreamTime
from streams.sources.firehose.sequence.stream_time import WITNESSES as TIME_WITNESSES

BEGIN = 1_700_000_000_000_000
SECOND = 1_000_000
NOTHING = Reference(None)


def at(seq: int, time: int | None) -> Arrival:
    return Arrival(seq, f"did:web:{seq}", "#identity", time)


def run(times: Sequence[int | None], first: int = 1) -> list[Arrival]:
    return [at(first + n, time) for n, time in enumerate(times)]


def test_the_numbers_that_the_documents_give() -> None:
    assert (BLOCK, RECENT, REMEMBERED) == (16, 80, 32_768)
    assert (WITNESSES, QUIET_WITNESSES, SHOWN_WITNESSES) == (32, 8, 4)
    assert (JUMP, TIME_WITNESSES, OVERTAKING, DOUBTERS, FIRST) == (300_000_000, 32, 8, 64, 8)


# -- times


def test_the_time_of_an_arrival_is_the_earlier_of_its_claim_and_its_rev() -> None:
    rev = tid_from_us(1000)
    assert [arrival_time(Arrival(1, "d", rev, time)) for time in (None, 999, 1000, 1001)] == [1000, 999, 1000, 1000]
    assert arrival_time(Arrival(1, "d", "no rev", 7)) == 7
    assert arrival_time(Arrival(1, "d", "no rev", None)) is None


def test_the_median_of_an_even_number_is_the_upper_one() -> None:
    assert median_time(run([4, 1, None, 3, 2])) == 3
    assert median_time(run([3, 1, 2])) == 2
    assert median_time(run([None])) is None
    assert median_time([]) is None


def test_of_few_arrivals_the_times_before_count_as_one_more_block() -> None:
    before = Reference(100, 7)
    assert Reference.of_last(run([None, None]), before) == before
    assert Reference.of_last([], before) == before
    assert Reference.of_last(run([50]), before) == Reference(100, 7)
    assert Reference.of_last(run([500]), before) == Reference(500, 7)
    assert Reference.of_last(run([500]), NOTHING) == Reference(500, 0)


def test_how_far_the_clocks_differ_is_told_by_more_than_three_times() -> None:
    assert Reference.of_last(run([10, 20, 50]), Reference(None, 7)).spread == 7
    assert Reference.of_last(run([10, 20, 50, 60]), Reference(None, 7)).spread == 0
    # Steps of 10, 40, 20 and 70: the usual one is 40, and 0, 20, 30, 30 is how far they are from it.
    assert Reference.of_last(run([10, 20, 60, 80, 150]), Reference(None, 7)).spread == 30


def test_arrivals_are_put_in_the_order_of_their_seqs() -> None:
    straight = run([10, 20, 60, 80, 150], first=8)  # of which the DIDs have another order
    assert Reference.of_last(straight[::-1], NOTHING) == Reference.of_last(straight, NOTHING) == Reference(60, 30)


def blocks(*medians: int) -> list[Arrival]:
    return run([time for median in medians for time in [median] * BLOCK])


def test_full_blocks_are_counted_from_the_newest() -> None:
    assert Reference.of_last(run([1] * 3 + [50] * BLOCK), NOTHING).time == 50
    assert Reference.of_last(run([1] * (BLOCK - 1) + [50] * BLOCK), NOTHING).time == 50
    assert Reference.of_last(blocks(1, 50), NOTHING).time == 50
    assert Reference.of_last(blocks(1, 50), Reference(70)).time == 50
    assert Reference.of_last(blocks(1, 50), Reference(20)).time == 20


def test_from_three_blocks_on_the_pace_is_taken_into_account() -> None:
    """Each block says when the newest is, by the usual step from one to the next; most are believed."""
    assert Reference.of_last(blocks(10, 20, 30), Reference(99_999)).time == 30
    assert Reference.of_last(blocks(10, 20, 30, 40), NOTHING).time == 40
    assert Reference.of_last(blocks(10, 20, 30, 9999), NOTHING).time == 40, "the newest block is one PDS's"
    assert Reference.of_last(blocks(9999, 20, 30, 40), NOTHING).time == 40
    assert Reference.of_last(blocks(40, 30, 20), NOTHING).time == 30, "time does not go back: no pace"
    assert Reference.of_last(blocks(10, 25, 30), NOTHING).time == 40
    assert Reference.of_last(blocks(10, 20, 30), NOTHING).time == 30, "each of them says so"


def test_from_three_blocks_on_the_times_before_no_longer_count() -> None:
    """The newest block says 30, the one before it 30 too, and the oldest 45: the steps are of 20."""
    assert Reference.of_last(blocks(5, 10, 30), Reference(99_999)).time == 30
    assert Reference.of_last(blocks(10, 30), Reference(99_999)).time == 30
    assert Reference.of_last(blocks(10, 30), Reference(20)).time == 20


def test_two_blocks_have_no_pace() -> None:
    assert Reference.of_last(blocks(50, 1), NOTHING).time == 50
    assert Reference.of_last(blocks(50, 1), Reference(-5)).time == 1


def test_less_than_two_blocks_are_one_with_all_their_arrivals() -> None:
    """Most of all 31 say 50, most of the last 16 do not."""
    assert Reference.of_last(run([50] * 22 + [1] * 9), NOTHING).time == 50
    assert Reference.of_last(run([50] * 15 + [1] * 16), NOTHING).time == 1
    assert Reference.of_last(run([1] * 14 + [50] * 2 + [7] * 14), NOTHING).time == 7


def test_a_reference_is_held_within_a_time() -> None:
    assert [Reference(5, 1).at_most(time) for time in (4, 5, 6)] == [Reference(4, 1), Reference(5, 1), Reference(5, 1)]
    five = Reference(5, 1)
    assert five.at_most(5) is five
    assert NOTHING.at_most(4) is NOTHING


def test_the_later_of_two_references() -> None:
    early, late, other = Reference(5), Reference(6), Reference(6, 9)
    assert (early.later(late), late.later(early)) == (late, late)
    assert late.later(other) is other
    assert early.later(NOTHING) is early
    assert NOTHING.later(early) is early
    assert NOTHING.later(Reference(None, 9)) is NOTHING


def test_arrivals_are_newer_by_the_quarter_of_their_times_and_more_than_the_spread() -> None:
    newer = run([10, 20, 30, 40])
    assert [Reference(time).is_before(newer) for time in (29, 30)] == [True, False]
    assert [Reference(20, spread).is_before(newer) for spread in (9, 10)] == [True, False]
    assert [Reference(9).is_before(newer, quarters=0), Reference(10).is_before(newer, quarters=0)] == [True, False]
    assert [Reference(19).is_before(newer, quarters=1), Reference(20).is_before(newer, quarters=1)] == [True, False]
    eight = run([10, 20, 30, 40, 50, 60, 70, 80])
    assert [Reference(49).is_before(eight), Reference(50).is_before(eight)] == [True, False]
    assert [Reference(time).is_before(eight, quarters=1) for time in (29, 30)] == [True, False]
    assert not NOTHING.is_before(newer)
    assert not Reference(5).is_before(run([None]))


# -- events that are remembered


def test_the_memory_has_two_generations() -> None:
    memory = Memory()
    assert (memory.highest, memory.reset_time, memory.refused) == (-1, -1, None)
    assert (memory.highest_young, memory.highest_old) == (-1, -1), "no seq was noted"
    memory.young.add(1)
    memory.note(0)
    assert memory.highest == 0
    memory.note(7)
    memory.note(3)
    memory.turn()
    assert (1 in memory, memory.highest_young, memory.highest_old, memory.highest) == (True, -1, 7, 7)
    memory.young.add(2)
    memory.note(5)
    assert memory.highest == 7
    memory.forget({1})
    assert (1 in memory, 2 in memory) == (False, True)
    memory.forget({2})
    assert 2 not in memory
    memory.young, memory.old = {1}, {2}
    memory.forget_events()
    assert (1 in memory, 2 in memory, memory.highest) == (False, False, -1)


# -- the time of the stream


@pytest.mark.parametrize(("ahead", "time"), [(JUMP, JUMP), (JUMP + 1, 0)])
def test_a_claim_up_to_five_minutes_ahead_is_believed_at_once(ahead: int, time: int) -> None:
    stream = StreamTime(BEGIN)
    stream.see(BEGIN + ahead)
    assert stream.time == BEGIN + time
    assert stream.before == BEGIN


def test_a_claim_between_far_ones_makes_them_begin_again() -> None:
    stream = StreamTime(BEGIN)
    for _ in range(TIME_WITNESSES - 1):
        stream.see(BEGIN + 2 * JUMP)
    stream.see(BEGIN + 5)
    for _ in range(TIME_WITNESSES - 1):
        stream.see(BEGIN + 3 * JUMP)
        assert stream.time == BEGIN + 5
    stream.see(BEGIN + 3 * JUMP)
    assert stream.time == BEGIN + 3 * JUMP


def claims_until_believed(seq: int, *, begin: int | None = None) -> int:
    """Return how many frames in a row with this seq must claim a time far ahead until it is believed."""
    stream = StreamTime(BEGIN) if begin is None else StreamTime(BEGIN, begin)
    for count in range(1, 100):
        stream.see(BEGIN + 2 * JUMP, seq)
        if stream.time != BEGIN:
            return count
    raise AssertionError("it was never believed")


def test_claims_whose_seqs_are_far_ahead_need_not_be_so_many() -> None:
    assert (claims_until_believed(32), claims_until_believed(33)) == (TIME_WITNESSES, 8)
    assert [claims_until_believed(seq, begin=500) for seq in (532, 533)] == [TIME_WITNESSES, 8]


def test_a_claim_between_those_with_seqs_far_ahead_makes_them_begin_again() -> None:
    stream = StreamTime(BEGIN)
    for _ in range(OVERTAKING - 1):
        stream.see(BEGIN + 2 * JUMP, 1000)
    stream.see(BEGIN + 5, 1)
    for _ in range(OVERTAKING - 1):
        stream.see(BEGIN + 3 * JUMP, 1000)
        assert stream.time == BEGIN + 5
    stream.see(BEGIN + 3 * JUMP, 1000)
    assert stream.time == BEGIN + 3 * JUMP


def test_of_those_who_say_that_it_is_later_the_earliest_is_believed_and_what_is_near_to_it() -> None:
    stream = StreamTime(BEGIN)
    for n in range(TIME_WITNESSES):
        assert stream.time == BEGIN
        stream.see(BEGIN + 10 * JUMP - n if n % 2 else BEGIN + 12 * JUMP)
    assert stream.time == BEGIN + 10 * JUMP - 1
    stream.see(BEGIN + 10 * JUMP + 1)
    assert stream.time == BEGIN + 10 * JUMP + 1


def test_the_first_time_is_the_lower_middle_one_of_eight_and_what_is_near_to_it() -> None:
    stream = StreamTime(None)
    for n in range(FIRST):
        assert stream.time is None
        stream.see(BEGIN + 10 * JUMP * n)
    assert stream.time == BEGIN + 30 * JUMP


@pytest.mark.parametrize(("behind", "goes_back"), [(JUMP, False), (JUMP + 1, True)])
def test_sixty_four_in_a_row_that_are_far_behind_are_believed(behind: int, goes_back: bool) -> None:
    stream = StreamTime(BEGIN)
    for _ in range(DOUBTERS - 1):
        stream.see(BEGIN - behind)
        assert stream.time == BEGIN
    stream.see(BEGIN - behind - 5)
    assert stream.time == (BEGIN - behind if goes_back else BEGIN)


def test_one_that_is_not_behind_ends_the_doubt() -> None:
    stream = StreamTime(BEGIN)
    for _ in range(3):
        for _ in range(DOUBTERS - 1):
            stream.see(BEGIN - 2 * JUMP)
        stream.see(BEGIN - JUMP)
    assert stream.time == BEGIN


def test_what_was_believed_back_is_doubted_from_nothing() -> None:
    stream = StreamTime(BEGIN)
    for _ in range(DOUBTERS):
        stream.see(BEGIN - 2 * JUMP)
    for _ in range(DOUBTERS - 1):
        stream.see(BEGIN - 4 * JUMP)
    assert stream.time == BEGIN - 2 * JUMP


@pytest.mark.parametrize(("early", "settled"), [(0, True), (1, False)])
def test_what_is_believed_of_a_quiet_relay_is_not_of_tomorrow(early: int, settled: bool) -> None:
    stream = StreamTime(BEGIN)
    claimed = BEGIN + 2 * JUMP
    stream.see(claimed)
    stream.see(claimed + 10 * JUMP)
    assert stream.accept_pending(claimed - JUMP - early) is settled
    assert stream.time == (claimed if settled else BEGIN)
    assert not stream.accept_pending(claimed - JUMP - 1)


# -- witnesses of a reset


class Clock:
    """Our own clock, in µs."""

    now = BEGIN + 3600 * SECOND

    def __call__(self) -> int:
        return self.now


def witnesses(before: Reference = NOTHING, memory: Memory | None = None, clock: Clock | None = None) -> ResetWitnesses:
    return ResetWitnesses(before, memory or Memory(), clock or Clock())


def test_the_last_arrivals_are_each_event_once_and_no_more_than_are_needed() -> None:
    made = witnesses()
    for block in range(6):
        made.add_block(run([BEGIN] * BLOCK, first=100 * block))
    open_block = [at(900, BEGIN), at(500, BEGIN)]
    last = made.last(open_block)
    assert len(last) == RECENT
    assert [arrival.seq for arrival in last].count(500) == 1
    assert (last[-1].seq, len(made.blocks)) == (900, 5)
    made.reconnected(open_block)
    assert [arrival.seq for arrival in made.last([at(901, BEGIN)])][-1] == 901


def test_an_event_that_comes_again_with_another_time_is_one_event() -> None:
    first, again = at(5, BEGIN), at(5, BEGIN + 9)
    other = Arrival(5, first.did, "#account", BEGIN)
    assert witnesses().last([first, other, again]) == [again, other], "with the time that came last"


@pytest.mark.parametrize(("count", "known"), [(2, False), (3, True)])
def test_a_usual_time_is_taken_of_three_arrivals(count: int, known: bool) -> None:
    before = Reference(BEGIN - 99 * SECOND, 5)
    made = witnesses(before)
    assert (made.reference(run([BEGIN] * count)) != before) is known


@pytest.mark.parametrize(("confirmed", "ruling"), [(207, Ruling.RESET), (206, Ruling.NOTHING)])
def test_only_what_is_not_above_the_position_is_a_witness(confirmed: int, ruling: Ruling) -> None:
    made = witnesses()
    made.add_block(run([BEGIN + n for n in range(BLOCK)], first=1000))
    for arrival in run([BEGIN + 60 * SECOND + n for n in range(8)], first=200):
        made.add_late(arrival)
    found, behind = made.rule_on_late(confirmed, [], quarters=2)
    assert found is ruling
    assert behind == (199 if ruling is Ruling.RESET else confirmed)


def test_only_the_last_witnesses_are_heard() -> None:
    made = witnesses()
    made.add_block(run([BEGIN + n for n in range(BLOCK)], first=1000))
    for arrival in run([BEGIN - 60 * SECOND] * 40 + [BEGIN + 60 * SECOND] * WITNESSES, first=100):
        made.add_late(arrival)
    assert made.rule_on_late(1015, [], quarters=0) == (Ruling.RESET, 139)
    made.clear()
    made.add_late(at(5, BEGIN + 60 * SECOND))
    assert made.rule_on_late(1015, [], quarters=0) == (Ruling.RESET, 4)


@pytest.mark.parametrize(("between", "ruling"), [(None, Ruling.NOTHING), (206, Ruling.NOTHING), (205, Ruling.RESET)])
def test_a_block_above_the_witnesses_says_by_itself_when_it_was(between: int | None, ruling: Ruling) -> None:
    """Of all the last arrivals most are older than the witnesses; those above them are not, where they are a block."""
    made = witnesses()
    for first in (100, 120, 140):
        made.add_block(run([BEGIN] * BLOCK, first=first))
    above = run([BEGIN + 100 * SECOND] * BLOCK, first=1000)
    made.add_block(above if between is None else [at(between, BEGIN + 100 * SECOND), *above[1:]])
    for seq in (200, 202, 204, 206):
        made.add_late(at(seq, BEGIN + 50 * SECOND))
    assert made.rule_on_late(1015, [], quarters=2) == (ruling, 199)


def test_what_is_not_newer_proves_nothing() -> None:
    assert witnesses().rule(Reference(BEGIN), run([BEGIN] * 4), 70, quarters=2) is Ruling.NOTHING
    assert witnesses().rule(Reference(BEGIN), run([BEGIN + 1] * 4), 70, quarters=2) is Ruling.RESET


def test_what_was_read_was_not_of_the_future() -> None:
    clock = Clock()
    made = witnesses(clock=clock)
    later = Reference(clock.now + 5)
    assert made.believed(later, run([clock.now] * 4)) == Reference(clock.now)
    assert made.believed(later, run([clock.now + 1] * 4)) is later, "our own clock is behind"
    assert made.believed(later, run([None])) == Reference(clock.now)
    clock.now += 100
    assert made.believed(later, run([clock.now] * 4)) == Reference(clock.now - 100), "when it was read"
    made.add_block([])
    assert made.believed(later, run([clock.now] * 4)) is later


@pytest.mark.parametrize(
    ("time", "position", "known"),
    [
        (BEGIN - 1, 70, True),  # before the last reset
        (BEGIN, 70, False),
        (BEGIN + 9, 100, True),  # at the cursor that was refused, before it was
        (BEGIN + 9, 99, False),
        (BEGIN + 10, 100, False),
        (None, 100, False),
    ],
)
def test_a_sequence_whose_end_was_acted_upon(time: int | None, position: int, known: bool) -> None:
    memory = Memory(reset_time=BEGIN, refused=(100, BEGIN + 10))
    assert witnesses(memory=memory).is_known(Reference(time), position) is known


def test_without_a_refused_cursor_only_the_last_reset_counts() -> None:
    memory = Memory(reset_time=BEGIN)
    assert not witnesses(memory=memory).is_known(Reference(BEGIN), 1 << 40)
    assert not witnesses().is_known(Reference(0), 1 << 40)


def test_a_reset_is_noted_and_its_witnesses_are_forgotten() -> None:
    clock, memory = Clock(), Memory()
    made = witnesses(memory=memory, clock=clock)
    late = run([BEGIN + n for n in range(3)], first=200)
    for arrival in late:
        memory.young.add(hash(arrival[:3]))
        made.add_late(arrival)
    assert made.act(Reference(BEGIN - 5), refused=None) == BEGIN + 1
    assert (memory.reset_time, memory.refused, memory.young) == (BEGIN + 1, None, set())
    made.clear()
    assert made.act(Reference(BEGIN + 50), refused=70) is None
    assert (memory.reset_time, memory.refused) == (BEGIN + 51, (70, clock.now))
    assert made.act(NOTHING, refused=None) is None
    assert memory.reset_time == BEGIN + 51, "an earlier one does not take it back"
    made.take_as_late(late)
    assert made.act(NOTHING, refused=None) == BEGIN + 1
    empty = Memory()
    assert witnesses(memory=empty).act(NOTHING, refused=None) is None
    assert empty.reset_time == -1
