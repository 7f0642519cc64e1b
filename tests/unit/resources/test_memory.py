"""What the limit allows, what is counted, and what RSS demands; with a clock of the test's own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import SettingsError
from streams.resources import memory_budgets, memory_watch
from streams.resources.in_flight import Gate, InFlightBudget
from streams.resources.machine import Machine
from streams.resources.memory_budgets import (
    FETCH_FACTOR,
    INGEST_AT_REST,
    LARGEST_FRAME,
    LARGEST_MESSAGE,
    MB,
    SMALLEST_IN_FLIGHT,
    STAGED_FACTOR,
    WORKER_AT_REST,
    LimitError,
    MemoryLimit,
    check_limit,
    ingest_budgets,
    worker_budgets,
)
from streams.resources.memory_watch import MemoryJudge, MemoryWatch
from streams.settings import Settings
from streams.worker.throttle import Throttle
from tests.support.patience import PATIENCE


@given(st.integers(240, 64 * 1024))
def test_all_budgets_full_are_within_the_limit(megabytes: int) -> None:
    """Each at its most, with what a byte of it costs, and one largest message over each."""
    limit = megabytes * MB
    worker = worker_budgets(limit)
    assert WORKER_AT_REST + worker.fetched * FETCH_FACTOR + worker.slices + worker.staged * STAGED_FACTOR <= limit
    assert worker.batch <= worker.staged
    ingest = ingest_budgets(limit)
    assert INGEST_AT_REST + 3 * ingest.unacknowledged + 2 * ingest.frame + 300 * ingest.dids <= limit


def test_the_default_limit_leaves_what_speed_needs() -> None:
    """4,000 records of half a kilobyte, twice over, and a fetch of 512 KB for each of 8 partitions."""
    budgets = worker_budgets(512 * MB)
    assert budgets.fetched >= 8 * 512 * 1024
    assert budgets.slices >= 16 * 1000 * (500 + memory_budgets.RECORD_OVERHEAD)
    assert budgets.staged >= 2 * budgets.batch == 2 * 8 * MB
    small = worker_budgets(256 * MB)
    assert small.fetched >= 8 * 512 * 1024
    assert small.staged >= 2 * 4000 * 500


def refusal(limit: MemoryLimit, rss: int, who: Literal["worker", "ingest"]) -> LimitError:
    with pytest.raises(LimitError) as refused:
        check_limit(limit, rss, who)
    assert refused.value.exit_code == SettingsError.exit_code
    return refused.value


def test_a_limit_that_is_too_small_is_refused_with_the_least_that_works() -> None:
    said = str(refusal(MemoryLimit(128 * MB), 90 * MB, "worker"))
    assert said.startswith("BACKFILL_MAX_MEMORY_MB: 128 MB are not enough for the worker")
    least = int(said.rpartition("Set it to ")[2].split()[0])
    assert least >= 90 + LARGEST_MESSAGE // MB * (1 + FETCH_FACTOR + STAGED_FACTOR)
    check_limit(MemoryLimit(least * MB), 90 * MB, "worker")
    refusal(MemoryLimit((least - 1) * MB), 90 * MB, "worker")
    assert "one largest frame of 5 MB" in str(refusal(MemoryLimit(80 * MB + 9 * LARGEST_FRAME), 80 * MB, "ingest"))


@given(st.integers(1, 900), st.sampled_from([1, 2]), st.sampled_from([90, 512]))
def test_a_container_that_is_too_small_is_what_the_refusal_names(container: int, processes: int, setting: int) -> None:
    """Where the container's limit holds, no value of the setting helps: the least container that works is said."""
    limit = MemoryLimit(setting * MB, container * MB, processes)
    try:
        check_limit(limit, 90 * MB, "worker")
        return
    except LimitError as error:
        refused = error
    if not limit.is_containers:
        assert refused.mend.startswith("Set it to ")
        return
    assert refused.what.startswith(f"The container has {container} MB, of which 90 % are ours")
    assert ("half of it for the worker" in refused.what) == (processes == 2)
    words = refused.mend.split()
    assert words[:3] == ["Give", "the", "container"]
    least, also = int(words[3]), int(words[words.index("to") + 1]) if "to" in words else setting
    assert (also > setting) == (setting == 90), "the setting is named where it is too small as well"
    check_limit(MemoryLimit(also * MB, least * MB, processes), 90 * MB, "worker")
    refusal(MemoryLimit(also * MB, (least - 1) * MB, processes), 90 * MB, "worker")


def test_what_is_held_counts_until_it_is_gone() -> None:
    budget = InFlightBudget({"slices": 100, "staged": 50})
    holds = [budget.count("slices", 40), budget.count("slices", 30)]
    assert (budget["slices"], budget.remaining("slices"), budget.in_flight, budget.total) == (70, 30, 70, 150)
    del holds[0]
    assert (budget["slices"], budget.remaining("slices"), budget.peak) == (30, 70, 70)
    holds.clear()
    budget.set("staged", 60)
    assert (budget.in_flight, budget.remaining("staged")) == (60, 0)


