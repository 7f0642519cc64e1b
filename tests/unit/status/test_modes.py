"""What each mode means, and that it stays the same text for other programs."""

from __future__ import annotations

import msgspec
import pytest

from streams.status.process import INGEST_MODES, WORKER_MODES, Mode
from tests.support import web_samples as samples


def test_the_texts_are_those_that_are_stored() -> None:
    assert [str(mode) for mode in WORKER_MODES] == [
        "starting", "stopping", "paused", "no database", "no broker", "memory", "small batches", "paced",
        "whole slices",
    ]  # fmt: skip
    assert [str(mode) for mode in INGEST_MODES] == [
        "starting", "stopping", "paused", "no relay", "no broker", "memory", "retention", "paced", "full speed",
    ]  # fmt: skip
    assert set(Mode) == {*WORKER_MODES, *INGEST_MODES}


def test_a_row_of_an_older_version_is_read() -> None:
    row = msgspec.json.encode({**msgspec.to_builtins(samples.WORKER), "mode": "no database"})
    assert b'"mode":"no database"' in row
    read = msgspec.json.decode(row, type=type(samples.WORKER))
    assert read.mode is Mode.NO_DATABASE
    assert msgspec.json.encode(read) == row


@pytest.mark.parametrize(
    ("mode", "waits", "on_purpose", "speed"),
    [
        (Mode.STARTING, False, False, "waits"),
        (Mode.STOPPING, False, False, "waits"),
        (Mode.PAUSED, False, True, "waits"),
        (Mode.NO_DATABASE, True, False, "waits"),
        (Mode.NO_RELAY, True, False, "waits"),
        (Mode.NO_BROKER, True, False, "waits"),
        (Mode.MEMORY, True, True, "waits"),
        (Mode.RETENTION, True, True, "waits"),
        (Mode.SMALL_BATCHES, True, True, "slow"),
        (Mode.PACED, False, True, "slow"),
        (Mode.WHOLE_SLICES, False, False, "full"),
        (Mode.FULL_SPEED, False, False, "full"),
    ],
)
def test_a_mode(mode: Mode, waits: bool, on_purpose: bool, speed: str) -> None:
    assert (mode.is_waiting, mode.is_on_purpose, mode.speed) == (waits, on_purpose, speed)
