"""The sink on a real Postgres: the merge rules, the fence, poison, deletions, counts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings

from streams.errors import MismatchError
from streams.messages import DeadLetter, Gap, Run, Watermark, dead_payload, encode_control
from streams.postgres import database as database_module
from streams.postgres import session as session_module
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.protocol.tid import tid_from_us
from streams.sink_postgres import Fenced, PostgresSink, Revoked, Written
from tests.support import merge_model as model
from tests.support.patience import PATIENCE, slowness

DID = model.DIDS[0]


@dataclass
class Stage:
    """A migrated schema, a sink for one topic, and a way to look at the tables."""

    database: Database
    sink: PostgresSink
    look: Any
    dsn: str

    async def write(self, *events: dict[str, Any] | bytes, partition: int = 0) -> Written:
        """The events (or control messages) as the next slice of the partition."""
        base = (await self.sink.positions({partition}, {partition: 0}))[partition]
        messages = [
            model.Message(base + i, None, e) if isinstance(e, bytes) else model.message(base + i, e)
            for i, e in enumerate(events)
        ]
        return await self.sink.write(partition, base, base + len(messages), messages)

    async def rows(self, table: str, columns: str = "*", order: str = "1") -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.look.fetch(f"SELECT {columns} FROM {table} ORDER BY {order}")]

    async def keys(self) -> dict[str, str | None]:
        return {row[0]: row[1] for row in await self.rows("records", "rkey, cid", "1")}

    async def state(self) -> Any:
        """The tables as the naive model has them."""
        state = model.Model()
        us = "(extract(epoch FROM {}) * 1000000)::bigint"
        for did, collection, rkey, rev, cid, record, seq, at in await self.rows(
            "records", f"did, collection, rkey, rev, cid, record, seq, {us.format('time')}"
        ):
            state.records[did, collection, rkey] = (rev, cid, None if record is None else json.loads(record), seq, at)
        kinds = ("handle", "account", "sync")
        whens = ", ".join(f"{us.format(k + '_time')} AS {k}_time, {k}_seq, {k}_sequence" for k in kinds)
        for row in await self.look.fetch(
            f"SELECT did, handle, active, status, purged_rev, stale_rev, deleted_rev, deleted_seq, {whens} FROM actors"
        ):
            revs = ("purged_rev", "stale_rev", "deleted_rev", "deleted_seq")
            actor = {k: row[k] for k in revs if row[k] is not None}
            actor |= {
                f"{k}_when": (row[f"{k}_sequence"], row[f"{k}_time"], row[f"{k}_seq"])
                for k in kinds
                if row[f"{k}_time"]
            }
            if "handle_when" in actor:
                actor["handle"] = row["handle"]
            if "account_when" in actor:
                actor |= {"active": row["active"], "status": row["status"]}
            state.actors[row["did"]] = actor
        return state


@pytest.fixture
async def stage(dsn: str) -> AsyncIterator[Stage]:
    database = Database(dsn, "firehose", 3)
    await database.start()
    await migrate_schema(database)
    look = await asyncpg.connect(dsn, server_settings={"search_path": "firehose"})
    yield Stage(database, PostgresSink(database, topic="t", group="g"), look, dsn)
    await look.close()
    await database.close()


@given(log=model.logs())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_any_slicing_and_any_replay_give_the_rows_of_one_by_one(stage: Stage, log: Any) -> None:
    events, replayed, cuts = log
    naive = model.Model()
    for event in events:
        naive.apply(event)
    await stage.look.execute("TRUNCATE records, actors, sink_offsets")
    sink = PostgresSink(stage.database, topic="t", group="g")  # it expects new rows, whatever happened before
    await sink.positions({0}, {0: 0})
    for part in model.slices(replayed, cuts):
        written = await sink.write(0, part[0].offset, part[-1].offset + 1, part)
        assert written.received == len(part) == written.applied + written.skipped
        assert written.skipped >= 0
    assert written.total_received == len(replayed)
    assert await stage.state() == naive


async def test_only_the_expected_base_writes(stage: Stage) -> None:
    await stage.write(model.commit(DID, "a", 1, 1))
    late = [model.message(0, model.commit(DID, "z", 1, 1))]
    for base, following in ((0, 1), (2, 3), (0, 2)):
        with pytest.raises(Fenced):
            await stage.sink.write(0, base, following, late)
    with pytest.raises(Fenced):
        await stage.sink.write(7, 0, 1, late)
    assert await stage.keys() == {"a": "bafy1"}
    assert await stage.sink.positions({0, 7}, {}) == {0: 1}


async def test_of_two_workers_with_the_same_slice_one_writes(stage: Stage) -> None:
    """Both calls wait for the position's row, which we hold; when it is free, one of them finds the other's work."""
    await stage.sink.positions({0}, {0: 0})
    zombie = PostgresSink(stage.database, topic="t", group="g")
    parts = [[model.message(i, model.commit(DID, f"{who}{i}", 1, 1)) for i in range(50)] for who in "ab"]
    async with stage.look.transaction():
        await stage.look.execute("SELECT FROM sink_offsets FOR UPDATE")
        calls = [asyncio.create_task(s.write(0, 0, 50, p)) for s, p in zip((stage.sink, zombie), parts, strict=True)]
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while await stage.look.fetchval(waiting) < 2:  # noqa: ASYNC110 (another session waits)
            await asyncio.sleep(0.01)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["Fenced", "Written"]
    assert len({key[0] for key in await stage.keys()}) == 1


async def test_after_a_cut_session_another_workers_position_is_still_a_fence(stage: Stage) -> None:
    await stage.write(*[model.commit(DID, f"r{i}", 1, 1) for i in range(4)])
    cut = Cutting(stage.dsn, "firehose", 1)
    cut.cuts = 1
    with pytest.raises(Fenced):
        await PostgresSink(cut, topic="t", group="g").write(0, 1, 3, [model.message(1, model.commit(DID, "z", 9, 1))])
    assert cut.cuts == 0
    await cut.close()


async def test_a_lost_answer_is_a_success_counted_once(stage: Stage) -> None:
    """The session is cut after the commit, before the answer: the repeated call finds its own work done."""
    await stage.write(model.commit(DID, "a", 1, 1))
    cut = Cutting(stage.dsn, "firehose", 1)
    sink = PostgresSink(cut, topic="t", group="g")
    records = [model.message(1 + i, model.commit(DID, "a", 2 + i, 2)) for i in range(3)]
    first = await sink.write(0, 1, 3, records[:2])
    cut.cuts = 1
    second = await sink.write(0, 3, 4, records[2:])
    assert cut.cuts == 0
    assert (first.received, first.applied, first.skipped) == (2, 1, 1)
    assert (second.received, second.applied, second.skipped) == (1, 1, 0)
    assert (second.total_received, second.total_applied, second.total_skipped) == (4, 3, 1)
    await cut.close()


class Cutting(Database):
    """Cuts the connection after a statement was done, as many times as asked."""

    cuts = 0

    async def run(self, function: Any, **more: Any) -> Any:
        async def cut(connection: Any) -> Any:
            result = await function(connection)
            if self.cuts:
                self.cuts -= 1
                raise ConnectionResetError("cut")
            return result

        return await super().run(cut, **more)


@pytest.fixture
async def impatient(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A stage whose server ends a statement after 0.3 s, and whose records take 0.8 s."""
    monkeypatch.setitem(session_module.SINK, "statement_timeout", "300")
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT", 0.3)
    monkeypatch.setattr(database_module, "ABANDON_AFTER", 0.2)
    await stage.sink.positions({0}, {0: 0})
    await stage.look.execute("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.8); RETURN NEW; END';
        CREATE TRIGGER slow AFTER INSERT ON records FOR EACH ROW EXECUTE FUNCTION slow()""")
    database = Database(stage.dsn, "firehose", 1)
    yield replace(stage, database=database, sink=PostgresSink(database, topic="t", group="g"))
    await database.close()


async def test_what_takes_longer_than_a_statement_may_gets_more_time(impatient: Stage) -> None:
    async with asyncio.timeout(PATIENCE):
        assert (await impatient.write(model.commit(DID, "a", 1, 1))).applied == 1
    assert await impatient.keys() == {"a": "bafy1"}
    # The same session, afterwards, has the limit that it had.
    assert await impatient.database.run(lambda c: c.fetchval("SHOW statement_timeout")) == "300ms"
    assert await impatient.database.run(lambda c: c.fetchval("SHOW client_connection_check_interval")) == "0"


async def test_what_gets_more_time_is_fenced_and_given_up_as_before(impatient: Stage) -> None:
    records = [model.message(0, model.commit(DID, "a", 1, 1))]
    busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ 'apply_joined' AND pid <> $1"
    me = await impatient.look.fetchval("SELECT pg_backend_pid()")
    await impatient.look.execute(
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN PERFORM pg_sleep(3600); RETURN NEW; END'"
    )
    begin = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Revoked):
            await impatient.sink.write(0, 0, 1, records, lambda: time.monotonic() < begin + 1)
        while await impatient.look.fetchval(busy, me):  # noqa: ASYNC110 (the server notices within a second)
            await asyncio.sleep(0.1)
    assert await impatient.sink.positions({0}, {}) == {0: 0}

    writing = asyncio.create_task(impatient.sink.write(0, 0, 1, records))
    await asyncio.sleep(0.5)  # it was ended once
    await impatient.look.execute("DROP TRIGGER slow ON records")
    other = Database(impatient.dsn, "firehose", 1)
    await PostgresSink(other, topic="t", group="g").write(0, 0, 2, [])
    await other.close()
    with pytest.raises(Fenced):
        await writing


async def test_cut_sessions_are_retried_and_a_revoked_slice_is_given_up(stage: Stage) -> None:
    await stage.write(model.commit(DID, "a", 1, 1))
    await stage.look.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'atproto-streams%'"
        " AND datname = current_database()"
    )
    assert (await stage.write(model.commit(DID, "b", 1, 1))).applied == 1
    cut = Cutting(stage.dsn, "firehose", 1)
    cut.cuts = 1000
    begin = time.monotonic()
    with pytest.raises(Revoked):
        await PostgresSink(cut, topic="t", group="g").write(
            0, 2, 3, [model.message(2, model.commit(DID, "c", 1, 1))], lambda: time.monotonic() < begin + 0.5
        )
    assert cut.cuts > 0, "it was given up, and not tried to the end"
    await cut.close()


async def test_poison_becomes_dead_letters_and_the_rest_commits(stage: Stage) -> None:
    """A lone surrogate is no JSON to us; a number too big is JSON to us, but not to jsonb; the deep one is to both."""
    bad = [model.commit(DID, f"bad{i}", 1, 1) for i in range(3)]
    bad[0]["commit"]["record"] = {"t": "\ud800"}
    bad[1]["commit"]["record"] = {"n": 7}
    value = json.dumps(bad[1]).encode().replace(b": 7", b": 1e999999999")
    deep = json.dumps(bad[2]).encode().replace(b'"value": 1', b'"value": ' + b"[" * 900 + b"]" * 900)
    good = [model.commit(DID, f"good{i}", 1, 1) for i in range(2)]
    messages = [model.message(0, good[0]), model.message(1, bad[0]), model.Message(2, DID.encode(), value)]
    messages += [model.Message(3, DID.encode(), deep), model.message(4, good[1])]
    await stage.sink.positions({0}, {0: 0})
    written = await stage.sink.write(0, 0, 5, messages)
    assert (written.received, written.applied, written.skipped, written.dead) == (5, 3, 0, 2)
    dead = await stage.rows("dead_letters", '"offset", did, rkey, seq, reason, payload')
    assert [row[:4] for row in dead] == [(1, DID, None, 1001), (2, DID, "bad1", 1001)]
    assert dead[0][4].startswith("not an event of ours: ")
    assert dead[1][4].startswith("Postgres refuses the record: ")
    assert [row[5] for row in dead] == [messages[1].value, messages[2].value]
    assert len(await stage.keys()) == 3


async def test_a_thousand_poison_rows_cost_about_one_call(stage: Stage) -> None:
    messages = [model.message(i, model.commit(DID, f"r{i}", 1, 77)) for i in range(2000)]
    messages = [model.Message(m.offset, m.key, m.value.replace(b": 77", b": 1e999999")) for m in messages]
    messages[1000:] = [model.Message(m.offset, m.key, n.value) for m, n in zip(messages[1000:], messages, strict=False)]
    await stage.sink.positions({0}, {0: 0})
    begin = time.monotonic()
    written = await stage.sink.write(0, 0, 1000, messages[:1000])
    took = time.monotonic() - begin
    print(f"1000 poison rows: {took:.2f} s")
    assert took < 5 or took < 5 * await asyncio.to_thread(slowness)
    assert (written.applied, written.dead) == (0, 1000)
    # Sent again they are the same dead letters.
    again = await stage.sink.write(0, 1000, 2000, messages[1000:])
    assert (again.dead, again.skipped, again.total_dead) == (0, 1000, 1000)


async def test_what_is_sent_again_is_skipped(stage: Stage) -> None:
    events = [model.commit(DID, "a", 1, 1), model.commit(DID, "b", 1, None), model.account(DID, 1, 7, None)]
    assert (await stage.write(*events)).applied == 3
    again = await stage.write(*events, model.commit(DID, "a", 0, 5))
    assert (again.received, again.applied, again.skipped) == (4, 0, 4)


async def test_on_a_tie_the_later_message_wins_if_it_differs(stage: Stage) -> None:
    """One commit may write a key twice; its operations may be of two slices."""
    for value, applied in ((1, 1), (2, 1), (2, 0), (None, 1), (None, 0), (3, 1)):
        written = await stage.write(model.commit(DID, "a", 1, value))
        assert (written.applied, written.skipped) == (applied, 1 - applied), value
        assert await stage.keys() == {"a": None if value is None else f"bafy{value}"}


async def test_a_deletion_takes_what_a_sync_before_it_named(stage: Stage) -> None:
    await stage.write(model.commit(DID, "a", 1, 1), model.sync(DID, 2, 50, 9))
    await stage.write(
        model.account(DID, 5, 60, "deleted"), model.commit(DID, "a", 8, 8), model.commit(DID, "a", 10, 10)
    )
    assert await stage.rows("actors", "purged_rev, stale_rev") == [(model.rev(9), None)]
    assert await stage.keys() == {"a": "bafy10"}


async def test_records_before_a_deletion_go_and_those_after_it_stay(stage: Stage) -> None:
    ahead = model.commit(DID, "ahead", 9, 9)  # its repository's clock is ahead of the relay's
    log = [
        model.commit(DID, "before", 1, 1), ahead, model.account(DID, 5, 2001, "deleted"),
        model.commit(DID, "late", 4, 4), model.commit(DID, "still", 9, 9), model.commit(DID, "after", 10, 10),
        model.account(DID, 10, 2002, None), model.commit(model.DIDS[1], "other", 1, 1),
    ]  # fmt: skip
    written = await stage.write(*log)
    assert (written.received, written.applied) == (8, 6)
    assert await stage.keys() == {"after": "bafy10", "other": "bafy1"}
    [actor] = await stage.rows("actors", "did, active, status, purged_rev")
    assert actor == (DID, True, None, model.rev(9))
    for event in log:
        await stage.write(event)
    assert await stage.keys() == {"after": "bafy10", "other": "bafy1"}


async def test_a_deletion_erases_dead_letters_too(stage: Stage) -> None:
    bad = [model.commit(DID, f"b{i}", second, 1) for i, second in enumerate((1, 2, 8))]
    for event in bad:
        event["commit"]["rev"] = "none"
    unknown = encode_control(DeadLetter(relay="r", run=1, seq=9, did=DID, reason="x", payload=dead_payload(b"x")))
    await stage.write(bad[0], unknown)
    await stage.write(bad[1], model.account(DID, 5, 2001, "deleted"), bad[2])
    assert await stage.rows("dead_letters", "rkey", "1") == [("b2",)]
    written = await stage.write(bad[0], bad[1], unknown)
    assert (written.dead, written.skipped) == (0, 3)


async def test_handles_and_states_follow_the_last_event_not_the_last_message(stage: Stage) -> None:
    await stage.write(model.identity(DID, 5, 10, "new.test"), model.account(DID, 5, 11, "takendown"))
    written = await stage.write(
        model.identity(DID, 4, 8, "old.test"), model.account(DID, 5, 9, None), model.identity(DID, 9, 12, None)
    )
    assert (written.applied, written.skipped) == (0, 3)
    assert await stage.rows("actors", "did, handle, active, status, hidden") == [
        (DID, "new.test", False, "takendown", True)
    ]


async def test_tombstones_and_hidden_accounts_are_not_visible(stage: Stage) -> None:
    await stage.write(model.commit(DID, "never seen", 1, None) | {"did": DID}, model.commit(DID, "gone", 1, None))
    assert await stage.keys() == {"gone": None}
    await stage.write(model.commit(DID, "gone", 0, 1), model.commit(DID, "there", 2, 2))
    visible = ("visible_records", "rkey", "1")
    assert await stage.rows(*visible) == [("there",)]
    for second, status in enumerate(("takendown", "suspended", "deactivated", "anything"), 3):
        await stage.write(model.account(DID, second, 5, status))
        assert await stage.rows(*visible) == [], status
    for second, status in enumerate(("desynchronized", "throttled", None), 8):
        await stage.write(model.account(DID, second, 5, status))
        assert await stage.rows(*visible) == [("there",)], status


async def test_a_sync_marks_what_is_older_than_it(stage: Stage) -> None:
    others = model.DIDS[1:]
    await stage.write(
        model.commit(DID, "a", 1, 1), model.sync(DID, 1, 50, 1), model.sync(others[0], 1, 51, 5),
        model.commit(others[1], "a", 1, 1), model.sync(others[1], 2, 52, 2),
    )  # fmt: skip
    stale = {row[0]: row[1] for row in await stage.rows("actors", "did, stale_rev")}
    assert stale == {DID: None, others[0]: None, others[1]: model.rev(2)}


async def test_nul_and_long_keys(stage: Stage) -> None:
    long = model.commit("did:web:" + "".join(chr(97 + i * i % 26) for i in range(1990)), "r" * 512, 1, 1)
    nul = model.commit(DID, "nul", 1, 1)
    nul["commit"]["record"] = {"text": "a\0b\\u0000"}
    written = await stage.write(long, nul, model.commit("did:plc:x", "k", 1, 1))
    assert (written.applied, written.dead, written.replaced) == (3, 0, 1)
    [(text,)] = await stage.rows("records WHERE rkey = 'nul'", "record ->> 'text'", "1")
    assert text == "a\ufffdb\\u0000"


async def test_the_longest_keys_that_are_taken_fit_the_index(stage: Stage) -> None:
    """Text that does not compress, as long as the rules allow."""
    digits = "".join(tid_from_us((i * 2654435761 + i**5) % (1 << 53), i % 1024) for i in range(200))
    collection = "com.example." + ".".join("a" + digits[i : i + 59] for i in range(0, 240, 60))
    did = "did:web:" + digits[-(2660 - 8 - len(collection) - 512) :]
    written = await stage.write(model.commit(did, digits[:512], 1, 1, collection))
    assert (written.applied, written.dead) == (1, 0)


async def test_control_messages_become_rows_and_old_watermarks_do_not_count(stage: Stage) -> None:
    at = model.BEGIN
    common: dict[str, Any] = {"relay": "ws://r", "run": 5}
    run = Run(**common, topic_id="id", mode="start", days=-1, asked_from=None, oldest_seq=1, oldest_time=at, from_seq=0,
              head_seq=9, head_time=at)  # fmt: skip
    gap = Gap(**common, from_seq=3, to_seq=None, from_time=at, to_time=None, reason="reset")
    dead = DeadLetter(**common, seq=4, did=None, reason="no CBOR", payload=dead_payload(b"\0\xff"))
    mark = Watermark(**common, topic_id="id", seq=4, time=at)
    written = await stage.write(*map(encode_control, (run, gap, dead, mark)), model.commit(DID, "a", 1, 1))
    assert (written.received, written.applied, written.dead) == (2, 1, 1)
    assert written.watermark is not None
    assert (written.watermark.run, written.watermark.seq) == (5, 4)
    old = Watermark(relay="ws://r", run=4, topic_id="id", seq=100, time=at)
    await stage.write(encode_control(old), encode_control(run))
    assert await stage.rows("sink_offsets", "topic_id, watermark_run, watermark_seq, next_offset") == [("id", 5, 4, 7)]
    assert await stage.rows("runs", "run, mode, days, head_seq") == [(5, "start", -1, 9)]
    assert await stage.rows("gaps", '"offset", relay, from_seq, to_seq, reason') == [(1, "ws://r", 3, None, "reset")]
    assert await stage.rows("dead_letters", '"offset", seq, payload') == [(2, 4, b"\0\xff")]


async def test_a_re_created_topic_stops_us(stage: Stage) -> None:
    for topic_id in ("one", "two"):
        mark = encode_control(Watermark(relay="r", run=1, topic_id=topic_id, seq=4, time=None))
        if topic_id == "one":
            await stage.write(mark)
        else:
            with pytest.raises(MismatchError, match="re-created"):
                await stage.write(mark)
    assert await stage.sink.positions({0}, {}) == {0: 1}


async def test_a_jump_over_what_the_log_no_longer_holds_is_a_gap(stage: Stage) -> None:
    await stage.sink.positions({0}, {0: 10})
    await stage.sink.jump(0, 10, 500)
    with pytest.raises(Fenced):
        await stage.sink.jump(0, 10, 600)
    assert await stage.sink.positions({0}, {0: 3}) == {0: 500}
    assert await stage.rows("gaps", '"offset", to_offset, kind') == [(10, 500, "expired")]


async def test_unwanted_collections_are_skipped(stage: Stage) -> None:
    sink = PostgresSink(stage.database, topic="t", group="narrow", keep=lambda c: c.startswith("com."))
    await sink.positions({0}, {0: 0})
    events = [model.commit(DID, "a", 1, 1, c) for c in model.COLLECTIONS]
    written = await sink.write(0, 0, 2, [model.message(i, e) for i, e in enumerate(events)])
    assert (written.received, written.applied, written.skipped) == (2, 1, 1)
    assert dict(written.by_collection) == {"com.example.thing": 1}


async def test_an_empty_slice_moves_the_position(stage: Stage) -> None:
    """A compacted or transactional log has holes."""
    await stage.sink.positions({0}, {0: 0})
    written = await stage.sink.write(0, 0, 5, [])
    assert (written.received, await stage.sink.positions({0}, {})) == (0, {0: 5})
    assert (await stage.sink.totals({0}))[0].total_received == 0


async def test_hostile_dead_letters_and_control_messages_commit(stage: Stage) -> None:
    """What stands in them is anybody's: nothing of it may make the slice fail."""
    wide = "\N{GRINNING FACE}" * 3000
    hostile: dict[str, Any] = {"relay": wide, "run": 1 << 57}
    dead = [DeadLetter(**hostile, seq=4, did=wide, reason="\0" + wide, payload=p) for p in ("", "=", "ab=c", wide)]
    gap = Gap(**hostile, from_seq=3, to_seq=-1, from_time=-1, to_time=1 << 57, reason=wide)
    run = Run(**hostile, topic_id=wide, mode="start", days=1 << 57, asked_from=-1, oldest_seq=1, oldest_time=0,
              from_seq=0, head_seq=9, head_time=0)  # fmt: skip
    event = model.commit(wide, wide, 1, 1)
    written = await stage.write(*map(encode_control, (*dead, gap, run)), event, model.commit(DID, "a", 1, 1))
    assert (written.received, written.applied, written.skipped, written.dead) == (6, 1, 0, 5)
    assert (await stage.rows("gaps", "count(*)"), await stage.rows("runs", "count(*)")) == ([(1,)], [(1,)])
