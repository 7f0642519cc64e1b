"""One detached process of the embedded stack: started, recognised again, signalled, stopped.

A process is ours when its command line holds the absolute path of its own configuration; there are no pid files that
could be stale, and no process is ever signalled that was not recognised so in the same moment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

#: Logs above this size (bytes) are set aside, once, when their process starts.
MAX_LOG = 16 * 1024 * 1024
#: Seconds that a process must not be seen before it counts as gone: while it is being executed it has no command line,
#: and on a machine that is overloaded that takes its time.
GONE_SECONDS = 1.0


def find_process(is_ours: Callable[[list[str]], bool]) -> psutil.Process | None:
    """The running process whose command line ``is_ours`` accepts, or None. Zombies have no command line."""
    for process in psutil.process_iter():
        try:
            if is_ours(process.cmdline()):
                return process
        except psutil.Error:
            continue
    return None


def start_detached(command: list[str], log: Path, **how: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 (Popen's own)
    """Start ``command`` in a session of its own, its output appended to ``log``; it survives the caller.

    Raises OSError if it cannot be executed.
    """
    if log.exists() and log.stat().st_size > MAX_LOG:
        log.replace(log.with_suffix(log.suffix + ".1"))
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 (our own command)
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/", **how
        )


def family(process: psutil.Process | None) -> list[psutil.Process]:
    """The process and its descendants; empty when it is gone."""
    if process is None:
        return []
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each; those that are gone are passed over. psutil refuses a pid that was given to another."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def wait_gone(processes: list[psutil.Process], timeout: float) -> bool:
    """Wait until all have ended; return False after ``timeout`` seconds. Children of the caller are reaped.

    A process that has ended may wait for its parent. In a container that can be a first process which reaps late or
    never, and psutil alone would wait for it too.
    """
    deadline = time.monotonic() + timeout
    alive = processes
    while True:
        _, alive = psutil.wait_procs(alive, timeout=0.05)
        alive = [process for process in alive if not _waits_for_its_parent(process)]
        if not alive or time.monotonic() >= deadline:
            return not alive


def _waits_for_its_parent(process: psutil.Process) -> bool:
    """Return True if the process has ended, with all its threads, and was not reaped."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True


def is_frozen(process: psutil.Process) -> bool:
    """Return True if the process was stopped by SIGSTOP."""
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Resident memory of all, in bytes; what they share (Postgres' buffers) is counted once."""
    total = 0
    largest_shared = 0
    for process in processes:
        try:
            memory = process.memory_info()
        except psutil.Error:
            continue
        shared = getattr(memory, "shared", 0)
        total += memory.rss - shared
        largest_shared = max(largest_shared, shared)
    return total + largest_shared


def folder_bytes(folder: Path) -> int:
    """Bytes that a folder takes on the disk (sparse files count for what is written)."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(root, name)).st_blocks * 512
            except OSError:
                continue
    return total


def write_secret(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)
        output.flush()
        os.fsync(output.fileno())  # what is moved into place after it relies on it
    new.replace(file)


def last_words(log: Path, telling: tuple[str, ...], mark: int = 0) -> str:
    """The last line after byte ``mark`` that contains the first possible of ``telling``, else the last line at all."""
    try:
        with log.open("rb") as file:
            size = log.stat().st_size
            file.seek(max(mark if mark <= size else 0, size - 65536))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "it left no log"
    for word in telling:
        for line in reversed(lines):
            if word in line:
                return line[:300]
    return lines[-1][:300] if lines else "it left no word"


def wait_until(ready: Callable[[], bool], alive: Callable[[], bool], timeout: float) -> bool:
    """Wait until ``ready``; return False after ``timeout`` seconds, or once ``alive`` is false for GONE_SECONDS."""
    deadline = time.monotonic() + timeout
    seen = time.monotonic()
    while time.monotonic() < deadline:
        if ready():
            return True
        if alive():
            seen = time.monotonic()
        elif time.monotonic() - seen > GONE_SECONDS:
            return False
        time.sleep(0.05)
    return False
