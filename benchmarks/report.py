"""The table that the benchmark prints. Pure: made of the result's medians."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.figures import ALL, KAFKA_BYTES, RATE, WAL_BYTES, WAL_IMAGES
from benchmarks.procfs import POSTGRES_KINDS
from benchmarks.summary import FLOOR, Spread

#: The processes, in the order of the way.
PROCESSES = ("relay", "ingest", "client", "kafka", "worker", "postgres")
_OURS = ("ingest", "worker")


def table(summary: Mapping[str, Mapping[str, Spread]], ratios: Mapping[str, Spread]) -> str:
    """Return the medians with their spread, for people."""
    lines = ["", "events/s", *(_rate(name, figures) for name, figures in summary.items() if RATE in figures)]
    lines += ["", "CPU µs an event: by process, and all but the relay"]
    lines += [_costs(name, figures) for name, figures in summary.items() if name != FLOOR]
    lines += ["", "CPU µs an event: Postgres by kind of process"]
    lines += [_kinds(name, figures) for name, figures in summary.items() if "postgres.backend" in figures]
    if FLOOR in summary:
        pieces = {name.removeprefix("floor."): value for name, value in summary[FLOOR].items() if name != ALL}
        lines += ["", "CPU µs an event: the floor, each piece alone"]
        lines += [f"  {name:<34} {_range(value)}" for name, value in pieces.items()]
        lines += [f"  {'all':<34} {_range(summary[FLOOR][ALL])}"]
    lines += ["", "sizes"]
    lines += [line for name, figures in summary.items() for line in _sizes(name, figures)]
    lines += ["", "ratios of the same round", *(f"  {title:<54} {_range(value, 2)}" for title, value in ratios.items())]
    return "\n".join(lines)


def _range(value: Spread, digits: int = 1) -> str:
    return f"{value.median:,.{digits}f}  ({value.least:,.{digits}f} to {value.most:,.{digits}f})"


def _rate(name: str, figures: Mapping[str, Spread]) -> str:
    return f"  {name:<34} {_range(figures[RATE], 0)}"


def _costs(name: str, figures: Mapping[str, Spread]) -> str:
    parts = [f"{part} {figures[f'cpu.{part}'].median:.1f}" for part in PROCESSES if f"cpu.{part}" in figures]
    return f"  {name:<34} {'  '.join(parts)}  all {_range(figures[ALL])}"


def _kinds(name: str, figures: Mapping[str, Spread]) -> str:
    kinds = [kind for kind in POSTGRES_KINDS if f"postgres.{kind}" in figures]
    return f"  {name:<34} " + "  ".join(f"{kind} {figures[f'postgres.{kind}'].median:.2f}" for kind in kinds)


def _sizes(name: str, figures: Mapping[str, Spread]) -> list[str]:
    parts = []
    if WAL_BYTES in figures:
        parts.append(f"WAL {figures[WAL_BYTES].median:,.0f} bytes and {figures[WAL_IMAGES].median:.4f} images a row")
    if KAFKA_BYTES in figures:
        parts.append(f"Kafka {figures[KAFKA_BYTES].median:,.0f} bytes an event")
    parts += [
        f"peak RSS of the {part} {figures[f'peak.{part}'].median / 1e6:,.0f} MB"
        for part in _OURS
        if f"peak.{part}" in figures
    ]
    return [f"  {name:<34} {part}" for part in parts]
