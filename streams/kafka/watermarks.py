"""The last watermark of every partition, found by reading backwards from the partition's end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.kafka.client import broker_error
from streams.kafka.log_end import LogEnd
from streams.kafka.topic import TopicInfo, check_partitions, read_from, reader
from streams.messages import UNDECODABLE, Watermark, check_version, decode_control
from streams.settings import Settings

#: How many messages before the end are looked through first; then ten times as many, and so on.
_FIRST_LOOK: Final = 200


@dataclass(frozen=True, slots=True)
class TopicState:
    """The state of a topic by its own messages: ``watermarks`` has an entry for each partition that holds one."""

    watermarks: dict[int, Watermark]
    empty: bool
    partitions: int

    @property
    def topic_id(self) -> str | None:
        """Return the topic's own id; None before it was first written."""
        return next((mark.topic_id for mark in self.watermarks.values()), None)

    @property
    def lowest(self) -> Watermark | None:
        """Return the watermark to resume from: the lowest of the last ones; None if a partition has none."""
        if len(self.watermarks) < self.partitions:
            return None
        return min(self.watermarks.values(), key=lambda mark: (mark.run, mark.seq))

    @property
    def latest_run(self) -> int:
        """Return the newest run that any partition has a watermark of; 0 if there is none."""
        return max((mark.run for mark in self.watermarks.values()), default=0)


async def read_state(settings: Settings, info: TopicInfo, *, unfinished: bool = False) -> TopicState:
    """Read the last watermarks; ``unfinished``: of a topic into which a copy may have been killed.

    Raises BrokerError; MismatchError for a newer format, or for partitions that were added.
    """
    try:
        async with reader(settings, info.partitions) as (consumer, tps):
            ends = await consumer.end_offsets(tps)
            begins = await consumer.beginning_offsets(tps)
            found = {}
            for tp in tps:
                mark = await last_watermark(consumer, tp, begins[tp], ends[tp])
                if mark is not None:
                    found[tp.partition] = mark
    except KafkaError as error:
        raise broker_error(settings, error) from None
    if not unfinished:
        _check_added(info, found, [tp.partition for tp, end in ends.items() if end == 0])
    return TopicState(found, all(end == 0 for end in ends.values()), info.partitions)


def _check_added(info: TopicInfo, found: dict[int, Watermark], untouched: list[int]) -> None:
    """Refuse a topic that got partitions after it was written.

    A run's first watermarks stand in all partitions before its first event, and only an event gives one a time (older
    versions wrote no ``event``).
    """
    if untouched and any(mark.event is not None or mark.time is not None for mark in found.values()):
        check_partitions(info, info.partitions - len(untouched))


async def last_watermark(consumer: AIOKafkaConsumer, tp: TopicPartition, begin: int, end: int) -> Watermark | None:
    """Return the last watermark of a partition whose log is from ``begin`` to before ``end``. Raises KafkaError."""
    look, before = _FIRST_LOOK, end
    while before > begin:
        start = max(begin, end - look)
        mark = await _watermark_between(consumer, tp, start, before)
        if mark is not None:
            return mark
        before, look = start, look * 10
    return None


async def _watermark_between(consumer: AIOKafkaConsumer, tp: TopicPartition, start: int, end: int) -> Watermark | None:
    """Return the last watermark with start <= offset < end."""
    others = [other for other in consumer.assignment() if other != tp]
    consumer.pause(*others)
    read_from(consumer, {tp: start})
    last: Watermark | None = None
    log_end = LogEnd(consumer)
    while await consumer.position(tp) < end:
        try:
            batches = await consumer.getmany(tp, timeout_ms=500)
        except OffsetOutOfRangeError:  # retention took it while we looked
            return None
        for message in batches.get(tp, ()):
            if message.offset < end and message.key is None:
                last = as_watermark(message.value) or last
        end = await log_end.end(tp, end, came=bool(batches))
    return last


def as_watermark(value: bytes | None) -> Watermark | None:
    """Return a message without a key as a watermark; None if it is of another kind, or not ours.

    Raises MismatchError if its format is newer than ours.
    """
    if value is None or b'"watermark"' not in value:
        return None
    check_version(value)
    try:
        message = decode_control(value)
    except UNDECODABLE:
        return None
    return message if isinstance(message, Watermark) else None
