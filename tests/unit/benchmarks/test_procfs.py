"""What the kernel says of a process, and the CPU of a family from samples of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from benchmarks.cpu import ROOT, UNSEEN, CpuLedger, by_postgres_kind
from benchmarks.procfs import (
    POSTGRES_KINDS,
    FamilySample,
    Member,
    parse_memory,
    parse_times,
    postgres_kind,
    read_memory,
    read_times,
    sample_family,
)
from benchmarks.sampling import Sampler

BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"


def test_times_are_read_behind_a_name_with_spaces_and_brackets() -> None:
    stat = "12 (a (b) c) S 7 12 12 0 -1 4194304 1 2 3 4 150 50 30 20 20 0 1 0 987 1 2 3"
    ticks = os.sysconf("SC_CLK_TCK")
    assert parse_times(stat) == (7, 987, 200 / ticks, 50 / ticks)


def test_memory_is_in_bytes_and_absent_of_a_zombie() -> None:
    status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"
    assert parse_memory(status, "VmHWM") == 2 << 20
    assert parse_memory(status, "VmRSS") == 1 << 20
    assert parse_memory("Name:\tx\nState:\tZ (zombie)\n", "VmHWM") is None


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("postgres: checkpointer ", "checkpointer"),
        ("postgres: walwriter ", "WAL writer"),
        ("postgres: autovacuum launcher ", "autovacuum"),
        ("postgres: autovacuum worker atproto", "autovacuum"),
        ("postgres: background writer ", "other"),
        ("postgres: io worker 0", "other"),
        ("postgres: postgres atproto 127.0.0.1(40404) SELECT", "backend"),
        ("postgres: checker atproto 127.0.0.1(40404) idle", "backend"),
    ],
)
def test_the_kind_of_a_postgres_process(title: str, kind: str) -> None:
    assert postgres_kind(title) == kind
    assert kind in POSTGRES_KINDS


def test_what_is_gone_is_none() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert read_times(gone.pid) is None
    assert read_memory(gone.pid, "VmHWM") is None
    assert sample_family(gone.pid, lambda _: "child") is None


def test_a_ledger_counts_by_kind_from_its_first_sample() -> None:
    ledger = CpuLedger(FamilySample(1.0, 5.0, {(2, 1): Member("backend", 10.0)}))
    ledger.add(FamilySample(1.5, 5.0, {(2, 1): Member("backend", 12.0), (3, 1): Member("autovacuum", 0.5)}))
    assert ledger.spent() == {ROOT: 0.5, "backend": 2.0, "autovacuum": 0.5, UNSEEN: 0.0}


def test_a_process_that_ended_is_counted_in_full() -> None:
    ledger = CpuLedger(FamilySample(0.0, 5.0, {(2, 1): Member("backend", 10.0)}))
    ledger.add(FamilySample(0.0, 5.0, {(2, 1): Member("backend", 11.0)}))
    # It spent 0.25 more before it ended; and one that nobody saw spent 0.5.
    ledger.add(FamilySample(0.0, 16.75, {}))
    assert ledger.spent() == {ROOT: 0.0, "backend": 1.0, UNSEEN: 0.75}
    assert by_postgres_kind(ledger.spent()) == {"backend": 1.0, "other": 0.75}


def test_a_pid_that_another_process_got_is_another_process() -> None:
    ledger = CpuLedger(FamilySample(0.0, 0.0, {(2, 1): Member("backend", 10.0)}))
    ledger.add(FamilySample(0.0, 10.0, {(2, 9): Member("backend", 0.25)}))
    assert ledger.spent() == {ROOT: 0.0, "backend": 0.25, UNSEEN: 0.0}


async def test_a_sampler_counts_children_that_have_ended() -> None:
    script = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {BURN.format(0.3)!r}])\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script + "print(flush=True)\ntime.sleep(600)", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with Sampler({"it": process.pid}) as sampler:
            await process.stdout.readline()
            usage = sampler.usage()
    finally:
        process.kill()
        await process.wait()
    assert 0.3 <= usage.cpu["it"] < 30
    assert usage.peak["it"] > 1 << 20
