"""Waiting for a process of the embedded stack."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from streams.local.kafka import _properties
from streams.local.process import GONE_SECONDS, wait_gone, wait_until
from tests.support.patience import PATIENCE


def after(seconds: float) -> Callable[[], bool]:
    began = time.monotonic()
    return lambda: time.monotonic() - began >= seconds


def test_a_process_that_is_still_being_executed_is_waited_for() -> None:
    assert wait_until(after(0.4), after(0.2), 300)


def test_one_that_is_gone_is_not() -> None:
    began = time.monotonic()
    assert not wait_until(lambda: False, lambda: False, 60)
    assert GONE_SECONDS <= time.monotonic() - began < 60
    assert not wait_until(lambda: False, lambda: True, 0.2)


def test_a_process_that_nobody_reaps_is_gone() -> None:
    """As below the first process of a container that is no init: it stays in the table of processes."""
    parent = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        process = psutil.Process(int(command.stdout.readline()))
        assert not wait_gone([process], 0.2)
        process.kill()
        assert wait_gone([process], PATIENCE)
        assert process.status() == psutil.STATUS_ZOMBIE
        command.kill()


def test_a_properties_file_holds_any_path() -> None:
    """Java reads it as Latin-1, with UTF-16 units for all else and the backslash for itself."""
    written = _properties("log.dirs={data}\n", data="/home/José/日本 \U0001f600\\x")
    assert written == "log.dirs=/home/Jos\\u00e9/\\u65e5\\u672c \\ud83d\\ude00\\\\x\n"
