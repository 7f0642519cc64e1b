"""The end of a partition's log after a long silence: the broker is away, or the log ends earlier than it did."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

#: Seconds without a message after which the broker is asked where the log ends.
TIMEOUT: Final = 20.0
#: Times that it is asked. One that answers each time, and gives nothing of what it says is there, is given up.
LOOKS: Final = 5


class LogEnd:
    """A watch for a partition that should hold more messages, and is silent. Silence alone never means the log's end.

    aiokafka logs nothing while a broker is away. A hole (a transaction's marker, what compaction took) is not silence:
    the consumer's position passes it.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._since = time.monotonic()
        self._looks = 0

    def broken(self) -> None:
        """Note that a message came."""
        self._since = time.monotonic()
        self._looks = 0

    async def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where the partitions end now, after a long silence; nothing before.

        Raises KafkaError if the broker stays away (aiokafka waits 40 s for it), or gives nothing for LOOKS times.
        """
        if time.monotonic() - self._since < TIMEOUT:
            return {}
        if self._looks == LOOKS:
            raise KafkaError(f"it answers, and gives none of the messages that it says are in {sorted(tps)}")
        self._looks += 1
        found: dict[TopicPartition, int] = await self._consumer.end_offsets(list(tps))
        self._since = time.monotonic()
        return found

    async def end(self, tp: TopicPartition, known: int, *, came: bool) -> int:
        """Return where to read to: the ``known`` end, or the lower one of a broker that lost some of it.

        ``came``: a message did. Raises KafkaError.
        """
        if came:
            self.broken()
            return known
        return min(known, (await self.ends([tp])).get(tp, known))
