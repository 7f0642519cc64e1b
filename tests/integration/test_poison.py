"""Rows that Postgres alone refuses: each costs itself, and finding it costs a few statements, wherever it stands."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from random import Random
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.test_sink import Stage, stage  # noqa: F401 (a fixture)
from tests.support import merge_model as model

ROWS = 4000
DID = model.DIDS[0]
#: Every attempt to merge is one more of a sequence, which no rollback sets back.
COUNTED = """
CREATE SEQUENCE attempts;
CREATE FUNCTION attempt() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('attempts'); RETURN NULL; END$$;
CREATE TRIGGER attempt BEFORE INSERT ON records FOR EACH STATEMENT EXECUTE FUNCTION attempt();
ALTER TABLE records ADD CONSTRAINT poison CHECK (rkey !~ 'bad$')
"""
IMPATIENT = """
CREATE FUNCTION impatient() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM set_config('lock_timeout', '100ms', true); RETURN NULL; END $$;
CREATE TRIGGER impatient BEFORE INSERT ON records FOR EACH STATEMENT EXECUTE FUNCTION impatient()
"""


@pytest.fixture
async def counted(stage: Stage) -> AsyncIterator[Stage]:  # noqa: F811 (a fixture)
    await stage.look.execute(COUNTED)
    await stage.look.execute("SELECT nextval('attempts')")
    yield stage


async def attempts(stage: Stage) -> int:  # noqa: F811 (a fixture)
    """How many there were since the last time."""
    used = int(await stage.look.fetchval("SELECT last_value - 1 FROM attempts"))
    await stage.look.execute("SELECT setval('attempts', 1)")
    return used


def rows(bad: Iterable[int], count: int = ROWS) -> list[dict[str, Any]]:
    """One record each, some of them poison."""
    poison = set(bad)
    return [model.commit(DID, f"{n:05}{'bad' if n in poison else ''}", 1, n) for n in range(count)]


PLACES = {
    "none": [],
    "one": [1234],
    "the first and the last": [0, ROWS - 1],
    "a thousand anywhere": Random(7).sample(range(ROWS), 1000),
    "a thousand in a run": list(range(1500, 2500)),
    "every one": list(range(ROWS)),
}


async def test_each_poison_row_costs_itself_and_a_few_statements(counted: Stage) -> None:
    for place, bad in PLACES.items():
        await counted.look.execute("TRUNCATE records, dead_letters, sink_offsets")
        written = await counted.write(*rows(bad))
        assert (written.received, written.applied, written.dead) == (ROWS, ROWS - len(bad), len(bad)), place
        assert sorted(await counted.keys()) == [f"{n:05}" for n in sorted({*range(ROWS)} - {*bad})], place
        letters = await counted.rows("dead_letters", '"offset", rkey, reason', '"offset"')
        assert [letter[:2] for letter in letters] == [(n, f"{n:05}bad") for n in sorted(bad)], place
        assert all('violates check constraint "poison"' in letter[2] for letter in letters), place
        # What the migration's comment says, and the first attempt of the whole slice.
        k = len(bad)
        most = min(2 * ROWS, 2 * k * (math.ceil(math.log2(ROWS / k)) + 2) + 1) + 1 if k else 1
        assert 0 < await attempts(counted) <= most, place


@given(log=model.logs(), bad=st.sets(st.integers(0, 40)))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_it_is_as_if_the_poison_had_never_been_there(stage: Stage, log: Any, bad: set[int]) -> None:  # noqa: F811
    """Deletions, states and records in one slice, some of them refused: the others end as without those."""
    events, _, _ = log
    await stage.look.execute("ALTER TABLE records DROP CONSTRAINT IF EXISTS poison")
    await stage.look.execute("ALTER TABLE records ADD CONSTRAINT poison CHECK (rkey <> 'bad')")
    await stage.look.execute("TRUNCATE records, actors, dead_letters, sink_offsets")
    naive = model.Model()
    mixed: list[dict[str, Any]] = []
    for number, event in enumerate(events):
        if number in bad:
            mixed.append(model.commit(model.DIDS[number % 3], "bad", 100 + number, number))
        naive.apply(event)
        mixed.append(event)
    written = await stage.write(*mixed)
    assert written.received == len(mixed) == written.applied + written.skipped + written.dead
    assert await stage.state() == naive


async def test_what_is_not_a_rows_fault_is_no_dead_letter(counted: Stage) -> None:
    """A lock that is not given in time, in the middle of a search for poison."""
    holder: Any = await asyncpg.connect(counted.dsn, server_settings={"search_path": "firehose"})
    await counted.write(model.commit(DID, "00002", 1, 0))
    await counted.look.execute(IMPATIENT)
    held = holder.transaction()
    await held.start()
    await holder.execute("UPDATE records SET seq = 0")
    messages = [model.message(1 + n, event) for n, event in enumerate(rows([1, 3], 8))]
    writing = asyncio.create_task(counted.sink.write(0, 1, 9, messages))
    await asyncio.sleep(1.5)
    assert not writing.done()
    assert await attempts(counted) > 10  # it was refused, and tried again, more than once
    assert await counted.rows("dead_letters") == []
    await held.rollback()
    written = await writing
    await holder.close()
    assert (written.applied, written.dead) == (6, 2)
