"""A profiler inside of our processes: each few milliseconds of CPU it notes the hop that is running.

It costs less than one part in a hundred. The counts go into ``profile/ingest.json`` or ``profile/worker.json`` below
LOCAL_DIR, anew every few samples, so a process may be killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks.hops import Function, hop_of, is_waiting

#: Seconds of CPU between samples.
EVERY: Final = 0.005
#: Samples between two writes of the file.
_WRITE_EVERY: Final = 50
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
            self._file.write_text(json.dumps(self._counts))


def _stack(frame: FrameType) -> list[Function]:
    found: list[Function] = []
    at: FrameType | None = frame
    while at is not None and len(found) < _DEPTH:
        found.append((at.f_code.co_filename, at.f_code.co_name))
        at = at.f_back
    return found


def start() -> None:
    """Begin, in a process that is an ingest or a worker."""
    folder = os.environ.get("LOCAL_DIR")
    if folder is None:
        return
    process = "ingest" if "streams.ingest" in sys.orig_argv else "worker"
    file = Path(folder) / FOLDER / f"{process}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGPROF, StackSampler(process, file).sample)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
