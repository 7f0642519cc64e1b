"""The ingest and the worker as children of ``make run``: the deployment's commands, their output in files."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from streams.runtime import child_process
from streams.settings import Settings

#: Seconds that a child has to stop by itself; a worker gives Faust's services their time.
STOP_SECONDS: Final = 15.0
#: prctl(2): a signal from the kernel when the parent dies. Linux only: elsewhere a killed run leaves its worker.
_PR_SET_PDEATHSIG: Final = 1


class Listener(Protocol):
    """The listener to the ingest's log."""

    def heard(self, line: dict[str, Any]) -> None:
        """Take in one log line of the ingest, as JSON."""


class _Child:
    """A child process whose output goes to a file; ``code`` is None while it runs."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.log_file: Path = settings.local_dir / "logs" / f"{name}.log"
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Its process id, once it was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.returncode if self._process is not None else None

    async def _start(self, command: list[str], output: int, **environment: str) -> Process:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=output, stderr=STDOUT, start_new_session=True, preexec_fn=end_with_parent(),
            env={**os.environ, **self.settings.as_environment(), **environment},
        )  # fmt: skip
        return self._process

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after STOP_SECONDS."""
        if self._process is not None and self._process.returncode is None:
            await child_process.stop(self._process, STOP_SECONDS)

    def last_words(self) -> str:
        """Return the last line that it wrote (a StreamsError's sentence), or the signal that ended it."""
        if self.code is not None and self.code < 0:
            return f"The {self.log_file.stem} was ended by signal {-self.code}."
        try:
            lines = self.log_file.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else f"{self.log_file.stem} ended with exit code {self.code}"


class WorkerProcess(_Child):
    """``faust -A streams.agents worker``; the ingest is not its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "worker")

    async def start(self) -> None:
        """Start it."""
        with self._log() as log:
            command = [sys.executable, "-m", "streams.commands.faust_command", "-A", "streams.agents", "worker"]
            await self._start(command, log.fileno(), WORKER_ID="1")

    def _log(self) -> Any:  # noqa: ANN401 (a file)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        return self.log_file.open("wb")


class IngestProcess(_Child):
    """``python -m streams.ingest``, whose log lines are read."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "ingest")
        self._reading: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Start it, and tell the listener what it logs."""
        command = [sys.executable, "-m", "streams.ingest", "--days", str(self.settings.backfill_days), "--with-parent"]
        process = await self._start(command, PIPE, LOG_FORMAT="json")
        self._reading = asyncio.create_task(self._read(process, listener))

    async def _read(self, process: Process, listener: Listener) -> None:
        assert process.stdout is not None
        with self.log_file.open("wb") as log:
            async for line in process.stdout:
                log.write(line)
                log.flush()
                with suppress(ValueError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        listener.heard(message)

    async def stop(self) -> None:
        """Stop it as the others, and read its last lines."""
        await super().stop()
        if self._reading is not None:
            await self._reading


def end_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` with which the kernel ends a child when we die; None off Linux."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask_kernel
