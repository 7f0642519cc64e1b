"""A topic into another one with another number of partitions: every event to where its DID belongs there.

A topic's number of partitions decides where a DID is, so it never changes: growth is a new topic. The copy goes from
the start of the source to its end as it was at the start. All events of a DID stand in one partition of the source, so
reading each partition in order keeps their order. Events are copied byte for byte; only a `run` gets the new topic's
id. Watermarks are not copied: when every message is acknowledged, and not before, each partition of the target gets
one, at the lowest of the source's last ones. An ingest resumes there; a target without watermarks is unfinished.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.errors import BrokerError, HeldError, MismatchError, SettingsError
from streams.kafka.client import admin_client, broker_error
from streams.kafka.disk import broker_folder, check_disk
from streams.kafka.ingest_lock import ingest_lock
from streams.kafka.log_end import LogEnd
from streams.kafka.producer import BulkProducer, Lane
from streams.kafka.retention import topic_retention
from streams.kafka.topic import (
    MAX_MESSAGE_BYTES,
    TopicInfo,
    check_partitions,
    ensure_topic,
    find_topic,
    read_from,
    reader,
)
from streams.kafka.watermarks import TopicState, read_state
from streams.maintenance.progress import Progress
from streams.messages import (
    CONTROL_KINDS,
    EVENT_KINDS,
    UNDECODABLE,
    Gap,
    GapKind,
    RepoEnd,
    Run,
    Watermark,
    check_version,
    decode_control,
    encode_control,
)
from streams.settings import Settings

#: Share of BACKFILL_MAX_MEMORY_MB for what was fetched, for open batches, and for what is not acknowledged: each.
MEMORY_SHARE: Final = 6
#: Messages taken at once from what was fetched.
CHUNK: Final = 4000
#: Messages of a target's partitions that are looked at, to tell an unfinished copy from somebody else's topic.
_LOOK: Final = 200
_TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


class _AnyMessage(msgspec.Struct):
    kind: str


_decode_any: Final = msgspec.json.Decoder(_AnyMessage).decode


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy. ``mark`` is where the ingest goes on."""

    target: TopicInfo
    messages: int
    mark: Watermark
    seconds: float


async def copy_topic(
    settings: Settings, target_name: str, *, partitions: int | None, retention_hours: int | None,
    tell: Callable[[str], None],
) -> Copied:  # fmt: skip
    """Copy KAFKA_TOPIC; ``tell`` gets lines of progress.

    No ingest may write either topic meanwhile. Raises SettingsError, BrokerError, MismatchError, HeldError, DiskError.
    """
    if not _TOPIC_NAME.fullmatch(target_name) or target_name == settings.kafka_topic:
        raise SettingsError(f"{target_name!r} cannot be the target", "give the name of a new topic.")
    info = await find_topic(settings)
    if info is None:
        raise SettingsError(f"There is no topic {settings.kafka_topic}", "set KAFKA_TOPIC to the one to copy.")
    source_lock, target_lock = _Lock(settings.kafka_topic), _Lock(target_name)
    try:
        async with ingest_lock(settings, standby=False, on_lost=source_lock.lose):
            state = await read_state(settings, info)
            into = await _target_settings(settings, info, target_name, partitions, retention_hours)
            target = await ensure_topic(into)
            async with ingest_lock(into, standby=False, on_lost=target_lock.lose):
                place = _Place(settings, info, into)
                return await _Copy(place, target, [source_lock, target_lock], tell).run(state)
    except KafkaError as error:
        fault = broker_error(settings, error)
        again = f"Then copy again: {target_name} has no watermark before it is whole."
        raise BrokerError(fault.what, f"{fault.mend} {again}".strip()) from None


async def _target_settings(
    settings: Settings, info: TopicInfo, name: str, partitions: int | None, retention_hours: int | None
) -> Settings:
    """Return the settings under which the target is written. It keeps its events as long as the source does."""
    if retention_hours is None:
        async with admin_client(settings) as admin:
            retention = await topic_retention(admin, info.name)
        retention_hours = math.ceil(retention / 3_600_000) if retention >= 0 else -1
    asked = partitions
    if partitions is None:
        partitions = settings.kafka_partitions if "kafka_partitions" in settings.model_fields_set else info.partitions
    found = {"kafka_topic": name, "kafka_partitions": partitions, "kafka_retention_hours": retention_hours}
    into = settings.model_copy(update=found)
    there = await find_topic(into)
    if there is not None and asked is not None:
        check_partitions(there, asked)
    return into if there is None else into.model_copy(update={"kafka_partitions": there.partitions})