def test_while_memory_is_short_nothing_is_taken_and_then_little() -> None:
    budget = InFlightBudget({"slices": 100 * MB})
    budget.state = "pause"
    assert budget.remaining("slices") == 0
    budget.state = "small"
    assert budget.remaining("slices") == SMALLEST_IN_FLIGHT
    budget.add("slices", 2 * SMALLEST_IN_FLIGHT)
    assert budget.remaining("slices") == 0


async def test_the_gate_lets_in_what_fits_and_the_larger_alone_in_the_order_of_asking() -> None:
    budget = InFlightBudget({"staged": 10})
    gate, inside, order, most = Gate(budget), 0, [], 0

    async def pass_through(number: int, nbytes: int) -> None:
        nonlocal inside, most
        async with gate.entered(nbytes):
            order.append(number)
            inside += nbytes
            most = max(most, inside if inside != 25 else 0)
            assert inside <= 10 or inside == nbytes
            await asyncio.sleep(0.001)
            inside -= nbytes

    await asyncio.gather(*(pass_through(i, n) for i, n in enumerate([4, 6, 4, 25, 1, 1, 9, 5, 5])))
    assert order == list(range(9))
    assert most == 10
    assert budget["staged"] == 0


async def test_who_gives_up_at_the_gate_holds_up_nobody() -> None:
    budget = InFlightBudget({"staged": 10})
    gate = Gate(budget)

    async def hold(nbytes: int) -> None:
        async with gate.entered(nbytes):
            await asyncio.sleep(3600)

    first, second = asyncio.create_task(hold(8)), asyncio.create_task(hold(5))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    async with asyncio.timeout(PATIENCE), gate.entered(2):
        assert budget["staged"] == 10
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert budget["staged"] == 0


def test_the_watch_frees_tells_the_account_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now, rss, freed = 0.0, 90 * MB, 0
    budget = InFlightBudget({"slices": 10 * MB})
    watch = MemoryWatch(100 * MB, lambda: rss, budget, lambda: now)

    def release() -> None:
        nonlocal freed
        freed += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_watch, "release_memory", release)
        assert not watch.look()
        rss = 120 * MB
        for now in (1.0, 2.0, 3.0):  # noqa: B007 (the watch reads it)
            watch.look()
        assert (watch.state, budget.state, freed) == ("pause", "pause", 1)  # not every second
        now = 31.0
        assert watch.look()
        assert (budget.state, freed) == ("small", 2)
        now, rss = 32.0, 80 * MB
        assert watch.look()
    assert budget.state == "go"
    assert [record.message for record in caplog.records] == [
        "[BACKFILL] Memory: 120MB / 100MB limit: pausing until some is freed",
        "[BACKFILL] Memory: 120MB / 100MB limit: nothing was freed in 30 s: going on with the smallest batches",
        "[BACKFILL] Memory: 80MB / 100MB limit: going on",
    ]


async def test_a_pause_is_a_wait_and_no_stall(tmp_path: Path) -> None:
    """The agent stands at its empty queue then, and nowhere in the throttle."""
    machine = Machine(tmp_path)
    throttle = Throttle(Settings(_env_file=None, backfill_max_memory_mb=64), machine)  # type: ignore[call-arg]
    assert not throttle.is_waiting
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throttle.memory, "_rss", lambda: 500 * MB)
        throttle.memory.look()
    assert throttle.is_waiting


@pytest.mark.parametrize("text", ["lots", "300", "300:1", "300:1:-5", "300:1:5:6"])
def test_a_hog_that_is_none_is_refused(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import streams.runtime.drills"],
        env={**os.environ, "MEMORY_HOG": text}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "MB:AFTER:FOR" in done.stderr


def test_the_hog_takes_what_was_asked_for_and_lets_it_go() -> None:
    code = """if True:
        import asyncio, os, psutil
        from streams.runtime.drills import hog_memory
        from streams.resources.memory_watch import tune_allocator
        tune_allocator()
        rss = psutil.Process().memory_info
        async def run():
            before, task, during = rss().rss, asyncio.create_task(hog_memory()), 0
            while not task.done():
                during = max(during, rss().rss)
                await asyncio.sleep(0.02)
            print((during - before) >> 20, (rss().rss - before) >> 20)
        asyncio.run(run())"""
    environment = {**os.environ, "MEMORY_HOG": "60:0.1:1"}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    during, after = map(int, done.stdout.split())
    assert (during >= 60, after < 10, time.monotonic() - began >= 1.1) == (True, True, True)


def test_memory_pauses_goes_on_and_never_waits_for_ever() -> None:
    judge = MemoryJudge(100)
    assert judge.sample(0.0, 100) == "go"
    assert judge.sample(1.0, 101) == "pause"
    assert judge.sample(2.0, 95) == "pause"
    assert judge.sample(3.0, 89) == "go"
    assert judge.sample(4.0, 120) == "pause"
    assert judge.sample(33.9, 120) == "pause"
    assert judge.sample(34.0, 120) == "small"
    assert judge.sample(99.0, 95) == "small"
    assert judge.sample(100.0, 80) == "go"
