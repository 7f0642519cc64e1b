"""The ingest as a child process of the worker: started, watched, started again, and never left behind.

The child's standard input is a pipe whose other end only we hold: when we die, by SIGKILL too, it reads the end and
stops (``--with-parent``). Its output is ours.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from typing import Final

from streams.errors import DiskError, HeldError, MismatchError, SettingsError, StreamsError
from streams.runtime import child_process
from streams.runtime.waiting import backoff

log = logging.getLogger(__name__)

#: Seconds that the child has to stop by itself.
STOP_SECONDS: Final = 5.0
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
#: After a run of this length a failure begins with the first delay again.
WELL_SECONDS: Final = 60.0
#: Faults that no restart can mend. They end the worker too.
FATAL: Final[dict[int, type[StreamsError]]] = {e.exit_code: e for e in (SettingsError, MismatchError, DiskError)}


def ingest_command(days: int) -> list[str]:
    """Return the command that ingests so many days, and stands by while another ingest holds the topic."""
    return [sys.executable, "-m", "streams.ingest", "--days", str(days), "--standby", "--with-parent"]


class Child:
    """A command that runs until it is done. ``on_fault`` is called with an exit that ends the worker too."""

    def __init__(self, command: Sequence[str], on_fault: Callable[[BaseException], None]) -> None:
        self._command = command
        self._on_fault = on_fault
        self._process: Process | None = None
        self._stopping = False

    async def run(self) -> None:
        """Start it, and start it again with backoff, until it is done or has a fault that no restart mends."""
        attempt = 0
        while not self._stopping:
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping or self._is_final(code):
                return
            if time.monotonic() - began > WELL_SECONDS:
                attempt = 0
            delay = backoff(attempt, FIRST_DELAY, LONGEST_DELAY)
            log.warning("The ingest ended with %s: started again in %.0f s.", _ending(code), delay)
            await asyncio.sleep(delay)
            attempt += 1

    async def _run_once(self) -> int:
        # In a session of its own: a Ctrl-C on the terminal reaches us only, and we stop the child.
        process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, start_new_session=True)
        self._process = process
        log.info("The ingest runs as process %d.", process.pid)
        try:
            if self._stopping:  # stop() was called while it was started
                await _end(process)
            return await process.wait()
        finally:
            self._process = None

    def _is_final(self, code: int) -> bool:
        if code == 0:
            log.info("The ingest is done.")
            return True
        if code == HeldError.exit_code:
            log.warning("Another ingest holds the topic: this worker goes on without one of its own.")
            return True
        if code in FATAL:
            self._on_fault(FATAL[code](f"The ingest ended with {_ending(code)}", "see its message above."))
            return True
        return False

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after STOP_SECONDS."""
        self._stopping = True
        if self._process is not None:
            await _end(self._process)


async def _end(process: Process) -> None:
    if not await child_process.stop(process, STOP_SECONDS):
        log.warning("The ingest did not stop in %.0f s: killed.", STOP_SECONDS)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
