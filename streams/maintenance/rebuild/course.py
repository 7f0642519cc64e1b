"""The course of a rebuild: refuse what cannot end well, fill, compare, swap. Begun again, it goes on where it was."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.errors import DatabaseError, MismatchError, SettingsError
from streams.kafka.client import broker_error
from streams.kafka.log_end import LogEnd
from streams.kafka.topic import MAX_MESSAGE_BYTES, TopicInfo, check_partitions, find_topic, read_from, reader
from streams.kafka.topic_guard import TopicGuard
from streams.maintenance.rebuild.compare import BEFORE, UNEXPLAINED, Comparison, compare, is_before
from streams.maintenance.rebuild.fill import Filler, FillStopped
from streams.maintenance.rebuild.schema import (
    PartitionStart,
    RebuildState,
    begin,
    both,
    hold,
    pass_over,
    rebuild_state,
    seed,
    take_over,
)
from streams.maintenance.rebuild.swap import Names, check_objects, differing, group_of, lock_live, swap, was_swapped
from streams.messages import decode_message
from streams.postgres.database import Abandoned, Connection, Database, unlimited
from streams.postgres.migrate import check_schema
from streams.protocol.collection_filter import compile_patterns
from streams.resources.machine import Machine
from streams.resources.niceness import step_back
from streams.runtime.drills import RebuildPoint, crash_point
from streams.runtime.tasks import end_tasks
from streams.settings import Settings
from streams.sink_postgres import PostgresSink
from streams.worker.throttle import Throttle

T = TypeVar("T")
Tell = Callable[[str], None]
#: Is given the function that is to be called when the rebuild is to stop.
OnStop = Callable[[Callable[[], object]], None]
#: From a consumer, its partitions and the log's starts to the offsets at which a rebuild begins.
Starts = Callable[[AIOKafkaConsumer, Mapping[TopicPartition, int]], Awaitable[dict[int, int]]]

#: Seconds for which workers are kept waiting while the last messages are written.
HOLD_SECONDS: Final = 8.0
#: How often the live schema is followed with its workers waiting, before that is given up.
TRIES: Final = 8
#: A fill that took no longer than this is near enough to let the workers wait for the next one.
NEAR_SECONDS: Final = 2.0
#: Share of BACKFILL_MAX_MEMORY_MB for what was fetched.
MEMORY_SHARE: Final = 6
#: Messages in which a partition's first event is looked for.
_LOOK: Final = 500


@dataclass(frozen=True, slots=True)
class RebuildRequest:
    """A rebuild as it was asked for. ``starts`` None: from the topic's earliest messages."""

    schema: str
    group: str | None = None
    starts: Starts | None = None
    seed: bool = False
    compare: bool = False
    swap: bool = False
    keep_as: str | None = None


async def rebuild(settings: Settings, wanted: RebuildRequest, tell: Tell, on_stop: OnStop | None = None) -> None:
    """Do what is wanted, or go on with it. ``on_stop`` is told what ends it, with its position saved.

    Raises StreamsError: MismatchError where the comparison finds rows missing, or the swap is refused.
    """
    step_back(settings)
    names = _names(settings, wanted)
    info = await find_topic(settings)
    if info is None:
        raise SettingsError(f"There is no topic {settings.kafka_topic}", "set KAFKA_TOPIC to the one to rebuild from.")
    dsn = settings.database_dsn()
    live = Database(dsn, settings.sink_schema)
    rebuilt = Database(dsn, wanted.schema, settings.backfill_max_concurrent + 3)
    try:
        await live.start()
        await check_schema(live)
        if wanted.swap and (done := await was_swapped(live, names)) is not None:
            tell(f"The swap was made already: {names.kept} is {done}. For another one give another --keep-as.")
            return
        course = _Rebuild(settings, wanted, names, info, (live, rebuilt), tell=tell)
        await course.run(on_stop)
    except FillStopped:
        tell("stopped; the same command goes on from here.")
    except KafkaError as error:
        raise broker_error(settings, error) from None
    finally:
        await rebuilt.close()
        await live.close()


