"""The last minutes of this process: a sample every few seconds, so that a page opened now shows them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streams.status.process import Mode
from streams.ui.web.figures import Figures

#: Seconds between two samples, and how many are kept.
EVERY: Final = 5.0
SLOTS: Final = 120
MINUTES: Final = round(EVERY * SLOTS / 60)


@dataclass(frozen=True, slots=True)
class HistorySample:
    """The figures at one moment. ``rate``: events a second; ``others``: a share of the machine."""

    rate: float
    lag: int | None
    rss: int
    others: float | None
    mode: Mode


def sample(figures: Figures) -> HistorySample:
    """Return the parts of the figures that are kept."""
    state = figures.state
    if state is None:
        return HistorySample(0.0, None, 0, None, Mode.STARTING)
    lag = figures.lag if figures.kind == "worker" else None
    others = state.machine.others if state.machine is not None else None
    return HistorySample(state.rate, lag, state.memory.rss, others, state.mode)


class History:
    """The samples, oldest first."""

    def __init__(self) -> None:
        self.samples: deque[HistorySample] = deque(maxlen=SLOTS)

    def add(self, figures: Figures) -> None:
        """Keep a sample, and forget one that is older than all of it."""
        self.samples.append(sample(figures))

    def values(self, of: Callable[[HistorySample], float | None]) -> list[float | None]:
        """Return one figure of all samples."""
        return [of(kept) for kept in self.samples]

    def modes(self) -> list[tuple[Mode, int, int]]:
        """Return the modes in their order, each with the slots of its begin and its end."""
        begin = SLOTS - len(self.samples)
        found: list[tuple[Mode, int, int]] = []
        for slot, kept in enumerate(self.samples, begin):
            if found and found[-1][0] == kept.mode:
                found[-1] = (kept.mode, found[-1][1], slot + 1)
            else:
                found.append((kept.mode, slot, slot + 1))
        return found
