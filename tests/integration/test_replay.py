"""`replay` and `rebuild --from` on real Kafka and Postgres: where they begin, what is refused, what is counted."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from streams.commands.start_at import MARGIN, Resolved, StartAt, resolve
from streams.errors import MismatchError, SettingsError
from streams.kafka.client import admin_client
from streams.kafka.retention import _set_configs, topic_configs
from streams.kafka.topic import reader
from streams.postgres.positions import move_back
from tests.integration.test_rebuild import DIDS, PARTITIONS, POST, World, marks, some_events, world  # noqa: F401
from tests.support import merge_model as model

COUNTS = ("received", "applied", "skipped", "dead")


async def resolved(world: World, start: StartAt, *, other: bool = True) -> Resolved:  # noqa: F811
    async with reader(world.settings, PARTITIONS) as (consumer, tps):
        return await resolve(consumer, await consumer.beginning_offsets(tps), start, other=other)


async def test_a_beginning_is_within_the_log(world: World) -> None:  # noqa: F811
    await some_events(world)
    ends = {p: len(log) for p, log in world.log.items()}
    await world.cut(1, 5)
    assert await resolved(world, StartAt()) == Resolved({0: 0, 1: 5})
    assert await resolved(world, StartAt(offsets={0: 3})) == Resolved({0: 3, 1: 5})
    assert await resolved(world, StartAt(offsets={0: ends[0]}), other=False) == Resolved({0: ends[0]})
    moved = await resolved(world, StartAt(offsets={1: 2}), other=False)
    assert moved.offsets == {1: 5}
    assert "begins at 5 by now: from there, not from 2" in moved.notes[0]
    for offsets, says in (({2: 0}, "the topic has 0 to 1"), ({0: ends[0] + 1}, f"beyond the end of .*, {ends[0]}")):
        with pytest.raises(SettingsError, match=says):
            await resolved(world, StartAt(offsets=offsets))


async def test_a_time_leaves_out_only_what_was_written_before_it(world: World) -> None:  # noqa: F811
    """Whatever the events' own times are, which lie years back here."""
    async with admin_client(world.settings) as admin:  # the test says when a message was written, not the broker
        topic = world.settings.kafka_topic
        await _set_configs(admin, topic, await topic_configs(admin, topic) | {"message.timestamp.type": "CreateTime"})
    now = dt.datetime.now(dt.UTC)
    times = [now - 3 * MARGIN, now - MARGIN / 2]
    for number, time in enumerate(times):
        await world.producer.send_and_wait(
            world.settings.kafka_topic, b"x", partition=0, timestamp_ms=int(time.timestamp() * 1000) + number
        )
    for since, offset in ((now - 9 * MARGIN, 0), (now - MARGIN, 1), (now, 1), (now + 2 * MARGIN, 2)):
        assert (await resolved(world, StartAt(time=since))).offsets == {0: offset, 1: 0}


async def counts(world: World) -> tuple[int, ...]:  # noqa: F811
    columns = ", ".join(f"sum({name})::bigint" for name in COUNTS)
    return tuple(await world.look.fetchrow(f"SELECT {columns} FROM {world.live}.sink_offsets"))


async def back(world: World, targets: dict[int, int], **how: bool) -> Any:  # noqa: F811
    options = {"strict": False, "dry_run": False, **how}
    return await move_back(world.database, world.settings.kafka_topic, world.settings.sink_group, targets, **options)


async def test_what_is_read_again_changes_only_what_was_missing(world: World) -> None:  # noqa: F811
    await some_events(world)
    expected, before = await world.state(), await counts(world)
    ends = {p: len(log) for p, log in world.log.items()}
    assert (await back(world, {0: 0, 1: 0}, dry_run=True)).back == {p: (end, 0) for p, end in ends.items()}
    assert await world.sink.positions({0, 1}, {}) == ends
    with pytest.raises(SettingsError, match="A replay only goes back"):
        await back(world, {0: 0, 1: ends[1] + 1}, strict=True)
    with pytest.raises(SettingsError, match="has read nothing of"):
        await back(world, {7: 0}, strict=True)
    assert await world.sink.positions({0, 1}, {}) == ends, "all of them move, or none"
    await world.look.execute(f"DELETE FROM {world.live}.records WHERE did = '{DIDS[1]}' AND rkey = 'one'")
    moved = await back(world, {0: 0, 1: 0, 7: 0})
    assert moved.stayed == (7,)
    await world.apply()
    assert await world.state() == expected
    # All is counted again: but for the row that was missing as skipped, also the poison, which is a letter already.
    events = before[0]
    after = await counts(world)
    assert after[0] == 2 * events
    assert after[1] == before[1] + 1
    assert after[3] == before[3] == 1
    assert after[0] == sum(after[1:])


async def test_a_rebuild_from_the_middle_cannot_replace_what_is_older(world: World) -> None:  # noqa: F811
    await some_events(world)
    middle = {p: len(log) for p, log in world.log.items()}
    await world.produce(*(model.commit(did, "late", 500 + n, 1, POST) for n, did in enumerate(DIDS)))
    await marks(world, 2000)
    await world.apply()
    expected = await world.state()

    async def starts(consumer: Any, log_starts: Any) -> dict[int, int]:
        return (await resolve(consumer, log_starts, StartAt(offsets=middle))).offsets

    with pytest.raises(MismatchError, match="give --seed-from-live"):
        await world.rebuild(swap=True, starts=starts)
    said = await world.rebuild(starts=starts, compare=True)
    assert "(it is older than the point where the rebuild begins)" in said
    assert {dict(row)["rkey"] for row in await world.rows("records", "fresh")} == {"late"}
    assert "counted only at its beginning" in await world.rebuild(starts=starts)
    await world.rebuild("seeded", starts=starts, seed=True, swap=True, keep_as="before")
    after = await world.state()
    assert after["records"] == expected["records"]
    assert after["gaps"] == expected["gaps"]
