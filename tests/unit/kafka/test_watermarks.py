"""Where the topic can be resumed: the lowest of the partitions' last watermarks, or nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.kafka import log_end
from streams.kafka.watermarks import TopicState, last_watermark
from streams.messages import Watermark, encode_control

TP = TopicPartition("t", 0)


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


@dataclass
class Message:
    offset: int
    value: bytes
    key: bytes | None = None


class Quiet:
    """A consumer of one partition, whose broker gives nothing for the first ``silent`` fetches."""

    def __init__(self, messages: list[Message], silent: int, end: int) -> None:
        self.messages, self.silent, self.end = messages, silent, end
        self.at = self.looks = 0

    def assignment(self) -> set[TopicPartition]:
        return {TP}

    def pause(self, *tps: TopicPartition) -> None: ...

    def resume(self, *tps: TopicPartition) -> None: ...

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, tp: TopicPartition) -> int:
        return self.at

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.looks += 1
        return {TP: self.end}

    async def getmany(self, *tps: TopicPartition, timeout_ms: int) -> dict[TopicPartition, Any]:
        if self.silent:
            self.silent -= 1
            return {}
        found = [message for message in self.messages if message.offset >= self.at]
        self.at = self.end
        return {TP: found} if found else {}


async def test_a_broker_that_was_silent_for_long_is_still_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_end, "TIMEOUT", 0.0)
    made = Quiet([Message(1, encode_control(mark(1, 7)))], silent=log_end.LOOKS, end=2)
    consumer: Any = made
    assert await last_watermark(consumer, TP, 0, 2) == mark(1, 7)
    assert made.looks == log_end.LOOKS


async def test_a_broker_that_lost_the_logs_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_end, "TIMEOUT", 0.0)
    consumer: Any = Quiet([], silent=1000, end=0)
    assert await last_watermark(consumer, TP, 0, 2) is None


async def test_a_broker_that_gives_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_end, "TIMEOUT", 0.0)
    consumer: Any = Quiet([], silent=1000, end=2)
    with pytest.raises(KafkaError, match="gives none"):
        await last_watermark(consumer, TP, 0, 2)
