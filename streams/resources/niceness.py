"""Step back behind the machine's other work: niceness, also where the kernel shares out CPU by session (autogroup).

With ``sched_autogroup_enabled`` a process' niceness counts only among those of its own session, and the session has a
niceness of its own: a background process that is alone at nice 19 still gets as much as everything in another session.
We set the session's only where the session is ours: a worker typed into a shell must not slow down the shell.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from streams.settings import Settings

#: A tenth of a normal process' share where both want all: enough to stay in the consumer group, whatever else runs.
NICE: Final = 10
AUTOGROUP: Final = "/proc/{pid}/autogroup"


def gives_way(settings: Settings) -> bool:
    """Return True for settings for the background; without a delay somebody waits for the result."""
    return settings.backfill_batch_delay_ms > 0


def step_back(settings: Settings, autogroup: str = AUTOGROUP) -> None:
    """Raise our niceness, and so our children's, where the settings are for the background. Never lower it."""
    if not gives_way(settings):
        return
    for thread in _threads():
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, max(NICE, os.getpriority(os.PRIO_PROCESS, thread)))
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # no autogroups here
            Path(autogroup.format(pid="self")).write_text(f"{NICE}\n")


def _threads() -> list[int]:
    """Return our threads: on Linux each has a niceness of its own. Elsewhere 0, which is the whole process."""
    try:
        return [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
    except OSError:
        return [0]
