"""Other work: processes that use one core each, in sessions of their own, and say how fast they were and when."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

#: Counts as fast as it can; four times a second a line with the time and the count.
_CODE = """
import sys, time
n, said = 0, time.monotonic()
while True:
    for _ in range(20_000):
        n += 1
    now = time.monotonic()
    if now - said >= 0.25:
        said = now
        print(now, n, flush=True)
"""


class Burners:
    """One a core. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._files = [folder / f"burner{i}.txt" for i in range(os.cpu_count() or 1)]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for file in self._files:
            with file.open("wb") as output:
                self._processes.append(
                    subprocess.Popen([sys.executable, "-c", _CODE], stdout=output, start_new_session=True)
                )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def speed(self, begin: float, end: float) -> float:
        """Iterations a second of all together, between two moments (monotonic)."""
        total = 0.0
        for file in self._files:
            # Whole lines only: the last one may be half written.
            lines = [line.split() for line in file.read_text().split("\n")[:-1]]
            marks = [(float(at), int(n)) for at, n in lines if begin <= float(at) <= end]
            (first, before), (last, after) = marks[0], marks[-1]
            total += (after - before) / (last - first)
        return total


@dataclass(frozen=True, slots=True)
class Loss:
    """The share of their speed that the burners lose, and how far it may be off (two standard errors)."""

    share: float
    unsure: float


def loss(alone: list[float], beside: list[float]) -> Loss:
    """Return what they lose beside something else: each speed beside it is held against those alone before and after.

    So a machine that becomes slower or faster meanwhile changes nothing; one that goes up and down makes it unsure.
    """
    assert len(alone) == len(beside) + 1 >= 3
    losses = [1 - 2 * slow / (before + after) for before, slow, after in zip(alone, beside, alone[1:], strict=False)]
    middle = statistics.median(losses)
    # Of the median; by the absolute deviations, for one pair may be far off.
    spread = 1.4826 * statistics.median(abs(one - middle) for one in losses)
    return Loss(middle, 2 * 1.2533 * spread / math.sqrt(len(losses)))
