"""The faults that end a process: each says what happened and how to mend it, and has an exit code.

The table of exit codes in the README is tested against this module.
"""

from __future__ import annotations

from typing import ClassVar


class StreamsError(Exception):
    """An unrecoverable fault: what happened, and how the operator can mend it, where that is known.

    ``str(error)`` joins the two: with a colon, or as two sentences where ``what`` ends as one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        if not self.mend:
            return self.what
        return f"{self.what}{' ' if self.what.endswith(('.', '?')) else ': '}{self.mend}"


class SettingsError(StreamsError):
    """A setting or an argument is missing, unknown or out of range."""

    exit_code = 2


class BrokerError(StreamsError):
    """Kafka cannot be reached at the start, or refuses us."""

    exit_code = 3


class DatabaseError(StreamsError):
    """Postgres cannot be reached at the start, refuses us, or is full."""

    exit_code = 4


class RelayError(StreamsError):
    """The relay cannot be reached at the start, or refuses us."""

    exit_code = 5


class MismatchError(StreamsError):
    """The topic or the schema is not the one we know: re-created, resized, newer, or of another relay."""

    exit_code = 6


class HeldError(StreamsError):
    """Another process holds what we would write: an ingest the topic, a rebuild the schema, workers the positions."""

    exit_code = 7


class DiskError(StreamsError):
    """The broker's disk is too small for what was asked for."""

    exit_code = 8


#: What `status --check` answers where anything is wrong.
EXIT_TROUBLES = 9
#: Exit codes that are not errors of ours but of the process: a crash whose shutdown hung, a stall.
EXIT_HUNG_SHUTDOWN = 70
EXIT_STALLED = 75
