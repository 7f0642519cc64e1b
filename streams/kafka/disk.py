"""The space of a range of events on the broker's disk. Known for the embedded broker only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from streams.errors import DiskError
from streams.settings import Settings, read_stack_state

#: Bytes a frame takes in the topic, indexes included: 0.5 KB of JSON an event, compressed by 4 (docs/performance.md).
#: seqs have gaps, so a range of seqs holds fewer frames: this errs on the safe side.
BYTES_PER_SEQ: Final = 200
#: Part of the free space that must stay free.
_MARGIN: Final = 0.1


def broker_folder(settings: Settings) -> Path | None:
    """Return the folder of the broker's data if the broker is the embedded one; else None."""
    state = read_stack_state(settings.local_dir)
    return (
        settings.local_dir if state and state.get("kafka_bootstrap_servers") == settings.bootstrap_servers() else None
    )


def check_disk(folder: Path | None, frames: int) -> str:
    """Return a sentence for the log: the space of so many frames in the broker's folder (None: on another machine).

    Raises DiskError if they cannot fit.
    """
    need = frames * BYTES_PER_SEQ
    if folder is None:
        return f"about {need / 1e9:.1f} GB of the broker's disk; how much it has cannot be known from here"
    usage = shutil.disk_usage(folder)
    if need > usage.free - usage.total * _MARGIN:
        raise DiskError(
            f"The range takes about {need / 1e9:.1f} GB in Kafka, and {folder} has {usage.free / 1e9:.1f} GB free",
            "ask for fewer days, keep less with INGEST_COLLECTIONS, or use a broker with more disk.",
        )
    return f"about {need / 1e9:.1f} GB of the broker's disk, which has {usage.free / 1e9:.1f} GB free"
