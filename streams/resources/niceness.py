"""The step back behind the machine's other work: our niceness, and our session's where the kernel has one (autogroup).

With ``sched_autogroup_enabled`` a process' niceness counts only within its session: a background process that is alone
in one gets, at nice 19 too, as much as everything in another session.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from streams.settings import Settings

#: A tenth of a normal process' share where both want all: enough to stay in the consumer group, whatever else runs.
NICE: Final = 10


def step_back(settings: Settings) -> None:
    """Raise our niceness if the settings are for the background. Never lower it.

    Call it while there is one thread only: Linux keeps niceness by thread. Later threads and children inherit it.
    """
    if settings.backfill_batch_delay_ms == 0:  # somebody waits for the result
        return
    with suppress(OSError):  # no autogroups here
        os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
        if os.getsid(0) == os.getpid():  # not the session of a shell that we are typed into: it would be slow too
            Path("/proc/self/autogroup").write_text(f"{NICE}\n")
