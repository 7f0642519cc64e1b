"""``rebuild`` on real Kafka and Postgres: what is filled, what the comparison sees, what the swap does and refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from streams.errors import HeldError, MismatchError, SettingsError, StreamsError
from streams.kafka.client import admin_client
from streams.kafka.topic import ensure_topic, partition_for
from streams.maintenance.rebuild.course import RebuildRequest, rebuild
from streams.maintenance.rebuild.schema import both
from streams.maintenance.rebuild.swap import Names, lock_live, swap
from streams.messages import Run, Watermark, encode_control
from streams.postgres.cursor import write_cursor
from streams.postgres.database import Database
from streams.settings import Settings
from streams.sink_postgres import Fenced, PostgresSink
from tests.conftest import SettingsFactory, migrated
from tests.support import merge_model as model
from tests.support.patience import PATIENCE, PATIENCE_MS

PARTITIONS = 2
DIDS = [f"did:plc:{name}" for name in "abcdefgh"]
POST = "app.bsky.feed.post"


class World:
    """A topic, a live schema that stands where ``apply`` left it, and rebuilds of it."""

    def __init__(self, settings: Settings, database: Database, look: Any, producer: AIOKafkaProducer) -> None:
        self.settings, self.database, self.look, self.producer = settings, database, look, producer
        self.live = settings.sink_schema
        self.sink = PostgresSink(database, topic=settings.kafka_topic, group=settings.sink_group)
        self.log: dict[int, list[model.Message]] = {p: [] for p in range(PARTITIONS)}

    async def produce(self, *events: dict[str, Any] | bytes, partition: int = 0) -> None:
        """Events to where their DIDs belong, control messages to the partition."""
        for event in events:
            if isinstance(event, bytes):
                target, key, value = partition, None, event
            else:
                key, value = event["did"].encode(), json.dumps(event).encode()
                target = partition_for(key, PARTITIONS)
            sent = await self.producer.send_and_wait(self.settings.kafka_topic, value, key=key, partition=target)
            assert sent.offset == len(self.log[target])
            self.log[target].append(model.Message(sent.offset, key, value))

    async def apply(self) -> None:
        """What a worker does: the live schema up to the topic's end."""
        positions = await self.sink.positions(set(self.log), dict.fromkeys(self.log, 0))
        for partition, messages in self.log.items():
            if base := messages[positions[partition] :]:
                await self.sink.write(partition, positions[partition], len(messages), base)

    async def cut(self, partition: int, before: int) -> None:
        """Have the topic forget what is before the offset."""
        async with admin_client(self.settings) as admin:
            tp = TopicPartition(self.settings.kafka_topic, partition)
            await admin.delete_records({tp: RecordsToDelete(before)})

    async def rebuild(self, schema: str = "fresh", **wanted: Any) -> str:
        """Returns what was said."""
        lines: list[str] = []
        try:
            await rebuild(self.settings, RebuildRequest(schema, **wanted), lines.append)
        except StreamsError as error:
            error.add_note("\n".join(lines))
            raise
        return "\n".join(lines)

    async def rows(self, table: str, schema: str | None = None) -> list[tuple[Any, ...]]:
        """All but the times of our own clock."""
        rows = await self.look.fetch(f"SELECT * FROM {schema or self.live}.{table}")
        ours = ("indexed_at", "created_at", "updated_at")
        return sorted(tuple((k, v) for k, v in row.items() if k not in ours) for row in rows)

    async def state(self, schema: str | None = None) -> dict[str, Any]:
        tables = ("records", "actors", "dead_letters", "gaps", "runs")
        return {table: await self.rows(table, schema) for table in tables}


@pytest.fixture
async def world(settings: SettingsFactory) -> AsyncIterator[World]:
    made = settings(kafka_partitions=PARTITIONS, backfill_profile="unlimited")
    await ensure_topic(made)
    await migrated(made.database_dsn(), made.sink_schema)
    database = Database(made.database_dsn(), made.sink_schema, 3)
    look = await asyncpg.connect(made.database_dsn())
    async with AIOKafkaProducer(bootstrap_servers=made.bootstrap_servers(), request_timeout_ms=PATIENCE_MS) as producer:
        yield World(made, database, look, producer)
    await look.close()
    await database.close()


