"""The memory that a process of ours may have, and the share of each kind of bytes in flight.

``effective_memory_limit``: BACKFILL_MAX_MEMORY_MB, or less where the container has less. ``worker_budgets`` and
``ingest_budgets`` divide it (pure). All constants about sizes stand here, each with its reason. What is in flight is
counted in ``in_flight.py``; ``memory_watch.py`` looks at RSS besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from streams.errors import SettingsError
from streams.resources.cgroups import Cgroups, find_cgroups
from streams.settings import Settings

MB: Final = 1 << 20

# -- what things take, measured (benchmarks/memory.py and docs/performance.md say how)

#: RSS of a process that has started and does nothing. The budgets divide the rest.
WORKER_AT_REST: Final = 110 * MB
INGEST_AT_REST: Final = 65 * MB
#: Growth between the check at the start and the state at rest: Faust's services, connections, caches.
WORKER_GROWTH: Final = 15 * MB
INGEST_GROWTH: Final = 8 * MB
#: The largest message of the topic (max.message.bytes), and the largest frame of the protocol.
LARGEST_MESSAGE: Final = 8 * MB
LARGEST_FRAME: Final = 5 * MB
#: A transaction's values in memory, besides the slice itself, as a multiple of their bytes: a str takes 1 to 4 bytes a
#: character and keeps its UTF-8 (1), asyncpg's message is a copy (1), what the socket has not taken yet another (1).
STAGED_FACTOR: Final = 7
#: A fetched batch: the answer, the partition's part of it, and the batch that is being unpacked.
FETCH_FACTOR: Final = 3
#: A frame on its way: the websocket's buffer, the frame, its blocks, its messages as JSON (up to twice as long), the
#: producer's batch, its compressed form and the request.
FRAME_FACTOR: Final = 10
#: Memory of a record besides its key and value: aiokafka's object, the offsets, the bytes objects' own heads.
RECORD_OVERHEAD: Final = 400

#: The part of a container's memory for our processes: the rest is for the page cache and for peaks.
CONTAINER_PERCENT: Final = 90

# -- the least that can go through at all, while nothing can be freed

SMALLEST_IN_FLIGHT: Final = 1 * MB


@dataclass(frozen=True, slots=True)
class WorkerBudgets:
    """Bytes for the ways of a slice. More than the caps gains no speed."""

    fetched: int
    """Compressed batches that aiokafka holds."""
    slices: int
    """Records taken from it and not yet in the database: in Faust's queue, in lanes."""
    staged: int
    """Values of all transactions under way. One that is larger goes alone."""
    batch: int
    """Values of one transaction of merged slices."""


@dataclass(frozen=True, slots=True)
class IngestBudgets:
    """The limits of what an ingest holds."""

    unacknowledged: int
    """Bytes of events that Kafka has not acknowledged, open batches among them."""
    frame: int
    """The largest websocket message that is taken in."""
    dids: int
    """DIDs whose partition is remembered, at about 300 bytes."""


