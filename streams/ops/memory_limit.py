"""How much memory a process of ours may have: BACKFILL_MAX_MEMORY_MB, or less where the container has less."""

from __future__ import annotations

from typing import Final

from streams.ops.cgroups import Cgroups, find_cgroups
from streams.settings import Settings

#: Share of the container's limit that our processes may have: the rest is the page cache's, and a peak's.
SHARE: Final = 0.9


def effective_memory_limit(settings: Settings, cgroups: Cgroups | None = None) -> int:
    """The limit of this process in bytes. Where a worker starts the ingest, the two share what the container has."""
    container = (find_cgroups() if cgroups is None else cgroups).memory_limit()
    if container is None:
        return settings.memory_bytes
    processes = 2 if settings.backfill_days != 0 and settings.worker_id == 0 else 1
    return min(settings.memory_bytes, int(container * SHARE) // processes)


def container_says(settings: Settings, cgroups: Cgroups | None = None) -> str | None:
    """A sentence where it is the container's limit that counts, else None."""
    groups = find_cgroups() if cgroups is None else cgroups
    limit, container = effective_memory_limit(settings, groups), groups.memory_limit()
    if container is None or limit == settings.memory_bytes:
        return None
    return (
        f"The container has {container >> 20} MB: this process may have {limit >> 20} MB of it, "
        f"not the {settings.backfill_max_memory_mb} MB of BACKFILL_MAX_MEMORY_MB."
    )