async def some_events(world: World) -> None:
    """Records with versions and a deletion, accounts, a deleted one, poison, control messages."""
    run = Run(
        relay="r", run=5, topic_id="id", mode="restart", days=1, asked_from=None, oldest_seq=1, oldest_time=None,
        from_seq=1, head_seq=None, head_time=None,
    )  # fmt: skip
    await world.produce(encode_control(run), b"poison")
    for number, did in enumerate(DIDS):
        await world.produce(
            model.identity(did, 1, 10, f"{did[8:]}.test"),
            model.commit(did, "one", 10 + number, number, POST),
            model.commit(did, "two", 20 + number, number),
            model.commit(did, "one", 30 + number, 100 + number, POST),
            model.commit(did, "two", 40 + number, None),
        )
    await world.produce(model.account(DIDS[0], 100, 500, "deleted"))
    await marks(world, 1100)
    await world.apply()


async def marks(world: World, seq: int, run: int = 5) -> None:
    for partition in range(PARTITIONS):
        mark = Watermark(relay="r", run=run, topic_id="id", seq=seq, time=model.BEGIN)
        await world.produce(encode_control(mark), partition=partition)


async def test_a_rebuild_is_the_same_and_takes_over_what_belongs_to_it(world: World) -> None:
    await some_events(world)
    live, look = world.live, world.look
    role = f"reader_{live}"
    await look.execute(f"""
        CREATE ROLE {role};
        GRANT USAGE ON SCHEMA {live} TO {role}; GRANT SELECT ON {live}.records, {live}.posts TO {role};
        GRANT SELECT (did) ON {live}.actors TO {role}; REVOKE EXECUTE ON FUNCTION {live}.from_us FROM PUBLIC;
        SET search_path = {live};
        CREATE INDEX ix_post_created ON records_post ((lex_datetime(record -> 'createdAt')));
        CREATE INDEX my_own ON records (rev);
        CREATE VIEW blog_entry AS SELECT did, lex_text(record -> 'value') AS value FROM visible_records;
        COMMENT ON VIEW blog_entry IS 'made by `views create`: x'; COMMENT ON COLUMN blog_entry.value IS 'its value';
        REFRESH MATERIALIZED VIEW follow_counts;
        INSERT INTO gaps (topic, partition, "offset", reason) VALUES ('older', 0, 1, 'lost');
        INSERT INTO dead_letters (topic, partition, "offset", reason, did, time)
        VALUES ('older', 0, 1, 'bad', 'did:x', now()), ('older', 0, 2, 'erased', '{DIDS[0]}', 'epoch');
        RESET search_path""")
    cursor = {
        "topic": world.settings.kafka_topic, "group": world.settings.sink_group, "service": "s",
        "partitions": PARTITIONS,
    }  # fmt: skip
    assert await write_cursor(world.database, **cursor) is not None
    expected = await world.state()

    said = await world.rebuild(compare=True)
    assert f"fresh holds exactly what {live} holds" in said
    assert (await world.state("fresh"))["records"] == expected["records"]
    assert "swapped in" in await world.rebuild(swap=True, keep_as="before")

    expected["dead_letters"] = [row for row in expected["dead_letters"] if ("reason", "erased") not in row]
    assert await world.state() == expected
    kept = {row["consumer_group"] for row in await look.fetch("SELECT consumer_group FROM before.sink_offsets")}
    assert kept == {"rebuild.before"}
    # The cursor was there already, in a run that may go back only once.
    await look.execute("UPDATE public.firehose_cursor SET cursor = '1200'")
    await look.execute(f"UPDATE {live}.runs SET run = 4")
    after = await write_cursor(world.database, **cursor)
    assert after is not None
    assert after.seq == 1200
    await look.execute(f"UPDATE {live}.runs SET run = 5")

    async def allowed(what: str, which: str, right: str) -> bool:
        return bool(await look.fetchval(f"SELECT has_{what}_privilege($1, $2, $3)", role, which, right))

    assert await allowed("table", f"{live}.records", "SELECT")
    assert await allowed("table", f"{live}.posts", "SELECT")
    assert not await allowed("table", f"{live}.actors", "SELECT")
    assert await allowed("schema", live, "USAGE")
    assert not await allowed("function", f"{live}.from_us(bigint)", "EXECUTE")
    assert await look.fetchval("SELECT has_column_privilege($1, $2, 'did', 'SELECT')", role, f"{live}.actors")
    names = {row[0] for row in await look.fetch("SELECT indexname FROM pg_indexes WHERE schemaname = $1", live)}
    assert {"ix_post_created", "my_own"} <= names
    assert await look.fetchval(f"SELECT count(*) FROM {live}.blog_entry") > 0
    assert await look.fetchval(f"SELECT obj_description('{live}.blog_entry'::regclass)") == "made by `views create`: x"
    assert await look.fetchval(f"SELECT col_description('{live}.blog_entry'::regclass, 2)") == "its value"
    assert await look.fetchval(f"SELECT count(*) FROM {live}.follow_counts") == 0  # and not an error

    # The same command again does nothing; and there is a way back, to what has gone on meanwhile.
    assert "already" in await world.rebuild(swap=True, keep_as="before")
    await world.produce(model.commit(DIDS[1], "new", 200, 1))
    await world.apply()
    await world.rebuild("before", swap=True, keep_as="after")
    keys = {dict(row)["rkey"] for row in await world.rows("records")}
    assert "new" in keys
    await world.produce(model.commit(DIDS[1], "newer", 201, 1))
    await world.apply()
    await look.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_write_that_waits_for_the_swap_writes_nothing(world: World) -> None:
    """It waits for the rows of what is the old schema afterwards, and would go on in the new one."""
    await some_events(world)
    await world.rebuild()
    await world.produce(*(model.commit(did, "late", 300, 1) for did in DIDS))
    names = Names(world.settings.kafka_topic, world.live, world.settings.sink_group, "fresh", "rebuild.fresh", "before")
    start = await world.sink.positions({0, 1}, {})

    def write(partition: int) -> asyncio.Task[Any]:
        messages = world.log[partition]
        rest = messages[start[partition] :]
        return asyncio.create_task(world.sink.write(partition, start[partition], len(messages), rest))

    async def call(connection: Any) -> list[asyncio.Task[Any]]:
        async with connection.transaction():
            held = await lock_live(connection, names)
            assert held == start
            tasks = [write(0), write(1)]
            for _ in range(int(PATIENCE / 0.05)):
                waiting = "WHERE wait_event_type = 'Lock' AND query ~ 'apply_joined'"
                if await world.look.fetchval(f"SELECT count(*) FROM pg_stat_activity {waiting}") == 2:
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("nobody waits")
            # The rebuilt schema is further in one of the partitions, and not in the other.
            fresh = PostgresSink(rebuilt, topic=names.topic, group=names.rebuilt_group)
            await fresh.write(0, start[0], start[0] + 1, world.log[0][start[0] : start[0] + 1])
            await swap(connection, names)
        return tasks

    rebuilt = Database(world.settings.database_dsn(), "fresh")
    try:
        one, other = await Database.run(world.database, call)
    finally:
        await rebuilt.close()
    with pytest.raises(Fenced):
        await one
    # Where the position is the same, either answer is right, as long as it is true.
    fenced = isinstance((await asyncio.gather(other, return_exceptions=True))[0], Fenced)
    assert await world.sink.positions({0, 1}, {}) == {0: start[0] + 1, 1: start[1] if fenced else len(world.log[1])}
    assert not [row for row in await world.rows("records", "before") if ("rkey", "late") in row]
    await world.apply()
    assert len([row for row in await world.rows("records") if ("rkey", "late") in row]) == len(DIDS)
    counts = await world.look.fetchval(f"SELECT sum(received) FROM {world.live}.sink_offsets")
    messages = [message for log in world.log.values() for message in log]
    assert counts == sum(message.key is not None or message.value == b"poison" for message in messages)


