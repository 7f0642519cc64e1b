"""Linux' pressure stall information: the share of time in which something waited for CPU, memory or a disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from streams.resources.cgroups import Cgroups

PROC: Final = Path("/proc/pressure")
_SOME: Final = re.compile(r"^some avg10=([\d.]+)", re.MULTILINE)


def some_avg10(file: Path) -> float | None:
    """Return the percentage of the last ten seconds in which a task waited; None where the kernel has no figure."""
    try:
        found = _SOME.search(file.read_text())
    except (OSError, UnicodeDecodeError):  # EOPNOTSUPP where it was switched off at boot
        return None
    return float(found.group(1)) if found else None


def pressure(kind: str, cgroups: Cgroups, proc: Path = PROC) -> float | None:
    """Return the pressure of ``memory`` or ``io``: the machine's or our container's, whichever is higher."""
    own = cgroups.pressure_file(kind)
    values = [some_avg10(proc / kind), some_avg10(own) if own is not None else None]
    return max((value for value in values if value is not None), default=None)
