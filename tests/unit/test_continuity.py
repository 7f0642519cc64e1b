"""Continuity: against a model of a relay that repeats, skips, and includes or excludes its cursor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.firehose.continuity import Continuity, Missing, Verdict


@st.composite
def sequences(draw: st.DrawFn) -> list[tuple[int, int]]:
    seq = time = 0
    frames = []
    for step in draw(st.lists(st.integers(1, 5), min_size=2, max_size=40)):
        seq, time = seq + step, time + draw(st.integers(0, 3))
        frames.append((seq, time))
    return frames


@given(sequences(), st.data(), st.booleans())
def test_reconnects_lose_and_double_nothing(
    frames: list[tuple[int, int]], data: st.DataObject, inclusive: bool
) -> None:
    tracker = Continuity(0, None, known=False)
    taken: list[int] = []
    while not taken or taken[-1] != frames[-1][0]:
        cursor = tracker.reconnected()
        answer = [f for f in frames if f[0] > cursor or (inclusive and f[0] == cursor)]
        for seq, time in answer[: data.draw(st.integers(3, 40))]:
            verdict = tracker.see(seq, time)
            assert verdict is not Verdict.RESET
            assert tracker.missing is None
            if verdict is Verdict.NEW:
                taken.append(seq)
    assert taken == [seq for seq, _ in frames]


@given(sequences(), st.data())
def test_a_window_that_moved_past_us_is_reported_exactly(frames: list[tuple[int, int]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(frames) - 1))
    tracker = Continuity(0, None, known=False)
    tracker.reconnected()
    tracker.see(*frames[0])
    tracker.reconnected()
    assert tracker.see(*frames[cut]) is Verdict.NEW
    between = frames[cut][0] - frames[0][0] - 1
    if between:
        assert tracker.missing == Missing(frames[0][0] + 1, frames[cut][0] - 1, frames[0][1], frames[cut][1])
    else:
        assert tracker.missing is None
    tracker.see(frames[cut][0] + 5, frames[cut][1])
    assert tracker.missing is None


def test_a_lower_seq_with_a_newer_time_is_a_reset() -> None:
    tracker = Continuity(100, 1000, known=True)
    assert tracker.see(99, 999) is Verdict.SEEN
    assert tracker.see(99, None) is Verdict.SEEN
    assert tracker.see(3, 1001) is Verdict.RESET
