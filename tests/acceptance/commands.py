"""A command as users start it: a process whose output goes to a file, that can be awaited, killed and asked to stop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE

INGEST = [sys.executable, "-m", "streams.ingest"]
FAUST = [str(Path(sys.executable).with_name("faust")), "-A", "streams.agents"]
WORKER = [*FAUST, "worker"]
RELAY = [sys.executable, "-m", "streams.simulator"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for the signal, as the kernel says."""
    found = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


class Command:
    """A running command. Its standard input is closed, its output and errors are in ``log``."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, **how: Any
    ) -> None:
        """``how``: more for Popen."""
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                arguments, env={**os.environ, **environment}, cwd=folder,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **how,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def tail(self) -> str:
        """What is said of it when a test fails."""
        state = "runs" if self.running else f"exit code {self.process.returncode}"
        return f"--- {self.name} (pid {self.pid}, {state})\n{self.output[-3000:]}"

    async def line(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """The first place in the output where the pattern is, once it is there."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.output)) is None:
            assert self.running, f"it ended without {pattern!r}\n{self.tail()}"
            assert time.monotonic() < deadline, f"no {pattern!r}\n{self.tail()}"
            await asyncio.sleep(0.05)
        return found

    async def ended(self, seconds: float = PATIENCE) -> int:
        """The exit code, once it has ended by itself."""
        deadline = time.monotonic() + seconds
        while self.running:
            assert time.monotonic() < deadline, f"it goes on\n{self.tail()}"
            await asyncio.sleep(0.05)
        return int(self.process.returncode)

    async def minds_sigterm(self, seconds: float = PATIENCE) -> None:
        """Until a SIGTERM is its own business: before that, while Python imports, it ends by it."""
        deadline = time.monotonic() + seconds
        while not catches(self.pid, signal.SIGTERM):
            assert self.running, self.tail()
            assert time.monotonic() < deadline, self.tail()
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """SIGTERM: it ends with 0."""
        if not self.running:
            return
        self.process.send_signal(signal.SIGTERM)
        assert await self.ended() == 0, self.tail()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. A no-op where it has ended."""
        if self.running:
            self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Finished:
    """A command that was run to its end."""

    code: int
    output: str
    errors: str


async def finish(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, seconds: float = PATIENCE
) -> Finished:
    """Run a command to its end, its output and its errors apart."""

    def run() -> Finished:
        done = subprocess.run(
            arguments, env={**os.environ, **environment}, cwd=folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)

    return await asyncio.to_thread(run)
