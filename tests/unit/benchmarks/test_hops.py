"""The hop of a sampled stack, and the table "Where the CPU goes"."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from benchmarks import hops
from benchmarks.hops import START, Snapshot, hop_of, is_waiting, shares
from benchmarks.markdown import LINES, hop_table, ratio_table
from benchmarks.stack_sampler import StackSampler, read_snapshots
from streams.runtime.loop_guard import LoopGuard
from tests.mutants.catalogue import PROJECT

STREAMS = PROJECT / "streams"


@pytest.mark.parametrize(
    ("process", "stack", "hop"),
    [
        ("ingest", [("/x/streams/protocol/frames.py", "search_block"), ("/x/streams/protocol/events.py", "_commit")],
         hops.RECORDS),
        ("ingest", [("/x/streams/protocol/frames.py", "split_frame"), ("/x/sources/firehose/intake.py", "take")],
         hops.OBJECTS),
        ("ingest", [("/x/streams/sources/firehose/frame_cutter.py", "_usual"), ("/x/asyncio/events.py", "_run")],
         hops.FRAMES),
        ("ingest", [("/x/streams/kafka/publisher.py", "add")], hops.APPEND),
        ("ingest", [("/x/aiokafka/producer/sender.py", "_sender_routine")], hops.SEND),
        ("ingest", [("/x/asyncio/base_events.py", "_run_once")], hops.REST),
        ("worker", [("/x/streams/postgres/batch.py", "_fill"), ("/x/streams/sink_postgres.py", "write")], hops.MERGE),
        ("worker", [("/x/asyncpg/connection.py", "_execute"), ("/x/streams/postgres/apply.py", "apply_batch")],
         hops.APPLY),
        ("worker", [("/x/json/encoder.py", "encode"), ("/x/streams/worker/fetching.py", "drain")], hops.FETCH),
        ("worker", [("/x/streams/postgres/batch.py", "<module>"), ("<frozen importlib._bootstrap>", "_load")], START),
    ],
)  # fmt: skip
def test_a_stack_belongs_to_the_innermost_function_that_is_named(
    process: str, stack: list[hops.Function], hop: str
) -> None:
    assert hop_of(process, stack) == hop


def test_places_that_are_named_exist() -> None:
    files = [path.as_posix() for path in STREAMS.rglob("*.py")]
    for places in hops._PLACES.values():
        for part, function, _ in places:
            if part.startswith(("/aiokafka/", "/asyncpg/", "/websockets/", "/asyncio/")):
                continue
            found = [file for file in files if part in file]
            assert found, part
            if function is not None:
                names = [node.name for file in found for node in ast.walk(ast.parse(Path(file).read_text()))
                         if isinstance(node, ast.FunctionDef)]  # fmt: skip
                assert function in names, (part, function)


def test_a_thread_that_waits_does_not_run() -> None:
    assert is_waiting(("/usr/lib/python3.11/selectors.py", "select"))
    assert is_waiting(((STREAMS / "runtime" / "loop_guard.py").as_posix(), LoopGuard._watch.__name__))
    assert not is_waiting(("/x/streams/postgres/batch.py", "build"))


def test_shares_are_of_the_time_between_and_without_imports() -> None:
    first = Snapshot(10.0, {START: 100.0, hops.REST: 50.0, hops.FETCH: 5.0})
    last = Snapshot(20.0, {START: 120.0, hops.REST: 50.0, hops.MERGE: 30.0, hops.FETCH: 15.0})
    later = Snapshot(30.0, {hops.REST: 500.0})
    found = shares([first, last, later], 11.0, 21.0)
    assert found == {hops.REST: 0.0, hops.MERGE: 0.75, hops.FETCH: 0.25}
    assert shares([Snapshot(1.0, {START: 5.0})], 0.0, 2.0) == {}
    assert shares([], 0.0, 2.0) == {}


def test_a_sampler_counts_who_runs(tmp_path: Path) -> None:
    file = tmp_path / "worker.jsonl"
    sampler = StackSampler("worker", file)
    for _ in range(40):
        sampler.sample(0, sys._getframe())
    first, second = read_snapshots(file)
    assert first.at <= second.at
    assert (sum(first.counts.values()), sum(second.counts.values())) == pytest.approx((20, 40))


def result() -> dict[str, object]:
    def value(median: float) -> dict[str, float]:
        return {"median": median, "least": median - 1, "most": median + 1}

    whole = {"cpu.ingest": value(14), "cpu.kafka": value(5), "cpu.all": value(40), "postgres.backend": value(10),
             "postgres.autovacuum": value(0.5), "postgres.checkpointer": value(0.25),
             f"hop.ingest.{hops.FRAMES}": value(2)}  # fmt: skip
    floor = {"floor.receive": value(1.5), "floor.objects": value(1.7), "floor.copy backend": value(8)}
    return {"summary": {"end to end": whole, "floor": floor}, "ratios": {"speed against it": value(2)}}


def test_the_table_is_made_of_the_medians() -> None:
    lines = hop_table(result()).splitlines()
    assert lines[2] == f"| ingest: {hops.FRAMES} | 2.0 | 2 | 1.5 |"
    assert "| **ingest** | **14.0** | **≤ 14** | **3.2** |" in lines
    assert "| Postgres: autovacuum, WAL writer, checkpoints | 0.8 | ≤ 1 | – |" in lines
    assert lines[-1] == "| **all but the relay** | **40.0** | **≤ 41** | **11.2** |"
    assert len(lines) == len(LINES) + 2
    assert ratio_table(result()).splitlines()[-1] == "| speed against it | 2.00 | 1.00 | 3.00 |"


def test_the_document_has_the_table_with_all_its_lines() -> None:
    text = (PROJECT / "docs" / "performance.md").read_text()
    for line in LINES:
        title = f"**{line.title}**" if line.is_total else line.title
        assert f"\n| {title} | " in text, line.title
