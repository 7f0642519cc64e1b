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

from streams.ops.niceness import NICE
from tests.acceptance.burners import Burners, loss
from tests.acceptance.commands import Command
from tests.acceptance.deployment import Deployment
from tests.acceptance.test_pace import Applied, watch

pytestmark = [pytest.mark.slow, pytest.mark.alone]

EVENTS = 60_000
#: One pair is within a fifth on a shared machine: where the first ones do not make it clear, more of them do.
PAIRS, MOST_PAIRS = 6, 24
CLEAR, PROMISED = 0.08, 0.10
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
    relay, _ = await deployment.generated(EVENTS, "--days-span", "3")
    as_load(relay)
    applied = Applied()
    pairs: list[tuple[float, float]] = []
    with Burners(tmp_path) as burners:
        ingest = deployment.ingest(relay.url, days=2, **DEFAULTS)
        worker = deployment.worker(**DEFAULTS)
        await deployment.until_received(1)
        watching = asyncio.create_task(watch(deployment, deployment.schema, 600, applied))
        await asyncio.sleep(3)
        assert ingest.running
        ours = family(ingest, worker, relay)
        for command in (ingest, worker):
            assert os.getpriority(os.PRIO_PROCESS, command.pid) >= NICE
            assert is_background_session(command.pid)
        while len(pairs) < PAIRS or (loss(pairs) > CLEAR and len(pairs) < MOST_PAIRS):
            send(ours, signal.SIGSTOP)
            began = time.monotonic()
            await asyncio.sleep(2)
            send(ours, signal.SIGCONT)
            middle = time.monotonic()
            await asyncio.sleep(2.5)
            # What was due while they were frozen is done first: that is the test's doing.
            pairs.append((burners.speed(began, middle), burners.speed(middle + 0.5, time.monotonic())))
        assert ingest.running, ingest.tail()
        in_topic = sum((await deployment.ends()).values())
    stopped = time.time()
    paced = Applied([mark for mark in applied.at if mark[0] < stopped])
    print(f"loss {loss(pairs):.1%} in {len(pairs)} pairs; {paced.rate:.2f} applied/s; {in_topic} in the topic")
    assert in_topic > 0.02 * EVENTS, "the ingest was not at work"
    paced.check_never_faster(5, 2.0)
    assert paced.rate > 2.5 / 3, "frozen for half of the time"
    assert loss(pairs) < PROMISED, pairs
    await asyncio.sleep(10)
    watching.cancel()
    after = [mark for mark in applied.at if mark[0] > stopped]
    rates = [(n - m) / (b - a) for a, m in after for b, n in after if 0.5 <= b - a <= 1.0]
    print(f"{max(rates, default=0):.0f} applied/s within ten seconds")
    assert max(rates, default=0) > 2000, deployment.tails()
