"""A wall clock that can be set, for the processes of a campaign: Python imports this where it stands in PYTHONPATH.

The kernel's clock is the whole machine's, and not ours to set. CHAOS_CLOCK names a file with the seconds by which this
process' clock is wrong; without it nothing changes. The monotonic clocks are as they were: a step does not move them.
"""

from __future__ import annotations

import os
import time

_NS = 1_000_000_000


class _Clock:
    """``time.time`` and ``time.time_ns``, wrong by what the file says now."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._true_ns = time.time_ns
        self._monotonic = time.monotonic
        self._looked = -1.0
        self._offset_ns = 0

    def time_ns(self) -> int:
        """The file is read at most twenty times a second: this is called for each event."""
        now = self._monotonic()
        if now - self._looked > 0.05:
            self._looked = now
            try:
                with open(self._file) as file:  # noqa: PTH123 (before everything else is imported)
                    self._offset_ns = int(float(file.read()) * _NS)
            except (OSError, ValueError):  # not written yet, or being written: as before
                pass
        return self._true_ns() + self._offset_ns

    def time(self) -> float:
        return self.time_ns() / _NS


if "CHAOS_CLOCK" in os.environ:
    _clock = _Clock(os.environ["CHAOS_CLOCK"])
    time.time, time.time_ns = _clock.time, _clock.time_ns
