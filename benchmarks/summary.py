"""Rounds of measurements, as medians with their spread, and as ratios of what ran in the same round. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from benchmarks.figures import ALL, RATE, Figures

#: The names of what a round measures. ``BEFORE`` ends the names of the same stages of the version before.
END_TO_END: Final = "end to end"
INGEST: Final = "ingest alone"
WORKER: Final = "worker alone"
APPLY: Final = "apply alone"
SDK: Final = "SDK decoding, one core"
SCRIPT: Final = "a script of one's own"
FLOOR: Final = "floor"
BEFORE: Final = ", before"

#: What one round measured, by name.
Round = dict[str, Figures]


class Spread(NamedTuple):
    """The median of several values, the least and the most."""

    median: float
    least: float
    most: float


class Ratio(NamedTuple):
    """A ratio of two figures of one round: ``over`` / ``under``, each a name and a figure."""

    title: str
    over: tuple[str, str]
    under: tuple[str, str]


#: What is compared. A ratio whose parts were not measured is left out.
RATIOS: Final = (
    Ratio("speed against the SDK decoding on one core", (END_TO_END, RATE), (SDK, RATE)),
    Ratio("speed against a script of one's own", (END_TO_END, RATE), (SCRIPT, RATE)),
    Ratio("CPU of a script of one's own against ours", (SCRIPT, ALL), (END_TO_END, ALL)),
    Ratio("CPU of the floor against ours", (FLOOR, ALL), (END_TO_END, ALL)),
    Ratio("speed against the version before", (END_TO_END, RATE), (END_TO_END + BEFORE, RATE)),
    Ratio("CPU against the version before", (END_TO_END, ALL), (END_TO_END + BEFORE, ALL)),
    *(
        Ratio(f"CPU of {name} against the version before", (END_TO_END, figure), (END_TO_END + BEFORE, figure))
        for name, figure in (
            ("the ingest", "cpu.ingest"), ("Kafka", "cpu.kafka"), ("the worker", "cpu.worker"),
            ("Postgres", "cpu.postgres"),
        )
    ),
    Ratio("ingest alone: speed against the version before", (INGEST, RATE), (INGEST + BEFORE, RATE)),
    Ratio("worker alone: speed against the version before", (WORKER, RATE), (WORKER + BEFORE, RATE)),
)  # fmt: skip


def spread(values: Sequence[float]) -> Spread:
    """Return the median of the values, the least and the most."""
    return Spread(median(values), min(values), max(values))


def summarize(rounds: Sequence[Round]) -> dict[str, dict[str, Spread]]:
    """Return each figure of each measurement over all rounds that have it."""
    names = dict.fromkeys(name for measured in rounds for name in measured)
    return {name: _figures([measured[name] for measured in rounds if name in measured]) for name in names}


def _figures(measured: Sequence[Figures]) -> dict[str, Spread]:
    figures = dict.fromkeys(figure for each in measured for figure in each)
    return {figure: spread([each[figure] for each in measured if figure in each]) for figure in figures}


def ratios(rounds: Sequence[Round]) -> dict[str, Spread]:
    """Return each of RATIOS over all rounds that have both parts."""
    found = {ratio.title: [value for each in rounds if (value := _ratio(each, ratio)) is not None] for ratio in RATIOS}
    return {title: spread(values) for title, values in found.items() if values}


def _ratio(measured: Round, ratio: Ratio) -> float | None:
    over, under = (measured.get(name, {}).get(figure) for name, figure in (ratio.over, ratio.under))
    return over / under if over is not None and under else None