async def test_the_comparison_finds_what_was_planted(world: World) -> None:
    await some_events(world)
    await world.rebuild()
    await world.look.execute(f"""
        UPDATE fresh.records SET record = '{{"other": 1}}' WHERE did = '{DIDS[2]}' AND rkey = 'one';
        INSERT INTO fresh.records (did, collection, rkey, rev, time)
        VALUES ('did:plc:new', 'a.b.c', 'r', '2', 'epoch')""")
    said = await world.rebuild(compare=True)  # neither is missing
    assert f"records, different in record: {DIDS[2]}/{POST}/one" in said
    assert "records, new: did:plc:new/a.b.c/r" in said
    assert "exactly" not in said
    await world.look.execute(f"""
        DELETE FROM fresh.records WHERE did = '{DIDS[3]}' AND rkey = 'one';
        UPDATE fresh.records SET rev = '2' WHERE did = '{DIDS[4]}' AND rkey = 'one';
        DELETE FROM fresh.actors WHERE did = '{DIDS[5]}';
        UPDATE fresh.actors SET handle_time = 'epoch', handle = 'old' WHERE did = '{DIDS[6]}'""")
    with pytest.raises(MismatchError, match="lacks 4 rows") as found:
        await world.rebuild(swap=True)
    lines = "\n".join(found.value.__notes__)
    assert f"records, missing: {DIDS[3]}/{POST}/one (the topic should hold it)" in lines
    assert f"records, older: rev 2, live {model.rev(34)}: {DIDS[4]}/{POST}/one" in lines
    assert f"actors, missing: {DIDS[5]}" in lines
    assert f"actors, older: {DIDS[6]}" in lines


