"""Postgres refuses root: how a child of root becomes ``nobody``, even below folders that only root may enter."""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from streams.errors import DatabaseError

USER = "nobody"
# From linux/prctl.h and linux/capability.h.
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_CAPABILITY_VERSION_3 = 0x20080522


def as_nobody(paths: Iterable[Path]) -> dict[str, Any]:
    """Popen's arguments that start a child who may enter ``paths``: empty unless we are root.

    Raises DatabaseError where ``nobody`` cannot be made to reach them.
    """
    if os.geteuid() != 0:
        return {}
    closed = next((folder for path in paths for folder in path.parents if not folder.stat().st_mode & 0o001), None)
    if closed is None:
        entry = pwd.getpwnam(USER)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    capability = _search_capability()
    if capability is None:
        raise DatabaseError(
            f"Postgres does not run as root, and the user {USER} may not enter {closed}",
            "work as another user or in another folder (LOCAL_DIR), or set DATABASE_URL.",
        )
    return {"preexec_fn": _become_nobody(capability)}


def _search_capability() -> int | None:
    """The smallest capability that we hold which lets a process enter any folder, or None."""
    if not sys.platform.startswith("linux"):
        return None
    status = Path("/proc/self/status").read_text()
    held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm")), 16)
    return next((number for number in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE) if held >> number & 1), None)


def _become_nobody(capability: int) -> Callable[[], None]:
    """Do the child's part before exec: change the user, keeping one capability, inherited by what it executes.

    /root is closed to others on most systems, and that is where a container's clone and its .venv often are; opening
    the folder's permissions instead would change the user's machine.
    """
    entry = pwd.getpwnam(USER)
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable; then the upper words

    def check(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), "capabilities")

    def become() -> None:
        check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        check(libc.capset(header, data))
        check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0))

    return become
