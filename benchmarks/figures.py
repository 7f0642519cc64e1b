"""What one measurement gives, as figures by name. Pure.

CPU is in µs an event, by process (``cpu.worker``), Postgres' also by kind (``postgres.backend``). ``cpu.all`` is all
but the relay, which is the simulator's. Memory is in bytes, at first (``rest.worker``) and at its peak
(``peak.worker``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Figures by name.
Figures = dict[str, float]

RATE: Final = "rate"
ALL: Final = "cpu.all"
WAL_BYTES: Final = "wal_bytes_row"
WAL_IMAGES: Final = "wal_images_row"
KAFKA_BYTES: Final = "kafka_bytes_event"
#: The process that only sends the events.
RELAY: Final = "relay"


@dataclass(frozen=True, slots=True)
class Measured:
    """Totals of one measurement. CPU in seconds; ``rows``: events that Postgres applied.

    ``began``: when it began, on the monotonic clock.
    """

    events: int
    seconds: float
    cpu: dict[str, float]
    postgres: dict[str, float] = field(default_factory=dict)
    rest: dict[str, int] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    wal_bytes: int = 0
    wal_images: int = 0
    kafka_bytes: int = 0
    began: float = 0.0


def figures_of(measured: Measured) -> Figures:
    """Return a measurement's figures, each for one event, row or second."""
    each = 1e6 / measured.events
    found: Figures = {RATE: measured.events / measured.seconds}
    found |= {f"cpu.{name}": seconds * each for name, seconds in measured.cpu.items()}
    found[ALL] = sum(seconds for name, seconds in measured.cpu.items() if name != RELAY) * each
    found |= {f"postgres.{kind}": seconds * each for kind, seconds in measured.postgres.items()}
    found |= {f"rest.{name}": size for name, size in measured.rest.items()}
    found |= {f"peak.{name}": size for name, size in measured.peak.items()}
    if measured.rows:
        found[WAL_BYTES] = measured.wal_bytes / measured.rows
        found[WAL_IMAGES] = measured.wal_images / measured.rows
    if measured.kafka_bytes:
        found[KAFKA_BYTES] = measured.kafka_bytes / measured.events
    return found
