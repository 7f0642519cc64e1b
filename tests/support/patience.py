"""How long a test waits for what must come: one number for all.

It only says that a test hangs, and nothing about speed, so that no verdict depends on how busy the machine is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

#: Seconds. Enough where a process gets a tenth of a core; TEST_PATIENCE overrides it (the mutants': some make a hang).
PATIENCE: Final = float(os.environ.get("TEST_PATIENCE", "300"))
#: The same in milliseconds, for what tests send themselves: aiokafka gives a batch up after 40 s.
PATIENCE_MS: Final = int(PATIENCE * 1000)


def slowness() -> float:
    """Return how many times longer than its CPU time a command takes just now; 1 where nothing keeps it waiting.

    For what a promise gives in seconds: so many times longer it may take on this machine, at this moment.
    """
    began = time.monotonic()
    command = subprocess.Popen([sys.executable, "-c", "import faust, aiokafka, asyncpg"])
    _, _, used = os.wait4(command.pid, 0)
    command.returncode = 0  # waited for: Popen need not
    return max(1.0, (time.monotonic() - began) / (used.ru_utime + used.ru_stime))
