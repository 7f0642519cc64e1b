"""The watched child process, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from streams.worker import ingest_child as module
from streams.worker.ingest_child import Child, ingest_command
from tests.support.patience import PATIENCE

EXIT = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); n = len(p.read_text()) if p.exists() else 0; "


def command(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


async def test_done_is_done() -> None:
    faults: list[BaseException] = []
    await asyncio.wait_for(Child(command("pass"), faults.append).run(), PATIENCE)
    assert not faults


@pytest.mark.parametrize("code", [2, 6, 8])
async def test_a_fault_of_the_deployment_is_the_workers_too(code: int) -> None:
    faults: list[BaseException] = []
    await asyncio.wait_for(Child(command(f"raise SystemExit({code})"), faults.append).run(), PATIENCE)
    assert [getattr(fault, "exit_code", None) for fault in faults] == [code]


async def test_another_ingest_that_holds_the_topic_is_no_fault() -> None:
    faults: list[BaseException] = []
    await asyncio.wait_for(Child(command("raise SystemExit(7)"), faults.append).run(), PATIENCE)
    assert not faults


async def test_other_endings_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.05)
    tries = tmp_path / "tries"
    code = EXIT + "p.write_text('x' * (n + 1)); sys.exit(0 if n == 2 else 5)"
    faults: list[BaseException] = []
    await asyncio.wait_for(Child(command(code, tries), faults.append).run(), PATIENCE)
    assert tries.read_text() == "xxx"
    assert not faults


async def test_stop_is_sigterm_and_no_new_start(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = Child(
        command("import sys, time, pathlib; pathlib.Path(sys.argv[1]).touch(); time.sleep(3600)", ready), print
    )
    task = asyncio.create_task(child.run())
    while not ready.exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.02)
    await asyncio.wait_for(child.stop(), PATIENCE)
    await asyncio.wait_for(task, PATIENCE)


async def test_a_stop_while_it_is_started_is_a_stop(tmp_path: Path) -> None:
    """On a busy machine the process runs before we hear of it."""
    child = Child(command("import time; time.sleep(3600)"), print)
    task = asyncio.create_task(child.run())
    await asyncio.sleep(0)
    await asyncio.wait_for(child.stop(), PATIENCE)
    await asyncio.wait_for(task, PATIENCE)


def test_a_child_reads_the_end_of_its_input_when_its_parent_is_killed(tmp_path: Path) -> None:
    """What ``--with-parent`` needs: the pipe closes with the parent, by SIGKILL too."""
    pid_file = tmp_path / "pid"
    waits = "import sys, os, pathlib; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); sys.stdin.read()"
    parent_code = (
        "import asyncio, sys\nfrom streams.worker.ingest_child import Child\n"
        f"asyncio.run(Child([sys.executable, '-c', {waits!r}, {str(pid_file)!r}], print).run())"
    )
    parent = subprocess.Popen(command(parent_code))
    try:
        deadline = time.monotonic() + PATIENCE
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = int(pid_file.read_text())
        assert psutil.Process(pid).ppid() == parent.pid
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        parent.kill()


def test_the_command() -> None:
    assert ingest_command(-1)[1:] == ["-m", "streams.ingest", "--days", "-1", "--standby", "--with-parent"]
