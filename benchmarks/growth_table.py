"""The costs of a growing table, as multiples of the first, in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

#: The two states in which a batch is measured.
AFTER: Final = "directly after a checkpoint"
BETWEEN: Final = "between checkpoints"
#: The sizes, in rows, at which it is measured; the last size is that asked for.
SIZES: Final = (100_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)

_HEAD: Final = """\
| rows | state | backend µs a row | multiple | WAL bytes a row | images in 1,000 rows | pages read in 1,000 rows |
|---|---|---|---|---|---|---|"""


class Cost(NamedTuple):
    """The cost of a row: the backend's CPU in µs, bytes of WAL; of 1,000 rows: images of full pages, and pages read."""

    us: float
    wal_bytes: float
    images: float
    reads: float


def sizes_up_to(rows: int) -> list[int]:
    """Return the sizes at which a table that grows to so many rows is measured."""
    return [*(size for size in SIZES if size < rows), rows]


def table(costs: Mapping[int, Mapping[str, Cost]]) -> str:
    """Return a line for each size and state. The multiples are those of the smallest table between checkpoints."""
    first = next(iter(costs.values()))[BETWEEN].us
    lines = [
        f"| {rows:,} | {state} | {cost.us:.1f} | {cost.us / first:.2f} | {cost.wal_bytes:,.0f} | {cost.images:.0f} | "
        f"{cost.reads:.0f} |"
        for rows, states in costs.items()
        for state, cost in sorted(states.items())
    ]
    return "\n".join((_HEAD, *lines))
