"""The container's command: the worker where BACKFILL_DAYS asks for one, else a sentence and exit code 0.

It becomes the worker (exec), so that the signals of ``docker stop`` reach it. It never does anything else. A start that
was refused for a setting is not repeated (``streams/worker/refusal.py``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from streams.errors import StreamsError
from streams.settings import load_settings
from streams.worker import refusal

#: ``--quiet``: without Faust's banner, which no reader of JSON lines understands. Our own lines are not affected.
COMMAND: Final = ("faust", "--quiet", "-A", "streams.agents", "worker")


def main() -> int:
    """Become the worker, or return the exit code: 0 where the backfill is off, 2 for a setting that is wrong."""
    refused = refusal.pop()
    if refused is not None:
        sys.stdout.write(
            f"{refused}\nThe start before this one was refused for that, and a container's settings stay as they are: "
            "it is not tried again. Set it right, then `docker-compose up -d`.\n"
        )
        return 0
    try:
        settings = load_settings()
    except StreamsError as error:
        refusal.keep(error)
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if settings.backfill_days != 0:
        os.execv(Path(sys.executable).with_name(COMMAND[0]), COMMAND)  # noqa: S606 (no shell is wanted)
    sys.stdout.write("BACKFILL_DAYS=0: the backfill is off. Set it to a number of days, or -1 for everything.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