def _names(settings: Settings, wanted: RebuildRequest) -> Names:
    """Return the names, checked. Raises SettingsError."""
    live = settings.sink_schema
    today = dt.datetime.now(dt.UTC).strftime("%Y%m%d")
    kept = wanted.keep_as or f"{live[:50]}_old_{today}"
    if not wanted.keep_as and kept == wanted.schema:  # what was swapped out today comes back
        kept += "_2"
    if wanted.keep_as and not wanted.swap:
        raise SettingsError("--keep-as names the live schema after a swap", "give --swap too.")
    if len({live, wanted.schema, kept}) < 3:
        raise SettingsError(f"--schema and --keep-as are names of other schemas than {live}, which is the live one.")
    group = wanted.group or group_of(wanted.schema)
    if group == settings.sink_group:
        raise SettingsError(f"--group {group} is the live schema's", "give another.")
    return Names(settings.kafka_topic, live, settings.sink_group, wanted.schema, group, kept)


class _Rebuild:
    """One run of the command."""

    def __init__(
        self, settings: Settings, wanted: RebuildRequest, names: Names, info: TopicInfo,
        databases: tuple[Database, Database], *, tell: Tell,
    ) -> None:  # fmt: skip
        self._settings, self._wanted, self._names, self._info, self._tell = settings, wanted, names, info, tell
        self._live, self._rebuilt = databases
        self._keep = compile_patterns(settings.backfill_collections)
        self._began = time.monotonic()
        self._filler: Filler
        self._state: RebuildState

    async def run(self, on_stop: OnStop | None) -> None:
        """Rebuild from the schema's first row, or from where it stands, to the end."""
        share = max(64 * 1024, self._settings.memory_bytes // MEMORY_SHARE // self._info.partitions)
        sizes = {"partition_bytes": min(share, 1 << 20), "fetch_bytes": 2 * MAX_MESSAGE_BYTES}
        async with reader(self._settings, self._info.partitions, **sizes) as (consumer, tps):
            throttle = Throttle(self._settings, Machine(self._settings))
            sink = PostgresSink(
                self._rebuilt, topic=self._names.topic, group=self._names.rebuilt_group, keep=self._keep
            )
            self._filler = filler = Filler(consumer, sink, throttle, self._tell, self._passed)
            if on_stop is not None:
                on_stop(filler.stop)
            guard = TopicGuard(
                self._settings, self._info, filler.fail,
                during="it was read", mend="Rebuild from the topic that is there into another --schema.",
                known=lambda: filler.positions,
            )  # fmt: skip
            async with self._held(), _beside(guard.run(), filler):
                self._state = await self._stand(consumer, tps)
                await throttle.start()
                try:
                    await self._steps(consumer, tps)
                except Abandoned:  # it was asked to stop, or something failed, in the middle of a statement
                    filler.check()
                    raise
                finally:
                    await filler.close()
                    await throttle.close()

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        """Keep others from filling the schema meanwhile."""
        have = asyncio.Event()
        task = asyncio.create_task(hold(self._rebuilt, self._names.rebuilt, have.set))
        ready = asyncio.create_task(have.wait())
        task.add_done_callback(self._filler.on_done)
        try:
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            self._filler.check()
            if task.done():
                task.result()
            yield
        finally:
            await end_tasks([task, ready])

    # -- where it stands

    async def _stand(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> RebuildState:
        """Return the state of the rebuild; begin it where it was not. Raises MismatchError."""
        names, wanted = self._names, self._wanted
        state = await rebuild_state(self._rebuilt, names.live, names.rebuilt)
        if state is None:
            begins = await self._begins(consumer, tps)
            state = RebuildState(names.topic, names.rebuilt_group, names.live, begins, wanted.seed, seeded=False)
            if wanted.swap and not wanted.seed:
                await self._refuse_later_beginning(state)
            await begin(self._rebuilt, state)
            crash_point(RebuildPoint.AFTER_SCHEMA)
            return state
        await begin(self._rebuilt, state)  # a program that is newer than the one that began it
        if (state.topic, state.group, state.live) != (names.topic, names.rebuilt_group, names.live):
            raise MismatchError(
                f"{names.rebuilt} is a rebuild of {state.live} from the topic {state.topic} by the group {state.group}",
                "give its own settings, or another --schema.",
            )
        if wanted.seed and not state.seed:
            raise MismatchError(
                f"{names.rebuilt} was begun without --seed-from-live", "give another --schema, or drop it first."
            )
        ignored = " What --from says counted only at its beginning." if wanted.starts is not None else ""
        self._tell(f"{names.rebuilt} was begun already: going on from its own positions.{ignored}")
        return state

    async def _begins(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> dict[int, PartitionStart]:
        """Return where each partition begins, and the first event there where something is before it."""
        starts: dict[TopicPartition, int] = await consumer.beginning_offsets(tps)
        if self._wanted.starts is None:
            offsets = {tp.partition: start for tp, start in starts.items()}
        else:
            offsets = await self._wanted.starts(consumer, starts)
        ends = await consumer.end_offsets(tps)
        found = {}
        for tp in tps:
            offset = offsets[tp.partition]
            found[tp.partition] = await _first_event(consumer, tp, offset, ends[tp]) if offset else PartitionStart(0)
            consumer.pause(tp)
        return found

    async def _refuse_later_beginning(self, state: RebuildState) -> None:
        """Refuse a topic that begins later than the live schema's first record. Raises MismatchError."""
        cut = [begin for begin in state.begins.values() if begin.offset]
        if not cut:
            return
        latest = max((begin.time for begin in cut if begin.time is not None), default=time.time_ns() // 1000)
        horizon = dt.datetime.fromtimestamp(latest / 1_000_000, dt.UTC)
        rows = await self._live.run(
            lambda c: c.fetch(both("oldest_records", self._names.live, self._names.rebuilt), horizon)
        )
        for row in rows:
            time_us = round(row["time"].timestamp() * 1_000_000)
            if is_before(row["did"], time_us, row["seq"], state.begins, self._info.partitions):
                raise self._too_late()

    def _too_late(self) -> MismatchError:
        return MismatchError(
            f"{self._names.live} holds records that are older than the beginning of the rebuild in the topic "
            f"{self._names.topic}, so {self._names.rebuilt} cannot replace it",
            "give --seed-from-live, which begins with a copy of its rows.",
        )

    # -- the steps

    async def _steps(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> None:
        names, wanted, filler = self._names, self._wanted, self._filler
        if wanted.swap:
            await check_objects(self._live, names)
        if self._state.seed and not self._state.seeded:
            self._tell(f"copying the rows of {names.live} …")
            rows = await seed(self._rebuilt, names.live, names.group, self._wanted_still)
            self._tell(f"{rows:,} rows copied.")
            crash_point(RebuildPoint.AFTER_SEED)
            seeded = await rebuild_state(self._rebuilt, names.live, names.rebuilt)
            assert seeded is not None
            self._state = seeded
        await filler.start(self._state.begins)
        if not (wanted.compare or wanted.swap):
            ends = {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}
            await filler.to(ends)
        await self._follow()
        crash_point(RebuildPoint.AFTER_FILL)
        counts = filler.counts
        self._tell(
            f"{names.rebuilt} is filled: {counts.received:,} received, {counts.applied:,} processed, {counts.skipped:,}"
            f" skipped, {counts.dead:,} dead, {time.monotonic() - self._began:,.0f} s."
        )
        if wanted.compare or wanted.swap:
            self._judge(await self._compare())
        if wanted.swap:
            await self._swap()

    async def _passed(self, partition: int, offset: int) -> None:
        await pass_over(self._rebuilt, self._names.live, partition, offset)

    def _wanted_still(self) -> bool:
        return self._filler.wanted

    async def _follow(self) -> None:
        """Fill up to where the live schema is, until that takes no time."""
        while True:
            began = time.monotonic()
            held = await self._live_positions()
            if max(held, default=0) >= self._info.partitions:
                check_partitions(self._info, max(held) + 1)
            await self._filler.to(held)
            if time.monotonic() - began < NEAR_SECONDS:
                return

    async def _live_positions(self) -> dict[int, int]:
        names = self._names
        rows = await self._live.run(
            lambda c: c.fetch(both("live_positions", names.live, names.rebuilt), names.topic, names.group)
        )
        return {row["partition"]: row["next_offset"] for row in rows}

    async def _level(self, then: Callable[[Connection, dict[int, int]], Awaitable[T]]) -> T:
        """Call ``then`` in a transaction in which the workers wait and the rebuilt schema is as far as the live one."""

        async def call(connection: Connection) -> tuple[T] | None:
            async with connection.transaction():
                held = await lock_live(connection, self._names)
                if not await self._filler.to(held, HOLD_SECONDS):
                    return None
                return (await then(connection, held),)

        for _ in range(TRIES):
            await self._follow()
            done = await self._live.run(call, keep_going=self._wanted_still)
            if done is not None:
                return done[0]
        raise DatabaseError(
            f"{self._names.rebuilt} does not catch up with {self._names.live} while its workers write",
            "set BACKFILL_PROFILE=unlimited for the rebuild, or stop the workers for a moment.",
        )

    async def _compare(self) -> Comparison:
        """Compare both in one snapshot, taken while they stand at the same offsets."""
        names = self._names

        async def analyze(connection: Connection) -> None:
            async with unlimited(connection):
                for table in ("records", "actors"):
                    await connection.execute(f"ANALYZE {table}")

        async def snapshot(connection: Connection) -> Comparison:
            # While the schemas are brought level this transaction is idle, and holds nothing yet.
            await connection.execute("SET idle_in_transaction_session_timeout = 0; SET work_mem = '64MB'")
            await connection.execute("SET enable_partitionwise_join = on")
            try:
                async with unlimited(connection), connection.transaction(isolation="repeatable_read", readonly=True):
                    held = await self._level(lambda _, positions: _look(connection, positions))
                    further = differing(held, self._filler.positions)
                    if further:
                        self._tell(
                            f"{names.rebuilt} is further than {names.live} in {len(further)} partitions: "
                            "rows there that are newer, or new, are expected."
                        )
                    return await compare(connection, names, self._state.begins, self._info.partitions, self._keep)
            finally:
                if not connection.is_closed():
                    await connection.execute("RESET work_mem; RESET enable_partitionwise_join")
                    await connection.restore("idle_in_transaction_session_timeout")

        await self._rebuilt.run(analyze, keep_going=self._wanted_still)
        self._tell(f"comparing {names.rebuilt} with {names.live} …")
        return await self._rebuilt.run(snapshot, keep_going=self._wanted_still)

    def _judge(self, found: Comparison) -> None:
        """Say what was found. Raises MismatchError where rows are missing."""
        for line in found.lines:
            self._tell(line)
        names = self._names
        if not found.found:
            self._tell(f"compared: {names.rebuilt} holds exactly what {names.live} holds.")
        if missing := found.lacking(UNEXPLAINED):
            raise MismatchError(
                f"{names.rebuilt} lacks {missing:,} rows that {names.live} has and the topic should hold",
                "find out why (each kind is shown above) before one of them replaces the other.",
            )
        if self._wanted.swap and found.lacking(BEFORE):
            raise self._too_late()

    async def _swap(self) -> None:
        names = self._names
        await take_over(self._live, self._rebuilt, self._tell, self._wanted_still)
        began = time.monotonic()

        async def change(connection: Connection, _: Mapping[int, int]) -> None:
            await swap(connection, names)

        try:
            await self._level(change)
        except MismatchError:
            # A commit whose answer was lost, repeated: there is no such schema any more.
            with suppress(MismatchError):
                if await was_swapped(self._live, names) is not None:
                    return
            raise
        crash_point(RebuildPoint.AFTER_SWAP)
        self._tell(
            f"swapped in {time.monotonic() - began:.1f} s: {names.rebuilt} is {names.live} now, and what was "
            f"{names.live} is {names.kept}. Drop it when you do not need it: DROP SCHEMA {names.kept} CASCADE"
        )


async def _look(connection: Connection, positions: dict[int, int]) -> dict[int, int]:
    """Take the transaction's snapshot."""
    await connection.fetchval("SELECT 1")
    return positions


@asynccontextmanager
async def _beside(work: Any, filler: Filler) -> AsyncIterator[None]:  # noqa: ANN401 (a coroutine)
    """Have the work done meanwhile; what goes wrong in it ends the fill."""
    task = asyncio.create_task(work)
    task.add_done_callback(filler.on_done)
    try:
        yield
    finally:
        await end_tasks([task])


async def _first_event(consumer: AIOKafkaConsumer, tp: TopicPartition, offset: int, end: int) -> PartitionStart:
    """Return the first event at or behind the offset: what is older than it came before the beginning."""
    read_from(consumer, {tp: offset})
    log_end = LogEnd(consumer)
    looked = 0
    while offset < end and looked < _LOOK and await consumer.position(tp) < end:
        messages = (await consumer.getmany(tp, timeout_ms=500, max_records=_LOOK)).get(tp, ())
        end = await log_end.end(tp, end, came=bool(messages))
        for message in messages:
            looked += 1
            if message.key is None or message.value is None:
                continue
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                event = decode_message(message.value)
                if event.time_us is not None:
                    return PartitionStart(offset, event.time_us, event.seq)
    return PartitionStart(offset)