def worker_budgets(limit: int) -> WorkerBudgets:
    """Return a worker's shares of ``limit``, of what is left when it is at rest.

    At most 3/20 are fetched, 4/20 are slices and 9/20 are transactions; what is left is for one largest message
    that goes over each of them.
    """
    free = max(limit - WORKER_AT_REST, 16 * MB)
    return WorkerBudgets(
        fetched=_within(free // 20, 1 * MB, 8 * MB),
        slices=_within(free // 5, 4 * MB, 48 * MB),
        staged=_within(free * 9 // 20 // STAGED_FACTOR, 1 * MB, 64 * MB),
        batch=_within(free // 32, 1 * MB, 8 * MB),
    )


def ingest_budgets(limit: int) -> IngestBudgets:
    """Return an ingest's shares of ``limit``. A batch is there up to three times: messages, batch, compressed."""
    free = max(limit - INGEST_AT_REST, 16 * MB)
    return IngestBudgets(
        unacknowledged=_within(free // 12, 4 * MB, 64 * MB),
        frame=_within(free // 4, 6 * MB, 32 * MB),
        dids=min(free // 6 // 300, 100_000),
    )


def _within(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


class LimitError(SettingsError):
    """Too little memory for a process."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The bytes that a process may have: ``setting``, or less where it is in a container that has less.

    ``container`` is the container's own limit, or None; so many ``processes`` of ours share it.
    """

    setting: int
    container: int | None = None
    processes: int = 1

    @property
    def nbytes(self) -> int:
        """The limit in effect."""
        if self.container is None:
            return self.setting
        return min(self.setting, self.container * CONTAINER_PERCENT // (100 * self.processes))

    @property
    def is_containers(self) -> bool:
        """True if the container's limit is in effect, and not the setting."""
        return self.nbytes < self.setting

    def container_for(self, nbytes: int) -> int:
        """Return the limit that a container needs, for each process of ours to have so many bytes."""
        return -(-nbytes * 100 * self.processes // CONTAINER_PERCENT)


def check_limit(limit: MemoryLimit, rss: int, who: Literal["worker", "ingest"]) -> None:
    """Refuse a limit under which the largest message or frame cannot pass. ``rss``: now, at the start."""
    if who == "worker":
        rest, largest = rss + WORKER_GROWTH, LARGEST_MESSAGE
        least, what = rest + largest * (1 + FETCH_FACTOR + STAGED_FACTOR), "message of the topic"
    else:
        rest, largest = rss + INGEST_GROWTH, LARGEST_FRAME
        least, what = rest + largest * FRAME_FACTOR, "frame"
    if limit.nbytes >= least:
        return
    needs = (
        f"it takes {rest // MB} MB at rest, and one largest {what} of {largest // MB} MB takes "
        f"{(least - rest) // MB} MB on its way"
    )
    if limit.container is None or not limit.is_containers:
        raise LimitError(
            f"BACKFILL_MAX_MEMORY_MB: {limit.nbytes // MB} MB are not enough for the {who}: {needs}.",
            f"Set it to {_megabytes(least)} or more.",
        )
    also = f", and set BACKFILL_MAX_MEMORY_MB to {_megabytes(least)} or more" if limit.setting < least else ""
    shared = ", half of it for the worker and half for the ingest" if limit.processes == 2 else ""
    raise LimitError(
        f"The container has {limit.container // MB} MB, of which {CONTAINER_PERCENT} % are ours{shared}: "
        f"{limit.nbytes // MB} MB are not enough for the {who}: {needs}.",
        f"Give the container {_megabytes(limit.container_for(least))} MB or more "
        f"(docker-compose: CONTAINER_MEMORY_MB){also}.",
    )


def _megabytes(nbytes: int) -> int:
    return -(-nbytes // MB)


def memory_limit(settings: Settings, cgroups: Cgroups | None = None) -> MemoryLimit:
    """Return the limit of this process. Where a worker starts the ingest, the two share the container's."""
    container = (find_cgroups() if cgroups is None else cgroups).memory_limit()
    processes = 2 if settings.backfill_days != 0 and settings.worker_id == 0 else 1
    return MemoryLimit(settings.memory_bytes, container, processes)


def effective_memory_limit(settings: Settings, cgroups: Cgroups | None = None) -> int:
    """Return the limit of this process in bytes."""
    return memory_limit(settings, cgroups).nbytes


def container_says(settings: Settings, cgroups: Cgroups | None = None) -> str | None:
    """Return a sentence where the container's limit is in effect, else None."""
    limit = memory_limit(settings, cgroups)
    if limit.container is None or not limit.is_containers:
        return None
    return (
        f"The container has {limit.container >> 20} MB: this process may have {limit.nbytes >> 20} MB of it, "
        f"not the {settings.backfill_max_memory_mb} MB of BACKFILL_MAX_MEMORY_MB."
    )
