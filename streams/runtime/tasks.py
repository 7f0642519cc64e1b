"""The end of tasks: a cancellation can be lost on its way, so it is repeated until the task has ended.

``asyncio.wait_for`` of Python 3.11 returns the result and forgets the cancellation where both come at once (gh-86296);
aiokafka connects and asks through it. Without a repetition such a task would be waited for without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

#: Seconds until a task that goes on is told again.
AGAIN: Final = 1.0


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until all have ended. Their exceptions are read and dropped."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=AGAIN)
        for task in ended:
            if not task.cancelled():
                task.exception()
