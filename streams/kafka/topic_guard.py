"""The watch over the topic: the broker away, the topic deleted or re-created, its partitions changed.

aiokafka waits for a broker without a word, and for a deleted topic too. This says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.errors import BrokerError, MismatchError, StreamsError
from streams.kafka.client import explained, kafka_client_options
from streams.kafka.topic import TopicInfo, check_partitions, describe_topic, reader
from streams.settings import Settings

log = logging.getLogger(__name__)

#: Seconds between two looks.
LOOK_SECONDS: Final = 5.0
#: Looks in a row at which the topic must be missing before it counts as deleted.
MISSING_LOOKS: Final = 3
#: Seconds between two lines that say the same of a broker that is away.
SAY_SECONDS: Final = 60.0


class TopicGuard:
    """The guard of a topic, checked every few seconds. ``on_fault`` gets the errors that no waiting mends.

    The fault of a topic that was deleted or re-created says during what ("we read it") and how to mend it.
    ``known``: by partition, an offset that its end has reached, as far as the caller knows.
    """

    def __init__(
        self,
        settings: Settings,
        info: TopicInfo,
        on_fault: Callable[[BaseException], None],
        *,
        during: str,
        mend: str,
        known: Callable[[], Mapping[int, int]],
    ) -> None:
        self._settings = settings
        self._info = info
        self._during = during
        self._mend = mend
        self._known = known
        self._on_fault = on_fault
        self._missing = 0
        self._ends: dict[int, int] = {}
        self._away_since: float | None = None
        self._said = ""
        self._said_at = 0.0

    @property
    def is_away(self) -> bool:
        """Return whether the broker did not answer the last check."""
        return self._away_since is not None

    async def run(self) -> None:
        """Look until cancelled, or until a fault."""
        while True:
            try:
                await self._look_on()
            except BrokerError as error:  # not there to be asked for its ends
                await self._note_away(error)
                await asyncio.sleep(1.0)
            except StreamsError as error:
                self._on_fault(error)
                return
            except (KafkaError, OSError, TimeoutError) as error:
                await self._note_away(error)
                await asyncio.sleep(1.0)

    async def _look_on(self) -> None:
        """Look with one connection, until it breaks or there is a fault."""
        admin = AIOKafkaAdminClient(**kafka_client_options(self._settings), request_timeout_ms=10_000)
        try:
            await admin.start()
            while True:
                await self._look(admin)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await admin.close()

    async def _look(self, admin: AIOKafkaAdminClient) -> None:
        async with asyncio.timeout(15):
            info = await describe_topic(admin, self._info.name)
        self._note_back()
        if info is not None:
            self._missing = 0
            check_partitions(info, self._info.partitions)
            await self._check_ends()
            return
        self._missing += 1
        if self._missing >= MISSING_LOOKS:
            raise MismatchError(
                f"The topic {self._info.name} is gone: it was deleted while {self._during}.", self._mend
            )

    async def _check_ends(self) -> None:
        """Check that no partition is shorter than before: the topic was then re-created between two checks."""
        known = self._known()  # before its ends are asked for: they only grow
        async with asyncio.timeout(15), reader(self._settings, self._info.partitions) as (consumer, tps):
            found: dict[TopicPartition, int] = await consumer.end_offsets(tps)
        ends = {tp.partition: end for tp, end in found.items()}
        if any(end < max(self._ends.get(p, 0), known.get(p, 0)) for p, end in ends.items()):
            raise MismatchError(f"The topic {self._info.name} was re-created while {self._during}.", self._mend)
        self._ends = ends

    async def _note_away(self, error: BaseException) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        seconds = now - self._away_since
        if seconds < LOOK_SECONDS:  # a hiccup
            return
        fault = str(error if isinstance(error, BrokerError) else await explained(self._settings, error))
        if fault != self._said or now - self._said_at >= SAY_SECONDS:
            self._said, self._said_at = fault, now
            log.warning("%s Waiting for it, %.0f s so far.", fault, seconds)

    def _note_back(self) -> None:
        if self._away_since is not None:
            log.warning("Kafka is back after %.0f s.", time.monotonic() - self._away_since)
            self._away_since, self._said = None, ""
