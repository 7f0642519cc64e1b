"""A profiler inside of our processes: each few milliseconds of CPU it notes the hop that is running.

It costs less than one part in a hundred. Every few samples it adds the counts so far as a line of JSON to
``profile/ingest.jsonl`` or ``profile/worker.jsonl`` below LOCAL_DIR, so a process may be killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks.hops import Function, Snapshot, hop_of, is_waiting

#: Seconds of CPU between samples.
EVERY: Final = 0.005
#: Samples between two lines of the file.
_WRITE_EVERY: Final = 20
#: Functions of a stack that are looked at.
_DEPTH: Final = 60
FOLDER: Final = "profile"


class StackSampler:
    """The counts of one process."""

    def __init__(self, process: str, file: Path) -> None:
        self._process = process
        self._file = file
        self._counts: Counter[str] = Counter()
        self._samples = 0
        self._main = threading.main_thread().ident

    def sample(self, _: int, frame: FrameType | None) -> None:
        """Count the hops of the threads that do not wait: a signal's handler."""
        stacks = [_stack(other) for ident, other in sys._current_frames().items() if ident != self._main]
        if frame is not None:
            stacks.append(_stack(frame))
        running = [stack for stack in stacks if not is_waiting(stack[0])]
        for stack in running:
            self._counts[hop_of(self._process, stack)] += 1 / len(running)  # type: ignore[assignment]
        self._samples += 1
        if self._samples % _WRITE_EVERY == 0:
            self._write()

    def _write(self) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps([time.monotonic(), self._counts]) + "\n")


def _stack(frame: FrameType) -> list[Function]:
    found: list[Function] = []
    at: FrameType | None = frame
    while at is not None and len(found) < _DEPTH:
        found.append((at.f_code.co_filename, at.f_code.co_name))
        at = at.f_back
    return found


def read_snapshots(file: Path) -> list[Snapshot]:
    """Return what a process has written, in order."""
    return [Snapshot(*json.loads(line)) for line in file.read_text().splitlines()]


def start() -> None:
    """Begin, in a process that is an ingest or a worker."""
    folder = os.environ.get("LOCAL_DIR")
    if folder is None:
        return
    process = "ingest" if "streams.ingest" in sys.orig_argv else "worker"
    file = Path(folder) / FOLDER / f"{process}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    signal.signal(signal.SIGPROF, StackSampler(process, file).sample)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
