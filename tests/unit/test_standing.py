"""Where the sink stands: what waits in Kafka."""

from __future__ import annotations

from streams.status.lag import PartitionLag, SinkLag


def partition(begin: int, next_offset: int, end: int) -> PartitionLag:
    return PartitionLag(0, begin, next_offset, end, None, None)


def test_what_left_the_topic_before_it_was_applied_does_not_wait() -> None:
    assert partition(0, 5, 19).pending == 14
    overtaken = partition(10, 5, 19)  # by the retention, while no worker ran
    assert overtaken.pending == 9
    assert partition(19, 5, 19).pending == 0
    assert partition(0, 20, 19).pending == 0  # the topic was made anew
    assert SinkLag((overtaken, partition(0, 5, 6)), 0, 0, 0, 0).pending == 10
