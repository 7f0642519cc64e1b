"""Waiting for a process of the embedded stack."""

from __future__ import annotations

import time
from collections.abc import Callable

from streams.local.kafka import _properties
from streams.local.process import GONE_SECONDS, wait_until


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


def test_a_properties_file_holds_any_path() -> None:
    """Java reads it as Latin-1, with UTF-16 units for all else and the backslash for itself."""
    written = _properties("log.dirs={data}\n", data="/home/José/日本 \U0001f600\\x")
    assert written == "log.dirs=/home/Jos\\u00e9/\\u65e5\\u672c \\ud83d\\ude00\\\\x\n"
