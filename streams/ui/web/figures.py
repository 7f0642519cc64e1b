"""A process' figures for its own web port, from counters that it has anyway. Nothing here is counted per event."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from streams.status.process import IngestState, WorkerState

#: Upper bounds of the histogram of transactions, in seconds.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Durations:
    """A histogram of transactions: a count for each of BUCKETS, and one for all that took longer."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count a transaction."""
        self.seconds += seconds
        self.counts[next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))] += 1


@dataclass(frozen=True, slots=True)
class HeldPartition:
    """A partition that this worker holds: the sink applies ``next_offset`` next; ``end`` as far as Kafka has told."""

    partition: int
    next_offset: int
    end: int | None
    watermark: dt.datetime | None

    @property
    def lag(self) -> int | None:
        """Messages that are not applied yet."""
        return None if self.end is None else max(self.end - self.next_offset, 0)


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """A worker. ``assigned``: Kafka has told it its partitions; it may have none.

    ``transactions`` are under way; ``most_transactions`` were, at once, since the start.
    """

    state: WorkerState
    assigned: bool = False
    rebalances: int = 0
    broker_away: bool = False
    held: Sequence[HeldPartition] = ()
    durations: Durations = field(default_factory=Durations)
    transactions: int = 0
    most_transactions: int = 0
    kind: Literal["worker"] = "worker"

    @property
    def lag(self) -> int | None:
        """Messages in the partitions that it holds and that are not applied; None while unknown."""
        lags = [held.lag for held in self.held]
        return sum(lag or 0 for lag in lags) if any(lag is not None for lag in lags) else None


@dataclass(frozen=True, slots=True)
class IngestFigures:
    """An ingest. ``state`` is None while it waits for the topic or makes its plan; ``why`` says which."""

    state: IngestState | None
    why: str = ""
    received_bytes: int = 0
    reconnects: int = 0
    unacknowledged: int = 0
    at_head: bool = False
    #: frame, operation, text
    dead: Mapping[str, int] = field(default_factory=dict)
    kind: Literal["ingest"] = "ingest"


Figures = WorkerFigures | IngestFigures
