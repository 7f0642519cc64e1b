"""The end of a child process."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from contextlib import suppress


async def stop(process: Process, seconds: float) -> bool:
    """Send SIGTERM, and SIGKILL if it still runs after so many seconds; return False if it was killed."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        return False
    return True