async def test_a_narrower_filter_and_an_account_deleted_since_are_explained(world: World) -> None:
    await some_events(world)
    world.settings = world.settings.model_copy(update={"backfill_collections": (POST,)})
    await world.rebuild()
    await world.produce(model.account(DIDS[2], 400, 900, "deleted"))
    await world.rebuild()  # beyond the live one
    said = await world.rebuild(compare=True)
    assert "(BACKFILL_COLLECTIONS leaves it out)" in said
    assert f"records, missing: {DIDS[2]}/{POST}/one (its account was deleted)" in said
    assert "further than" in said


async def test_what_the_topic_has_forgotten_is_taken_from_the_live_one(world: World) -> None:
    await some_events(world)
    await world.produce(*(model.commit(did, "three", 300 + n, 1) for n, did in enumerate(DIDS)))
    await world.apply()
    expected = await world.state()
    for partition, messages in world.log.items():
        await world.cut(partition, len(messages) - 2)
    with pytest.raises(MismatchError, match="--seed-from-live"):
        await world.rebuild(swap=True)
    said = await world.rebuild(compare=True)  # nothing that the topic should hold is missing
    assert "(it is older than the point where the rebuild begins)" in said
    with pytest.raises(MismatchError, match="--seed-from-live"):
        await world.rebuild(swap=True)
    with pytest.raises(MismatchError, match="begun without --seed-from-live"):
        await world.rebuild(seed=True)
    said = await world.rebuild("seeded", seed=True, swap=True, keep_as="before")
    assert "rows copied" in said
    assert await world.state() == expected
    await world.produce(model.commit(DIDS[0], "after", 500, 1))
    await world.apply()
    assert [row for row in await world.rows("records") if ("rkey", "after") in row]


async def test_what_retention_takes_from_before_the_fill_is_a_gap(world: World) -> None:
    await some_events(world)
    await world.rebuild()
    await world.produce(*(model.commit(did, "three", 300, 1) for did in DIDS))
    end = len(world.log[0])
    await world.cut(0, end)
    assert "a gap" in await world.rebuild()
    [gap] = await world.rows("gaps", "fresh")
    assert ("to_offset", end) in gap