class _Lock:
    """Holds a topic: nobody else writes it."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.lost = False

    def lose(self) -> None:
        self.lost = True

    def check(self) -> None:
        if self.lost:
            raise HeldError(f"An ingest took the topic {self.topic} over while the copy was frozen", "start it again.")


@dataclass(frozen=True, slots=True)
class _Place:
    """From where to where."""

    settings: Settings
    source: TopicInfo
    into: Settings


class _Copy:
    """One copy, under both locks."""

    def __init__(self, place: _Place, target: TopicInfo, locks: Sequence[_Lock], tell: Callable[[str], None]) -> None:
        settings, into = place.settings, place.into
        self._settings, self._source = settings, place.source
        self._into, self._target = into, target
        self._locks = locks
        self._tell = tell
        self._topic_id = uuid.uuid4().hex
        self._share = settings.memory_bytes // MEMORY_SHARE
        self._producer = BulkProducer(into, target, self._share)
        # Runs and gaps come last, so that a copy that is killed and begun again has each of them once.
        self._held_back: list[bytes] = []
        self._mark: Watermark
        self._marks = 0

    async def run(self, state: TopicState) -> Copied:
        began = time.monotonic()
        mark = state.lowest
        if mark is None:
            raise MismatchError(
                f"The topic {self._source.name} holds no watermark in some partition, so nobody could resume from its "
                "copy",
                "run the ingest once, then copy.",
            )
        held = await read_state(self._into, self._target, unfinished=True)
        half = self._check_held(held, mark)
        self._mark = mark if half is None else half
        if half is None and not held.empty:
            await self._check_ours()
            self._tell(
                f"{self._target.name} holds an unfinished copy: starting anew; what is there twice changes nothing."
            )
        async with self._producer:
            if half is None:
                await self._copy()
                await self._finish()
                await self._write_marks(msgspec.structs.replace(mark, topic_id=self._topic_id), ())
            else:
                self._tell(f"{self._target.name} holds a copy that was stopped at its last step: finishing it.")
                await self._write_marks(half, held.watermarks)
        copied = self._producer.messages - self._marks
        return Copied(self._target, copied, self._mark, time.monotonic() - began)

    # -- the target
    def _check_held(self, held: TopicState, mark: Watermark) -> Watermark | None:
        """Refuse a target that is written; returns the watermark of a copy that was killed while writing them."""
        marks = list(held.watermarks.values())
        if not marks:
            return None
        first = marks[0]
        same = len(marks) < held.partitions and all(other == first for other in marks)
        if same and first.run <= mark.run:
            return first
        raise MismatchError(
            f"The topic {self._target.name} holds watermarks: it is a finished copy, or an ingest writes it.",
            "To copy again give the name of a new topic, or delete this one first.",
        )

    async def _check_ours(self) -> None:
        """Refuse a target that holds messages, and none of ours: it is somebody else's."""
        async with reader(self._into, self._target.partitions) as (consumer, tps):
            begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
            full = [tp for tp in tps if ends[tp] > begins[tp]]
            read_from(consumer, {tp: begins[tp] for tp in full})
            looked = await consumer.getmany(*full, timeout_ms=10_000, max_records=_LOOK) if full else {}
        values = [message.value for batch in looked.values() for message in batch]
        if values and not any(_is_ours(value) for value in values):
            raise MismatchError(
                f"The topic {self._target.name} holds messages that are not ours", "give the name of a new topic."
            )

    # -- reading
    async def _copy(self) -> None:
        """Copy everything from the source's start to its end as it is now."""
        share = max(64 * 1024, min(1024 * 1024, self._share // self._source.partitions))
        sizes = {"partition_bytes": share, "fetch_bytes": 2 * MAX_MESSAGE_BYTES}
        async with reader(self._settings, self._source.partitions, **sizes) as (consumer, tps):
            begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
            total = sum(ends[tp] - begins[tp] for tp in tps)
            self._tell(
                f"{self._source.name} ({self._source.partitions} partitions) → {self._target.name} "
                f"({self._target.partitions}): {total:,} messages; {check_disk(broker_folder(self._settings), total)}"
            )
            if self._target.partitions < self._source.partitions:
                self._tell(
                    f"{self._target.name} has fewer partitions than {self._source.name}: fewer workers can share it."
                )
            progress = Progress(total, self._tell)
            todo = {tp: begins[tp] for tp in tps if ends[tp] > begins[tp]}
            read_from(consumer, todo)
            log_end = LogEnd(consumer)
            while todo:
                for lock in self._locks:
                    lock.check()
                found = await self._fetch(consumer, todo, ends)
                for tp, batch in found.items():
                    if tp in todo:
                        self._take(batch, ends[tp])
                        todo[tp] = batch[-1].offset + 1
                await self._producer.send()
                for tp in [tp for tp in todo if max(todo[tp], await consumer.position(tp)) >= ends[tp]]:
                    consumer.pause(tp)
                    del todo[tp]
                progress.show(total - sum(ends[tp] - offset for tp, offset in todo.items()))
                if found:
                    log_end.broken()
                else:
                    self._check_ends(await log_end.ends(todo), ends)

    def _check_ends(self, found: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Refuse a source that has lost its end: the target would get a watermark that says more than it holds.

        Raises MismatchError.
        """
        for tp, end in found.items():
            if end < ends[tp]:
                raise MismatchError(
                    f"{tp.topic}/{tp.partition} ended at the offset {ends[tp]} and ends at {end} now: its broker lost "
                    f"messages, or it was made anew, while it was copied. {self._target.name} is unfinished",
                    "run the ingest once, which takes what is lost again, then copy again.",
                )

    async def _fetch(
        self, consumer: AIOKafkaConsumer, todo: dict[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, Any]:
        """Return the next messages. What retention took from before our position is a gap of the copy."""
        try:
            found: dict[TopicPartition, Any] = await consumer.getmany(timeout_ms=1000, max_records=CHUNK)
            return found
        except OffsetOutOfRangeError:
            self._check_ends(await consumer.end_offsets(list(todo)), ends)
            starts = await consumer.beginning_offsets(list(todo))
            for tp, start in starts.items():
                position = todo[tp]
                consumer.seek(tp, max(start, position))
                if start > position:
                    reason = f"{tp.topic}/{tp.partition} lost the offsets {position} to {start - 1} while it was copied"
                    self._tell(f"{reason} (retention): a gap")
                    gap = Gap(relay=self._mark.relay, run=self._mark.run, from_seq=None, to_seq=None, from_time=None,
                              to_time=None, reason=reason, gap_kind=GapKind.LOST_IN_COPY)  # fmt: skip
                    self._held_back.append(encode_control(gap))
                    todo[tp] = start
            return {}

    def _take(self, messages: Sequence[Any], end: int) -> None:
        """Put each message into the open batch of its partition. The hot path."""
        producer = self._producer
        now_ms = time.time_ns() // 1_000_000
        for message in messages:
            if message.offset >= end:
                break
            key, value = message.key, message.value
            if key is not None:
                lane = producer.lane_of(key)
            else:
                found, value = self._control(value)
                if found is None:
                    continue
                lane = found
            producer.add(lane, key, value, now_ms, message.headers)

    def _control(self, value: bytes | None) -> tuple[Lane | None, bytes | None]:
        """Return where a message without a key goes, and as what; None: not now. Raises MismatchError."""
        first = self._producer.lanes[0]
        check_version(value or b"")
        try:
            control = decode_control(value or b"")
        except UNDECODABLE:
            return first, value  # not ours: a dead letter there too
        if isinstance(control, Watermark):
            return None, None
        if isinstance(control, Run):
            self._held_back.append(encode_control(msgspec.structs.replace(control, topic_id=self._topic_id)))
            return None, None
        if isinstance(control, Gap):
            self._held_back.append(value or b"")
            return None, None
        return (self._producer.lane_of(control.did.encode()) if isinstance(control, RepoEnd) else first), value

    # -- writing
    async def _finish(self) -> None:
        """Write the rest, and what was held back."""
        await self._producer.wait_acknowledged()
        for value in self._held_back:
            self._producer.add_control(value, 0)
        await self._producer.wait_acknowledged()

    async def _write_marks(self, mark: Watermark, there: Container[int]) -> None:
        """Write a watermark to each partition that has none. Everything is acknowledged already."""
        for lock in self._locks:
            lock.check()
        value = encode_control(mark)
        partitions = [p for p in range(self._target.partitions) if p not in there]
        for partition in partitions:
            self._producer.add_control(value, partition)
        await self._producer.wait_acknowledged()
        self._marks = len(partitions)


def _is_ours(value: bytes | None) -> bool:
    try:
        return _decode_any(value or b"").kind in EVENT_KINDS | CONTROL_KINDS
    except UNDECODABLE:
        return False
