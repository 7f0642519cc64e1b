"""Rows on their way to Postgres: joined texts, a plain INSERT where they are expected to be new, and replays."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streams.postgres.database import Database
from streams.sink_postgres import PostgresSink
from tests.integration.test_sink import Stage, stage  # noqa: F401 (a fixture)
from tests.support import merge_model as model
from tests.support.patience import PATIENCE

DID = model.DIDS[0]
NEW = model.NEW_RKEY
#: What a write leaves in a row, though it changes nothing that is read: where it stands, who wrote and who locked it.
TRACES = "did, collection, rkey, ctid::text, xmin::text, xmax::text"


def fresh(number: int, value: int | None = 1, second: int = 1) -> dict[str, Any]:
    """Return the creation of a record that is expected to be new."""
    return model.commit(DID, f"{NEW[:9]}{number:04}".translate(str.maketrans("0189", "abcd")), second, value)


async def dead_rows(stage: Stage) -> int:  # noqa: F811
    """Return the dead rows of all tables of records, once the server has counted them."""
    await stage.database.run(lambda c: c.execute("SELECT pg_stat_force_next_flush()"))
    return int(
        await stage.look.fetchval(
            "SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE schemaname = 'firehose' AND relname ~ '^records_'"
        )
    )


class Counting(Database):
    """Counts the calls."""

    calls = 0

    async def run(self, function: Any, **more: Any) -> Any:
        self.calls += 1
        return await super().run(function, **more)


@pytest.mark.parametrize("rkey", [NEW, "x"])
@pytest.mark.parametrize("empty", ["nothing", "seq", "record", "all"])
async def test_a_row_alone_keeps_its_empty_columns(stage: Stage, rkey: str, empty: str) -> None:  # noqa: F811
    event = model.commit(DID, rkey, 1, None if empty in ("record", "all") else 1)
    if empty in ("seq", "all"):
        del event["seq"]
    assert (await stage.write(event)).applied == 1
    [row] = await stage.rows("records", "did, rkey, rev, cid, record, seq")
    commit = event["commit"]
    record = json.dumps(commit["record"]) if "record" in commit else None
    assert row == (DID, rkey, commit["rev"], commit.get("cid"), record, event.get("seq"))


async def test_a_separator_in_a_record_costs_that_record(stage: Stage) -> None:  # noqa: F811
    """JSON with a raw control character, of a foreign producer: its parts do not shift the others' columns."""
    messages = [model.message(i, fresh(i, i)) for i in range(5)]
    value = messages[2].value
    assert value is not None
    messages[2] = model.Message(2, messages[2].key, value.replace(b'"value": 2', b'"value": "\x1f"'))
    messages[3] = model.message(3, model.commit(DID, "x\x1fy", 1, 1))
    await stage.sink.positions({0}, {0: 0})
    written = await stage.sink.write(0, 0, 5, messages)
    assert (written.applied, written.dead) == (3, 2)
    values = await stage.rows("records", "(record ->> 'value')::int, cid", "1")
    assert values == [(0, "bafy0"), (1, "bafy1"), (4, "bafy4")]


async def test_where_one_row_is_known_all_are_merged(stage: Stage) -> None:  # noqa: F811
    await stage.write(fresh(1, 1), fresh(3, 3, second=5))
    log = [fresh(0, 10, 2), fresh(1, 11, 2), fresh(2, 12, 2), fresh(3, 13, 2), model.commit(DID, "old", 2, 2)]
    database = Counting(stage.dsn, "firehose", 1)
    messages = [model.message(2 + i, event) for i, event in enumerate(log)]
    written = await PostgresSink(database, topic="t", group="g").write(0, 2, 7, messages)
    assert database.calls == 1, "it went as one call, not as a batch that is searched for bad rows"
    await database.close()
    assert (written.received, written.applied, written.skipped) == (5, 4, 1)
    assert sorted((await stage.keys()).values()) == ["bafy10", "bafy11", "bafy12", "bafy2", "bafy3"]
    # For a while nothing is expected to be new, and then it is again: the rows are the same.
    for second in range(3, 30):
        await stage.write(fresh(second + 100, second), fresh(0, 100 + second, second))
    assert len(await stage.keys()) == 5 + 27


async def test_what_went_with_its_account_stays_away(stage: Stage) -> None:  # noqa: F811
    await stage.write(model.account(DID, 5, 7, "deleted"))
    written = await stage.write(fresh(1, 1, second=4), fresh(2, 2, second=6))
    assert (written.applied, written.skipped) == (1, 1)
    assert list((await stage.keys()).values()) == ["bafy2"]


async def test_a_replay_writes_nothing_but_its_first_batch_in_vain(stage: Stage) -> None:  # noqa: F811
    log = [[fresh(100 * part + i, i, second=part) for i in range(100)] for part in range(12)]
    for number, part in enumerate(log):
        part.append(model.commit(DID, "x", number, number))  # twelve versions of one record
    for part in log:
        await stage.write(*part)
    rows, before = await stage.rows("records", TRACES, "1, 2, 3"), await dead_rows(stage)
    replay = PostgresSink(stage.database, topic="t", group="again")
    await replay.positions({0}, {0: 0})
    for number, part in enumerate(log):
        base = number * 101
        messages = [model.message(base + i, event) for i, event in enumerate(part)]
        written = await replay.write(0, base, base + 101, messages)
        assert (written.applied, written.skipped) == (0, 101)
    assert await stage.rows("records", TRACES, "1, 2, 3") == rows
    # The first batch ended at its first row; after it none is expected to be new.
    assert await dead_rows(stage) - before <= 1


@pytest.mark.parametrize("rkey", [NEW, "x"])
@pytest.mark.parametrize(
    ("held", "coming", "winner"),
    [
        ((5, "a"), (4, "b"), "a"),
        ((5, "a"), (5, "a"), "a"),
        ((5, "a"), (5, "b"), "b"),
        ((5, "a"), (6, "b"), "b"),
        ((5, "a"), (5, None), None),
        ((5, None), (5, None), None),
    ],
)
async def test_another_writer_that_commits_meanwhile_is_not_overruled(
    stage: Stage, rkey: str, held: tuple[int, str | None], coming: tuple[int, str | None], winner: str | None  # noqa: F811
) -> None:  # fmt: skip
    """Two groups of one schema: the row that they both write is not there yet when ours looks for it."""
    await stage.sink.positions({0}, {0: 0})
    event = model.commit(DID, rkey, coming[0], None if coming[1] is None else 1)
    if coming[1] is not None:
        event["commit"]["cid"] = coming[1]
    async with stage.look.transaction():
        await stage.look.execute(
            "INSERT INTO records (did, collection, rkey, rev, cid, record, seq, time) "
            "VALUES ($1, $2, $3, $4, $5, '{}', 1, now())",
            DID, model.COLLECTIONS[0], rkey, model.rev(held[0]), held[1],
        )  # fmt: skip
        write = asyncio.create_task(stage.write(event))
        async with asyncio.timeout(PATIENCE):
            while not await stage.look.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    written = await write
    assert written.applied == (held != coming and coming[0] >= held[0])
    assert await stage.rows("records", "cid") == [(winner,)]