async def test_what_retention_takes_while_the_live_rows_are_copied_is_no_gap(world: World) -> None:
    """Only what the live one had not applied either is lost; letters of what is not read are carried over."""
    await some_events(world)
    bad = model.commit(DIDS[1], "bad", 200, 1)
    bad["commit"]["rev"] = "none"
    await world.produce(bad)
    await world.apply()
    covered = {p: len(messages) for p, messages in world.log.items()}
    expected = await world.state()
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if "copying the rows" in line:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, world.cut(0, covered[0])).result()
                thread.submit(asyncio.run, world.cut(1, covered[1] - 1)).result()

    await rebuild(world.settings, RebuildRequest("fresh", seed=True, swap=True, keep_as="before"), tell)
    assert len([line for line in lines if "copied already" in line]) == 2
    assert not [line for line in lines if "a gap" in line]
    assert await world.state() == expected

    # Killed in between, and what was lost meanwhile is more than the live one had.
    def dies(line: str) -> None:
        if "rows copied" in line:
            raise KeyError(line)

    with pytest.raises(KeyError):
        await rebuild(world.settings, RebuildRequest("again", seed=True), dies)
    await world.produce(*(model.commit(did, "late", 300, 1) for did in DIDS))
    end = len(world.log[0])
    await world.cut(0, end - 1)
    assert f"lost the offsets {covered[0]} to {end - 2} (retention): a gap" in await world.rebuild("again")
    [gap] = await world.rows("gaps", "again")
    assert {("offset", covered[0]), ("to_offset", end - 1)} < set(gap)


async def test_a_hole_in_front_of_where_the_live_one_stands(world: World) -> None:
    """A marker of a foreign producer's transaction is no message: nothing comes of it, and the position passes it."""
    await some_events(world)
    event = model.commit(DIDS[0], "inside", 300, 1)
    partition = partition_for(DIDS[0].encode(), PARTITIONS)
    foreign = AIOKafkaProducer(
        bootstrap_servers=world.settings.bootstrap_servers(), transactional_id="foreign", request_timeout_ms=PATIENCE_MS
    )
    async with foreign, foreign.transaction():
        value = json.dumps(event).encode()
        sent = await foreign.send_and_wait(world.settings.kafka_topic, value, key=DIDS[0].encode(), partition=partition)
    inside = model.Message(sent.offset, DIDS[0].encode(), value)
    marker = sent.offset + 1
    await world.sink.write(partition, sent.offset, marker + 1, [inside])
    for after in range(2):  # the marker is the last of the log, and then it is not
        async with asyncio.timeout(PATIENCE):
            assert "holds exactly what" in await world.rebuild(f"fresh{after}", compare=True)
        position = f"SELECT next_offset FROM fresh{after}.sink_offsets WHERE partition = $1"
        assert await world.look.fetchval(position, partition) == marker + 1
        later = f"later {after}".encode()
        last = await world.producer.send_and_wait(world.settings.kafka_topic, later, partition=partition)
        assert last.offset == marker + 1 + after
    # And all of it, from where each of them stands.
    async with asyncio.timeout(PATIENCE):
        await world.rebuild("fresh0")
        await world.rebuild("fresh1")
    for schema in ("fresh0", "fresh1"):
        letters = await world.look.fetch(f'SELECT "offset" FROM {schema}.dead_letters WHERE "offset" > $1', marker)
        assert sorted(row["offset"] for row in letters) == [marker + 1, marker + 2]


async def test_an_index_that_the_rebuilt_rows_do_not_bear_is_a_sentence(world: World) -> None:
    await some_events(world)
    await world.look.execute(f"CREATE UNIQUE INDEX mine ON {world.live}.actors ((handle IS NULL)) WHERE did = 'x'")
    await world.rebuild()
    await world.look.execute(f"UPDATE pg_index SET indpred = NULL WHERE indexrelid = '{world.live}.mine'::regclass")
    with pytest.raises(MismatchError, match=f"The index mine of {world.live} cannot be made in fresh .*mine.*drop it"):
        await world.rebuild(swap=True)
    await world.look.execute(f"DROP INDEX {world.live}.mine")
    assert "swapped in" in await world.rebuild(swap=True)


