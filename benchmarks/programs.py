"""The ingest and the worker of a version, as processes that are measured."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streams.local.processes import end_with_parent
from streams.runtime import child_process
from streams.settings import Settings

#: Folder of the project: the sources of this version.
PROJECT: Final = Path(__file__).resolve().parent.parent
#: Seconds that a process has to stop.
_STOP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the program: the folder that holds its ``streams``. All share the packages of this environment.

    ``change``: the folder of a ``sitecustomize.py``, which changes the program when a process starts.
    """

    name: str
    sources: Path
    change: Path | None = None

    def worker(self) -> list[str]:
        """Return the command of a worker."""
        # Version 0.1.0 has no command of its own for it.
        own = (self.sources / "streams" / "worker" / "faust_command.py").exists()
        command = [sys.executable, "-m", "streams.worker.faust_command" if own else "faust"]
        return [*command, "-A", "streams.agents", "worker"]

    @staticmethod
    def ingest(days: int) -> list[str]:
        """Return the command of an ingest."""
        return [sys.executable, "-m", "streams.ingest", "--days", str(days)]


#: The version that this benchmark belongs to.
OURS: Final = Version("ours", PROJECT)


@contextmanager
def checked_out(ref: str, folder: Path) -> Iterator[Version]:
    """Check a commit out below ``folder``, in a worktree of its own that is removed at the end."""
    place = folder / "version-before"
    git = ["git", "-C", str(PROJECT)]
    subprocess.run([*git, "worktree", "remove", "--force", str(place)], capture_output=True, check=False)
    made = subprocess.run(
        [*git, "worktree", "add", "--force", "--detach", str(place), ref], capture_output=True, text=True, check=False
    )
    if made.returncode:
        sys.exit(f"--against {ref} cannot be checked out: {made.stderr.strip()}")
    try:
        yield Version(ref, place)
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(place)], capture_output=True, check=False)


class Program:
    """A process whose output goes to a file. The first line of each event that it logs as JSON is kept, and when."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
        #: By event; the times are those of the monotonic clock.
        self.messages: dict[str, dict[str, Any]] = {}
        self.times: dict[str, float] = {}
        self._last = b""
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def _read(self) -> None:
        assert self._process.stdout is not None
        with self._log.open("wb") as log:
            async for line in self._process.stdout:
                log.write(line)
                log.flush()
                self._last = line.strip() or self._last
                with suppress(ValueError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        event = str(message.get("event"))
                        self.messages.setdefault(event, message)
                        self.times.setdefault(event, time.monotonic())

    def check(self) -> None:
        """End the benchmark if the process has failed."""
        if self._process.returncode:
            sys.exit(f"A process ended with exit code {self._process.returncode}: see {self._log}.")

    async def until(self, event: str, seconds: float) -> float:
        """Wait until an event is logged. Return when that was."""
        end = time.monotonic() + seconds
        while event not in self.times:
            self.check()
            if self._process.returncode is not None or time.monotonic() > end:
                await asyncio.wait((self._reading,), timeout=1)
                if event not in self.times:
                    sys.exit(f"A process has not logged {event!r}: see {self._log}.")
            await asyncio.sleep(0.02)
        return self.times[event]

    async def end(self) -> str:
        """Wait until it has ended by itself. Return the last line that it wrote."""
        await self._process.wait()
        await self._reading
        self.check()
        return self._last.decode()

    async def stop(self) -> None:
        """End it, and read its last lines."""
        if self._process.returncode is None:
            await child_process.stop(self._process, _STOP_SECONDS)
        await self._reading


@asynccontextmanager
async def running(name: str, command: list[str], folder: Path, **environment: str) -> AsyncIterator[Program]:
    """Run a command in an empty folder, so that it finds no ``.env`` and no sources but those of ``PYTHONPATH``."""
    logs, place = folder / "logs", folder / "empty"
    for path in (logs, place):
        path.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, cwd=place, preexec_fn=end_with_parent(),
        env={**os.environ, **environment}, limit=1 << 20,
    )  # fmt: skip
    program = Program(process, logs / f"{name}.log")
    try:
        yield program
    finally:
        await program.stop()


def ingest(version: Version, settings: Settings) -> AbstractAsyncContextManager[Program]:
    """Run an ingest of the version."""
    command, environment = version.ingest(settings.backfill_days), _environment(version, settings)
    return running("ingest", command, settings.local_dir, **environment)


def worker(version: Version, settings: Settings) -> AbstractAsyncContextManager[Program]:
    """Run a worker of the version, which starts no ingest."""
    environment = {**_environment(version, settings), "WORKER_ID": "1"}
    return running("worker", version.worker(), settings.local_dir, **environment)


def _environment(version: Version, settings: Settings) -> dict[str, str]:
    folders = [version.sources] if version.change is None else [version.change, version.sources]
    path = os.pathsep.join(map(str, folders))
    return {**settings.as_environment(), "PYTHONPATH": path, "LOG_FORMAT": "json"}


async def result_of(name: str, command: list[str], folder: Path, seconds: float, **environment: str) -> dict[str, Any]:
    """Run a command of ours to its end, for so many seconds at most. Return the JSON that its last line is."""
    async with running(name, command, folder, **environment, PYTHONPATH=str(PROJECT)) as program:
        try:
            async with asyncio.timeout(seconds):
                last = await program.end()
        except TimeoutError:
            sys.exit(f"{name} is not done after {seconds:.0f} s.")
    found: dict[str, Any] = json.loads(last)
    return found
