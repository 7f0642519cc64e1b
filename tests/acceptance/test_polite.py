"""In the background of a busy machine: with the defaults our work costs the machine's other work next to nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from streams.resources.niceness import NICE
from tests.acceptance.burners import Burners, Loss, loss
from tests.acceptance.commands import Command
from tests.acceptance.deployment import Deployment
from tests.acceptance.test_pace import Applied, watch

pytestmark = [pytest.mark.slow, pytest.mark.alone]

EVENTS = 60_000
#: One pair is within a fifth on a shared machine: where the first ones do not make it clear, more of them do.
PAIRS, MOST_PAIRS = 6, 24
CLEAR, PROMISED = 0.08, 0.10
#: Once the machine is idle it goes at least so many times faster than the settings' pace; thousands of times as a rule.
FASTER = 40
#: What a person has who sets nothing.
DEFAULTS = {"BACKFILL_PROFILE": "", "INGEST_IDLE_SECONDS": "", "INGEST_BUSY_MB_PER_S": ""}


def family(*commands: Command) -> list[psutil.Process]:
    roots = [psutil.Process(command.pid) for command in commands]
    return [process for root in roots for process in (root, *root.children(recursive=True))]


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def as_load(relay: Command) -> None:
    """The relay stands for a machine far away: what it uses here must not count."""
    for thread in psutil.Process(relay.pid).threads():
        os.setpriority(os.PRIO_PROCESS, thread.id, 19)
    with suppress(OSError):
        Path(f"/proc/{relay.pid}/autogroup").write_text("19\n")


def is_background_session(pid: int) -> bool:
    """Whether the session's own niceness says so too, where the kernel has one."""
    file = Path(f"/proc/{pid}/autogroup")
    return not file.exists() or int(file.read_text().rpartition(" ")[2]) >= NICE


async def test_other_work_keeps_its_speed_and_ours_rises_when_it_ends(deployment: Deployment, tmp_path: Path) -> None:
    """All is compared within this run: the machine may be slow, and withhold what it likes."""
    relay, _ = await deployment.generated(EVENTS, "--days-span", "3")
    as_load(relay)
    applied = Applied()
    with Burners(tmp_path) as burners:
        ingest = deployment.ingest(relay.url, days=2, **DEFAULTS)
        worker = deployment.worker(**DEFAULTS)
        await deployment.until_received(1)
        watching = asyncio.create_task(watch(deployment, deployment.schema, 900, applied))
        await asyncio.sleep(3)
        assert ingest.running
        for command in (ingest, worker):
            assert os.getpriority(os.PRIO_PROCESS, command.pid) >= NICE
            assert is_background_session(command.pid)
        found = await what_they_lose(burners, family(ingest, worker, relay))
        assert ingest.running, ingest.tail()
        in_topic = sum((await deployment.ends()).values())
    stopped = time.time()
    paced = Applied([mark for mark in applied.at if mark[0] < stopped])
    print(f"{found}; {paced.rate:.2f} applied/s; {in_topic} in the topic")
    assert in_topic > 0.02 * EVENTS, "the ingest was not at work"
    paced.check_never_faster(5, 2.0)
    assert paced.rate > 2.5 / 5, "frozen for half of the time"
    assert found.share - found.unsure < PROMISED
    await until_idle(worker)
    for pause in deployment.patiently(f"{FASTER} times the pace", 60):
        after = [mark for mark in applied.at if mark[0] > stopped]
        rates = [(n - m) / (b - a) for a, m in after for b, n in after if 0.5 <= b - a <= 1.0]
        if max(rates, default=0) > FASTER * 2.5:
            break
        await asyncio.sleep(pause)
    watching.cancel()
    print(f"{max(rates, default=0):.0f} applied/s")


async def what_they_lose(burners: Burners, ours: list[psutil.Process]) -> Loss:
    """Freeze ours and let them go on, in turns, until it is clear what the burners lose beside them."""
    alone: list[float] = []
    beside: list[float] = []
    while True:
        send(ours, signal.SIGSTOP)
        began = time.monotonic()
        await asyncio.sleep(2)
        alone.append(burners.speed(began, time.monotonic()))
        send(ours, signal.SIGCONT)
        if len(beside) >= PAIRS:
            found = loss(alone, beside)
            if found.share + found.unsure < CLEAR or len(beside) >= MOST_PAIRS:
                return found
        # What was due while they were frozen is done first: that is the test's doing.
        await asyncio.sleep(0.5)
        began = time.monotonic()
        await asyncio.sleep(2)
        beside.append(burners.speed(began, time.monotonic()))


async def until_idle(worker: Command) -> None:
    """Wait until the worker finds the machine idle; it was busy from its start on.

    Skips where strangers' processes keep it busy, by psutil and not by the product: then nothing can be shown.
    """
    until = time.monotonic() + 60
    while "The machine is idle" not in worker.output and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    if "The machine is idle" in worker.output:
        return
    before = cpu_of_strangers()
    await asyncio.sleep(5)
    used = {key: seconds - before.get(key, seconds) for key, seconds in cpu_of_strangers().items()}
    share = sum(used.values()) / (5 * (os.cpu_count() or 1))
    names = ", ".join(name for _, name in sorted(used, key=lambda key: -used[key])[:3])
    assert share > 0.08, f"strangers use {share:.0%}, and it still waits: {worker.tail()}"
    pytest.skip(f"strangers use {share:.0%} of the machine ({names}): it is never idle")


def cpu_of_strangers() -> dict[tuple[int, str], float]:
    """CPU seconds of the processes that are none of this test's, and no kernel threads."""
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid not in ours and process.ppid() != 2:
                times = process.cpu_times()
                found[process.pid, process.name()] = times.user + times.system
    return found
