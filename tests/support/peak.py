"""The most memory that a process ever had, as the kernel remembers it (VmHWM; Linux).

Not ``ru_maxrss``: a child's begins with its parent's.
"""

from __future__ import annotations

from pathlib import Path


def peak_bytes(pid: int | None = None) -> int:
    """Of this process where ``pid`` is None. Raises OSError where it is gone, StopIteration where it has ended."""
    lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
