"""The values of a Faust table of ours: the last message of each partition of its changelog.

A table of ours has one key a partition, whose value is the partition's absolute state (``streams/tables.py``), so the
last message is all of it. Cheap: a partition is read again only after it grew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streams.kafka.topic import read_from

#: Looks at what was fetched, of 0.2 s each.
_LOOKS: Final = 5


class Changelog:
    """A reader of a changelog. Its consumer is assigned to ``tps``, and maybe to more."""

    def __init__(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._tps = tps
        self._read: dict[TopicPartition, int] = {}
        self._values: dict[TopicPartition, dict[str, Any]] = {}
        #: True where the last look did not get everything: worth another one soon.
        self.is_behind = False

    async def values(self) -> list[Mapping[str, Any]]:
        """Return the value of each partition that has one. Raises KafkaError."""
        ends = await self._consumer.end_offsets(self._tps)
        wanted = {tp for tp in self._tps if ends[tp] > 0 and self._read.get(tp) != ends[tp]}
        self._consumer.pause(*self._consumer.assignment())
        read_from(self._consumer, {tp: ends[tp] - 1 for tp in wanted})
        for _ in range(_LOOKS):
            if not wanted:
                break
            try:
                batches: dict[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(
                    *wanted, timeout_ms=200
                )
            except OffsetOutOfRangeError:  # created again while we looked
                break
            for tp, batch in batches.items():
                self._keep(tp, batch[-1])
                self._consumer.pause(tp)
                wanted.discard(tp)
        self._consumer.pause(*self._consumer.assignment())
        self.is_behind = bool(wanted)
        return list(self._values.values())

    def _keep(self, tp: TopicPartition, message: ConsumerRecord) -> None:
        self._read[tp] = message.offset + 1
        try:
            value = orjson.loads(message.value or b"{}")
        except orjson.JSONDecodeError:
            return
        if isinstance(value, dict):
            self._values[tp] = value
