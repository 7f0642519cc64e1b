"""Where the topic can be resumed: the lowest of the partitions' last watermarks, or nowhere."""

from __future__ import annotations

from streams.kafka.messages import Watermark
from streams.kafka.watermarks import TopicState


def mark(run: int, seq: int) -> Watermark:
    return Watermark(relay="r", run=run, topic_id="t", seq=seq, time=1)


def test_the_lowest_of_the_last_watermarks_counts() -> None:
    assert TopicState({0: mark(1, 9), 1: mark(1, 7), 2: mark(1, 8)}, False, 3).lowest == mark(1, 7)


def test_an_older_run_is_lower_whatever_its_seq() -> None:
    assert TopicState({0: mark(1, 900), 1: mark(2, 7)}, False, 2).lowest == mark(1, 900)


def test_the_newest_run_is_that_of_any_partition() -> None:
    assert TopicState({0: mark(9, 7), 1: mark(1, 900)}, False, 3).latest_run == 9
    assert TopicState({}, True, 3).latest_run == 0


def test_a_partition_without_a_watermark_means_nowhere() -> None:
    state = TopicState({1: mark(1, 7)}, False, 2)
    assert state.lowest is None
    assert state.topic_id == "t"
