"""How much memory a process of ours may have: BACKFILL_MAX_MEMORY_MB, or less where the container has less."""

from __future__ import annotations

from streams.resources.cgroups import Cgroups, find_cgroups
from streams.resources.memory_budgets import MemoryLimit
from streams.settings import Settings


def memory_limit(settings: Settings, cgroups: Cgroups | None = None) -> MemoryLimit:
    """The limit of this process, and whose it is. Where a worker starts the ingest, the two share the container's."""
    container = (find_cgroups() if cgroups is None else cgroups).memory_limit()
    processes = 2 if settings.backfill_days != 0 and settings.worker_id == 0 else 1
    return MemoryLimit(settings.memory_bytes, container, processes)


def effective_memory_limit(settings: Settings, cgroups: Cgroups | None = None) -> int:
    """The limit of this process in bytes."""
    return memory_limit(settings, cgroups).nbytes


def container_says(settings: Settings, cgroups: Cgroups | None = None) -> str | None:
    """A sentence where it is the container's limit that counts, else None."""
    limit = memory_limit(settings, cgroups)
    if limit.container is None or not limit.is_containers:
        return None
    return (
        f"The container has {limit.container >> 20} MB: this process may have {limit.nbytes >> 20} MB of it, "
        f"not the {settings.backfill_max_memory_mb} MB of BACKFILL_MAX_MEMORY_MB."
    )
