"""The step back, in a process of its own: niceness cannot be lowered again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.resources.niceness import NICE

#: Steps back, and prints the niceness of a thread that it starts then, and its session's before and after ("-": none).
SCRIPT = """
import os, pathlib, threading
from streams.resources.niceness import step_back
from streams.settings import Settings
file = pathlib.Path("/proc/self/autogroup")
def session():
    return (file.read_text().split() or ["-"])[-1] if file.exists() else "-"
before = session()
step_back(Settings(_env_file=None))
def show():
    print(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), before, session())
threading.Thread(target=show).start()
"""


def after_step_back(delay_ms: int, *, new_session: bool) -> tuple[int, str, str]:
    """Return the niceness of the process, and that of its session before and after."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, "BACKFILL_BATCH_DELAY_MS": str(delay_ms)},
        start_new_session=new_session, capture_output=True, text=True, check=True,
    )  # fmt: skip
    nice, before, after = done.stdout.split()
    return int(nice), before, after


def our_session() -> str:
    file = Path("/proc/self/autogroup")
    return (file.read_text().split() or ["-"])[-1] if file.exists() else "-"


@pytest.mark.parametrize("new_session", [True, False])
def test_settings_for_the_background_step_back(new_session: bool) -> None:
    """A container's first session may have no autogroup where one that is new in it has."""
    ours, our_session_before = os.getpriority(os.PRIO_PROCESS, 0), our_session()
    nice, before, after = after_step_back(500, new_session=new_session)
    assert nice == max(NICE, ours)
    assert after == (str(NICE) if new_session and before != "-" else before)
    assert our_session() == our_session_before


def test_without_a_delay_nothing_changes() -> None:
    nice, before, after = after_step_back(0, new_session=True)
    assert (nice, after) == (os.getpriority(os.PRIO_PROCESS, 0), before)
