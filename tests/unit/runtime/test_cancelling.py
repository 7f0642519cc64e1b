"""A cancellation that is lost is repeated."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from streams.runtime.tasks import end_tasks
from tests.support.patience import PATIENCE


async def test_a_task_that_lost_its_cancellation_ends_all_the_same() -> None:
    lost = asyncio.Event()

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        lost.set()
        await asyncio.sleep(3600)

    async def failing() -> None:
        raise ValueError("read, so that nobody warns")

    tasks = [asyncio.create_task(work()) for work in (stubborn, failing)]
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await end_tasks(tasks)
        await end_tasks([])
    assert lost.is_set()
    assert tasks[0].cancelled()
