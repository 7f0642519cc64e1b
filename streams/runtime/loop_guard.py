"""The end of a process whose event loop is blocked: heartbeats have a thread of their own, and keep its partitions."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from streams.errors import EXIT_STALLED

#: Seconds without progress, while there is something to do and nobody is to blame, after which the process exits.
STALL_SECONDS: Final = 180.0


class LoopGuard:
    """A thread that ends the process if its event loop is blocked."""

    def __init__(self) -> None:
        self._beat = time.monotonic()
        self._alive = True
        threading.Thread(target=self._watch, name="loop-guard", daemon=True).start()

    def beat(self) -> float:
        """Note that the loop runs. Return the monotonic time."""
        self._beat = time.monotonic()
        return self._beat

    def stop(self) -> None:
        """Watch no longer."""
        self._alive = False

    def _watch(self) -> None:
        while self._alive:
            time.sleep(1.0)
            if self._alive and time.monotonic() - self._beat > STALL_SECONDS:
                os.write(2, f"The event loop is blocked: exit {EXIT_STALLED}, to be started again.\n".encode())
                os._exit(EXIT_STALLED)
