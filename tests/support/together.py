"""Which tests run in one process, where several run them (pytest-xdist): those of a file, and those of some files.

Not by xdist's own marker, xdist_group: with pytest 9.2 it does nothing (pytest-xdist #1386).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from xdist.scheduler import LoadScopeScheduling

#: Files that use the same fixture of the whole session, which takes long: it is made once.
SHARING: Final = {"test_kills": "traffic", "test_generated": "traffic", "test_workers": "traffic"}
#: Files whose tests have nothing in common and take long: each anywhere.
APART: Final = ("test_errors", "test_hard_cases", "test_run", "test_faults", "test_views", "test_worker", "test_relay")


class Together(LoadScopeScheduling):  # type: ignore[misc] # xdist is untyped here
    """Hands out whole files, but for those that are above."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(nodeid.split("::", 1)[0]).stem
        return nodeid if file in APART else SHARING.get(file, file)
