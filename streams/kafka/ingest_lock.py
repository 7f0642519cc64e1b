"""One ingest per topic: the members of a Kafka consumer group agree on one of them, the holder.

No partition is assigned to anybody: the group is only for its membership. Every member says since when it has waited;
the leader names the one that has waited longest, and the holder says 0, so that a later one with a slow clock cannot
take the lock from it. A dead holder is dropped by the broker after SESSION seconds, and the next in line takes over.
A holder that was frozen for longer learns at its next heartbeat that it is no member any more. It has lost the lock,
even where nobody has it now: somebody may have had it meanwhile, and begun a newer run. What it wrote were duplicates,
which the sink skips.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError

from streams.errors import HeldError
from streams.kafka.client import broker_error, kafka_client_options
from streams.settings import Settings

log = logging.getLogger(__name__)

#: Seconds after which the broker drops a member that does not answer.
SESSION: Final = 10.0


class _Candidate:
    """This process as a candidate in the election."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        # The random part tells apart two containers that think they are the same host and process.
        self.name = f"{socket.gethostname()} pid {os.getpid()} since {began} ({uuid.uuid4().hex[:6]})"
        self.since = time.time_ns() // 1000
        self.holder: str | None = None
        self.changed = asyncio.Event()
        self._on_lost = on_lost

    @property
    def holds(self) -> bool:
        return self.holder == self.name

    def joins_anew(self) -> None:
        """Wait from now on like a new candidate: the broker does not know us (any more)."""
        if self.holds:
            self.holder = None
            self.since = time.time_ns() // 1000
            self._on_lost()

    def note_holder(self, holder: str) -> None:
        """Note who holds the lock now."""
        held = self.holds
        self.holder = holder
        self.changed.set()
        if self.holds:
            self.since = 0
        elif held:
            self._on_lost()


def _assignor_of(candidate: _Candidate, topic: str, is_member: Callable[[], bool]) -> type[AbstractPartitionAssignor]:
    class HolderAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is untyped here
        """aiokafka calls assignors as classes; this one closes over its candidate."""

        name = "one-ingest-per-topic"

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            if not is_member():
                candidate.joins_anew()
            data = json.dumps([candidate.since, candidate.name]).encode()
            return ConsumerProtocolMemberMetadata(0, list(topics), data)

        @classmethod
        def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, ConsumerProtocolMemberAssignment]:  # noqa: ANN401
            waiting = sorted((*json.loads(member.user_data), member_id) for member_id, member in members.items())
            holder = str(waiting[0][1]).encode()
            return {member_id: ConsumerProtocolMemberAssignment(0, [(topic, [])], holder) for member_id in members}

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            candidate.note_holder(assignment.user_data.decode())

    return HolderAssignor


@asynccontextmanager
async def ingest_lock(settings: Settings, *, standby: bool, on_lost: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the topic. ``standby`` waits for as long as another holds it; else that is a HeldError that says who.

    ``on_lost`` is called if the lock is lost later. Raises BrokerError, HeldError.
    """
    candidate = _Candidate(on_lost)
    consumer: AIOKafkaConsumer

    def is_member() -> bool:
        return bool(consumer._coordinator.member_id)

    consumer = AIOKafkaConsumer(
        settings.kafka_topic,
        **kafka_client_options(settings),
        client_id="atproto-streams-ingest",
        group_id=f"{settings.kafka_topic}-ingest",
        partition_assignment_strategy=[_assignor_of(candidate, settings.kafka_topic, is_member)],
        enable_auto_commit=False,
        session_timeout_ms=int(SESSION * 1000),
        heartbeat_interval_ms=int(SESSION * 300),
        max_poll_interval_ms=2**31 - 1,  # nobody polls this consumer
    )
    try:
        await consumer.start()
    except KafkaError as error:
        await consumer.stop()
        raise broker_error(settings, error) from None
    try:
        await _wait_until_held(candidate, settings.kafka_topic, standby=standby)
        yield
    finally:
        await consumer.stop()


async def _wait_until_held(candidate: _Candidate, topic: str, *, standby: bool) -> None:
    # A dead holder stays in the group until its session ends: only one that is there after that is alive.
    deadline = asyncio.get_running_loop().time() + SESSION + 5.0
    said = None
    while not candidate.holds:
        if candidate.holder != said:
            said = candidate.holder
            log.info("another ingest holds the topic %s: %s; %s", topic, said,
                     "standing by" if standby else f"waiting {SESSION + 5:.0f} s in case it is dead")  # fmt: skip
        if not standby and asyncio.get_running_loop().time() > deadline:
            raise HeldError(
                f"Another ingest holds the topic {topic}: {candidate.holder}.", "Stop it first, or let it work."
            )
        candidate.changed.clear()
        try:
            await asyncio.wait_for(candidate.changed.wait(), 1.0)
        except TimeoutError:
            continue
