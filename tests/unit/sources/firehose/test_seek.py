"""The search from a time to a seq finds the right frame on any relay: gaps, inclusive cursors, unknown heads."""

from __future__ import annotations

import bisect
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.sources.firehose.seek import MAX_PROBES, TOLERANCE, WITNESSES, Search, Sighting, believed_time

SECOND = 1_000_000


class FakeRelay:
    """A relay's answers without its sockets: sorted frames, cursor inclusive or not."""

    def __init__(self, frames: list[Sighting], *, inclusive: bool) -> None:
        self.frames = frames
        self.seqs = [frame.seq for frame in frames]
        self.inclusive = inclusive

    def after(self, cursor: int) -> Sighting | None:
        at = (bisect.bisect_left if self.inclusive else bisect.bisect_right)(self.seqs, cursor)
        return self.frames[at] if at < len(self.frames) else None


def run(relay: FakeRelay, target: int, *, head_known: bool) -> tuple[Sighting, int]:
    search = Search(relay.frames[0], relay.frames[-1] if head_known else None, target)
    looks = 0
    while (cursor := search.next_cursor()) is not None:
        search.tell(relay.after(cursor))
        looks += 1
    return search.best, looks


@st.composite
def relays(draw: st.DrawFn) -> FakeRelay:
    seq = draw(st.integers(0, 2**45))
    time = draw(st.integers(0, 2**40))
    frames = []
    for seq_step, time_step in draw(
        st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 3600 * SECOND)), min_size=1, max_size=200)
    ):
        seq += seq_step
        time += time_step
        frames.append(Sighting(seq, time))
    return FakeRelay(frames, inclusive=draw(st.booleans()))


@given(relays(), st.floats(-0.1, 1.1), st.booleans())
def test_finds_the_last_frame_at_or_before_the_target(relay: FakeRelay, share: float, head_known: bool) -> None:
    first, last = relay.frames[0], relay.frames[-1]
    assert first.time is not None and last.time is not None
    target = int(first.time + (last.time - first.time) * share)
    best, looks = run(relay, target, head_known=head_known)
    assert looks <= MAX_PROBES
    older = [frame for frame in relay.frames if frame.time is not None and frame.time <= target]
    if not older:
        assert best == first
        return
    assert best in relay.frames and best.time is not None and best.time <= target
    exact = older[-1]
    assert exact.time is not None
    # A head that is known and is itself the answer is not looked at again: one frame early is allowed there.
    near_enough = target - best.time <= TOLERANCE
    assert near_enough or best.seq == exact.seq or (head_known and exact == last and best == relay.frames[-2])


@given(relays())
def test_finds_the_head_itself_where_it_is_unknown(relay: FakeRelay) -> None:
    best, looks = run(relay, 1 << 62, head_known=False)
    assert best == relay.frames[-1]
    assert looks <= MAX_PROBES


@pytest.mark.parametrize("inclusive", [False, True])
def test_a_busy_relay_of_three_days_takes_few_probes(inclusive: bool) -> None:
    frames = [Sighting(10**10 + 7 * i, i * 3 * SECOND) for i in range(86_400)]
    relay = FakeRelay(frames, inclusive=inclusive)
    best, looks = run(relay, 100_000 * SECOND, head_known=True)
    assert best.time is not None and 0 <= 100_000 * SECOND - best.time <= TOLERANCE
    assert looks <= 12


@pytest.mark.parametrize("inclusive", [False, True])
def test_what_is_found_is_never_newer_than_the_target(inclusive: bool) -> None:
    """Frames that are nearer to each other than TOLERANCE: near enough is so on one side only."""
    relay = FakeRelay([Sighting(100 + i, i * 11 * SECOND) for i in range(300)], inclusive=inclusive)
    for second in range(0, 3300, 7):
        for head_known in (True, False):
            best, _ = run(relay, second * SECOND, head_known=head_known)
            assert best.time is not None and 0 <= second * SECOND - best.time <= TOLERANCE


@given(st.lists(st.integers(0, 3600 * SECOND), min_size=3, max_size=8), st.integers(-30 * 86_400, 30 * 86_400))
def test_the_first_frames_time_is_its_own_unless_its_neighbours_say_otherwise(steps: list[int], off: int) -> None:
    evenly = [86_400 * SECOND + sum(steps[:n]) for n in range(len(steps) + 1)]
    if max(steps) <= 8 * min(steps):  # a relay on which little happens
        assert believed_time(evenly) == evenly[0]
    within = [86_400 * SECOND + n * SECOND for n in range(WITNESSES)]
    wrong = within[0] + off * SECOND
    assert believed_time([wrong, *within[1:]]) in (wrong, within[4], within[5])
    if abs(off) > 1000:
        assert believed_time([wrong, *within[1:]]) != wrong


def test_times_that_nobody_can_say() -> None:
    assert believed_time([]) is None
    assert believed_time([None, None]) is None
    assert believed_time([None, 5, 7]) == 7
    assert believed_time([3]) == 3
    assert believed_time([3, 10**15]) == 3


def test_frames_of_yesterday_under_seqs_of_today_do_not_make_a_start_late() -> None:
    """A PDS that was away sends what is old: one frame in twenty is up to two days late, three days long."""
    rnd = random.Random(3)
    true = [n * 3 * SECOND for n in range(86_400)]
    claimed = [time - rnd.randrange(2 * 86_400) * SECOND if rnd.random() < 0.05 else time for time in true]

    class Relay(FakeRelay):
        def after(self, cursor: int) -> Sighting | None:
            at = bisect.bisect_left(self.seqs, cursor)
            return Sighting(self.seqs[at], believed_time(claimed[at : at + WITNESSES])) if at < len(true) else None

    relay = Relay([Sighting(10**10 + 7 * n, time) for n, time in enumerate(true)], inclusive=True)
    late = []
    for start in range(500):
        target = 86_400 * SECOND + start * 300 * SECOND
        best, _ = run(relay, target, head_known=True)
        late.append(true[(best.seq - 10**10) // 7] - target)
    assert max(late) < 60 * SECOND


def test_a_target_among_the_frames_of_a_look_ends_the_search() -> None:
    """Each look is a connection, and some relays allow two in half a minute."""
    search = Search(Sighting(100, 0), Sighting(10_000, 10_000 * 600 * SECOND), 5000 * 600 * SECOND)
    cursor = search.next_cursor()
    assert cursor is not None
    search.tell(Sighting(cursor + 1, search.target - 900 * SECOND), middle=search.target + 1)
    assert search.next_cursor() is None
    assert search.best.seq == cursor + 1


def test_a_refused_cursor_is_looked_for_higher() -> None:
    search = Search(Sighting(100, 0), Sighting(10_000, 10_000 * SECOND), 5000 * SECOND)
    refused = search.next_cursor()
    assert refused is not None
    search.refuse()
    higher = search.next_cursor()
    assert higher is not None
    assert higher > refused