async def test_refusals(world: World) -> None:
    await some_events(world)
    live, look = world.live, world.look
    for wanted in ({"keep_as": "x"}, {"group": world.settings.sink_group}, {"swap": True, "keep_as": "fresh"}):
        with pytest.raises(SettingsError):
            await world.rebuild(**wanted)
    with pytest.raises(SettingsError):
        await world.rebuild(live)
    await look.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.records (a int)")
    with pytest.raises(MismatchError, match="not ours"):
        await world.rebuild("theirs")
    with pytest.raises(MismatchError, match="theirs is there already"):
        await world.rebuild(swap=True, keep_as="theirs")
    await migrated(world.settings.database_dsn(), "filled")
    columns = "topic, partition, consumer_group, next_offset"
    await look.execute(f"INSERT INTO filled.sink_offsets ({columns}) VALUES ('t', 0, 'g', 0)")
    with pytest.raises(MismatchError, match="no rebuild made it"):
        await world.rebuild("filled")
    await world.rebuild()
    with pytest.raises(MismatchError, match=r"by the group rebuild\.fresh"):
        await world.rebuild(group="another")

    outside = {
        "view theirs.v": (f"CREATE VIEW theirs.v AS SELECT * FROM {live}.posts", "DROP VIEW theirs.v"),
        "constraint f_did_fkey": (
            f'CREATE TABLE theirs.f (did text COLLATE "C" REFERENCES {live}.actors)', "DROP TABLE theirs.f"
        ),
        "function theirs.f()": (
            f"CREATE FUNCTION theirs.f() RETURNS bool RETURN EXISTS (SELECT FROM {live}.actors)",
            "DROP FUNCTION theirs.f",
        ),
        "publication p": (f"CREATE PUBLICATION p FOR TABLE {live}.actors", "DROP PUBLICATION p"),
        "table mine": (f"CREATE TABLE {live}.mine (a int)", f"DROP TABLE {live}.mine"),
        "function mine()": (f"CREATE FUNCTION {live}.mine() RETURNS int RETURN 1", f"DROP FUNCTION {live}.mine"),
        "column mine of table actors": (
            f"ALTER TABLE {live}.actors ADD mine int", f"ALTER TABLE {live}.actors DROP mine"
        ),
        "trigger t on table actors": (
            f"CREATE TRIGGER t BEFORE UPDATE ON {live}.actors FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()", f"DROP TRIGGER t ON {live}.actors"
        ),
    }  # fmt: skip
    for what, (statement, drop) in outside.items():
        async with undone(look, statement, drop):
            with pytest.raises(MismatchError) as refused:
                await world.rebuild(swap=True)
            assert what in str(refused.value)
    # By name only: a function's text is read when it is called, and then means the new schema.
    count = f"'SELECT count(*) FROM {live}.actors'"
    await look.execute(f"CREATE FUNCTION theirs.g() RETURNS bigint LANGUAGE sql AS {count}")
    await look.execute(f"UPDATE {live}.sink_offsets SET topic_id = 'another'")
    with pytest.raises(MismatchError, match="was re-created"):
        await world.rebuild(swap=True)
    await look.execute(f"UPDATE {live}.sink_offsets SET topic_id = 'id'")
    await world.rebuild(swap=True)
    assert await look.fetchval("SELECT theirs.g()") == len(DIDS)


@asynccontextmanager
async def undone(look: Any, statement: str, drop: str) -> AsyncIterator[None]:
    """What the statement makes, for as long as the block lasts."""
    await look.execute(statement)
    yield
    await look.execute(drop)


async def test_one_rebuild_of_a_schema_at_a_time(world: World) -> None:
    await some_events(world)
    holder = await asyncpg.connect(world.settings.database_dsn())
    assert await holder.fetchval("SELECT pg_try_advisory_lock(hashtextextended('atproto-streams rebuild fresh', 0))")
    with pytest.raises(HeldError, match="fills the schema fresh"):
        await world.rebuild()
    await holder.close()
    assert "is filled" in await world.rebuild()


def test_both_names_are_put_in() -> None:
    for name in ("compare_records", "compare_actors", "grants", "dependents", "strangers", "seed_columns"):
        text = both(name, "one", "two")
        assert "'live'" not in text
        assert "live." not in text
        assert '"one"' in text
