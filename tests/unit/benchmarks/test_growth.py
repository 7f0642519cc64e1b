"""The rows of the growing table, and the table of their costs."""

from __future__ import annotations

from collections import Counter
from random import Random

from benchmarks.growth_rows import FIRST_MEASURED, MIX, collection_of, did_of, fill_statement, messages
from benchmarks.growth_table import AFTER, BETWEEN, Cost, sizes_up_to, table
from streams.postgres.batch import BatchBuilder
from streams.protocol.syntax import is_did, is_nsid


def test_every_measured_row_is_a_new_row() -> None:
    made = messages(Random(1), 10, 4000)
    batch = BatchBuilder().build(made, FIRST_MEASURED + 10**9)
    assert batch.received == len(batch.stages[0].rows) == 4000
    assert batch.extras() is None, "one stage, and nothing but records"
    assert [message.offset for message in made] == list(range(10, 4010))
    assert len({message.key for message in made}) > 3900


def test_accounts_and_collections_are_valid() -> None:
    assert all(is_did(did_of(account)) for account in range(100))
    assert set(did_of(7).removeprefix("did:plc:")) <= set("abcdefghijklmnopqrstuvwxyz234567")
    counts = Counter(map(collection_of, range(100)))
    assert sum(counts.values()) == 100
    assert all(is_nsid(name) for _, name in MIX)
    assert counts["app.bsky.feed.like"] == 60


def test_the_statement_fills_from_to() -> None:
    assert "generate_series(500, 999)" in fill_statement(500, 1000)


def test_the_last_size_is_the_one_asked_for() -> None:
    assert sizes_up_to(30_000_000) == [100_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000]
    assert sizes_up_to(300_000) == [100_000, 300_000]
    assert sizes_up_to(50_000) == [50_000]


def test_multiples_are_those_of_the_smallest_table_between_checkpoints() -> None:
    costs = {
        100_000: {AFTER: Cost(20.0, 900.0, 90.0, 0.0), BETWEEN: Cost(10.0, 650.0, 0.0, 0.0)},
        300_000: {AFTER: Cost(35.0, 1500.0, 320.0, 7.0), BETWEEN: Cost(12.0, 660.0, 0.0, 3.0)},
    }
    lines = table(costs).splitlines()
    assert len(lines) == 6
    assert lines[2] == "| 100,000 | between checkpoints | 10.0 | 1.00 | 650 | 0 | 0 |"
    assert lines[5] == "| 300,000 | directly after a checkpoint | 35.0 | 3.50 | 1,500 | 320 | 7 |"
